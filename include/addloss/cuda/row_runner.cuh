// SPDX-License-Identifier: MIT
/// The inner loop of a pass on a GPU: the part of one row that one warp takes.
///
/// Elements are counted from the start of the row, so the same numbers are added in the same order
/// wherever the row lies. Where every row pointer is divisible by 16, whole steps are read and
/// written in packets; elsewhere, and in the last incomplete step, element by element, 16 neighbours
/// by 16 threads. (Peeling off a head until packets fit would move every element to another thread,
/// and make the bits of a sum depend on its address.)
///
/// Summation tree of a warp, S = step_elements: element i belongs to lane group (i mod S) / 64 and
/// lane i mod 16. Four elements of a lane, 16 apart, are added pairwise; those of up to 16 whole
/// steps, or of the last incomplete step, in turn: all in the arithmetic type. Then in double the
/// lanes, neighbours first, and the groups alike, and such chunks in order.
#pragma once

#include <cstdint>
#include <type_traits>

#include <addloss/core/math.hpp>
#include <addloss/cuda/packet.cuh>
#include <addloss/cuda/plan.hpp>
#include <addloss/cuda/row_reader.cuh>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss::cuda {

/// Totals over elements: the sums, then the tallies, then the number of non-finite elements.
template <unsigned Count>
struct element_totals {
  double value[Count];
};

inline constexpr unsigned every_lane = 0xffffffffU;

/// `Element` on the elements of rows. `A`: arithmetic type; `Out`: storage type of all outputs.
template <class Element, class A, unsigned Sums, unsigned Tallies, class Out, unsigned Outputs,
          int Packet>
struct row_runner {
  static constexpr bool counts = Sums > 0;  ///< non-finite elements are those that spoil a sum
  static constexpr bool totals_wanted = Sums + Tallies > 0;
  static constexpr std::int64_t step = step_elements(Packet);
  using totals = element_totals<Sums + Tallies + 1>;
  template <class T, unsigned Count>
  using slots = T[Count > 0 ? Count : 1];  // no arrays of length 0

  Element element;
  slots<Out*, Outputs> out;
  addloss::detail::store_mode mode;

  /// What a thread holds of one chunk of packets, and of one of single elements.
  struct accumulators {
    slots<A[Packet], Sums> sum;
    slots<int, Tallies> tally;
    int bad;
  };

  struct single_accumulators {
    slots<A, Sums> sum;
    slots<int, Tallies> tally;
    int bad;
  };

  /// Lane 0 gets the totals of elements [first, last) but for those of the other warps: `first` is a
  /// multiple of the step; warp `warp` of `team` takes each `team`-th step.
  template <class... Rows>
  __device__ totals run(std::int64_t first, std::int64_t last, int warp, int team,
                        Rows const&... rows) const {
    int const lane = static_cast<int>(threadIdx.x) % warp_size;
    bool aligned = (rows.is_aligned() && ...);
    if constexpr (Outputs > 0) {
      if (mode != addloss::detail::store_mode::none) {
        for (unsigned i = 0; i < Outputs; ++i) {
          aligned = aligned && reinterpret_cast<std::uintptr_t>(out[i]) % 16 == 0;
        }
      }
    }
    totals result{};
    std::int64_t const stride = team * step;
    std::int64_t base = first + warp * step;
    if (aligned) {
      while (last - base >= step) {
        accumulators chunk{};
        int done = 0;
        do {
          packet_step(base + packet_offset(lane), chunk, rows...);
          base += stride;
        } while (++done < chunk_steps && last - base >= step);
        if constexpr (totals_wanted) add_chunk(result, chunk);
      }
    }
    while (base < last) {
      int steps = 0;
      for (std::int64_t next = base; steps < chunk_steps && last - next >= step; next += stride) {
        ++steps;
      }
      if (steps == 0) steps = 1;  // the last one, incomplete
      add_singles(result, base, last, stride, steps, rows...);
      base += steps * stride;
    }
    return result;
  }

 private:
  static constexpr int lanes_of_group =
      16 / Packet;  // that share a group of 64 elements in packets

  static __device__ int packet_offset(int lane) {
    return lane / lanes_of_group * 64 + lane % lanes_of_group * Packet;
  }

  /// Quarters whose packets a thread has under way at once: as many as 128 registers have room for,
  /// with which two blocks share a multiprocessor. (Found by trying; where the estimate is wrong, the
  /// compiler spills registers.)
  template <int Operands, bool Generated>
  static __host__ __device__ constexpr int quarters_at_once() {
    if (Packet <= 4) return Outputs <= 1 ? 4 : 2;
    constexpr int sums = 3 * static_cast<int>(Sums);
    constexpr int numbers = 2 * Operands + sums + static_cast<int>(Outputs) + (Generated ? 4 : 0);
    return Packet * numbers <= 112 ? 2 : 1;
  }

