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
/// addloss::error on the host when the time of a sample is out of range; `check(function)`, if
/// there is one, for settings out of range, also where times lie on a device and are not read.
template <class S>
concept noise_schedule =
    std::is_trivially_copyable_v<S> &&
    requires(S const schedule, typename S::time_type time, char const* function) {
      { schedule.at(time) } -> std::same_as<noise_level>;
      schedule.check(function, std::int64_t{}, time);
    };

namespace detail {
template <class S, class Space>
inline constexpr bool lies_in = true;
template <class S, class Space>
  requires requires { typename S::space; }
inline constexpr bool lies_in<S, Space> = std::same_as<typename S::space, Space>;
}  // namespace detail

/// A schedule that code can read whose tensors lie in `Space`: one without memory of its own, or
/// with a `space` that is `Space`.
template <class S, class Space>
concept schedule_in = noise_schedule<S> && detail::lies_in<S, Space>;

}  // namespace addloss
