// SPDX-License-Identifier: MIT
/// c(t) = alpha_t w(t) / (2 sigma_t): makes the distillation loss score distillation sampling, with
/// gradient w(t) (eps_hat - eps).
///
/// w(t) = sigma_t^2 by default (DreamFusion), so that c = alpha sigma / 2.
/// Sources: Poole, Jain, Barron, Mildenhall, DreamFusion, 2022, eq. 3; Sauer et al., Adversarial
/// Diffusion Distillation, 2023, appendix A.
#pragma once

#include <addloss/weighting/concept.hpp>

namespace addloss {

/// A policy for w(t) gives w(t) / sigma_t, the form the loss needs.
struct sigma_squared {
  [[nodiscard]] ADDLOSS_HOST_DEVICE static constexpr double over_sigma(noise_level level) {
    return level.sigma;
  }
};

/// w(t) = 1; infinite at sigma = 0.
struct unit {
  [[nodiscard]] ADDLOSS_HOST_DEVICE static constexpr double over_sigma(noise_level level) {
    return 1 / level.sigma;
  }
};

template <class W = sigma_squared>
struct basic_sds {
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double at(noise_level level) const {
    return level.alpha * over_alpha(level);
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double over_alpha(noise_level level) const {
    return W::over_sigma(level) / 2;
  }
};

using sds = basic_sds<>;

}  // namespace addloss
