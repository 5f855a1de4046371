// SPDX-License-Identifier: MIT
/// A SIMD register as a value: the arithmetic that element functors need, on all lanes at once.
///
/// Written with the vector extensions of g++ and clang, so one source serves every instruction set
/// and no compiler flag is needed to vectorise. Every operation is the IEEE operation on each lane,
/// so results do not depend on the width. exp and log1p of floats are computed on all lanes at
/// once, with relative errors below 1.5e-7; of doubles they are the scalar functions, lane by lane.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <addloss/core/math.hpp>

namespace addloss {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// `W` lanes of all-ones (true) or all-zeros (false).
template <class Integer, int W>
struct simd_mask {  // NOLINT(*-special-member-functions): a move is a copy
  typedef Integer vector __attribute__((vector_size(W * sizeof(Integer))));
  vector bits;

  simd_mask() = default;
  ADDLOSS_INLINE explicit simd_mask(vector b) : bits(b) {}
  // The compiler's own copies are copies of a struct, and g++ puts many of those in memory. (Not so
  // for packs, where it costs the heads 1.4 %.)
  ADDLOSS_INLINE simd_mask(simd_mask const& a) : bits(a.bits) {}
  ADDLOSS_INLINE simd_mask& operator=(simd_mask const& a) {
    bits = a.bits;
    return *this;
  }

  friend ADDLOSS_INLINE simd_mask operator&(simd_mask a, simd_mask b) {
    return simd_mask(a.bits & b.bits);
  }
  friend ADDLOSS_INLINE simd_mask operator|(simd_mask a, simd_mask b) {
    return simd_mask(a.bits | b.bits);
  }
  friend ADDLOSS_INLINE simd_mask operator!(simd_mask a) { return simd_mask(~a.bits); }
  /// Adds 1 to the lanes of `total` where `a` is true: with AVX-512 the mask is not made a vector.
  friend ADDLOSS_INLINE void count_true(vector& total, simd_mask a) {
#if ADDLOSS_SIMD_BYTES == 64
    total = a.bits ? total + 1 : total;
#else
    total -= a.bits;
#endif
  }
};

/// Square root of every lane. Loops of std::sqrt stay scalar under -fmath-errno, the default, so
/// the instruction is named where there is one.
template <class Vector>
ADDLOSS_INLINE Vector simd_sqrt(Vector x) {
#if defined(__SSE2__) && ADDLOSS_SIMD_BYTES == 16
  if constexpr (sizeof(x[0]) == 4) return std::bit_cast<Vector>(__builtin_ia32_sqrtps(x));
  else return std::bit_cast<Vector>(__builtin_ia32_sqrtpd(x));
#elif ADDLOSS_SIMD_BYTES == 32
  if constexpr (sizeof(x[0]) == 4) return std::bit_cast<Vector>(__builtin_ia32_sqrtps256(x));
  else return std::bit_cast<Vector>(__builtin_ia32_sqrtpd256(x));
#elif ADDLOSS_SIMD_BYTES == 64 && defined(__clang__)
  if constexpr (sizeof(x[0]) == 4) return std::bit_cast<Vector>(__builtin_ia32_sqrtps512(x, 4));
  else return std::bit_cast<Vector>(__builtin_ia32_sqrtpd512(x, 4));
#elif ADDLOSS_SIMD_BYTES == 64
  if constexpr (sizeof(x[0]) == 4)
    return std::bit_cast<Vector>(__builtin_ia32_sqrtps512_mask(x, x, -1, 4));
  else return std::bit_cast<Vector>(__builtin_ia32_sqrtpd512_mask(x, x, -1, 4));
#else
  for (unsigned lane = 0; lane < sizeof(x) / sizeof(x[0]); ++lane) x[lane] = math::sqrt(x[lane]);
  return x;
#endif
}

template <arithmetic_scalar T>
using integer_like_t = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

/// `W` lanes of `T`.
template <arithmetic_scalar T, int W>
struct simd_pack {
  using value_type = T;
  using mask = simd_mask<integer_like_t<T>, W>;
  using integers = typename mask::vector;
  typedef T vector __attribute__((vector_size(W * sizeof(T))));
  static constexpr int width = W;

