// EXPECT: (of|satisfy) '(addloss::)?weighting
// SPDX-License-Identifier: MIT
/// A weighting that gives no c(t).
#include <addloss/losses/distillation.hpp>

struct halved {
#ifdef ADDLOSS_EXPECT_COMPILES
  double at(addloss::noise_level level) const { return level.alpha / 2; }
#endif
};

addloss::distillation<halved> loss;
