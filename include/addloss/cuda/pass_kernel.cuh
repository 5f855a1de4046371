// SPDX-License-Identifier: MIT
/// The one kernel that carries out a pass: all parts and rows, and the finish, in one launch.
///
/// Why this shape: a pass is bound by memory, so a thread always has packets of each operand on
/// their way (row_runner.cuh), and nothing is staged in shared memory. Blocks are small, 128
/// threads, so that as many share a multiprocessor as its registers allow. Every thread makes the
/// row's functor for itself, while its first packets are on their way: handing it over would cost a
/// barrier before any could be used. There is a block for each task, so that the hardware balances
/// long and short ones. Warps meet at the end of a task only. What that reaches:
/// benchmarks/NOTES.md.
///
/// The finish is done by the block that ends last, which an integer ticket in the workspace finds
/// out; the ticket wraps around to 0. It is short of time, not of work: all other multiprocessors
/// wait for it. So the losses of rows are weighted where they are summed, all parts are added up
/// side by side, and what few threads would take long to read comes from groups (plan.hpp), each of
/// which the last of its own blocks has added up. An order that the extents fix: of the entries of
/// a group, or of a part, a thread of its team takes every `team`-th, then the team adds up, in
/// double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <addloss/core/math.hpp>
#include <addloss/cuda/launch.cuh>
#include <addloss/cuda/plan.hpp>
#include <addloss/cuda/row_reader.cuh>
#include <addloss/cuda/row_runner.cuh>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss::cuda {

/// What a pass has in the workspace of a context; null where nothing is to be finished.
struct workspace_parts {
  unsigned* tickets = nullptr;  ///< that of the pass, then those of groups
  double* entries = nullptr;
  double* groups = nullptr;  ///< sums of entries
};

/// An operand that is stored or generated, as the call says.
template <class Operand>
concept may_be_generated = requires(Operand x) { x.generated; };

/// A pass that looks into memory for what its operands are.
template <class Pass>
concept operands_in_memory = requires { requires Pass::chooses_operands; };

/// The types of a pass that its kernel is made of.
template <class Pass>
struct pass_types {
  static constexpr unsigned operands = Pass::operand_count;
  static constexpr unsigned outputs = Pass::output_count;
  static constexpr unsigned sums = Pass::sum_count;
  static constexpr unsigned tallies = Pass::tally_count;
  /// Without sums and tallies there is nothing to finish, and no workspace is used.
  static constexpr bool finishes = sums + tallies > 0;

  template <unsigned N>
  using operand = decltype(std::declval<Pass const&>().template operand<static_cast<int>(N)>(0, 0));
  /// Of an element in memory; generated ones are in none.
  template <unsigned N>
  static constexpr unsigned operand_size() {
    using type = operand<N>;
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
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      ((size = operand_size<static_cast<unsigned>(N)>() < size
                   ? operand_size<static_cast<unsigned>(N)>()
                   : size),
       ...);
    }(std::make_index_sequence<operands>{});
    return size;
  }
  static constexpr int packet = packet_elements(smallest_size());

  /// Registers for the packets of a thread's quarter, and for noise that may be generated.
  static constexpr unsigned registers = [] {
    unsigned result = 0;
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      ((result += operand_size<static_cast<unsigned>(N)>() * packet / 4), ...);
    }(std::make_index_sequence<operands>{});
    return result;
  }();
  using element = std::remove_cvref_t<decltype(std::declval<Pass const&>().row(0, std::int64_t{}))>;

  /// Blocks that are to share a multiprocessor, at least: as many as registers are left for. (Found
  /// by trying; with more, the compiler spills.) `generated`: noise that may be stored is not.
  static constexpr unsigned resident_blocks(bool generated) {
    if (outputs > 1) return packet <= 4 ? 4 : 2;
    if (packet > 4 && (generated || registers > 12)) return 3;
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

/// Where a task is: segment `index` of a part's rows, all warps on one row; or a row of each warp.
struct task_place {
  int part;
  std::int64_t index;  ///< of the task in its part
  std::int64_t segments;  ///< of a row; 0: each warp has a row
  part_extent extent;
  std::int64_t row;  ///< of this warp

  [[nodiscard]] __device__ bool alone() const { return segments == 0; }
};

/// The same of a whole block.
struct block_place {
  task_place of_first_warp;
  std::int64_t task;
};

template <class Pass>
__device__ task_place place_of(Pass const& pass, typename pass_types<Pass>::plan const& plan,
                               std::int64_t task, int warp) {
  int part = 0;
#pragma unroll 4
  for (int next = 1; next < pass.parts(); ++next) {
    part += task >= static_cast<std::int64_t>(plan.first_task[next]) ? 1 : 0;
  }
  std::int64_t const index = task - static_cast<std::int64_t>(plan.first_task[part]);
  auto const segments = static_cast<std::int64_t>(plan.segments[part]);
  return {part, index, segments, pass.extent(part),
          segments == 0 ? index * warps + warp : row_of_segment(index, segments)};
}

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
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      ((result.out[N] = pass.template output<static_cast<int>(N)>(part).data +
                        row * pass.template output<static_cast<int>(N)>(part).row_stride),
       ...);
    }(std::make_index_sequence<types::outputs>{});
    result.mode = pass.template output<0>(part).mode;
  }
  return result;
}

