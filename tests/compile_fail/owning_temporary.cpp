// EXPECT: (of|satisfy) '(addloss::)?tensor_like
// SPDX-License-Identifier: MIT
/// A tensor that owns its memory and would be gone before it is read.
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/reduce/operand.hpp>

std::vector<float> gradients();

auto use() {
#ifdef ADDLOSS_EXPECT_COMPILES
  std::vector<float> owner = gradients();
  return addloss::accumulate(owner).target.count;
#else
  return addloss::accumulate(gradients()).target.count;
#endif
}
