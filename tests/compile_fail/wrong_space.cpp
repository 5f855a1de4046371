// EXPECT: (of|because) '(addloss::)?runs_in
// SPDX-License-Identifier: MIT
/// A loss on device memory, evaluated on the CPU.
#include <cstdint>

#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>

struct schedule {
  using time_type = std::int64_t;
  static addloss::noise_level at(time_type) { return {1, 0}; }
  static void check(char const*, std::int64_t, time_type) {}
};

#ifdef ADDLOSS_EXPECT_COMPILES
using space = addloss::host_space;
#else
using space = addloss::device_space;
#endif

void use(float* student, float* target, std::int64_t* timesteps, float* gradient) {
  auto const loss = addloss::distillation<>{}(schedule{}, addloss::view<space>(student, 2, 3),
                                              addloss::view<space>(target, 2, 3),
                                              addloss::view<space>(timesteps, 2));
  addloss::grad(addloss::cpu_context{}, loss, addloss::view<space>(gradient, 2, 3));
}
