// EXPECT: (of|satisfy|because) '(addloss::)?reduction
// SPDX-License-Identifier: MIT
/// A reduction over the elements of a sample that is neither mean nor sum.
#include <addloss/losses/distillation.hpp>

#ifdef ADDLOSS_EXPECT_COMPILES
using over_elements = addloss::sum;
#else
using over_elements = addloss::per_sample;
#endif

addloss::distillation<addloss::exponential, addloss::squared, over_elements> loss;
