// SPDX-License-Identifier: MIT
/// c(t) = alpha_t: higher noise counts less. (alpha_t, not alpha_t^2.)
/// Source: Sauer et al., Adversarial Diffusion Distillation, 2023, section 3.3.
#pragma once

#include <addloss/weighting/concept.hpp>

namespace addloss {

struct exponential {
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double at(noise_level level) const {
    return level.alpha;
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double over_alpha(noise_level /*level*/) const {
    return 1;
  }
};

}  // namespace addloss
