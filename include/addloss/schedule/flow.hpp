// SPDX-License-Identifier: MIT
/// Continuous schedules whose time is a real number.
///
/// | schedule       | time          | alpha  | sigma                             |
/// | rectified_flow | t in [0, 1]   | 1 - t' | t', t' = s t / (1 + (s - 1) t)    |
/// | trigflow       | t in [0, pi/2]| cos t  | sin t                             |
/// Errors: a time out of range; a shift that is not finite and > 0.
/// Sources: Liu, Gong, Liu, Flow Straight and Fast, 2022; shift: Esser et al., Scaling Rectified
/// Flow Transformers, 2024, eq. 23; Lu, Song, Simplifying Continuous-Time Consistency Models, 2024.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include <addloss/core/error.hpp>
#include <addloss/schedule/concept.hpp>

namespace addloss {
namespace detail {

inline void check_time(char const* function, std::int64_t sample, double time, double last) {
  if (!(time >= 0 && time <= last)) {
    fail(function, argument_name("timesteps", sample), text() << "0 to " << last, text() << time);
  }
}

}  // namespace detail

struct rectified_flow {
  using time_type = double;
  double shift = 1;  ///< s > 0; larger images want more noise: 3 in Stable Diffusion 3

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr noise_level at(double t) const {
    // 1 - t' without the subtraction: alpha keeps its digits near t = 1, and is exactly 0 there.
    double const signal = 1 - t;
    double const noise = shift * t;
    return {signal / (signal + noise), noise / (signal + noise)};
  }
  void check(char const* function) const {
    if (!(shift > 0 && std::isfinite(shift))) {
      detail::fail(function, "shift", detail::text() << "a finite number > 0",
                   detail::text() << shift);
    }
  }
  void check(char const* function, std::int64_t sample, double t) const {
    check(function);
    detail::check_time(function, sample, t, 1);
  }
};

struct trigflow {
  using time_type = double;

  [[nodiscard]] ADDLOSS_HOST_DEVICE noise_level at(double t) const {
    using std::cos;
    using std::sin;
    // cos(pi / 2) in floating point is 6e-17, which would hide the pole of epsilon predictions.
    if (t == std::numbers::pi / 2) return {0, 1};
    return {cos(t), sin(t)};
  }
  void check(char const* function, std::int64_t sample, double t) const {
    detail::check_time(function, sample, t, std::numbers::pi / 2);
  }
};

}  // namespace addloss
