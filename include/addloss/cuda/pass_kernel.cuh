// SPDX-License-Identifier: MIT
/// The one kernel that carries out a pass: all parts and rows, and the finish, in one launch.
///
/// Why this shape: a pass is bound by memory, so a thread keeps 8 to 16 elements of every operand
/// under way at once, and nothing is staged in shared memory. 256 threads of at most 128 registers
/// let two or more blocks share a multiprocessor and hide each other's barriers (`resident_blocks`
/// says where that is given up). One thread makes a
/// row's functor (levels of the schedule, weights: dozens of instructions in double), the others
/// read it. There is a block for each task, so that the hardware balances long and short ones. No
/// speed has been measured yet.
///
/// The finish is done by the block that ends last, which an integer ticket in the workspace finds out;
/// the ticket wraps around to 0. It adds in double, in an order that the extents fix: the entries of a
/// row in slabs of `slab_entries`, the sums of slabs likewise until one is left, then the rows of a
/// part; each time number i by lane i mod 32 of a warp, and the lanes pairwise, neighbours first.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <addloss/cuda/plan.hpp>
#include <addloss/cuda/row_reader.cuh>
#include <addloss/cuda/row_runner.cuh>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss::cuda {

inline constexpr int slab_entries = 128;

/// An operand that is stored or generated, as the call says.
template <class Operand>
concept may_be_generated = requires(Operand x) { x.generated; };

/// The types of a pass that its kernel is made of.
template <class Pass>
struct pass_types {
  static constexpr unsigned operands = Pass::operand_count;
  static constexpr unsigned outputs = Pass::output_count;
  static constexpr unsigned sums = Pass::sum_count;
  static constexpr unsigned tallies = Pass::tally_count;
  /// Without sums and tallies there is nothing to finish, and no workspace is used.
  static constexpr bool finishes = sums + tallies > 0;

  template <unsigned I>
  using operand = decltype(std::declval<Pass const&>().template operand<static_cast<int>(I)>(0, 0));
  /// Of an element in memory; generated ones are in none.
  template <unsigned I>
  static constexpr unsigned operand_size() {
    using type = operand<I>;
    if constexpr (may_be_generated<type>) {
      return sizeof(*std::declval<type>().rows.data);
    } else if constexpr (std::is_same_v<type, addloss::detail::generated_operand>) {
      return sizeof(double);
    } else {
      return sizeof(*std::declval<type>().data);
    }
  }
  static auto output_element() {
    if constexpr (outputs > 0) {
      using output = decltype(std::declval<Pass const&>().template output<0>(0));
      return std::remove_pointer_t<decltype(std::remove_cvref_t<output>::data)>{};
    } else {
      return typename Pass::arithmetic{};
    }
  }
  using output_type = decltype(output_element());
  static constexpr unsigned smallest_size() {
    unsigned size = sizeof(output_type);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((size = operand_size<static_cast<unsigned>(I)>() < size
                   ? operand_size<static_cast<unsigned>(I)>()
                   : size),
       ...);
    }(std::make_index_sequence<operands>{});
    return size;
  }
  static constexpr int packet = packet_elements(smallest_size());

  /// Blocks that are to share a multiprocessor. Two gradients from half types need more registers
  /// than that leaves, and come from logits, which are small.
  static constexpr unsigned resident_blocks = outputs > 1 && packet > 4 ? 1 : 2;

  using element = decltype(std::declval<Pass const&>().row(0, std::int64_t{}));
  using runner =
      row_runner<element, typename Pass::arithmetic, sums, tallies, output_type, outputs, packet>;
  using plan = pass_plan<Pass::max_parts>;
  /// Doubles of an entry: its totals, and the row's weighted loss.
  static constexpr unsigned entry_size = Pass::total_count + 1;
};

/// Memory for a functor that one thread makes and others read.
template <class T>
struct alignas(alignof(T) > 16 ? alignof(T) : 16) shared_storage {
  unsigned char bytes[sizeof(T)];
  __device__ T& object() { return *reinterpret_cast<T*>(bytes); }
};

