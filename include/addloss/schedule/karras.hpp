// SPDX-License-Identifier: MIT
/// The EDM schedule: alpha = 1, time is the noise level sigma itself.
///
///   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
/// i = 0 .. n-1, largest first, the order of sampling.
/// Errors: not 0 < sigma_min <= sigma_max, sigma_max or rho infinite, rho <= 0, n < 1, i outside
/// 0 .. n-1; sigma < 0.
/// Source: Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative
/// Models, 2022, eq. 5.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/schedule/concept.hpp>

namespace addloss {

struct karras {
  using time_type = double;
  double sigma_min = 0.002;
  double sigma_max = 80;
  double rho = 7;

  [[nodiscard]] double sigma(std::int64_t i, std::int64_t n) const {
    using detail::text;
    if (!(sigma_min > 0 && sigma_min <= sigma_max)) {
      detail::fail("karras::sigma", "sigma_min", text() << "0 < sigma_min <= " << sigma_max,
                   text() << sigma_min);
    }
    if (!std::isfinite(sigma_max)) {
      detail::fail("karras::sigma", "sigma_max", "a finite number", text() << sigma_max);
    }
    if (!(rho > 0 && std::isfinite(rho))) {
      detail::fail("karras::sigma", "rho", "a finite number > 0", text() << rho);
    }
    if (n < 1) detail::fail("karras::sigma", "n", text() << "at least 1", text() << n);
    if (i < 0 || i >= n) {
      detail::fail("karras::sigma", "i", text() << "0 to " << n - 1, text() << i);
    }
    if (n == 1) return sigma_max;
    double const first = std::pow(sigma_max, 1 / rho);
    double const last = std::pow(sigma_min, 1 / rho);
    double const share = static_cast<double>(i) / static_cast<double>(n - 1);
    return std::pow(first + share * (last - first), rho);
  }

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr noise_level at(double sigma) const {
    return {1, sigma};
  }
  void check(char const* function, std::int64_t sample, double sigma) const {
    if (!(sigma >= 0 && std::isfinite(sigma))) {
      detail::fail(function, detail::argument_name("timesteps", sample),
                   detail::text() << "a finite sigma >= 0", detail::text() << sigma);
    }
  }
};

}  // namespace addloss
