// SPDX-License-Identifier: MIT
/// SIMD registers from and to memory in every storage type: widened on load, rounded on store (to
/// nearest, ties to even), the same numbers as the conversions of core/scalar.hpp.
///
/// Half types convert with F16C where the translation unit has it, elsewhere by integer arithmetic
/// on all lanes; neither compiler finds either by itself.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <utility>

#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// Half types convert through float.
template <class A, class T>
ADDLOSS_INLINE A widen(T x) {
  if constexpr (arithmetic_scalar<T>) {
    return static_cast<A>(x);
  } else {
    return static_cast<A>(static_cast<float>(x));
  }
}

template <class T, class A>
ADDLOSS_INLINE T narrow(A x) {
  if constexpr (arithmetic_scalar<T>) {
    return static_cast<T>(x);
  } else {
    return T(static_cast<float>(x));
  }
}

/// Integers of 16 and 32 bits for the lanes of a pack of float.
template <class V>
struct bits_of {
  static constexpr unsigned width = static_cast<unsigned>(V::width);
  typedef std::uint16_t narrow __attribute__((vector_size(2 * width)));
  typedef std::uint32_t wide __attribute__((vector_size(4 * width)));
  typedef std::int32_t ordered __attribute__((vector_size(4 * width)));  // compares fast on SSE2
  typedef std::int16_t f16c __attribute__((vector_size(2 * width)));
};

inline constexpr std::uint16_t all_lanes = 0xffff;  // of an AVX-512 mask

/// The 16-bit lanes of `x` as the upper halves of 32-bit ones: one shuffle with zeros in place of a
/// conversion and a shift.
template <class V, std::size_t... Half>
ADDLOSS_INLINE V upper_halves(typename bits_of<V>::narrow x,
                              std::index_sequence<Half...> /*halves*/) {
#if defined(__CUDACC__)
  // What nvcc makes of __builtin_shufflevector with a parameter pack does not compile.
  return V(std::bit_cast<typename V::vector>(__builtin_convertvector(x, typename bits_of<V>::wide)
                                             << 16));
#else
  using halves = typename bits_of<V>::narrow;
  return V(std::bit_cast<typename V::vector>(__builtin_shufflevector(
      halves{}, x, (static_cast<int>(Half) / 2 + (Half % 2 == 0 ? 0 : V::width))...)));
#endif
}

template <class V>
ADDLOSS_INLINE V load_bfloat16(bfloat16 const* from) {
  typename bits_of<V>::narrow stored;
  std::memcpy(&stored, from, sizeof stored);
  return upper_halves<V>(stored, std::make_index_sequence<2 * bits_of<V>::width>{});
}

template <class V>
ADDLOSS_INLINE void store_bfloat16(bfloat16* to, V x) {
  using bits = bits_of<V>;
  using wide = typename bits::wide;
  wide const exact = std::bit_cast<wide>(x.lanes);
  V const rounded(std::bit_cast<typename V::vector>(exact + 0x7fffU + ((exact >> 16) & 1U)));
  // NaN stays NaN: quiet, with the upper bits of its payload.
  V const result =
      select(is_nan(x), V(std::bit_cast<typename V::vector>(exact | 0x400000U)), rounded);
  auto const stored =
      __builtin_convertvector(std::bit_cast<wide>(result.lanes) >> 16, typename bits::narrow);
  std::memcpy(static_cast<void*>(to), &stored, sizeof stored);
}

template <class V>
ADDLOSS_INLINE V load_half(half const* from) {
  using bits = bits_of<V>;
  typename bits::narrow stored;
  std::memcpy(&stored, from, sizeof stored);
#if defined(__F16C__) && ADDLOSS_SIMD_BYTES == 64
  using vector = typename V::vector;
#if defined(__clang__)
  constexpr auto every_lane = all_lanes;
#else
  constexpr auto every_lane = static_cast<std::int16_t>(all_lanes);  // the type g++ gave it
#endif
  return V(std::bit_cast<vector>(__builtin_ia32_vcvtph2ps512_mask(
      std::bit_cast<typename bits::f16c>(stored), vector{}, every_lane, 4)));
#elif defined(__F16C__) && ADDLOSS_SIMD_BYTES == 32
  return V(std::bit_cast<typename V::vector>(
      __builtin_ia32_vcvtph2ps256(std::bit_cast<typename bits::f16c>(stored))));
#else
  using wide = typename bits::wide;
  wide const all = __builtin_convertvector(stored, wide);
  wide const sign = (all & 0x8000U) << 16;
  wide const magnitude = all & 0x7fffU;
  // The product moves the exponent from bias 15 to bias 127, of subnormal numbers too.
  auto const scaled =
      std::bit_cast<wide>(std::bit_cast<typename V::vector>(magnitude << 13) * 0x1p112F);
  wide const special = std::bit_cast<wide>(magnitude >= 0x7c00U) & 0x7f800000U;
  return V(std::bit_cast<typename V::vector>(scaled | special | sign));
#endif
}

