// SPDX-License-Identifier: MIT
/// Integer timesteps drawn uniformly from lo .. hi, both included: the teacher's default.
/// A count of hi - lo + 1 <= 2^32 is drawn with a bias below 2^-20.
/// Source of `dreamfusion`, [0.02 T, 0.98 T]: Poole et al., DreamFusion, 2022, section 3.
#pragma once

#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/sampler/concept.hpp>

namespace addloss {

struct uniform_timesteps {
  using time_type = std::int64_t;
  std::int64_t lo = 0;
  std::int64_t hi = 999;  ///< >= lo

  static constexpr uniform_timesteps dreamfusion(std::int64_t train_timesteps = 1000) {
    return {train_timesteps / 50, train_timesteps * 49 / 50};
  }

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr std::int64_t draw(random_key const& key,
                                                                std::uint32_t sample) const {
    return lo + detail::scaled_index(detail::uniform_at(key, sample, 0), hi - lo + 1);
  }
  void check(char const* function) const {
    if (hi < lo) {
      detail::fail(function, "uniform_timesteps.hi", detail::text() << "at least lo = " << lo,
                   detail::text() << hi);
    }
  }
};

}  // namespace addloss
