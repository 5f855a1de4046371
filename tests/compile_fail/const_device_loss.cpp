// EXPECT: a loss's type without const
// SPDX-License-Identifier: MIT
/// Code of a const loss, which nobody links.
#include <addloss/cuda/device_loss.hpp>
#include <addloss/losses/r1.hpp>

using loss = addloss::bound_r1<float, addloss::device_space>;
#ifdef ADDLOSS_EXPECT_COMPILES
using asked = loss;
#else
using asked = loss const;
#endif

bool is_linked() { return addloss::device_loss<addloss::mean, asked>::linked != nullptr; }
