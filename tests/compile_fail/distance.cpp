// EXPECT: (of|satisfy) '(addloss::)?distance
// SPDX-License-Identifier: MIT
/// A distance that returns its value without its derivative.
#include <addloss/losses/distillation.hpp>

struct fourth_power {
  template <class V>
  auto operator()(V d) const {
#ifdef ADDLOSS_EXPECT_COMPILES
    return addloss::value_grad<V>{d * d * d * d, V(4) * d * d * d};
#else
    return d * d * d * d;
#endif
  }
};

addloss::distillation<addloss::exponential, fourth_power> loss;
