// SPDX-License-Identifier: MIT
/// Derived measures of a noise level.
///
///   signal_to_noise      alpha^2 / sigma^2, 0 to infinity
///   log_signal_to_noise  2 ln(alpha / sigma)
///   edm_sigma            sigma / alpha, the sigma of EDM
/// Source: Kingma, Salimans, Poole, Ho, Variational Diffusion Models, 2021, eq. 2.
#pragma once

#include <cmath>

#include <addloss/schedule/concept.hpp>

namespace addloss {

ADDLOSS_HOST_DEVICE constexpr double signal_to_noise(noise_level level) {
  return (level.alpha * level.alpha) / (level.sigma * level.sigma);
}

inline double log_signal_to_noise(noise_level level) {
  return 2 * (std::log(level.alpha) - std::log(level.sigma));
}

ADDLOSS_HOST_DEVICE constexpr double edm_sigma(noise_level level) {
  return level.sigma / level.alpha;
}

}  // namespace addloss
