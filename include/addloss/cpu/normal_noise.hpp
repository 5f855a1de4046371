// SPDX-License-Identifier: MIT
/// 64 normal numbers at a time: Philox and Box-Muller on SIMD registers.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include <addloss/core/normal.hpp>
#include <addloss/core/simd.hpp>

// The one SSE2 instruction that g++ does not find by itself (32 x 32 -> 64 bit products), and the
// vector square root, which -fmath-errno keeps both compilers from using. <immintrin.h> would add
// more than a second to every compilation.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

struct simd_bits {
  static constexpr int width = ADDLOSS_SIMD_BYTES / 4;
  typedef float real __attribute__((vector_size(ADDLOSS_SIMD_BYTES)));
  typedef std::uint32_t word __attribute__((vector_size(ADDLOSS_SIMD_BYTES)));
  typedef std::int32_t signed_word __attribute__((vector_size(ADDLOSS_SIMD_BYTES)));
  typedef std::uint64_t wide __attribute__((vector_size(ADDLOSS_SIMD_BYTES)));

  static ADDLOSS_INLINE real real_of(word w) { return std::bit_cast<real>(w); }
  static ADDLOSS_INLINE word word_of(real x) { return std::bit_cast<word>(x); }
  static ADDLOSS_INLINE real convert(word w) {
    return __builtin_convertvector(std::bit_cast<signed_word>(w), real);
  }
  static ADDLOSS_INLINE word shift_signed(word w, int count) {
    return std::bit_cast<word>(std::bit_cast<signed_word>(w) >> count);
  }
  static ADDLOSS_INLINE real square_root(real x) { return simd_sqrt(x); }
  static ADDLOSS_INLINE real product(real a, real b) { return a * b; }

  /// Products of the low halves of 64-bit lanes.
  static ADDLOSS_INLINE wide product(wide a, wide b) {
#if defined(__GNUC__) && !defined(__clang__) && ADDLOSS_SIMD_BYTES == 64
    // Written out, it becomes the much slower product of whole 64-bit lanes.
    typedef int operand __attribute__((vector_size(64)));
    typedef long long result __attribute__((vector_size(64)));
    return std::bit_cast<wide>(__builtin_ia32_pmuludq512_mask(
        std::bit_cast<operand>(a), std::bit_cast<operand>(b), result{}, 0xff));
#elif defined(__GNUC__) && !defined(__clang__) && ADDLOSS_SIMD_BYTES == 32
    typedef int operand __attribute__((vector_size(32)));
    return std::bit_cast<wide>(
        __builtin_ia32_pmuludq256(std::bit_cast<operand>(a), std::bit_cast<operand>(b)));
#elif defined(__GNUC__) && !defined(__clang__) && ADDLOSS_SIMD_BYTES == 16 && defined(__SSE2__)
    return std::bit_cast<wide>(_mm_mul_epu32(std::bit_cast<__m128i>(a), std::bit_cast<__m128i>(b)));
#else
    return (a & 0xffffffffU) * (b & 0xffffffffU);
#endif
  }
};

/// Noise of elements [64 group, 64 group + 64) of a sample.
ADDLOSS_INLINE void fill_normals(random_key const& key, std::uint32_t sample, std::int64_t group,
                                 float* out) {
  using word = simd_bits::word;
  using wide = simd_bits::wide;
  constexpr int width = simd_bits::width;
  wide even{};
  for (int lane = 0; lane < width / 2; ++lane) even[lane] = 2 * static_cast<std::uint64_t>(lane);
  auto const first_block = static_cast<std::uint32_t>(group * 16);
  for (int offset = 0; offset < 16; offset += width) {
    // Even blocks in chain 0, odd ones in chain 1: 64-bit lanes hold one 32-bit word each.
    wide c0[2];
    wide c1[2];
    wide c2[2];
    wide c3[2];
    for (int chain = 0; chain < 2; ++chain) {
      c0[chain] = even + (first_block + static_cast<std::uint32_t>(offset + chain));
      c1[chain] = wide{} + (key.first_sample + sample);
      c2[chain] = wide{} + key.step;
      c3[chain] = wide{} + key.stream;
    }
    auto key0 = static_cast<std::uint32_t>(key.seed);
    auto key1 = static_cast<std::uint32_t>(key.seed >> 32);
    ADDLOSS_UNROLL(10)
    for (int round = 0; round < philox_rounds; ++round) {
      ADDLOSS_UNROLL(2)
      for (int chain = 0; chain < 2; ++chain) {
        wide const product0 = simd_bits::product(c0[chain], wide{} + philox_multiplier[0]);
        wide const product1 = simd_bits::product(c2[chain], wide{} + philox_multiplier[1]);
        // The upper halves of c1 and c3 keep rubbish: `product` reads lower halves only.
        c0[chain] = (product1 >> 32) ^ c1[chain] ^ (wide{} + key0);
        c2[chain] = (product0 >> 32) ^ c3[chain] ^ (wide{} + key1);
        c1[chain] = product1;
        c3[chain] = product0;
      }
      key0 += philox_weyl[0];
      key1 += philox_weyl[1];
    }
    auto const interleave = [](wide const(&chains)[2]) {
      return std::bit_cast<word>((chains[0] & 0xffffffffU) | (chains[1] << 32));
    };
    auto const first = box_muller<simd_bits>(interleave(c0), interleave(c1));
    auto const second = box_muller<simd_bits>(interleave(c2), interleave(c3));
    std::memcpy(out + offset, &first.cosine, sizeof first.cosine);
    std::memcpy(out + offset + 16, &first.sine, sizeof first.sine);
    std::memcpy(out + offset + 32, &second.cosine, sizeof second.cosine);
    std::memcpy(out + offset + 48, &second.sine, sizeof second.sine);
  }
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
