// EXPECT: (of|satisfy) '(addloss::)?storage_scalar
// SPDX-License-Identifier: MIT
/// A target image whose elements are integers.
#include <addloss/losses/distillation.hpp>
#include <addloss/schedule/flow.hpp>

#ifdef ADDLOSS_EXPECT_COMPILES
using element = addloss::half;
#else
using element = unsigned char;
#endif

auto use(float* student, element* target, double* timesteps) {
  return addloss::distillation<>{}(addloss::rectified_flow{}, addloss::view(student, 2, 3),
                                   addloss::view(target, 2, 3), addloss::view(timesteps, 2));
}
