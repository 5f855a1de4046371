// SPDX-License-Identifier: MIT
/// What a noise schedule is: time -> (alpha, sigma) of x_t = alpha x_0 + sigma eps.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/config.hpp>

namespace addloss {

/// Signal level alpha >= 0 and noise level sigma >= 0 at one time. No unit.
struct noise_level {
  double alpha;
  double sigma;
};

/// A schedule is small, trivially copyable and readable where the losses run. `check` raises
/// addloss::error on the host when the time of a sample is out of range.
template <class S>
concept noise_schedule =
    std::is_trivially_copyable_v<S> &&
    requires(S const schedule, typename S::time_type time, char const* function) {
      { schedule.at(time) } -> std::same_as<noise_level>;
      schedule.check(function, std::int64_t{}, time);
    };

}  // namespace addloss
