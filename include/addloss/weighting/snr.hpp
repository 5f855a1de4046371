// SPDX-License-Identifier: MIT
/// Weightings by the signal-to-noise ratio.
///
/// | weighting | c(t)                          | source |
/// | snr       | alpha^2 / sigma^2             | [1]    |
/// | min_snr   | min(alpha^2 / sigma^2, gamma) | [2]    |
/// snr is infinite at sigma = 0.
/// Errors, where a loss is evaluated: gamma that is not > 0.
/// Sources: [1] Salimans, Ho, Progressive Distillation, 2022; [2] Hang et al., Efficient Diffusion
/// Training via Min-SNR Weighting, 2023.
#pragma once

#include <addloss/core/error.hpp>
#include <addloss/schedule/snr.hpp>
#include <addloss/weighting/concept.hpp>

namespace addloss {

struct snr {
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double at(noise_level level) const {
    return signal_to_noise(level);
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double over_alpha(noise_level level) const {
    return level.alpha / (level.sigma * level.sigma);
  }
};

struct min_snr {
  double gamma = 5;  ///< > 0

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double at(noise_level level) const {
    double const ratio = signal_to_noise(level);
    return ratio > gamma ? gamma : ratio;
  }
  /// alpha / sigma^2 while the ratio is below gamma, which it is at alpha = 0.
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double over_alpha(noise_level level) const {
    return signal_to_noise(level) > gamma ? gamma / level.alpha
                                          : level.alpha / (level.sigma * level.sigma);
  }
  void check(char const* function) const {
    if (!(gamma > 0)) {
      detail::fail(function, "min_snr.gamma", "a number > 0", detail::text() << gamma);
    }
  }
};

}  // namespace addloss
