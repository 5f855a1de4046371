// SPDX-License-Identifier: MIT
/// One row of an operand as the threads of a warp read it: stored, or generated from its key. Made
/// from the arguments of a kernel alone; `start` reads what lies in memory.
///
/// Of each step a thread reads 4 packets ("quarters"): elements i + apart q + k, k = 0 .. Packet-1.
/// Where all operands are stored, the quarters of a warp lie one after the other, each in one
/// piece: i = Packet lane, apart = 32 Packet. Where one is generated, a thread's quarters are 16
/// elements apart, so that it uses all four numbers of each Philox block it computes; the memory
/// that a warp reads at once then lies in pieces of 16 elements.
#pragma once

#include <cstdint>

#include <addloss/core/normal.hpp>
#include <addloss/cuda/packet.cuh>
#include <addloss/cuda/plan.hpp>
#include <addloss/reduce/operand.hpp>

namespace addloss::cuda {

/// Which elements of a step a thread has.
template <int Packet, bool Generates>
struct thread_elements {
  static constexpr int apart = Generates ? 16 : warp_size * Packet;
  static __device__ int first(int lane) {
    constexpr int lanes_of_group = 16 / Packet;  // that share a group of 64 elements
    return Generates ? lane / lanes_of_group * 64 + lane % lanes_of_group * Packet : lane * Packet;
  }
};

/// The elements of a thread in one step: loaded first, widened quarter by quarter when needed.
template <class T, int Packet>
struct stored_step {
  static constexpr int registers = 4 * packet<T, Packet>::accesses;  ///< of a quarter
  packet<T, Packet> quarters[4];
};

template <class T>
struct stored_row {
  static constexpr bool generates = false;
  template <int Packet>
  using step = stored_step<T, Packet>;
  T const* data;

  [[nodiscard]] __device__ bool is_aligned() const {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  }
  __device__ void start() {}
  /// Begins to bring the `Count` elements from `i` on into the second-level cache, a line a lane.
  template <std::int64_t Count>
  __device__ void fetch_ahead(std::int64_t i, int lane) const {
    constexpr int line = 128;
    constexpr auto bytes = static_cast<int>(Count * static_cast<std::int64_t>(sizeof(T)));
    static_assert(bytes <= line * warp_size);
    if (lane * line < bytes) {
      auto const* const at = reinterpret_cast<unsigned char const*>(data + i) + lane * line;
      asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
    }
  }
  template <int Packet>
  __device__ void begin(stored_step<T, Packet>& /*step*/, std::int64_t /*i*/) const {}
  /// `Count` quarters of the step at `i`, `Apart` elements apart. Unless `aligned`, up to 14 bytes
  /// before and 16 bytes beyond each are read.
  template <int First, int Count, int Apart, int Packet>
  __device__ void load(stored_step<T, Packet>& to, std::int64_t i, bool aligned) const {
    if (aligned) {
#pragma unroll
      for (int q = First; q < First + Count; ++q) to.quarters[q].load(data + i + Apart * q);
    } else {
#pragma unroll
      for (int q = First; q < First + Count; ++q)
        to.quarters[q].load_unaligned(data + i + Apart * q);
    }
  }
  template <int Quarter, class A, int Packet>
  __device__ void read(stored_step<T, Packet> const& from, A (&to)[Packet]) const {
    from.quarters[Quarter].widen_to(to);
  }
  /// From memory, at `i`, in any row: the first `count` elements, then 0.
  template <class A, int Packet>
  __device__ void read_first(stored_step<T, Packet> const& /*from*/, int /*quarter*/,
                             std::int64_t i, int count, A (&to)[Packet]) const {
#pragma unroll
    for (int k = 0; k < Packet; ++k) to[k] = k < count ? widen<A>(data[i + k]) : A(0);
  }
};

template <class T>
__device__ stored_row<T> row_of(addloss::detail::stored<T> const& operand, std::int64_t row) {
  return {operand.data + row * operand.row_stride};
}

/// The numbers of `Packet` Philox blocks, each of which has one in each quarter.
template <int Packet>
struct generated_step {
  static constexpr int registers = Packet;  ///< of a quarter
  float quarters[4][Packet];
};

struct generated_row {
  static constexpr bool generates = true;
  template <int Packet>
  using step = generated_step<Packet>;
  addloss::detail::generated_operand noise;
  std::uint32_t sample;

  [[nodiscard]] __device__ bool is_aligned() const { return true; }
  /// Reads the key.
  __device__ void start() { noise = {noise.current_key()}; }
  template <int First, int Count, int Apart, int Packet>
  __device__ void load(generated_step<Packet>& /*step*/, std::int64_t /*i*/,
                       bool /*aligned*/) const {}
  template <int Packet>
  __device__ void begin(generated_step<Packet>& to, std::int64_t i) const {
    using bits = addloss::detail::scalar_bits;
    random_key const& key = noise.key;
    auto const place = static_cast<std::uint64_t>(i);
    auto const block = static_cast<std::uint32_t>(place / 64 * 16 + place % 16);
    philox_block words[Packet];
#pragma unroll
    for (int k = 0; k < Packet; ++k) {
      words[k] = philox_counter(key, sample, block + static_cast<std::uint32_t>(k));
    }
    // Or the keys of all rounds would stay in registers from step to step.
    std::uint64_t seed = key.seed;
    asm("" : "+l"(seed) : "l"(i));
    // All blocks round by round: they share the round's keys.
#pragma unroll
    for (int round = 0; round < addloss::detail::philox_rounds; ++round) {
#pragma unroll
      for (int k = 0; k < Packet; ++k) {
        words[k] = addloss::detail::philox_round(words[k], seed, round);
      }
    }
#pragma unroll
    for (int k = 0; k < Packet; ++k) {
      auto const [word] = words[k];
      auto const first = addloss::detail::box_muller<bits>(word[0], word[1]);
      auto const second = addloss::detail::box_muller<bits>(word[2], word[3]);
      to.quarters[0][k] = first.cosine;
      to.quarters[1][k] = first.sine;
      to.quarters[2][k] = second.cosine;
      to.quarters[3][k] = second.sine;
    }
  }
  template <int Quarter, class A, int Packet>
  __device__ void read(generated_step<Packet> const& from, A (&to)[Packet]) const {
#pragma unroll
    for (int k = 0; k < Packet; ++k) to[k] = static_cast<A>(from.quarters[Quarter][k]);
  }
  template <class A, int Packet>
  __device__ void read_first(generated_step<Packet> const& from, int quarter, std::int64_t /*i*/,
                             int /*count*/, A (&to)[Packet]) const {
#pragma unroll
    for (int k = 0; k < Packet; ++k) {
      // A loop's index would move the array to local memory.
      to[k] = static_cast<A>(quarter == 0   ? from.quarters[0][k]
                             : quarter == 1 ? from.quarters[1][k]
                             : quarter == 2 ? from.quarters[2][k]
                                            : from.quarters[3][k]);
    }
  }
};

__device__ inline generated_row row_of(addloss::detail::generated_operand const& operand,
                                       std::int64_t row) {
  return {operand, static_cast<std::uint32_t>(row)};
}

}  // namespace addloss::cuda
