// SPDX-License-Identifier: MIT
/// The inner loop of a pass on a GPU: the part of one row that one warp takes.
///
/// Elements are counted from the start of the row, so the same thread adds the same numbers in the
/// same order wherever the row lies. Whole steps are read in packets of 16 bytes: where a row
/// pointer is not divisible by 16, in those around what is wanted. The last incomplete step, and
/// where the packets around reach out of the row, is read element by element.
///
/// Summation tree of a warp: element i of a step belongs to the thread that row_reader.cuh says. Of
/// a step a thread adds the elements of each packet pairwise, neighbours first, and its four
/// packets likewise, in the arithmetic type; then steps in order and lanes, neighbours first, in
/// double.
#pragma once

#include <cstdint>

#include <addloss/core/math.hpp>
#include <addloss/cuda/launch.cuh>
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

__device__ inline int lane_sum(int x) {
#if __CUDA_ARCH__ >= 800
  return __reduce_add_sync(every_lane, x);
#else
#pragma unroll
  for (int distance = 1; distance < warp_size; distance *= 2) {
    x += __shfl_xor_sync(every_lane, x, distance);
  }
  return x;
#endif
}
__device__ inline double lane_sum(double x) {
#pragma unroll
  for (int distance = 1; distance < warp_size; distance *= 2) {
    x = add(x, __shfl_xor_sync(every_lane, x, distance));
  }
  return x;
}

/// Adds pairwise, neighbours first.
template <class T, int Count>
__device__ T pairwise_sum(T const (&numbers)[Count]) {
  T sums[Count];
#pragma unroll
  for (int k = 0; k < Count; ++k) sums[k] = numbers[k];
#pragma unroll
  for (int distance = 1; distance < Count; distance *= 2) {
#pragma unroll
    for (int k = 0; k < Count; k += 2 * distance) sums[k] = add(sums[k], sums[k + distance]);
  }
  return sums[0];
}

/// The elements of rows. `Element`: their functor; `A`: arithmetic type; `Out`: storage type of all
/// outputs.
template <class Element, class A, unsigned Sums, unsigned Tallies, class Out, unsigned Outputs,
          int Packet>
struct row_runner {
  static constexpr bool counts = Sums > 0;  ///< non-finite elements are those that spoil a sum
  static constexpr std::int64_t step = step_elements(Packet);
  using totals = element_totals<Sums + Tallies + 1>;
  template <class T, unsigned Count>
  using array_or_none = T[Count > 0 ? Count : 1];  // no arrays of length 0

  array_or_none<Out*, Outputs> out;
  addloss::detail::store_mode mode;

  /// Lane 0 gets the totals of elements `piece` of a row but for those of the other warps: it
  /// starts at a multiple of the step; warp `warp` of `team` takes each `team`-th step.
  /// `make_element` makes the functor, while the first elements are on their way.
  template <class MakeElement, class... Rows>
  __device__ totals run(std::int64_t row_size, addloss::detail::piece const& piece, int warp,
                        int team, MakeElement const& make_element, Rows const&... rows) const {
    return run_steps(row_size, piece.first + warp * step, piece.last, team * static_cast<int>(step),
                     make_element, reader<Rows>{rows, {}}...);
  }

 private:
  template <class... Readers>
  using elements = thread_elements<Packet, (Readers::generates || ...)>;

  /// A row, and what the thread has loaded of it.
  template <class Row>
  struct reader {
    static constexpr bool generates = Row::generates;
    Row row;
    typename Row::template step<Packet> now;
  };

  /// What a thread has added up.
  struct accumulators {
    array_or_none<double, Sums> sum;
    array_or_none<int, Tallies> tally;
    int bad;
  };

