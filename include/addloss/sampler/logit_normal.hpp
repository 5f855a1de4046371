// SPDX-License-Identifier: MIT
/// Integer timesteps whose logit is normal: t = floor(T / (1 + e^-z)), z ~ N(mean, stddev^2).
/// Source: Esser et al., Scaling Rectified Flow Transformers, 2024, eq. 19; the teacher of LADD,
/// Sauer et al. 2024, uses mean 1, stddev 1.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/sampler/concept.hpp>

namespace addloss {

struct logit_normal_timesteps {
  using time_type = std::int64_t;
  double mean = 1;
  double stddev = 1;  ///< >= 0
  std::int64_t timesteps = 1000;  ///< T >= 1

  [[nodiscard]] ADDLOSS_HOST_DEVICE std::int64_t draw(random_key const& key,
                                                      std::uint32_t sample) const {
    using std::cos;
    using std::exp;
    using std::log;
    using std::sqrt;
    // Box-Muller; 1 - u is in (0, 1], so the logarithm is finite.
    double const radius = sqrt(-2 * log(1 - detail::uniform_at(key, sample, 0)));
    double const z =
        mean + stddev * radius * cos(6.283185307179586 * detail::uniform_at(key, sample, 1));
    return detail::scaled_index(1 / (1 + exp(-z)), timesteps);
  }
  void check(char const* function) const {
    using detail::text;
    if (!std::isfinite(mean)) {
      detail::fail(function, "logit_normal_timesteps.mean", "a finite number", text() << mean);
    }
    if (!(stddev >= 0 && std::isfinite(stddev))) {
      detail::fail(function, "logit_normal_timesteps.stddev", "a finite number >= 0",
                   text() << stddev);
    }
    if (timesteps < 1) {
      detail::fail(function, "logit_normal_timesteps.timesteps", "at least 1", text() << timesteps);
    }
  }
};

}  // namespace addloss
