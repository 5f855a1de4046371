// EXPECT: (of|because) '(addloss::)?value_output
// SPDX-License-Identifier: MIT
/// Losses of single samples into memory that cannot be written.
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
using result = float;
#else
using result = float const;
#endif

void use(float* student, float* target, std::int64_t* timesteps, result* losses) {
  auto const loss =
      addloss::distillation<>{}(schedule{}, addloss::view(student, 2, 3),
                                addloss::view(target, 2, 3), addloss::view(timesteps, 2));
  addloss::value<addloss::per_sample>(addloss::cpu_context{}, loss, addloss::view(losses, 2));
}
