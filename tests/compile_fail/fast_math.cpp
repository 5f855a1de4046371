// EXPECT: lets the compiler hide NaN and infinity
// FLAGS: -ffast-math
// SPDX-License-Identifier: MIT
/// -ffast-math without giving up the promises about NaN.
#ifdef ADDLOSS_EXPECT_COMPILES
#define ADDLOSS_ALLOW_FAST_MATH
#endif
#include <addloss/core/config.hpp>
