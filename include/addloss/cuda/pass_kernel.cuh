// SPDX-License-Identifier: MIT
/// The one kernel that carries out a pass: all parts and rows, and the finish, in one launch.
///
/// Why this shape: a pass is bound by memory, so a thread always has packets of each operand on their
/// way (row_runner.cuh), and nothing is staged in shared memory. Blocks are small, 128 threads, so that
/// as many share a multiprocessor as its registers allow. Every thread makes the row's functor for itself,
/// while its first packets are on their way: handing it over would cost a barrier before any could be
/// used. There is a block for each task, so that the hardware balances long and short ones. Warps
/// meet at the end of a task only. What that reaches: benchmarks/NOTES.md.
///
/// The finish is done by the block that ends last, which an integer ticket in the workspace finds out;
/// the ticket wraps around to 0. It is short of time, not of work: each read waits for the L2 cache,
/// so a thread reads a slab of `slab_entries` numbers at once and adds them pairwise, neighbours
/// first, in double. Slabs of the entries of a row, slabs of their sums likewise until one is left,
/// then the rows of a part: an order that the extents fix.
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

inline constexpr int slab_entries = 8;

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

  /// Registers for the packets of a thread's quarter, and for noise that may be generated.
  static constexpr unsigned registers = [] {
    unsigned result = 0;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((result += operand_size<static_cast<unsigned>(I)>() * packet / 4), ...);
    }(std::make_index_sequence<operands>{});
    return result;
  }();
  using element = std::remove_cvref_t<decltype(std::declval<Pass const&>().row(0, std::int64_t{}))>;

  /// Blocks that are to share a multiprocessor, at least: as many as registers are left for. (Found
  /// by trying; with more, the compiler spills.) `generated`: noise that may be stored is not.
  static constexpr unsigned resident_blocks(bool generated) {
    if (outputs > 1) return packet <= 4 ? 4 : 2;
    if (packet > 4 && (generated || registers > 16)) return 3;
    if (registers > 8 || (sums > 1 && sizeof(typename Pass::arithmetic) > 4)) return 4;
    if (sums == 0 || (sums == 1 && registers <= 4 && packet <= 4)) return 6;
    return packet <= 4 && sizeof(element) <= 12 ? 5 : 4;
  }

  using runner =
      row_runner<element, typename Pass::arithmetic, sums, tallies, output_type, outputs, packet>;
  using plan = pass_plan<Pass::max_parts>;
  /// Doubles of an entry: its totals, and the row's weighted loss.
  static constexpr unsigned entry_size = Pass::total_count + 1;
};