  template <class... Rows>
  __device__ void packet_step(std::int64_t i, accumulators& chunk, Rows const&... rows) const {
    constexpr bool generated = (std::is_same_v<Rows, generated_row> || ...);
    run_packets<quarters_at_once<static_cast<int>(sizeof...(Rows)), generated>()>(
        i, chunk, rows.template packets_at<Packet>(i)...);
  }

  template <int AtOnce, class... Packets>
  __device__ void run_packets(std::int64_t i, accumulators& chunk, Packets const&... from) const {
    slots<A[Packet], Sums> pair_sum[2];
    A x[AtOnce][sizeof...(Packets)][Packet];
    read_quarter<0>(x[0], from...);
    if constexpr (AtOnce >= 2) read_quarter<1>(x[1], from...);
    if constexpr (AtOnce == 4) {
      read_quarter<2>(x[2], from...);
      read_quarter<3>(x[3], from...);
    }
    run_packet<false>(i, x[0], pair_sum[0], chunk);
    if constexpr (AtOnce == 1) read_quarter<1>(x[0], from...);
    run_packet<true>(i + 16, x[1 % AtOnce], pair_sum[0], chunk);
    if constexpr (AtOnce < 4) read_quarter<2>(x[0], from...);
    if constexpr (AtOnce == 2) read_quarter<3>(x[1], from...);
    run_packet<false>(i + 32, x[2 % AtOnce], pair_sum[1], chunk);
    if constexpr (AtOnce == 1) read_quarter<3>(x[0], from...);
    run_packet<true>(i + 48, x[3 % AtOnce], pair_sum[1], chunk);
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) {
#pragma unroll
        for (int k = 0; k < Packet; ++k) {
          chunk.sum[s][k] = add(chunk.sum[s][k], add(pair_sum[0][s][k], pair_sum[1][s][k]));
        }
      }
    }
  }

  template <int Quarter, unsigned Operands, class... Packets>
  static __device__ void read_quarter(A (&x)[Operands][Packet], Packets const&... from) {
    unsigned operand = 0;
    (from.template read<Quarter>(x[operand++]), ...);
  }

  /// One quarter of a thread's elements: its sums, or with them those of the quarter before.
  template <bool Adds, unsigned Operands>
  __device__ void run_packet(std::int64_t i, A const (&x)[Operands][Packet],
                             slots<A[Packet], Sums>& sum, accumulators& chunk) const {
    slots<A[Packet], Outputs> written;
#pragma unroll
    for (int k = 0; k < Packet; ++k) {
      A operands[Operands];
#pragma unroll
      for (unsigned o = 0; o < Operands; ++o) operands[o] = x[o][k];
      auto const result = element(operands);
      if constexpr (Sums > 0) {
#pragma unroll
        for (unsigned s = 0; s < Sums; ++s) {
          sum[s][k] = Adds ? add(sum[s][k], result.sum[s]) : result.sum[s];
        }
      }
      if constexpr (Outputs > 0) {
#pragma unroll
        for (unsigned o = 0; o < Outputs; ++o) written[o][k] = result.output[o];
      }
      count(operands, result, true, chunk);
    }
    if constexpr (Outputs > 0) {
      if (mode != addloss::detail::store_mode::none) {
#pragma unroll
        for (unsigned o = 0; o < Outputs; ++o) put_packet(out[o] + i, written[o]);
      }
    }
  }

  __device__ void put_packet(Out* to, A (&values)[Packet]) const {
    if (mode == addloss::detail::store_mode::add) {
      A there[Packet];
      load_packet(to, there);
#pragma unroll
      for (int k = 0; k < Packet; ++k) values[k] = add(there[k], values[k]);
    }
    store_packet(to, values);
  }

  /// Steps element by element; elements from `last` on are kept out of outputs and totals. A loop
  /// over the accumulators, each with all its steps: unrolled like packets it would double the
  /// kernel, for the sake of rows that are rare or short.
  template <class... Rows>
  __device__ void add_singles(totals& result, std::int64_t base, std::int64_t last,
                              std::int64_t stride, int steps, Rows const&... rows) const {
    int const lane = static_cast<int>(threadIdx.x) % warp_size;
    slots<double, Sums> part{};
    single_accumulators chunk{};
#pragma unroll 1
    for (int k = 0; k < Packet && base + 128 * k < last; ++k) {
      if constexpr (Sums > 0) {
#pragma unroll
        for (unsigned s = 0; s < Sums; ++s) chunk.sum[s] = A(0);
      }
      std::int64_t i = base + 128 * k + lane / 16 * 64 + lane % 16;
#pragma unroll 1
      for (int n = 0; n < steps; ++n, i += stride) {
        A x[sizeof...(Rows)][4];
        unsigned operand = 0;
        (rows.read_quarters(i, last, x[operand++]), ...);
        run_quarters(i, last, x, chunk);
      }
      if constexpr (Sums > 0) {
#pragma unroll
        for (unsigned s = 0; s < Sums; ++s) {
          auto sum = static_cast<double>(chunk.sum[s]);
          fold_lanes<warp_size>(sum);
          if (lane == k) part[s] = sum;
        }
      }
    }
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) {
        fold_lanes<Packet>(part[s]);
        result.value[s] = add(result.value[s], part[s]);
      }
    }
    add_counts(result, chunk.tally, chunk.bad);
  }

  template <unsigned Operands>
  __device__ void run_quarters(std::int64_t i, std::int64_t last, A const (&x)[Operands][4],
                               single_accumulators& chunk) const {
    slots<A[4], Sums> sum;
#pragma unroll
    for (int quarter = 0; quarter < 4; ++quarter) {
      std::int64_t const place = i + 16 * quarter;
      bool const inside = place < last;
      A operands[Operands];
#pragma unroll
      for (unsigned o = 0; o < Operands; ++o) operands[o] = x[o][quarter];
      auto const result = element(operands);
      if constexpr (Outputs > 0) {
        if (inside && mode != addloss::detail::store_mode::none) {
#pragma unroll
          for (unsigned o = 0; o < Outputs; ++o) {
            A value = result.output[o];
            if (mode == addloss::detail::store_mode::add) {
              value = add(widen<A>(out[o][place]), value);
            }
            out[o][place] = narrow<Out>(value);
          }
        }
      }
      if constexpr (Sums > 0) {
#pragma unroll
        for (unsigned s = 0; s < Sums; ++s) sum[s][quarter] = inside ? result.sum[s] : A(0);
      }
      count(operands, result, inside, chunk);
    }
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) {
        chunk.sum[s] = add(chunk.sum[s], add(add(sum[s][0], sum[s][1]), add(sum[s][2], sum[s][3])));
      }
    }
  }

  template <unsigned Operands, class Result, class Chunk>
  static __device__ void count(A const (&x)[Operands], Result const& result, bool inside,
                               Chunk& chunk) {
    if constexpr (counts) {
      bool finite = math::is_finite(x[0]);
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) finite = finite && math::is_finite(result.sum[s]);
      chunk.bad += inside && !finite ? 1 : 0;
    }
    if constexpr (Tallies > 0) {
#pragma unroll
      for (unsigned t = 0; t < Tallies; ++t) chunk.tally[t] += inside && result.tally[t] ? 1 : 0;
    }
  }

  static __device__ int lane_sum(int x) {
#pragma unroll
    for (int distance = 1; distance < warp_size; distance *= 2) {
      x += __shfl_xor_sync(every_lane, x, distance);
    }
    return x;
  }

  /// A bit of the element's index is a bit of the thread's or one of the accumulator's, in another
  /// place for packets than for singles; both add over the lowest bit of the index first.
  static __device__ double fold(A const (&lanes)[Packet]) {
    double part[Packet];
#pragma unroll
    for (int k = 0; k < Packet; ++k) part[k] = static_cast<double>(lanes[k]);
#pragma unroll
    for (int distance = 1; distance < Packet; distance *= 2) {
#pragma unroll
      for (int k = 0; k < Packet; k += 2 * distance) part[k] = add(part[k], part[k + distance]);
    }
    fold_lanes<warp_size>(part[0]);
    return part[0];
  }
  /// Over the first `Count` lanes.
  template <int Count>
  static __device__ void fold_lanes(double& x) {
#pragma unroll
    for (int distance = 1; distance < Count; distance *= 2) {
      x = add(x, __shfl_xor_sync(every_lane, x, distance));
    }
  }

  static __device__ void add_chunk(totals& result, accumulators const& chunk) {
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) {
        result.value[s] = add(result.value[s], fold(chunk.sum[s]));
      }
    }
    add_counts(result, chunk.tally, chunk.bad);
  }
  static __device__ void add_counts(totals& result, slots<int, Tallies> const& tally, int bad) {
    if constexpr (Tallies > 0) {
#pragma unroll
      for (unsigned t = 0; t < Tallies; ++t) result.value[Sums + t] += lane_sum(tally[t]);
    }
    if constexpr (counts) result.value[Sums + Tallies] += lane_sum(bad);
  }
};

}  // namespace addloss::cuda
