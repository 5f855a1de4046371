// EXPECT: (of|satisfy) '(addloss::)?storage_scalar
// SPDX-License-Identifier: MIT
/// Logits that are integers.
#include <span>

#include <addloss/losses/adversarial.hpp>

#ifdef ADDLOSS_EXPECT_COMPILES
using logit = addloss::half;
#else
using logit = int;
#endif

auto use(std::span<addloss::rows<logit const> const> fake) {
  return addloss::adversarial<>{}.generator<logit>(fake);
}