/// Runs `runner` on a row of each operand; `Generated`: of the noise that may be stored, too.
template <class Pass, bool Generated, unsigned Index = 0, class... Rows>
__device__ auto run_operands(Pass const& pass, typename pass_types<Pass>::runner const& runner,
                             int part, std::int64_t row, addloss::detail::piece const& elements,
                             int warp, int team, Rows const&... rows) {
  using types = pass_types<Pass>;
  if constexpr (Index == types::operands) {
    return runner.run(
        pass.extent(part).row_size, elements, warp, team, [&] { return pass.row(part, row); },
        rows...);
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

/// The outputs of a row.
template <class Pass>
__device__ typename pass_types<Pass>::runner runner_of(Pass const& pass, int part,
                                                       std::int64_t row) {
  using types = pass_types<Pass>;
  typename types::runner result{{}, addloss::detail::store_mode::none};
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

/// Adds numbers that lie `stride` apart, at most slab_entries of them: pairwise, neighbours first.
__device__ inline double slab_sum(double const* numbers, std::int64_t stride, std::int64_t count) {
  if (count == 1) return numbers[0];
  double number[slab_entries];
#pragma unroll
  for (int i = 0; i < slab_entries; ++i) number[i] = i < count ? numbers[i * stride] : 0.0;
  return pairwise_sum(number);
}

/// What the last block does: entries into rows, rows into parts, parts into the results. A sum of a
/// slab is the work of one thread; threads take turns, across parts.
template <class Pass>
__device__ void finish_pass(Pass const& pass, typename pass_types<Pass>::plan const& plan,
                            double* entries) {
  using types = pass_types<Pass>;
  constexpr int size = types::entry_size;
  constexpr int totals = Pass::total_count;
  __shared__ double part_values[Pass::max_parts];
  __shared__ double part_bad[Pass::max_parts];
  int const parts = pass.parts();
  auto const entries_of_row = [&](int part) {
    return row_entries(static_cast<std::int64_t>(plan.segments[part]));
  };
  auto const entry_of = [&](int part, std::int64_t row) {
    return entries +
           (static_cast<std::int64_t>(plan.first_entry[part]) + row * entries_of_row(part)) * size;
  };

  // Slabs of entries into the first of each; then slabs of those first ones, until a row has no more
  // than a slab.
  int apart = 1;
#pragma unroll 1
  for (; static_cast<int>(plan.most_segments) > apart * slab_entries; apart *= slab_entries) {
    int const slab = apart * slab_entries;
    int next = static_cast<int>(threadIdx.x);
#pragma unroll 1
    for (int part = 0; part < parts; ++part) {
      // At most max_segments in all rows, where a row has more than one.
      auto const segments = static_cast<int>(entries_of_row(part));
      if (segments <= slab_entries) continue;
      int const slabs = (segments + slab - 1) / slab;
      int const sums = static_cast<int>(pass.extent(part).rows) * slabs * totals;
#pragma unroll 1
      for (; next < sums; next += threads) {
        int const first = next / totals % slabs * slab;
        double* const place = entry_of(part, next / totals / slabs) + first * size + next % totals;
        *place = slab_sum(place, apart * size, (segments - first + apart - 1) / apart);
      }
      next -= sums;
    }
    __syncthreads();
  }

  // The last slab of each row, and its loss. Where the losses of samples are written, one thread adds
  // the parts of a sample, in order.
  bool const in_order = pass.writes_samples();
  std::int64_t next_row = threadIdx.x;
#pragma unroll 1
  for (int part = 0; part < parts; ++part) {
    std::int64_t const rows = pass.extent(part).rows;
    auto const segments = static_cast<int>(entries_of_row(part));
    int const stride = segments > slab_entries ? apart : 1;
#pragma unroll 1
    for (; next_row < rows; next_row += threads) {
      double* const entry = entry_of(part, next_row);
      double sums[totals];
#pragma unroll
      for (int t = 0; t < totals; ++t) {
        sums[t] = slab_sum(entry + t, stride * size, (segments + stride - 1) / stride);
      }
      entry[totals] = pass.finish_row(part, next_row, sums);
#pragma unroll
      for (int t = 0; t < totals; ++t) entry[t] = sums[t];
    }
    next_row = in_order ? threadIdx.x : next_row - rows;
  }
  __syncthreads();

  // Rows likewise.
  std::int64_t rows_apart = 1;
#pragma unroll 1
  for (; plan.most_rows > rows_apart * slab_entries; rows_apart *= slab_entries) {
    std::int64_t const slab = rows_apart * slab_entries;
    std::int64_t next = threadIdx.x;
#pragma unroll 1
    for (int part = 0; part < parts; ++part) {
      std::int64_t const rows = pass.extent(part).rows;
      if (rows <= slab_entries) continue;
      std::int64_t const sums = (rows + slab - 1) / slab * size;
#pragma unroll 1
      for (; next < sums; next += threads) {
        std::int64_t const first = next / size * slab;
        double* const place = entry_of(part, first) + next % size;
        *place = slab_sum(place, rows_apart * entries_of_row(part) * size,
                          (rows - first + rows_apart - 1) / rows_apart);
      }
      next -= sums;
    }
    __syncthreads();
  }

  // The last slab of each part.
  int const part = static_cast<int>(threadIdx.x);
  double sums[size];
  if (part < parts) {
    std::int64_t const rows = pass.extent(part).rows;
    std::int64_t const stride = rows > slab_entries ? rows_apart : 1;
#pragma unroll
    for (int t = 0; t < size; ++t) {
      sums[t] = slab_sum(entry_of(part, 0) + t, stride * entries_of_row(part) * size,
                         (rows + stride - 1) / stride);
    }
    part_values[part] = sums[totals];
    part_bad[part] = sums[totals - 1];
  }
  __syncthreads();
  if (part < parts) pass.finish_part(part, sums);
  if (threadIdx.x == threads - 1) {
    double value = 0;
    double bad = 0;
    for (int of = 0; of < parts; ++of) {
      value += part_values[of];
      bad += part_bad[of];
    }
    pass.finish(value, bad);
  }
}

/// True for the block that takes the last of `blocks` tickets, which are then 0 again: all that other
/// blocks wrote before they took theirs can be read. One thread stands for a block, between barriers.
__device__ inline bool takes_last_ticket(unsigned* ticket, unsigned blocks) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(ticket), "r"(blocks - 1)
               : "memory");
  return before == blocks - 1;
}

/// `workspace`: see cuda_context; null where nothing is to be finished.
template <class Pass, bool Generated>
__global__ void __launch_bounds__(threads, pass_types<Pass>::resident_blocks(Generated))
    run_pass(__grid_constant__ Pass const pass,
             __grid_constant__ typename pass_types<Pass>::plan const plan, std::int64_t tasks,
             unsigned* ticket, double* entries) {
  using types = pass_types<Pass>;
  using totals = typename types::runner::totals;
  constexpr unsigned total_count = Pass::total_count;
  constexpr unsigned size = types::entry_size;
  __shared__ double warp_totals[warps][total_count];
  __shared__ bool is_last;
  int const lane = static_cast<int>(threadIdx.x) % warp_size;
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  for (std::int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    int part = 0;
#pragma unroll 4
    for (int next = 1; next < pass.parts(); ++next) {
      part += task >= static_cast<std::int64_t>(plan.first_task[next]) ? 1 : 0;
    }
    std::int64_t const index = task - static_cast<std::int64_t>(plan.first_task[part]);
    auto const segments = static_cast<std::int64_t>(plan.segments[part]);
    part_extent const extent = pass.extent(part);
    // A row a warp, or a segment of a row for all of them.
    bool const alone = segments == 0;
    std::int64_t const row = alone ? index * warps + warp : index / segments;
    if (row < extent.rows) {
      addloss::detail::piece const piece =
          alone ? addloss::detail::piece{0, extent.row_size}
                : segment_elements(extent.row_size, types::packet,
                                   static_cast<std::int64_t>(plan.segment_steps[part]),
                                   index - row * segments);
      totals const sums = run_operands<Pass, Generated>(pass, runner_of(pass, part, row), part, row,
                                                        piece, alone ? 0 : warp, alone ? 1 : warps);
      if constexpr (types::finishes) {
        double* const entry =
            entries + (static_cast<std::int64_t>(plan.first_entry[part]) + (alone ? row : index)) *
                          static_cast<std::int64_t>(size);
        if (lane == 0) {
          double* const to = alone ? entry : warp_totals[warp];
#pragma unroll
          for (unsigned t = 0; t < total_count; ++t) to[t] = sums.value[t];
        }
        if (!alone) {
          __syncthreads();
          if (threadIdx.x < total_count) {
            double number[warps];
#pragma unroll
            for (int w = 0; w < warps; ++w) number[w] = warp_totals[w][threadIdx.x];
            entry[threadIdx.x] = pairwise_sum(number);
          }
          // Shared memory is written again.
          if (task + gridDim.x < tasks) __syncthreads();
        }
      }
    }
  }
  if constexpr (types::finishes) {
    __syncthreads();
    if (threadIdx.x == 0) is_last = takes_last_ticket(ticket, gridDim.x);
    __syncthreads();
    if (is_last) finish_pass(pass, plan, entries);
  }
}

}  // namespace addloss::cuda
