// SPDX-License-Identifier: MIT
/// Uniform timesteps moved towards more noise: t = floor(T s u / (1 + (s - 1) u)), u ~ U[0, 1).
/// Source: Esser et al., Scaling Rectified Flow Transformers, 2024, eq. 23.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/sampler/concept.hpp>

namespace addloss {

struct shifted_timesteps {
  using time_type = std::int64_t;
  double shift = 3;               ///< s > 0; 1 is uniform
  std::int64_t timesteps = 1000;  ///< T >= 1

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr std::int64_t draw(random_key const& key,
                                                                std::uint32_t sample) const {
    double const u = detail::uniform_at(key, sample, 0);
    return detail::scaled_index(shift * u / (1 + (shift - 1) * u), timesteps);
  }
  void check(char const* function) const {
    using detail::text;
    if (!(shift > 0 && std::isfinite(shift))) {
      detail::fail(function, "shifted_timesteps.shift", "a finite number > 0", text() << shift);
    }
    if (timesteps < 1) {
      detail::fail(function, "shifted_timesteps.timesteps", "at least 1", text() << timesteps);
    }
  }
};

}  // namespace addloss
