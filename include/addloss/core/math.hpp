// SPDX-License-Identifier: MIT
/// The few functions that element functors are written with, for float and double on the host and
/// on a device. core/simd.hpp has the same names for SIMD packs, found by argument-dependent
/// lookup, so a functor says `using math::select;` and calls `select(...)` unqualified.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/config.hpp>
#include <addloss/core/scalar.hpp>

namespace addloss {

/// An element's loss and its derivative, from one evaluation.
template <class V>
struct value_grad {
  V value;
  V grad;
};
template <class V>
value_grad(V, V) -> value_grad<V>;

namespace math {

/// `yes` where `condition` holds, else `no`.
template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE constexpr T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}

template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE constexpr bool is_nan(T x) {
  return x != x;  // NOLINT(misc-redundant-expression): the definition of NaN
}

/// Neither infinite nor NaN: x - x is 0 exactly for a finite x.
template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE constexpr bool is_finite(T x) {
  return x - x == T(0);  // NOLINT(misc-redundant-expression)
}

template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE constexpr T abs(T x) {
  return x < T(0) ? -x : x + T(0);  // + 0 turns -0 into 0
}

template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE inline T sqrt(T x) {
  using std::sqrt;
  return sqrt(x);
}

template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE inline T exp(T x) {
  using std::exp;
  return exp(x);
}

template <arithmetic_scalar T>
ADDLOSS_HOST_DEVICE inline T log1p(T x) {
  using std::log1p;
  return log1p(x);
}

}  // namespace math

namespace detail {

/// times * ln(1 + f) / f for f in [-0.25, 0.5): minimax polynomial, relative error 2.8e-8 but for
/// the constants, which take `times` in. `Real`: float, or a vector of floats.
template <class Real>
ADDLOSS_HOST_DEVICE ADDLOSS_INLINE Real log1p_quotient(Real f, float times = 1) {
  Real p = f * (times * 5.425942533e-02F) + times * -1.209152111e-01F;
  p = p * f + times * 1.499683244e-01F;
  p = p * f + times * -1.682281400e-01F;
  p = p * f + times * 1.997555392e-01F;
  p = p * f + times * -2.499326355e-01F;
  p = p * f + times * 3.333360253e-01F;
  p = p * f + times * -5.000006599e-01F;
  return p * f + times * 9.999999937e-01F;
}

ADDLOSS_HOST_DEVICE constexpr std::int64_t at_most(std::int64_t value, std::int64_t limit) {
  return value < limit ? value : limit;
}
ADDLOSS_HOST_DEVICE constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace detail
}  // namespace addloss