/// The totals of a warp's share of a task, in lane 0.
template <class Pass, bool Generated>
__device__ auto run_task(Pass const& pass, typename pass_types<Pass>::plan const& plan,
                         task_place const& at, int warp) {
  if constexpr (operands_in_memory<Pass>) wait_for_earlier_kernels();
  addloss::detail::piece const elements =
      at.alone() ? addloss::detail::piece{0, at.extent.row_size}
                 : segment_elements(at.extent.row_size, pass_types<Pass>::packet,
                                    static_cast<std::int64_t>(plan.segment_steps[at.part]),
                                    at.index - at.row * at.segments);
  return run_operands<Pass, Generated>(pass, runner_of(pass, at.part, at.row), at.part, at.row,
                                       elements, at.alone() ? 0 : warp, at.alone() ? 1 : warps);
}

/// The entries of a workspace, or the sums of their groups: `Size` doubles each.
template <unsigned Size>
struct entry_sums {
  double sum[Size] = {};

  /// Entries `member`, `member` + `team`, ... of `count`.
  __device__ void add_entries(double const* entries, std::int64_t count, int member, int team) {
#pragma unroll 1
    for (std::int64_t i = member; i < count; i += team) {
#pragma unroll
      for (unsigned t = 0; t < Size; ++t) {
        sum[t] = add(sum[t], entries[i * static_cast<std::int64_t>(Size) + t]);
      }
    }
  }
  /// Adds up what the threads of each team have, in its first thread: the lanes of a warp
  /// neighbours first, then its warps in order. `team`: a power of two. All threads call it.
  __device__ void add_team(int team) {
    __shared__ double of_warp[warps][Size];
#pragma unroll 1
    for (int distance = 1; distance < team && distance < warp_size; distance *= 2) {
#pragma unroll
      for (unsigned t = 0; t < Size; ++t) {
        sum[t] = add(sum[t], __shfl_xor_sync(every_lane, sum[t], distance));
      }
    }
    if (team <= warp_size) return;
    int const warp = static_cast<int>(threadIdx.x) / warp_size;
    if (threadIdx.x % warp_size == 0) {
#pragma unroll
      for (unsigned t = 0; t < Size; ++t) of_warp[warp][t] = sum[t];
    }
    __syncthreads();
    if ((static_cast<int>(threadIdx.x) & (team - 1)) == 0) {
#pragma unroll 1
      for (int next = 1; next < team / warp_size; ++next) {
#pragma unroll
        for (unsigned t = 0; t < Size; ++t) sum[t] = add(sum[t], of_warp[warp + next][t]);
      }
    }
  }
};