  vector lanes;

  simd_pack() = default;
  ADDLOSS_INLINE explicit simd_pack(vector v) : lanes(v) {}
  /// The same number in every lane.
  template <class Number>
    requires(std::is_arithmetic_v<Number>)
  ADDLOSS_INLINE explicit simd_pack(Number x)
      : lanes(static_cast<T>(x) - vector{}) {}  // x - 0, as x + 0 would lose the sign of -0

  static ADDLOSS_INLINE simd_pack load(T const* from) {
    simd_pack result;
    std::memcpy(&result.lanes, from, sizeof result.lanes);
    return result;
  }
  ADDLOSS_INLINE void store(T* to) const { std::memcpy(to, &lanes, sizeof lanes); }
  /// 0, 1, 2, ...
  static ADDLOSS_INLINE simd_pack iota() {
    simd_pack result;
    for (int lane = 0; lane < W; ++lane) result.lanes[lane] = static_cast<T>(lane);
    return result;
  }

  friend ADDLOSS_INLINE simd_pack operator+(simd_pack a, simd_pack b) {
    return simd_pack(a.lanes + b.lanes);
  }
  friend ADDLOSS_INLINE simd_pack operator-(simd_pack a, simd_pack b) {
    return simd_pack(a.lanes - b.lanes);
  }
  friend ADDLOSS_INLINE simd_pack operator*(simd_pack a, simd_pack b) {
    return simd_pack(a.lanes * b.lanes);
  }
  friend ADDLOSS_INLINE simd_pack operator/(simd_pack a, simd_pack b) {
    return simd_pack(a.lanes / b.lanes);
  }
  friend ADDLOSS_INLINE simd_pack operator-(simd_pack a) { return simd_pack(-a.lanes); }
  friend ADDLOSS_INLINE simd_pack& operator+=(simd_pack& a, simd_pack b) {
    a.lanes += b.lanes;
    return a;
  }

  friend ADDLOSS_INLINE mask operator<(simd_pack a, simd_pack b) { return mask(a.lanes < b.lanes); }
  friend ADDLOSS_INLINE mask operator<=(simd_pack a, simd_pack b) {
    return mask(a.lanes <= b.lanes);
  }
  friend ADDLOSS_INLINE mask operator>(simd_pack a, simd_pack b) { return mask(a.lanes > b.lanes); }
  friend ADDLOSS_INLINE mask operator>=(simd_pack a, simd_pack b) {
    return mask(a.lanes >= b.lanes);
  }
  friend ADDLOSS_INLINE mask operator!=(simd_pack a, simd_pack b) {
    return mask(a.lanes != b.lanes);
  }

  friend ADDLOSS_INLINE mask is_nan(simd_pack a) { return mask(a.lanes != a.lanes); }
  // g++ turns `mask ? a : b` into scalar code below AVX-512, and does not find AVX-512's mask
  // registers in the bitwise form.
  friend ADDLOSS_INLINE simd_pack select(mask condition, simd_pack yes, simd_pack no) {
#if ADDLOSS_SIMD_BYTES == 64
    return simd_pack(condition.bits ? yes.lanes : no.lanes);
#else
    return simd_pack(std::bit_cast<vector>((std::bit_cast<integers>(yes.lanes) & condition.bits) |
                                           (std::bit_cast<integers>(no.lanes) & ~condition.bits)));
#endif
  }
  friend ADDLOSS_INLINE simd_pack abs(simd_pack a) {
    // Clears the sign bit, which is the one bit of -0.
    return simd_pack(std::bit_cast<vector>(std::bit_cast<integers>(a.lanes) &
                                           ~std::bit_cast<integers>(simd_pack(T(-0.0)).lanes)));
  }
  friend ADDLOSS_INLINE simd_pack sqrt(simd_pack a) { return simd_pack(simd_sqrt(a.lanes)); }
  friend ADDLOSS_INLINE simd_pack exp(simd_pack a) {
    if constexpr (sizeof(T) == 4) {
      return a.exp_of_all();
    } else {
      return a.each([](T x) { return math::exp(x); });
    }
  }
  friend ADDLOSS_INLINE simd_pack log1p(simd_pack a) {
    if constexpr (sizeof(T) == 4) {
      return a.log1p_of_all();
    } else {
      return a.each([](T x) { return math::log1p(x); });
    }
  }

