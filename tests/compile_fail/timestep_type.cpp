// EXPECT: (of|because) '(addloss::)?tensor_in
// SPDX-License-Identifier: MIT
/// Timesteps whose type is not the schedule's.
#include <cstdint>

#include <addloss/losses/distillation.hpp>

struct schedule {
  using time_type = std::int64_t;
  static addloss::noise_level at(time_type) { return {1, 0}; }
  static void check(char const*, std::int64_t, time_type) {}
};

#ifdef ADDLOSS_EXPECT_COMPILES
using time_type = std::int64_t;
#else
using time_type = float;
#endif

auto use(float* student, float* target, time_type* timesteps) {
  return addloss::distillation<>{}(schedule{}, addloss::view(student, 2, 3),
                                   addloss::view(target, 2, 3), addloss::view(timesteps, 2));
}