/// The threads of a block in teams, one for each of `count` sums: a power of two of threads, at
/// most `most`, at least 2 where there are at most 64 sums. By shifts: a division would take long.
struct teams {
  int log_size;  ///< of the threads of a team, to base 2

  explicit __device__ teams(std::int64_t count, int most = threads) {
    auto const log = [](int power) { return 31 - __clz(power); };
    int const log_count = 64 - __clzll(count - 1);  // rounded up
    int const share = log(threads) > log_count ? log(threads) - log_count : 0;
    log_size = share < log(most) ? share : log(most);
  }
  [[nodiscard]] __device__ int size() const { return 1 << log_size; }
  [[nodiscard]] __device__ int number() const { return threads >> log_size; }
  /// Of this thread.
  [[nodiscard]] __device__ int index() const { return static_cast<int>(threadIdx.x) >> log_size; }
  [[nodiscard]] __device__ int member() const {
    return static_cast<int>(threadIdx.x) & (size() - 1);
  }
};

/// Writes the losses of samples, the parts of each in order.
template <class Pass>
__device__ void write_samples(Pass const& pass, typename pass_types<Pass>::plan const& plan,
                              double const* entries) {
  constexpr std::int64_t size = pass_types<Pass>::entry_size;
  // Parts have as many rows each. A team is in one warp.
  std::int64_t const rows = pass.extent(0).rows;
  teams const split(rows, warp_size);
  int const team = split.size();
  int const member = split.member();
  std::int64_t row = split.index();
  // As often in every lane.
#pragma unroll 1
  for (std::int64_t first = 0; first < rows; first += split.number(), row += split.number()) {
#pragma unroll 1
    for (int part = 0; part < pass.parts(); ++part) {
      std::int64_t const count = row_entries(static_cast<std::int64_t>(plan.segments[part]));
      double const* const entry =
          entries + (static_cast<std::int64_t>(plan.first_entry[part]) + row * count) * size +
          size - 1;
      double value = 0;
#pragma unroll 1
      for (std::int64_t i = member; i < count; i += team) {
        if (row < rows) value = add(value, entry[i * size]);
      }
      for (int distance = 1; distance < team; distance *= 2) {
        value = add(value, __shfl_xor_sync(every_lane, value, distance));
      }
      if (row < rows && member == 0) pass.write_sample(part, row, value);
    }
  }
}

/// What the last block does: entries, or groups of them, into parts, parts into the results.
template <class Pass>
__device__ void finish_pass(Pass const& pass, typename pass_types<Pass>::plan const& plan,
                            workspace_parts const& memory) {
  constexpr unsigned size = pass_types<Pass>::entry_size;
  constexpr unsigned totals = Pass::total_count;
  __shared__ double part_values[Pass::max_parts];
  __shared__ double part_bad[Pass::max_parts];
  if (pass.writes_samples()) write_samples(pass, plan, memory.entries);
  int const parts = pass.parts();
  teams const split(parts);
  int const team = split.size();
  int const part = split.index();
  int const member = split.member();
  entry_sums<size> all;
  if (part < parts) {
    auto const first = static_cast<std::int64_t>(plan.first_entry[part]);
    auto const group = static_cast<std::int64_t>(plan.group);
    std::int64_t const count = entries_of_part(pass.extent(part), plan.segments[part]);
    if (group == 0) {
      all.add_entries(memory.entries + first * size, count, member, team);
    } else {
      all.add_entries(memory.groups + first_group(first, part, group) * size,
                      quotient(count, group), member, team);
    }
  }
  all.add_team(team);
  bool const leads = part < parts && member == 0;
  if (leads) {
    part_values[part] = all.sum[totals];
    part_bad[part] = all.sum[totals - 1];
  }
  __syncthreads();
  if (leads) pass.finish_part(part, all.sum);
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

/// True for the last of `count` blocks that take a ticket, which is then 0 again: all that other
/// blocks wrote before they took theirs can be read. One thread stands for a block, between
/// barriers.
__device__ inline bool takes_last_ticket(unsigned* ticket, unsigned count) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(ticket), "r"(count - 1)
                 : "memory");
    is_last = before == count - 1;
  }
  __syncthreads();
  return is_last;
}