  template <class MakeElement, class... Readers>
  __device__ totals run_steps(std::int64_t row_size, std::int64_t base, std::int64_t last,
                              int stride, MakeElement const& make_element,
                              Readers... readers) const {
    int const lane = static_cast<int>(threadIdx.x) % warp_size;
    int const offset = elements<Readers...>::first(lane);
    bool const inputs_aligned = (readers.row.is_aligned() && ...);
    bool const outputs_aligned = outputs_are_aligned();
    // The packets around those of unaligned rows must lie in the row as well.
    std::int64_t const last_whole =
        inputs_aligned ? last - step : addloss::detail::at_most(last, row_size - Packet) - step;
    accumulators all{};
    // So late, all above is done while an earlier kernel ends.
    wait_for_earlier_kernels();
    (readers.row.start(), ...);
    if (base < last) {
      bool whole = base <= last_whole && (inputs_aligned || base > 0);
      if (whole) load<0>(base + offset, inputs_aligned, readers...);
      auto const element = make_element();
#pragma unroll 1
      while (true) {
        if (whole) {
#pragma unroll 1
          while (true) {
            if constexpr (fetches_ahead<Readers...>) {
              if (base + stride <= last_whole) {
                (readers.row.template fetch_ahead<step>(base + stride, lane), ...);
              }
            }
            run_step(element, {base + offset, inputs_aligned, outputs_aligned}, all, readers...);
            base += stride;
            if (base > last_whole) break;
            load<0>(base + offset, inputs_aligned, readers...);
          }
        }
        if (base >= last) break;
        run_edge(element, base, offset, last, all, readers...);
        base += stride;
        whole = base <= last_whole;
        if (whole) load<0>(base + offset, inputs_aligned, readers...);
      }
    }
    totals result{};
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) result.value[s] = lane_sum(all.sum[s]);
    }
    if constexpr (Tallies > 0) {
#pragma unroll
      for (unsigned t = 0; t < Tallies; ++t) result.value[Sums + t] = lane_sum(all.tally[t]);
    }
    if constexpr (counts) result.value[Sums + Tallies] = lane_sum(all.bad);
    return result;
  }

  /// Where a thread is.
  struct position {
    std::int64_t i;  ///< its first element
    bool inputs_aligned;
    bool outputs_aligned;
  };

  /// Quarters that a thread loads at once: all, but where registers would not do.
  template <class... Readers>
  static constexpr int at_once = [] {
    constexpr int registers = (decltype(Readers::now)::registers + ...);
    return registers <= 16 ? 4 : 1;
  }();

  /// Whether the next step is fetched while one is worked on. What the warps of a multiprocessor
  /// read of a single tensor of half types is too little on its way; where there is more, it does
  /// harm.
  template <class... Readers>
  static constexpr bool fetches_ahead =
      sizeof...(Readers) == 1 && Packet > 4 && !(Readers::generates || ...);

  template <int First, class... Readers>
  static __device__ void load(std::int64_t i, bool aligned, Readers&... readers) {
    (readers.row.template load<First, at_once<Readers...>, elements<Readers...>::apart>(readers.now,
                                                                                        i, aligned),
     ...);
  }

  [[nodiscard]] __device__ bool outputs_are_aligned() const {
    bool aligned = true;
    if constexpr (Outputs > 0) {
      if (mode != addloss::detail::store_mode::none) {
#pragma unroll
        for (unsigned o = 0; o < Outputs; ++o) {
          aligned = aligned && reinterpret_cast<std::uintptr_t>(out[o]) % 16 == 0;
        }
      }
    }
    return aligned;
  }

  /// The elements of a thread in one step.
  template <class... Readers>
  __device__ void run_step(Element const& element, position const& at, accumulators& all,
                           Readers&... readers) const {
    (readers.row.begin(readers.now, at.i), ...);
    array_or_none<A[4], Sums> sums;
    run_quarter<0>(element, at, sums, all, readers...);
    if constexpr (at_once<Readers...> == 1) load<1>(at.i, at.inputs_aligned, readers...);
    run_quarter<1>(element, at, sums, all, readers...);
    if constexpr (at_once<Readers...> == 1) load<2>(at.i, at.inputs_aligned, readers...);
    run_quarter<2>(element, at, sums, all, readers...);
    if constexpr (at_once<Readers...> == 1) load<3>(at.i, at.inputs_aligned, readers...);
    run_quarter<3>(element, at, sums, all, readers...);
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) {
        all.sum[s] = add(all.sum[s], static_cast<double>(pairwise_sum(sums[s])));
      }
    }
  }

  template <int Quarter, class... Readers>
  __device__ void run_quarter(Element const& element, position const& at,
                              array_or_none<A[4], Sums>& sums, accumulators& all,
                              Readers const&... readers) const {
    A x[sizeof...(Readers)][Packet];
    unsigned operand = 0;
    (readers.row.template read<Quarter>(readers.now, x[operand++]), ...);
    array_or_none<A, Sums> sum;
    run_packet<true>(element, at.i + elements<Readers...>::apart * Quarter, Packet,
                     at.outputs_aligned, x, sum, all);
    if constexpr (Sums > 0) {
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) sums[s][Quarter] = sum[s];
    }
  }

  /// The same element by element, of any row; elements from `last` on are kept out of outputs and
  /// totals. A loop: unrolled it would double the kernel, for the sake of rows that are rare or
  /// short.
  template <class... Readers>
  __device__ void run_edge(Element const& element, std::int64_t base, int offset, std::int64_t last,
                           accumulators& all, Readers&... readers) const {
    constexpr int apart = elements<Readers...>::apart;
    std::int64_t i = base + offset;
    (readers.row.begin(readers.now, i), ...);
    array_or_none<A, Sums> left;
    array_or_none<A, Sums> half;
#pragma unroll 1
    for (int quarter = 0; quarter < 4; ++quarter, i += apart) {
      array_or_none<A, Sums> sum{};
      // Else no thread of the warp has any.
      if (base + apart * quarter < last) {
        auto const count = static_cast<int>(addloss::detail::at_most(last - i, Packet));
        A x[sizeof...(Readers)][Packet];
        unsigned operand = 0;
        (readers.row.read_first(readers.now, quarter, i, count, x[operand++]), ...);
        run_packet<false>(element, i, count, false, x, sum, all);
      }
      if constexpr (Sums > 0) {
#pragma unroll
        for (unsigned s = 0; s < Sums; ++s) {
          if (quarter % 2 == 0) {
            left[s] = sum[s];
          } else if (quarter == 1) {
            half[s] = add(left[s], sum[s]);
          } else {
            A const total = add(half[s], add(left[s], sum[s]));
            all.sum[s] = add(all.sum[s], static_cast<double>(total));
          }
        }
      }
    }
  }

  /// One packet of a thread, its first `count` elements unless `Whole`, and its sums. `aligned`:
  /// the outputs are.
  template <bool Whole, unsigned Operands>
  __device__ void run_packet(Element const& element, std::int64_t i, int count, bool aligned,
                             A const (&x)[Operands][Packet], array_or_none<A, Sums>& sum,
                             accumulators& all) const {
    auto const inside = [&](int k) { return Whole || k < count; };
    array_or_none<A[Packet], Sums> each;
    array_or_none<A[Packet], Outputs> written;
#pragma unroll
    for (int k = 0; k < Packet; ++k) {
      A operands[Operands];
#pragma unroll
      for (unsigned o = 0; o < Operands; ++o) operands[o] = x[o][k];
      auto const result = element(operands);
      if constexpr (Sums > 0) {
#pragma unroll
        for (unsigned s = 0; s < Sums; ++s) each[s][k] = inside(k) ? result.sum[s] : A(0);
      }
      if constexpr (Outputs > 0) {
#pragma unroll
        for (unsigned o = 0; o < Outputs; ++o) written[o][k] = result.output[o];
      }
      if constexpr (Tallies > 0) {
#pragma unroll
        for (unsigned t = 0; t < Tallies; ++t) {
          all.tally[t] += inside(k) && result.tally[t] ? 1 : 0;
        }
      }
    }
    if constexpr (Sums > 0) {
      // 0 times a number is 0 unless that is not finite; a sum is finite unless one of its numbers
      // is not, or it overflows.
      A suspicion = A(0);
#pragma unroll
      for (int k = 0; k < Packet; ++k) suspicion = suspicion + A(0) * x[0][k];
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) {
        sum[s] = pairwise_sum(each[s]);
        suspicion = suspicion + A(0) * sum[s];
      }
      if (suspicion != A(0)) all.bad += non_finite(x[0], each);
    }
    if constexpr (Outputs > 0) {
      if (mode != addloss::detail::store_mode::none) {
#pragma unroll
        for (unsigned o = 0; o < Outputs; ++o) {
          if constexpr (Whole) {
            put_packet(out[o] + i, aligned, written[o]);
          } else {
#pragma unroll
            for (int k = 0; k < Packet; ++k) {
              if (inside(k)) put(out[o] + i + k, written[o][k]);
            }
          }
        }
      }
    }
  }

  static __device__ int non_finite(A const (&x)[Packet],
                                   array_or_none<A[Packet], Sums> const& sums) {
    int result = 0;
#pragma unroll
    for (int k = 0; k < Packet; ++k) {
      bool finite = math::is_finite(x[k]);
#pragma unroll
      for (unsigned s = 0; s < Sums; ++s) finite = finite && math::is_finite(sums[s][k]);
      result += finite ? 0 : 1;
    }
    return result;
  }

  __device__ void put_packet(Out* to, bool aligned, A (&values)[Packet]) const {
    packet<Out, Packet> there;
    if (mode == addloss::detail::store_mode::add) {
      if (aligned) {
        there.load(to);
        A before[Packet];
        there.widen_to(before);
#pragma unroll
        for (int k = 0; k < Packet; ++k) values[k] = add(before[k], values[k]);
      } else {
#pragma unroll
        for (int k = 0; k < Packet; ++k) values[k] = add(widen<A>(to[k]), values[k]);
      }
    }
    there.narrow_from(values);
    if (aligned) {
      there.store(to);
    } else {
      there.store_words(to);
    }
  }

  __device__ void put(Out* to, A value) const {
    *to = narrow<Out>(mode == addloss::detail::store_mode::add ? add(widen<A>(*to), value) : value);
  }
};

}  // namespace addloss::cuda