/// Runs `runner` on a row of each operand; `Generated`: of the noise that may be stored, too.
template <class Pass, bool Generated, unsigned Index = 0, class... Rows>
__device__ auto run_operands(Pass const& pass, typename pass_types<Pass>::runner const& runner,
                             int part, std::int64_t row, addloss::detail::piece const& elements,
                             int warp, int team, Rows const&... rows) {
  using types = pass_types<Pass>;
  if constexpr (Index == types::operands) {
    return runner.run(elements.first, elements.last, warp, team, rows...);
  } else {
    auto const operand = pass.template operand<static_cast<int>(Index)>(part, row);
    auto const row_of_operand = [&] {
      if constexpr (!may_be_generated<decltype(operand)>) {
        return cuda::row_of(operand, row);
      } else if constexpr (Generated) {
        return cuda::row_of(operand.noise, row);
      } else {
        return cuda::row_of(operand.rows, row);
      }
    }();
    return run_operands<Pass, Generated, Index + 1>(pass, runner, part, row, elements, warp, team,
                                                    rows..., row_of_operand);
  }
}

/// The element functor and the outputs of a row.
template <class Pass>
__device__ typename pass_types<Pass>::runner runner_of(
    Pass const& pass, typename pass_types<Pass>::element const& element, int part,
    std::int64_t row) {
  using types = pass_types<Pass>;
  typename types::runner result{element, {}, addloss::detail::store_mode::none};
  if constexpr (types::outputs > 0) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((result.out[I] = pass.template output<static_cast<int>(I)>(part).data +
                        row * pass.template output<static_cast<int>(I)>(part).row_stride),
       ...);
    }(std::make_index_sequence<types::outputs>{});
    result.mode = pass.template output<0>(part).mode;
  }
  return result;
}

/// Adds `count` numbers, `stride` apart: number i by lane i mod 32, then the lanes pairwise,
/// neighbours first. Every lane gets the sum.
__device__ inline double warp_sum(double const* numbers, std::int64_t stride, std::int64_t count) {
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x % warp_size; i < count; i += warp_size) {
    sum += numbers[i * stride];
  }
#pragma unroll
  for (int distance = 1; distance < warp_size; distance *= 2) {
    sum += __shfl_xor_sync(every_lane, sum, distance);
  }
  return sum;
}

/// What the last block does: entries into rows, rows into parts, parts into the results. A sum is the
/// work of one warp; warps take turns, across parts.
template <class Pass>
__device__ void finish_pass(Pass const& pass, typename pass_types<Pass>::plan const& plan,
                            double* entries) {
  using types = pass_types<Pass>;
  constexpr int size = types::entry_size;
  constexpr int totals = Pass::total_count;
  __shared__ double part_totals[Pass::max_parts][totals];
  __shared__ double part_values[Pass::max_parts];
  bool const first_lane = threadIdx.x % warp_size == 0;
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  int const parts = pass.parts();
  // At most max_segments.
  auto const segments_of = [&](int part) { return static_cast<int>(plan.segments[part]); };
  auto const entry_of = [&](int part, std::int64_t row) {
    return entries + (static_cast<std::int64_t>(plan.first_entry[part]) +
                      row * row_entries(segments_of(part))) *
                         size;
  };

  std::int64_t most_rows = 0;
  int most_segments = 0;
#pragma unroll 1
  for (int part = 0; part < parts; ++part) {
    std::int64_t const rows = pass.extent(part).rows;
    most_rows = rows > most_rows ? rows : most_rows;
    most_segments = segments_of(part) > most_segments ? segments_of(part) : most_segments;
  }

  // A slab of entries into the first of them; then a slab of those first ones, until a row has one.
#pragma unroll 1
  for (int apart = 1; apart < most_segments; apart *= slab_entries) {
    int const slab = apart * slab_entries;
    int next = warp;
#pragma unroll 1
    for (int part = 0; part < parts; ++part) {
      int const segments = segments_of(part);
      if (segments <= apart) continue;
      int const slabs = (segments + slab - 1) / slab;
      // Rows of more than one segment are at most max_segments.
      int const sums = static_cast<int>(pass.extent(part).rows) * slabs * totals;
#pragma unroll 1
      for (; next < sums; next += warps) {
        int const first = next / totals % slabs * slab;
        int const last = first + slab < segments ? first + slab : segments;
        double* const place = entry_of(part, next / totals / slabs) + first * size + next % totals;
        double const sum = warp_sum(place, apart * size, (last - first + apart - 1) / apart);
        if (first_lane) *place = sum;
      }
      next -= sums;
    }
    __syncthreads();
  }

  // The loss of each row. The parts of a sample are added to its loss by one thread, in order.
#pragma unroll 1
  for (std::int64_t row = threadIdx.x; row < most_rows; row += threads) {
#pragma unroll 1
    for (int part = 0; part < parts; ++part) {
      if (row >= pass.extent(part).rows) continue;
      double* const entry = entry_of(part, row);
      entry[totals] = pass.finish_row(part, row, entry);
    }
  }
  __syncthreads();

#pragma unroll 1
  for (int next = warp; next < parts * size; next += warps) {
    int const part = next / size;
    int const total = next % size;
    double const sum = warp_sum(entry_of(part, 0) + total, row_entries(segments_of(part)) * size,
                                pass.extent(part).rows);
    if (first_lane) (total < totals ? part_totals[part][total] : part_values[part]) = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) pass.finish(part_totals, part_values);
}

