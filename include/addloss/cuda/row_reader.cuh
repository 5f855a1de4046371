// SPDX-License-Identifier: MIT
/// One row of an operand as the threads of a warp read it: stored, or generated from its key.
///
/// A thread reads in one of two patterns, each of 4 quarters (16 elements apart) times `Packet`:
///   packets  elements i + 16 q + k,  k = 0 .. Packet-1: consecutive, one packet a quarter
///   singles  elements i + 128 k + 16 q,  one element each
/// In both a thread uses all four numbers of each Philox block it computes.
#pragma once

#include <cstdint>

#include <addloss/core/normal.hpp>
#include <addloss/cuda/packet.cuh>
#include <addloss/reduce/operand.hpp>

namespace addloss::cuda {

template <class T>
struct stored_row {
  T const* data;

  [[nodiscard]] __device__ bool is_aligned() const {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  }
  /// The elements of a thread from `i` on, in packets.
  template <int Packet>
  struct packets {
    T const* from;
    template <int Quarter, class A>
    __device__ void read(A (&to)[Packet]) const {
      load_packet(from + 16 * Quarter, to);
    }
  };
  template <int Packet>
  [[nodiscard]] __device__ packets<Packet> packets_at(std::int64_t i) const {
    return {data + i};
  }
  /// Elements i + 16 q, 0 from `last` on.
  template <class A>
  __device__ void read_quarters(std::int64_t i, std::int64_t last, A (&to)[4]) const {
#pragma unroll
    for (int quarter = 0; quarter < 4; ++quarter) {
      to[quarter] = i + 16 * quarter < last ? widen<A>(data[i + 16 * quarter]) : A(0);
    }
  }
};

template <class T>
__device__ stored_row<T> row_of(addloss::detail::stored<T> const& operand, std::int64_t row) {
  return {operand.data + row * operand.row_stride};
}

/// The normal numbers of one Philox block: elements 16 apart.
struct four_normals {
  float value[4];
};

__device__ inline four_normals normals_of(random_key const& key, std::uint32_t sample,
                                          std::int64_t element) {
  philox_block const block =
      philox4x32_10(key, sample, static_cast<std::uint32_t>(element / 64 * 16 + element % 16));
  using bits = addloss::detail::scalar_bits;
  auto const first = addloss::detail::box_muller<bits>(block.word[0], block.word[1]);
  auto const second = addloss::detail::box_muller<bits>(block.word[2], block.word[3]);
  return {{first.cosine, first.sine, second.cosine, second.sine}};
}

struct generated_row {
  random_key key;
  std::uint32_t sample;

  [[nodiscard]] __device__ bool is_aligned() const { return true; }
  template <int Packet>
  struct packets {
    four_normals normals[Packet];
    template <int Quarter, class A>
    __device__ void read(A (&to)[Packet]) const {
#pragma unroll
      for (int k = 0; k < Packet; ++k) to[k] = static_cast<A>(normals[k].value[Quarter]);
    }
  };
  template <int Packet>
  [[nodiscard]] __device__ packets<Packet> packets_at(std::int64_t i) const {
    packets<Packet> result;
#pragma unroll
    for (int k = 0; k < Packet; ++k) result.normals[k] = normals_of(key, sample, i + k);
    return result;
  }
  template <class A>
  __device__ void read_quarters(std::int64_t i, std::int64_t /*last*/, A (&to)[4]) const {
    four_normals const normals = normals_of(key, sample, i);
#pragma unroll
    for (int quarter = 0; quarter < 4; ++quarter)
      to[quarter] = static_cast<A>(normals.value[quarter]);
  }
};

__device__ inline generated_row row_of(addloss::detail::generated_operand const& operand,
                                       std::int64_t row) {
  return {operand.current_key(), static_cast<std::uint32_t>(row)};
}

}  // namespace addloss::cuda