template <class V>
ADDLOSS_INLINE void store_half(half* to, V x) {
#if defined(__F16C__) && ADDLOSS_SIMD_BYTES == 64
  auto const stored =
      __builtin_ia32_vcvtps2ph512_mask(x.lanes, 0, typename bits_of<V>::f16c{}, all_lanes);
#elif defined(__F16C__) && ADDLOSS_SIMD_BYTES == 32
  auto const stored = __builtin_ia32_vcvtps2ph256(x.lanes, 0);
#else
  using bits = bits_of<V>;
  using wide = typename bits::wide;
  using ordered = typename bits::ordered;
  wide const all = std::bit_cast<wide>(x.lanes);
  wide const magnitude = all & 0x7fffffffU;
  wide const sign = (all ^ magnitude) >> 16;
  // Normal: bias 127 becomes 15, half of the 13 dropped bits (less one, ties to even) is added.
  wide const normal = (magnitude + ((magnitude >> 13) & 1U) + (0xfffU - (112U << 23))) >> 13;
  // Subnormal: the sum with 0.5 rounds to multiples of 2^-24.
  wide const subnormal =
      std::bit_cast<wide>(std::bit_cast<typename V::vector>(magnitude) + 0.5F) - 0x3f000000U;
  wide const is_subnormal = std::bit_cast<wide>(std::bit_cast<ordered>(magnitude) < 0x38800000);
  wide const is_large = std::bit_cast<wide>(std::bit_cast<ordered>(magnitude) >= 0x477ff000);
  wide const is_nan = std::bit_cast<wide>(std::bit_cast<ordered>(magnitude) > 0x7f800000);
  wide const finite = (subnormal & is_subnormal) | (normal & ~is_subnormal);
  wide const large = 0x7c00U | (is_nan & (0x200U | (magnitude >> 13)));
  wide const result = (finite & ~is_large) | (large & is_large) | sign;
  auto const stored = __builtin_convertvector(result, typename bits::narrow);
#endif
  std::memcpy(static_cast<void*>(to), &stored, sizeof stored);
}

template <class V, class T>
ADDLOSS_INLINE V load_pack(T const* from) {
  using value_type = typename V::value_type;
  if constexpr (std::same_as<T, value_type>) {
    return V::load(from);
  } else if constexpr (std::same_as<T, bfloat16> && std::same_as<value_type, float>) {
    return load_bfloat16<V>(from);
  } else if constexpr (std::same_as<T, half> && std::same_as<value_type, float>) {
    return load_half<V>(from);
  } else {
    V result;
    for (int lane = 0; lane < V::width; ++lane) {
      result.lanes[lane] = widen<value_type>(from[lane]);
    }
    return result;
  }
}

template <class V, class T>
ADDLOSS_INLINE void store_pack(T* to, V pack) {
  using value_type = typename V::value_type;
  if constexpr (std::same_as<T, value_type>) {
    pack.store(to);
  } else if constexpr (std::same_as<T, bfloat16> && std::same_as<value_type, float>) {
    store_bfloat16(to, pack);
  } else if constexpr (std::same_as<T, half> && std::same_as<value_type, float>) {
    store_half(to, pack);
  } else {
    for (int lane = 0; lane < V::width; ++lane) to[lane] = narrow<T>(pack.lanes[lane]);
  }
}

/// `to` must be aligned to the register.
template <class V>
ADDLOSS_INLINE void store_streaming(typename V::value_type* to, V pack) {
#if defined(__clang__)
  using vector = typename V::vector;
  __builtin_nontemporal_store(pack.lanes, reinterpret_cast<vector*>(to));
#elif defined(__SSE2__) && ADDLOSS_SIMD_BYTES == 16
  if constexpr (sizeof(pack.lanes[0]) == 4) __builtin_ia32_movntps(to, pack.lanes);
  else __builtin_ia32_movntpd(to, pack.lanes);
#elif ADDLOSS_SIMD_BYTES == 32
  if constexpr (sizeof(pack.lanes[0]) == 4) __builtin_ia32_movntps256(to, pack.lanes);
  else __builtin_ia32_movntpd256(to, pack.lanes);
#elif ADDLOSS_SIMD_BYTES == 64
  if constexpr (sizeof(pack.lanes[0]) == 4) __builtin_ia32_movntps512(to, pack.lanes);
  else __builtin_ia32_movntpd512(to, pack.lanes);
#else
  pack.store(to);
#endif
}

/// Streaming stores are weakly ordered: other threads see them after a fence only.
ADDLOSS_INLINE void finish_streaming() {
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