 private:
  static ADDLOSS_INLINE simd_pack of_bits(integers bits) {
    return simd_pack(std::bit_cast<vector>(bits));
  }
  static ADDLOSS_INLINE simd_pack number_of(integers n) {
    return simd_pack(__builtin_convertvector(n, vector));
  }
  // ln 2 in two parts; the product of the first with an exponent is exact.
  static constexpr float ln2_high = 0.693359375F;
  static constexpr float ln2_low = -2.12194440e-4F;

  /// e^x = 2^n e^r, n the integer nearest to x / ln 2, e^r by Taylor's series.
  [[nodiscard]] ADDLOSS_INLINE simd_pack exp_of_all() const {
    // Beyond these e^x is 0 or infinite. NaN stays NaN in r; no integer is made of it.
    simd_pack const low(-104), high(89), zero(0);
    simd_pack const x = select(*this < low, low, select(*this > high, high, *this));
    simd_pack const quotient = select(is_nan(x), zero, x * simd_pack(1.44269504F));
    simd_pack const half = select(quotient < zero, simd_pack(-0.5), simd_pack(0.5));
    integers const n = __builtin_convertvector((quotient + half).lanes, integers);  // truncates
    vector const r = (x.lanes - number_of(n).lanes * ln2_high) - number_of(n).lanes * ln2_low;
    vector p = r * (1.0F / 5040) + 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 0.5F;
    p = (p * (r * r) + r) + 1.0F;
    // 2^n in two factors, as one would not hold subnormal and infinite results.
    integers const first = n >> 1;
    integers const second = n - first;
    return simd_pack(p) * of_bits((first + 127) << 23) * of_bits((second + 127) << 23);
  }

  /// 1 + x = 2^n (1 + f) with 1 + f in [0.75, 1.5); what the sum 1 + x loses is in f again.
  [[nodiscard]] ADDLOSS_INLINE simd_pack log1p_of_all() const {
    simd_pack const x = *this;
    simd_pack const one(1);
    mask const big = x > simd_pack(0x1p64F);  // 2^-64 x stands for 1 + x: 2^-n would be subnormal
    simd_pack const u = select(big, x * simd_pack(0x1p-64F), one + x);
    simd_pack const lost = select(big, simd_pack(0), x - (u - one));
    integers const n = (std::bit_cast<integers>(u.lanes) - 0x3f400000) >> 23;
    vector const scale = of_bits(0x3f800000 - (n << 23)).lanes;
    vector const f = (u.lanes * scale - 1.0F) + lost.lanes * scale;
    vector const exponent = number_of(n).lanes + select(big, simd_pack(64), simd_pack(0)).lanes;
    simd_pack const finite(exponent * ln2_high +
                           (f * detail::log1p_quotient(f) + exponent * ln2_low));
    // Small x stand for themselves, also -0; infinity too; -1 and less have their own results.
    simd_pack const infinity(__builtin_inff());
    simd_pack const inside = select((abs(x) < simd_pack(0x1p-25F)) | (x >= infinity), x, finite);
    simd_pack const outside = select(x < -one, simd_pack(__builtin_nanf("")), -infinity);
    return select(x <= -one, outside, inside);
  }

  // A call: unrolled into the loops of losses, W calls each would only make them large.
  template <class Function>
  [[gnu::noinline]] simd_pack each(Function function) const {
    simd_pack result;
    for (int lane = 0; lane < W; ++lane) result.lanes[lane] = function(lanes[lane]);
    return result;
  }
};

/// As many lanes as a register of this translation unit's instruction set holds.
template <arithmetic_scalar T>
using native_pack = simd_pack<T, ADDLOSS_SIMD_BYTES / static_cast<int>(sizeof(T))>;

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
