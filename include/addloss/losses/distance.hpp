// SPDX-License-Identifier: MIT
/// Distances between two images, as functions of the difference d of two elements.
///
/// | functor      | value                | derivative          |
/// | squared      | d^2                  | 2 d                 |
/// | absolute     | abs(d)               | sign(d), 0 at 0     |
/// | pseudo_huber | sqrt(d^2 + c^2) - c  | d / sqrt(d^2 + c^2) |
/// NaN in d gives NaN in both; so does an infinite d in pseudo_huber. Your own: a struct with the
/// same call operator and, if it has settings to refuse, `check(function)`.
/// Errors, where a loss is evaluated: c that is not a finite number > 0.
/// Sources: squared: ADD, Sauer et al. 2023, eq. 4; pseudo_huber: Song, Dhariwal, Improved
/// Techniques for Training Consistency Models, 2023, section 3.3 (of whole images there).
#pragma once

#include <cmath>
#include <concepts>
#include <type_traits>

#include <addloss/core/error.hpp>
#include <addloss/core/math.hpp>

namespace addloss {

struct squared {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE constexpr value_grad<V> operator()(V d) const {
    return {d * d, V(2) * d};
  }
};

struct absolute {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE constexpr value_grad<V> operator()(V d) const {
    using math::abs;
    using math::select;
    // d itself is 0 or NaN where it is neither positive nor negative.
    return {abs(d), select(d > V(0), V(1), select(d < V(0), V(-1), d))};
  }
};

struct pseudo_huber {
  double c = 0.03;  ///< width of the quadratic zone, > 0, in the units of x

  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE constexpr value_grad<V> operator()(V d) const {
    using math::sqrt;
    V const root = sqrt(d * d + V(c * c));
    // d * d / (root + c) is root - c without the cancellation at small d.
    return {d * (d / (root + V(c))), d / root};
  }
  void check(char const* function) const {
    if (!(c > 0 && std::isfinite(c))) {
      detail::fail(function, "pseudo_huber.c", "a finite number > 0", detail::text() << c);
    }
  }
};

template <class D>
concept distance = std::is_trivially_copyable_v<D> && requires(D const distance, double d) {
  { distance(d) } -> std::same_as<value_grad<double>>;
};

}  // namespace addloss