/// The entries of a task are written: adds up its group, if that is whole now. True where the group
/// is, or there are none.
template <class Pass>
__device__ bool end_task(typename pass_types<Pass>::plan const& plan, task_place const& at,
                         workspace_parts const& memory) {
  constexpr unsigned size = pass_types<Pass>::entry_size;
  auto const each = static_cast<std::int64_t>(plan.group);
  if (each == 0) return true;
  auto const before = static_cast<std::int64_t>(plan.first_entry[at.part]);
  std::int64_t const group = (at.alone() ? at.index * warps : at.index) / each;
  std::int64_t const first = group * each;
  std::int64_t const count =
      addloss::detail::at_most(each, entries_of_part(at.extent, at.segments) - first);
  std::int64_t const place = first_group(before, at.part, each) + group;
  // The first ticket is that of the pass.
  if (!takes_last_ticket(memory.tickets + 1 + place,
                         static_cast<unsigned>(at.alone() ? quotient(count, warps) : count))) {
    return false;
  }
  entry_sums<size> all;
  all.add_entries(memory.entries + (before + first) * size, count, static_cast<int>(threadIdx.x),
                  threads);
  all.add_team(threads);
  if (threadIdx.x == 0) {
#pragma unroll
    for (unsigned t = 0; t < size; ++t) memory.groups[place * size + t] = all.sum[t];
  }
  return true;
}

template <class Pass, bool Generated>
__global__ void __launch_bounds__(threads, pass_types<Pass>::resident_blocks(Generated))
    run_pass(__grid_constant__ Pass const pass,
             __grid_constant__ typename pass_types<Pass>::plan const plan, std::int64_t tasks,
             workspace_parts const memory) {
  using types = pass_types<Pass>;
  using totals = typename types::runner::totals;
  constexpr unsigned total_count = Pass::total_count;
  constexpr unsigned size = types::entry_size;
  __shared__ double warp_totals[warps][total_count];
  __shared__ block_place here;
  int const lane = static_cast<int>(threadIdx.x) % warp_size;
  int const warp = static_cast<int>(threadIdx.x) / warp_size;
  for (std::int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    auto const sums = [&] {
      task_place const at = place_of(pass, plan, task, warp);
      if (types::finishes && threadIdx.x == 0) here = {at, task};
      return at.row < at.extent.rows ? run_task<Pass, Generated>(pass, plan, at, warp) : totals{};
    }();
    if constexpr (types::finishes) {
      if (lane == 0) {
#pragma unroll
        for (unsigned t = 0; t < total_count; ++t) warp_totals[warp][t] = sums.value[t];
      }
      __syncthreads();
      // In registers it would have stayed all the while.
      task = here.task;
      task_place at = here.of_first_warp;
      if (at.alone()) at.row += warp;
      double* const entry = memory.entries + (static_cast<std::int64_t>(plan.first_entry[at.part]) +
                                              (at.alone() ? at.row : at.index)) *
                                                 static_cast<std::int64_t>(size);
      unsigned const t = at.alone() ? static_cast<unsigned>(lane) : threadIdx.x;
      if (t < total_count && at.row < at.extent.rows) {
        double number[warps];
#pragma unroll
        for (int w = 0; w < warps; ++w) number[w] = warp_totals[w][t];
        double const total = at.alone() ? warp_totals[warp][t] : pairwise_sum(number);
        entry[t] = total;
        if (t == 0) entry[total_count] = pass.row_weight(at.part, at.row) * total;
      }
      if (end_task<Pass>(plan, at, memory) &&
          takes_last_ticket(memory.tickets, static_cast<unsigned>(plan.ends))) {
        finish_pass(pass, plan, memory);
        // No task is left. Said here, it keeps what the finish needs out of the loop's registers.
        return;
      }
    }
  }
}

}  // namespace addloss::cuda
