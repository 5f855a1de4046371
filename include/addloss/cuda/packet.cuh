// SPDX-License-Identifier: MIT
/// Elements from and to the memory of a GPU in every storage type: widened after the load, rounded
/// before the store (to nearest, ties to even), the same numbers as the conversions of
/// core/scalar.hpp.
///
/// A packet is `Elements` consecutive elements in accesses of 16 bytes each: 16 bytes of the
/// smallest type of a pass, 32 or 64 of the others.
#pragma once

#include <concepts>
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

/// Two neighbours of a half type, the first in the low bits.
template <class T>
__device__ inline std::uint32_t narrow_pair(float first, float second) {
#if __CUDA_ARCH__ >= 800
  std::uint32_t result;
  if constexpr (std::same_as<T, half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  }
  return result;
#else
  return static_cast<std::uint32_t>(narrow<T>(second).bits) << 16 | narrow<T>(first).bits;
#endif
}

/// a + b, rounded: never fused with a product that is one of them, so that two kernels that add the
/// same numbers get the same bits.
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }

/// Consecutive elements as memory holds them, in registers: as elements of their own, halves would
/// take a register each.
template <class T, int Elements>
struct packet {
  static constexpr int accesses = static_cast<int>(sizeof(T)) * Elements / 16;
  static constexpr int each = Elements / accesses;
  std::uint32_t word[4 * accesses];

  /// `from` must be divisible by 16.
  __device__ void load(T const* from) {
#pragma unroll
    for (int i = 0; i < accesses; ++i) {
      uint4 const bits = *reinterpret_cast<uint4 const*>(from + i * each);
      word[4 * i] = bits.x;
      word[4 * i + 1] = bits.y;
      word[4 * i + 2] = bits.z;
      word[4 * i + 3] = bits.w;
    }
  }
  /// From any address. Halves come in the accesses around them, which reach up to 14 bytes before
  /// the first and 16 beyond the last; elements of 4 bytes and more one by one.
  __device__ void load_unaligned(T const* from) {
    constexpr int words = 4 * accesses;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < words; ++i) word[i] = reinterpret_cast<std::uint32_t const*>(from)[i];
    } else if constexpr (sizeof(T) == 8) {
#pragma unroll
      for (int i = 0; i < words / 2; ++i) {
        uint2 const bits = reinterpret_cast<uint2 const*>(from)[i];
        word[2 * i] = bits.x;
        word[2 * i + 1] = bits.y;
      }
    } else {
      auto const distance = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(from) % 16);
      auto const* const aligned =
          reinterpret_cast<uint4 const*>(reinterpret_cast<unsigned char const*>(from) - distance);
      std::uint32_t read[words + 4];
#pragma unroll
      for (int i = 0; i <= accesses; ++i) {
        uint4 const bits = aligned[i];
        read[4 * i] = bits.x;
        read[4 * i + 1] = bits.y;
        read[4 * i + 2] = bits.z;
        read[4 * i + 3] = bits.w;
      }
#pragma unroll
      for (int i = 0; i < words + 2; ++i) read[i] = (distance & 8U) != 0 ? read[i + 2] : read[i];
#pragma unroll
      for (int i = 0; i < words + 1; ++i) read[i] = (distance & 4U) != 0 ? read[i + 1] : read[i];
#pragma unroll
      for (int i = 0; i < words; ++i) {
        word[i] = __funnelshift_r(read[i], read[i + 1], (distance & 2U) * 8);
      }
    }
  }
  template <class A>
  __device__ void widen_to(A (&to)[Elements]) const {
#pragma unroll
    for (int k = 0; k < Elements; ++k) {
      if constexpr (sizeof(T) == 2) {
        T element;
        element.bits = static_cast<std::uint16_t>(word[k / 2] >> (k % 2 * 16));
        to[k] = widen<A>(element);
      } else if constexpr (sizeof(T) == 4) {
        to[k] = static_cast<A>(__uint_as_float(word[k]));
      } else {
        to[k] = static_cast<A>(
            __hiloint2double(static_cast<int>(word[2 * k + 1]), static_cast<int>(word[2 * k])));
      }
    }
  }

  template <class A>
  __device__ void narrow_from(A const (&from)[Elements]) {
#pragma unroll
    for (int k = 0; k < Elements; ++k) {
      if constexpr (sizeof(T) == 2) {
        if (k % 2 == 0) {
          word[k / 2] =
              narrow_pair<T>(static_cast<float>(from[k]), static_cast<float>(from[k + 1]));
        }
      } else if constexpr (sizeof(T) == 4) {
        word[k] = __float_as_uint(narrow<T>(from[k]));
      } else {
        word[2 * k] = static_cast<std::uint32_t>(__double2loint(narrow<T>(from[k])));
        word[2 * k + 1] = static_cast<std::uint32_t>(__double2hiint(narrow<T>(from[k])));
      }
    }
  }
  /// `to` must be divisible by 16.
  __device__ void store(T* to) const {
#pragma unroll
    for (int i = 0; i < accesses; ++i) {
      *reinterpret_cast<uint4*>(to + i * each) = {word[4 * i], word[4 * i + 1], word[4 * i + 2],
                                                  word[4 * i + 3]};
    }
  }
  /// To any address.
  __device__ void store_words(T* to) const {
    constexpr int words = 4 * accesses;
    auto* const place = reinterpret_cast<std::uint32_t*>(to);
    if (sizeof(T) >= 4 || reinterpret_cast<std::uintptr_t>(to) % 4 == 0) {
#pragma unroll
      for (int i = 0; i < words; ++i) place[i] = word[i];
      return;
    }
    // Between the first and the last half, words out of two.
    auto* const halves = reinterpret_cast<std::uint16_t*>(to);
    halves[0] = static_cast<std::uint16_t>(word[0]);
#pragma unroll
    for (int i = 0; i + 1 < words; ++i) {
      reinterpret_cast<std::uint32_t*>(halves + 1)[i] = __funnelshift_r(word[i], word[i + 1], 16);
    }
    halves[2 * words - 1] = static_cast<std::uint16_t>(word[words - 1] >> 16);
  }
};

}  // namespace addloss::cuda
