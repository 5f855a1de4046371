// SPDX-License-Identifier: MIT
/// Elements from and to the memory of a GPU in every storage type: widened on load, rounded on store
/// (to nearest, ties to even), the same numbers as the conversions of core/scalar.hpp.
///
/// A packet is `Elements` consecutive elements in accesses of 16 bytes each: 16 bytes of the smallest
/// type of a pass, 32 or 64 of the others.
#pragma once

#include <cstdint>

#include <addloss/core/scalar.hpp>

namespace addloss::cuda {

/// Half types convert through float. Written as instructions: <cuda_fp16.h> adds more than a second
/// to every compilation.
template <class A, class T>
__device__ inline A widen(T x) {
  if constexpr (std::same_as<T, half>) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return static_cast<A>(result);
  } else if constexpr (std::same_as<T, bfloat16>) {
    return static_cast<A>(__uint_as_float(static_cast<std::uint32_t>(x.bits) << 16));
  } else {
    return static_cast<A>(x);
  }
}

template <class T, class A>
__device__ inline T narrow(A x) {
  if constexpr (std::same_as<T, half>) {
    half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(static_cast<float>(x)));
    return result;
  } else if constexpr (std::same_as<T, bfloat16>) {
    // sm_75 has no instruction for it.
    return bfloat16(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

/// a + b, rounded: never fused with a product that is one of them, so that two kernels that add the
/// same numbers get the same bits.
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }

/// `from` must be divisible by 16.
template <class T, int Elements, class A>
__device__ inline void load_packet(T const* from, A (&to)[Elements]) {
  constexpr int accesses = static_cast<int>(sizeof(T)) * Elements / 16;
  constexpr int each = Elements / accesses;
#pragma unroll
  for (int i = 0; i < accesses; ++i) {
    uint4 const bits = *reinterpret_cast<uint4 const*>(from + i * each);
    alignas(16) T part[each];
    *reinterpret_cast<uint4*>(part) = bits;
#pragma unroll
    for (int k = 0; k < each; ++k) to[i * each + k] = widen<A>(part[k]);
  }
}

template <class T, int Elements, class A>
__device__ inline void store_packet(T* to, A const (&from)[Elements]) {
  constexpr int accesses = static_cast<int>(sizeof(T)) * Elements / 16;
  constexpr int each = Elements / accesses;
#pragma unroll
  for (int i = 0; i < accesses; ++i) {
    alignas(16) T part[each];
#pragma unroll
    for (int k = 0; k < each; ++k) part[k] = narrow<T>(from[i * each + k]);
    *reinterpret_cast<uint4*>(to + i * each) = *reinterpret_cast<uint4 const*>(part);
  }
}

}  // namespace addloss::cuda
