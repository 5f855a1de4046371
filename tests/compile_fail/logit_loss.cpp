// EXPECT: (of|satisfy) '(addloss::)?logit_loss
// SPDX-License-Identifier: MIT
/// An adversarial loss for the discriminator alone.
#include <addloss/losses/adversarial.hpp>

struct critic {
  template <class V>
  addloss::value_grad<V> discriminator(V logit, V label) const {
    return {-label * logit, -label};
  }
#ifdef ADDLOSS_EXPECT_COMPILES
  template <class V>
  addloss::value_grad<V> generator(V logit) const {
    return {-logit, V(-1)};
  }
#endif
};

addloss::adversarial<critic> loss;
