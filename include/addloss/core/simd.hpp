// SPDX-License-Identifier: MIT
/// A SIMD register as a value: the arithmetic that element functors need, on all lanes at once.
///
/// Written with the vector extensions of g++ and clang, so one source serves every instruction set
/// and no compiler flag is needed to vectorise. Every operation is the IEEE operation on each lane
/// (exp and log1p are the scalar functions, lane by lane), so results do not depend on the width.
#pragma once

#include <cstdint>
#include <cstring>

#include <addloss/core/math.hpp>

namespace addloss {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// `W` lanes of all-ones (true) or all-zeros (false).
template <class Integer, int W>
struct simd_mask {
  typedef Integer vector __attribute__((vector_size(W * sizeof(Integer))));
  vector bits;
  friend ADDLOSS_INLINE simd_mask operator&(simd_mask a, simd_mask b) { return {a.bits & b.bits}; }
  friend ADDLOSS_INLINE simd_mask operator|(simd_mask a, simd_mask b) { return {a.bits | b.bits}; }
  friend ADDLOSS_INLINE simd_mask operator!(simd_mask a) { return {~a.bits}; }
};

/// Square root of every lane. Loops of std::sqrt stay scalar under -fmath-errno, the default, so
/// the instruction is named where there is one.
template <class Vector>
ADDLOSS_INLINE Vector simd_sqrt(Vector x) {
#if defined(__SSE2__) && ADDLOSS_SIMD_BYTES == 16
  if constexpr (sizeof(x[0]) == 4) return (Vector)__builtin_ia32_sqrtps(x);
  else return (Vector)__builtin_ia32_sqrtpd(x);
#elif ADDLOSS_SIMD_BYTES == 32
  if constexpr (sizeof(x[0]) == 4) return (Vector)__builtin_ia32_sqrtps256(x);
  else return (Vector)__builtin_ia32_sqrtpd256(x);
#elif ADDLOSS_SIMD_BYTES == 64 && defined(__clang__)
  if constexpr (sizeof(x[0]) == 4) return (Vector)__builtin_ia32_sqrtps512(x, 4);
  else return (Vector)__builtin_ia32_sqrtpd512(x, 4);
#elif ADDLOSS_SIMD_BYTES == 64
  if constexpr (sizeof(x[0]) == 4) return (Vector)__builtin_ia32_sqrtps512_mask(x, x, -1, 4);
  else return (Vector)__builtin_ia32_sqrtpd512_mask(x, x, -1, 4);
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

  friend ADDLOSS_INLINE mask operator<(simd_pack a, simd_pack b) { return {a.lanes < b.lanes}; }
  friend ADDLOSS_INLINE mask operator<=(simd_pack a, simd_pack b) { return {a.lanes <= b.lanes}; }
  friend ADDLOSS_INLINE mask operator>(simd_pack a, simd_pack b) { return {a.lanes > b.lanes}; }
  friend ADDLOSS_INLINE mask operator>=(simd_pack a, simd_pack b) { return {a.lanes >= b.lanes}; }

  friend ADDLOSS_INLINE mask is_nan(simd_pack a) { return {a.lanes != a.lanes}; }
  // g++ turns `mask ? a : b` into scalar code below AVX-512, and does not find AVX-512's mask
  // registers in the bitwise form.
  friend ADDLOSS_INLINE simd_pack select(mask condition, simd_pack yes, simd_pack no) {
#if ADDLOSS_SIMD_BYTES == 64
    return simd_pack(condition.bits ? yes.lanes : no.lanes);
#else
    return simd_pack(
        (vector)(((integers)yes.lanes & condition.bits) | ((integers)no.lanes & ~condition.bits)));
#endif
  }
  friend ADDLOSS_INLINE simd_pack abs(simd_pack a) {
    // Clears the sign bit, which is the one bit of -0.
    return simd_pack((vector)((integers)a.lanes & ~(integers)simd_pack(T(-0.0)).lanes));
  }
  friend ADDLOSS_INLINE simd_pack sqrt(simd_pack a) { return simd_pack(simd_sqrt(a.lanes)); }
  friend ADDLOSS_INLINE simd_pack exp(simd_pack a) {
    return a.each([](T x) { return math::exp(x); });
  }
  friend ADDLOSS_INLINE simd_pack log1p(simd_pack a) {
    return a.each([](T x) { return math::log1p(x); });
  }

 private:
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
