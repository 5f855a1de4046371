// SPDX-License-Identifier: MIT
/// Compiler configuration: the macros that every other header stands on, and the refusal of
/// -ffast-math.
///
/// Macros a user may define before the first include (all others are read-only):
///   ADDLOSS_ALLOW_FAST_MATH    compile under -ffast-math all the same. NaN and infinity may then
///                              be hidden or lost by the compiler: every promise about them is off.
///   ADDLOSS_ERROR_HANDLER(e)   called with an `addloss::error const&` instead of `throw`; where it
///                              returns, the program is aborted. For -fno-exceptions; see
///                              core/error.hpp.
#pragma once

#if (defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)) && \
    !defined(ADDLOSS_ALLOW_FAST_MATH)
#error \
    "addloss: -ffast-math (-ffinite-math-only) lets the compiler hide NaN and infinity. \
Drop the flag, or define ADDLOSS_ALLOW_FAST_MATH to give up all promises about NaN."
#endif

#if defined(__CUDACC__)
#define ADDLOSS_HOST_DEVICE __host__ __device__
#else
#define ADDLOSS_HOST_DEVICE
#endif

// The element functors and the SIMD operations are useless as calls, and -O2 of g++ would leave
// some as calls. Where the host's code is not optimised, inlining them only takes time to compile.
#if defined(__GNUC__) && (defined(__OPTIMIZE__) || defined(__CUDACC__))
#define ADDLOSS_INLINE inline __attribute__((always_inline))
#define ADDLOSS_INLINE_LAMBDA __attribute__((always_inline))
#else
#define ADDLOSS_INLINE inline
#define ADDLOSS_INLINE_LAMBDA
#endif

// Before a loop. nvcc's front end does not know the pragma and warns of it.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define ADDLOSS_DETAIL_PRAGMA(text) _Pragma(#text)
#define ADDLOSS_UNROLL(times) ADDLOSS_DETAIL_PRAGMA(GCC unroll times)
#else
#define ADDLOSS_UNROLL(times)
#endif

// Width of a SIMD register in bytes, from the instruction set the translation unit is built for.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
#define ADDLOSS_SIMD_BYTES 64
#elif defined(__AVX2__)
#define ADDLOSS_SIMD_BYTES 32
#else
#define ADDLOSS_SIMD_BYTES 16
#endif

// Code whose machine code depends on the flags of its translation unit lives in this inline
// namespace: units built with other -march or -fopenmp flags can be linked into one program, and
// each keeps its own code (otherwise the linker would pick one for both).
#if defined(__FMA__)
#define ADDLOSS_DETAIL_FMA fma
#else
#define ADDLOSS_DETAIL_FMA nofma
#endif
#if defined(__F16C__)
#define ADDLOSS_DETAIL_F16C f16c
#else
#define ADDLOSS_DETAIL_F16C nof16c
#endif
#if defined(_OPENMP)
#define ADDLOSS_DETAIL_OPENMP openmp
#else
#define ADDLOSS_DETAIL_OPENMP serial
#endif
#define ADDLOSS_DETAIL_JOIN(a, b, c, d, e) a##b##_##c##_##d##_##e
#define ADDLOSS_DETAIL_TAG(a, b, c, d, e) ADDLOSS_DETAIL_JOIN(a, b, c, d, e)
#define ADDLOSS_ISA_NAMESPACE                                                           \
  ADDLOSS_DETAIL_TAG(simd, ADDLOSS_SIMD_BYTES, ADDLOSS_DETAIL_FMA, ADDLOSS_DETAIL_F16C, \
                     ADDLOSS_DETAIL_OPENMP)
