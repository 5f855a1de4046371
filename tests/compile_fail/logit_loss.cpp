// EXPECT: (of|satisfy) '(addloss::)?logit_loss
// SPDX-License-Identifier: MIT
/// An adversarial loss for the discriminator alone.
#include <addloss/losses/adversarial.hpp>

struct critic {
  template <class V>
  addloss::logit_term<V> discriminator(V logit, V label, V weight) const {
    return {-label * logit, -label * weight, V(0) <= V(0)};
  }
#ifdef ADDLOSS_EXPECT_COMPILES
  template <class V>
  addloss::logit_term<V> generator(V logit, V weight) const {
    return {-logit, -weight, V(0) <= V(0)};
  }
#endif
};

addloss::adversarial<critic> loss;