/// `workspace`: see cuda_context; null where nothing is to be finished.
template <class Pass, bool Generated>
__global__ void __launch_bounds__(threads, pass_types<Pass>::resident_blocks)
    run_pass(__grid_constant__ Pass const pass,
             __grid_constant__ typename pass_types<Pass>::plan const plan, std::int64_t tasks,
             unsigned* ticket, double* entries) {
  using types = pass_types<Pass>;
  using totals = typename types::runner::totals;
  constexpr unsigned total_count = Pass::total_count;
  __shared__ shared_storage<typename types::element> elements[warps];
  __shared__ double warp_totals[warps][total_count];
  __shared__ bool is_last;
  int const lane = static_cast<int>(threadIdx.x) % warp_size;
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  int part = 0;
  for (std::int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    while (task >= static_cast<std::int64_t>(plan.first_task[part + 1])) ++part;
    std::int64_t const index = task - static_cast<std::int64_t>(plan.first_task[part]);
    auto const segments = static_cast<std::int64_t>(plan.segments[part]);
    part_extent const extent = pass.extent(part);
    // A row a warp, or a segment of a row for all of them.
    bool const alone = segments == 0;
    std::int64_t const row = alone ? index * warps + warp : index / segments;
    bool const active = row < extent.rows;
    int const slot = alone ? warp : 0;
    if (active && (alone ? lane : static_cast<int>(threadIdx.x)) == 0) {
      elements[slot].object() = pass.row(part, row);
    }
    __syncthreads();
    totals sums{};
    if (active) {
      addloss::detail::piece const piece =
          alone ? addloss::detail::piece{0, extent.row_size}
                : segment_elements(extent.row_size, types::packet, segments, index % segments);
      sums =
          run_operands<Pass, Generated>(pass, runner_of(pass, elements[slot].object(), part, row),
                                        part, row, piece, alone ? 0 : warp, alone ? 1 : warps);
    }
    if constexpr (types::finishes) {
      if (lane == 0) {
#pragma unroll
        for (unsigned t = 0; t < total_count; ++t) warp_totals[warp][t] = sums.value[t];
      }
      __syncthreads();
      constexpr unsigned size = types::entry_size;
      double* const first = entries + (static_cast<std::int64_t>(plan.first_entry[part]) +
                                       (alone ? index * warps : index)) *
                                          static_cast<std::int64_t>(size);
      if (threadIdx.x < (alone ? warps * total_count : total_count)) {
        unsigned const t = threadIdx.x % total_count;
        unsigned const from = threadIdx.x / total_count;
        if (alone) {
          if (index * warps + from < extent.rows) first[from * size + t] = warp_totals[from][t];
        } else {
          double sum = warp_totals[0][t];
          for (int w = 1; w < warps; ++w) sum += warp_totals[w][t];
          first[t] = sum;
        }
      }
    }
    // Shared memory is written again.
    __syncthreads();
  }
  if constexpr (types::finishes) {
    // Between the block's barriers one thread stands for all: their entries are in memory before the
    // ticket says so, and those of other blocks are read after it was seen.
    if (threadIdx.x == 0) {
      __threadfence();
      is_last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
      __threadfence();
    }
    __syncthreads();
    if (is_last) finish_pass(pass, plan, entries);
  }
}

}  // namespace addloss::cuda
