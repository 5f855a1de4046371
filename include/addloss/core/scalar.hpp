// SPDX-License-Identifier: MIT
/// Scalar types a tensor may be stored in, and the type arithmetic on them is done in.
///
/// | stored     | arithmetic | why                                                               |
/// | half       | float      | IEEE 754 binary16: 5 exponent bits, largest finite value 65504     |
/// | bfloat16   | float      | the upper half of a float                                          |
/// | float      | float      |                                                                    |
/// | double     | double     |                                                                    |
/// Loads widen exactly; stores round to nearest, ties to even; NaN stays NaN, overflow is infinity.
/// half and bfloat16 may alias every type, as char does: memory of another library's type of the
/// same bits can be read and written through pointers to them (`stored_scalar`).
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/config.hpp>

namespace addloss {

namespace detail {

/// The bits of `x` as another type. std::bit_cast is not for device code.
template <class To, class From>
ADDLOSS_HOST_DEVICE constexpr To bits_as(From x) {
  return __builtin_bit_cast(To, x);
}

/// Bits of the binary16 nearest to `x`, ties to even.
ADDLOSS_HOST_DEVICE constexpr std::uint16_t half_bits(float x) {
  auto const bits = bits_as<std::uint32_t>(x);
  auto const sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  std::uint32_t const magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);  // NaN
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // >= 65520
  if (magnitude < 0x33000001U) return sign;  // at most 2^-25, a tie that goes to zero
  std::uint32_t const exponent = magnitude >> 23;
  std::uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
  // A normal half drops 13 bits of the mantissa, a subnormal one more for each exponent below.
  std::uint32_t const dropped = exponent >= 113 ? 13U : 126U - exponent;
  std::uint32_t const kept = mantissa >> dropped;
  std::uint32_t const rest = mantissa & ((1U << dropped) - 1U);
  std::uint32_t const tie = 1U << (dropped - 1U);
  std::uint32_t const rounded = kept + ((rest > tie || (rest == tie && (kept & 1U))) ? 1U : 0U);
  // `rounded` still holds the leading one, so it adds one to the exponent field itself.
  std::uint32_t const base = exponent >= 113 ? (exponent - 113U) << 10 : 0U;
  return static_cast<std::uint16_t>(sign | (base + rounded));
}

ADDLOSS_HOST_DEVICE constexpr float float_from_half_bits(std::uint16_t bits) {
  std::uint32_t const sign = (bits & 0x8000U) << 16;
  std::uint32_t const exponent = (bits >> 10) & 0x1fU;
  std::uint32_t const mantissa = bits & 0x3ffU;
  if (exponent == 31) return bits_as<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    float const magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  return bits_as<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

/// Bits of the bfloat16 nearest to `x`, ties to even.
ADDLOSS_HOST_DEVICE constexpr std::uint16_t bfloat16_bits(float x) {
  auto const bits = bits_as<std::uint32_t>(x);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {  // NaN: keep it quiet, or rounding could make it inf
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  }
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

ADDLOSS_HOST_DEVICE constexpr float float_from_bfloat16_bits(std::uint16_t bits) {
  return bits_as<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace detail

/// IEEE 754 binary16, storage only: convert to float to compute.
struct __attribute__((__may_alias__)) half {
  std::uint16_t bits = 0;
  half() = default;
  ADDLOSS_HOST_DEVICE constexpr explicit half(float x) : bits(detail::half_bits(x)) {}
  ADDLOSS_HOST_DEVICE constexpr explicit operator float() const {
    return detail::float_from_half_bits(bits);
  }
};

/// The upper 16 bits of a float, storage only: convert to float to compute.
struct __attribute__((__may_alias__)) bfloat16 {
  std::uint16_t bits = 0;
  bfloat16() = default;
  ADDLOSS_HOST_DEVICE constexpr explicit bfloat16(float x) : bits(detail::bfloat16_bits(x)) {}
  ADDLOSS_HOST_DEVICE constexpr explicit operator float() const {
    return detail::float_from_bfloat16_bits(bits);
  }
};

/// The type here that has the bits of `T`: `T` itself, unless an adapter says so of another
/// library's half type.
template <class T>
struct stored_scalar {
  using type = T;
};

/// The same with the const of `T`.
template <class T>
using stored_t = std::conditional_t<std::is_const_v<T>,
                                    typename stored_scalar<std::remove_const_t<T>>::type const,
                                    typename stored_scalar<std::remove_const_t<T>>::type>;

namespace detail {

/// Memory of `T` as what it is here.
template <class T>
constexpr stored_t<T>* stored_pointer(T* data) {
  if constexpr (std::same_as<stored_t<T>, T>) {
    return data;
  } else {
    static_assert(sizeof(stored_t<T>) == sizeof(T) && alignof(stored_t<T>) <= alignof(T));
    return reinterpret_cast<stored_t<T>*>(data);
  }
}

}  // namespace detail

/// A type that tensors of values and gradients may be stored in.
template <class T>
concept storage_scalar = std::same_as<T, float> || std::same_as<T, double> ||
                         std::same_as<T, half> || std::same_as<T, bfloat16>;

/// A type that arithmetic is done in.
template <class T>
concept arithmetic_scalar = std::same_as<T, float> || std::same_as<T, double>;

/// The type that arithmetic on `T` is done in: double for double, float for all others.
template <storage_scalar T>
using arithmetic_t = std::conditional_t<std::same_as<T, double>, double, float>;

}  // namespace addloss
