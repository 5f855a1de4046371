// SPDX-License-Identifier: MIT
/// Standard normal numbers from Philox words, by the Box-Muller transform in single precision.
///
///   radius  r = sqrt(-2 ln u),  u = (w0 + 1/2) / 2^32 in (0, 1), so that r is in [1.5e-5, 6.77]
///   angle   a = 2 pi w1 / 2^32
///   numbers r cos a, r sin a
/// The formula is written once, over a type that supplies the operations, for scalars and for SIMD
/// registers. The integers are equal everywhere; the numbers agree between instruction sets and
/// devices up to rounding (fused multiply-add or not).
/// Error against exact arithmetic: at most 4e-7 r, for every w0 and w1.
/// Source: Box, Muller, A note on the generation of random normal deviates, 1958.
#pragma once

#include <cstdint>

#include <addloss/core/math.hpp>
#include <addloss/core/philox.hpp>

namespace addloss {

template <class V>
struct normal_pair {
  V cosine;
  V sine;
};

namespace detail {

/// The operations of box_muller on single numbers.
struct scalar_bits {
  using real = float;
  using word = std::uint32_t;
  static ADDLOSS_HOST_DEVICE constexpr float real_of(word w) { return bits_as<float>(w); }
  static ADDLOSS_HOST_DEVICE constexpr word word_of(float x) { return bits_as<word>(x); }
  /// w as a signed number.
  static ADDLOSS_HOST_DEVICE constexpr float convert(word w) {
    return static_cast<float>(static_cast<std::int32_t>(w));
  }
  /// Shifts in copies of the sign bit.
  static ADDLOSS_HOST_DEVICE constexpr word shift_signed(word w, int count) {
    return static_cast<word>(static_cast<std::int32_t>(w) >> count);
  }
  /// Of x in [1e-10, 1e10].
  static ADDLOSS_HOST_DEVICE inline float square_root(float x) {
#if defined(__CUDA_ARCH__)
    // What the compiler makes of sqrt, but for the tests whether x is in that range.
    float inverse;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    float const root = __fmul_rn(x, inverse);
    return __fmaf_rn(__fmaf_rn(-root, root, x), 0.5F * inverse, root);
#else
    return math::sqrt(x);
#endif
  }
  /// A product on its own: fused with an addition that follows, a generated number would not be the
  /// number that is stored.
  static ADDLOSS_HOST_DEVICE inline float product(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
  }
};

/// -2 ln u for u = (w + 1/2) / 2^32; always positive.
template <class B>
ADDLOSS_HOST_DEVICE ADDLOSS_INLINE typename B::real minus_two_log(typename B::word w) {
  using real = typename B::real;
  using word = typename B::word;
  // 33 bits do not fit a float, but each half of them does: 2^16 u = high + low.
  real const high = B::convert(w >> 16);
  real const low = B::convert(w & 0xffffU) * 0x1p-16F + 0x1p-17F;
  // u = 2^exponent (1 + f) with 1 + f in [0.75, 1.5), so that f is small where ln u is near 0.
  word const exponent = B::shift_signed(B::word_of(high + low) - 0x47400000U, 23);
  // Only the last sum rounds: f keeps its relative precision where u is near 1.
  real const scale = B::real_of(0x37800000U - (exponent << 23));
  real const f = (high * scale - 1.0F) + low * scale;
  // -2 ln 2 (exponent + log2(1 + f)): of two products that are added, a compiler may fuse either.
  return (B::convert(exponent) + f * log1p_quotient(f, 1.4426950409F)) * -1.3862943611F;
}

template <class B>
ADDLOSS_HOST_DEVICE ADDLOSS_INLINE normal_pair<typename B::real> box_muller(
    typename B::word radius_word, typename B::word angle_word) {
  using real = typename B::real;
  using word = typename B::word;
  real const radius = B::square_root(minus_two_log<B>(radius_word));
  // a = pi/2 t plus half turns, t in [-1, 1): a half turn changes both signs.
  word const doubled = angle_word << 1;
  word const sign = (angle_word ^ doubled) & 0x80000000U;
  real const signed_radius = B::real_of(B::word_of(radius) ^ sign);
  real const t = B::convert(doubled) * 0x1p-31F;
  real const square = t * t;
  real const cosine =
      (((square * 8.5969006e-4F - 2.0813967e-2F) * square + 2.5365321e-1F) * square - 1.2336989F) *
          square +
      1.0F;
  real const sine =
      ((((square * 1.50825901e-4F - 4.67214221e-3F) * square + 7.96881467e-2F) * square -
        6.45962954e-1F) *
           square +
       1.57079613F) *
      t;
  return {B::product(signed_radius, cosine), B::product(signed_radius, sine)};
}

}  // namespace detail

/// Element `element` of sample `sample` of the noise under `key`; see normal_noise for the layout.
ADDLOSS_HOST_DEVICE inline float normal_at(random_key const& key, std::uint32_t sample,
                                           std::uint64_t element) {
  philox_block const block =
      philox4x32_10(key, sample, static_cast<std::uint32_t>(element / 64 * 16 + element % 16));
  bool const second_pair = (element & 32U) != 0;
  normal_pair<float> const pair = detail::box_muller<detail::scalar_bits>(
      second_pair ? block.word[2] : block.word[0], second_pair ? block.word[3] : block.word[1]);
  return (element & 16U) != 0 ? pair.sine : pair.cosine;
}

}  // namespace addloss
