// SPDX-License-Identifier: MIT
/// How a pass is cut into pieces for a GPU: pure arithmetic on the extents, for host and device.
///
/// A *task* is what one thread block does at a time. Short rows are taken by one warp each, so a
/// task is `warps` rows; a longer row is cut into segments, and a task is one segment, shared by
/// all warps of the block. A *step* is what a warp reads at once: four packets of 16 bytes or more
/// a thread.
/// Each row of short parts and each segment of long ones leaves one *entry* in the workspace: its
/// totals. Where there are many, the entries of a part are cut into *groups*, each of which is
/// added up as soon as it is whole, while others are still on their way. All these numbers depend
/// on the extents and the element types alone, never on the launch.
#pragma once

#include <cstdint>
#include <type_traits>

#include <addloss/core/config.hpp>
#include <addloss/core/math.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss::cuda {

inline constexpr int warp_size = 32;
inline constexpr int warps = 4;  ///< of a thread block
inline constexpr int threads = warps * warp_size;

/// Steps of a row up to which one warp takes it alone. Where all parts together have less than
/// `few_rows` rows, one step: then the GPU has room for a block on each.
inline constexpr std::int64_t warp_row_steps = 4;
inline constexpr std::int64_t few_rows = 1024;
/// Entries that long rows may leave, but for one a row. Enough tasks to keep every multiprocessor
/// busy to the end.
inline constexpr std::int64_t max_segments = 3072;
/// Entries up to which one block adds them all up: for more, it would take longer than groups do.
inline constexpr std::int64_t ungrouped_entries = 512;
/// Entries of a group, at least.
inline constexpr std::int64_t group_entries = 64;
/// Groups, but for one a part.
inline constexpr std::int64_t max_groups = 64;
/// Steps of a thread block up to which a task grows while there are more than `few_tasks` of them:
/// a task of one step waits longer than it works.
inline constexpr std::int64_t task_steps = 4;
inline constexpr std::int64_t few_tasks = 256;

/// Elements that a thread reads with one packet: 16 bytes of the smallest type.
constexpr int packet_elements(unsigned smallest_size) {
  return static_cast<int>(16 / smallest_size);
}
/// Elements of a step: four packets of each thread of a warp.
ADDLOSS_HOST_DEVICE constexpr std::int64_t step_elements(int packet) {
  return std::int64_t{4} * packet * warp_size;
}

/// a / b, rounded up.
ADDLOSS_HOST_DEVICE constexpr std::int64_t quotient(std::int64_t a, std::int64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

/// a + b for a, b >= 0, or the largest number: extents fit 63 bits, those of all parts need not.
constexpr std::int64_t bounded_sum(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t most = 0x7fffffffffffffff;
  return a > most - b ? most : a + b;
}

/// Steps of a thread block in a row.
constexpr std::int64_t block_steps(std::int64_t row_size, int packet) {
  return quotient(row_size, warps * step_elements(packet));
}

/// Steps of a thread block in each segment of a row, but for the last segment; 0: a warp takes the
/// whole row.
constexpr std::int64_t segment_steps(part_extent extent, int parts, int packet) {
  std::int64_t const alone = extent.rows < few_rows / parts ? 1 : warp_row_steps;
  if (extent.row_size <= alone * step_elements(packet)) return 0;
  std::int64_t const steps = block_steps(extent.row_size, packet);
  std::int64_t const each =
      detail::at_most(quotient(extent.rows * parts * steps, few_tasks), task_steps);
  std::int64_t const share = max_segments / extent.rows / parts;
  std::int64_t const least = share < 2 ? steps : quotient(steps, share);
  return each < least ? least : each;
}
/// Segments of a row; 0: a warp takes the whole row.
constexpr std::int64_t row_segments(part_extent extent, int parts, int packet) {
  std::int64_t const each = segment_steps(extent, parts, packet);
  return each == 0 ? 0 : quotient(block_steps(extent.row_size, packet), each);
}

constexpr std::int64_t part_tasks(part_extent extent, std::int64_t segments) {
  return segments == 0 ? quotient(extent.rows, warps) : extent.rows * segments;
}
ADDLOSS_HOST_DEVICE constexpr std::int64_t row_entries(std::int64_t segments) {
  return segments == 0 ? 1 : segments;
}

/// Entries of a part, in rows of so many segments.
ADDLOSS_HOST_DEVICE constexpr std::int64_t entries_of_part(part_extent extent,
                                                           std::int64_t segments) {
  return extent.rows * row_entries(segments);
}

/// The row of segment `index` of a part. Rows of several segments leave few: 32 bits are divided
/// sooner.
ADDLOSS_HOST_DEVICE constexpr std::int64_t row_of_segment(std::int64_t index,
                                                          std::int64_t segments) {
  return segments == 1 ? index
                       : static_cast<std::uint32_t>(index) / static_cast<std::uint32_t>(segments);
}

/// Elements [first, last) of segment `index` of a row, of `steps` steps.
ADDLOSS_HOST_DEVICE constexpr detail::piece segment_elements(std::int64_t row_size, int packet,
                                                             std::int64_t steps,
                                                             std::int64_t index) {
  std::int64_t const size = steps * warps * step_elements(packet);
  std::int64_t const first = index * size;
  // The last segment may be shorter, and would end beyond 63 bits.
  return {first, row_size - first < size ? row_size : first + size};
}

/// Entries of a group; 0: there are no groups. Rows that a block takes together are in one group.
constexpr std::int64_t group_size(std::int64_t entries) {
  if (entries <= ungrouped_entries) return 0;
  std::int64_t const least = quotient(quotient(entries, max_groups), warps) * warps;
  return least < group_entries ? group_entries : least;
}
/// The first group of a part, of which those before have `entries`: no two parts share one.
ADDLOSS_HOST_DEVICE constexpr std::int64_t first_group(std::int64_t entries, int part,
                                                       std::int64_t size) {
  return entries / size + part;
}
/// Groups of all parts, at most.
constexpr std::int64_t group_bound(std::int64_t entries, int parts, std::int64_t size) {
  return size == 0 ? 0 : first_group(entries, parts, size);
}

/// The cut of a whole pass, as a kernel reads it. 32-bit numbers where there are many parts keep
/// description and cut together below 4 KiB, what every driver takes as the arguments of a kernel.
template <unsigned MaxParts>
struct pass_plan {
  using index = std::conditional_t<MaxParts == 1, std::int64_t, std::uint32_t>;
  static constexpr std::int64_t max_index =
      MaxParts == 1 ? std::int64_t{0x7fffffffffffffff} : std::int64_t{0xffffffff};

  index first_task[MaxParts + 1];
  index first_entry[MaxParts];
  index segments[MaxParts];
  index segment_steps[MaxParts];
  index group;  ///< entries of a group, or 0
  index ends;  ///< what must end before all is added up: groups, or tasks where there are none
};

inline constexpr std::int64_t max_ends = 0xffffffff;

/// A plan and its totals; `fits`: the numbers fit the plan's type.
template <unsigned MaxParts>
struct planned {
  pass_plan<MaxParts> plan{};
  std::int64_t tasks = 0;
  std::int64_t entries = 0;
  std::int64_t groups = 0;
  bool fits = true;
};

/// `extent(part)` for each of `parts` parts.
template <unsigned MaxParts, class Extent>
constexpr planned<MaxParts> make_plan(int parts, Extent const& extent, int packet, bool sums) {
  using index = typename pass_plan<MaxParts>::index;
  planned<MaxParts> result;
  for (int part = 0; part < parts; ++part) {
    part_extent const size = extent(part);
    std::int64_t const segments = row_segments(size, parts, packet);
    result.plan.first_task[part] = static_cast<index>(result.tasks);
    result.plan.first_entry[part] = static_cast<index>(result.entries);
    result.plan.segments[part] = static_cast<index>(segments);
    result.plan.segment_steps[part] = static_cast<index>(segment_steps(size, parts, packet));
    result.tasks = bounded_sum(result.tasks, part_tasks(size, segments));
    if (sums) result.entries = bounded_sum(result.entries, entries_of_part(size, segments));
  }
  result.plan.first_task[parts] = static_cast<index>(result.tasks);
  std::int64_t const group = group_size(result.entries);
  std::int64_t ends = result.tasks;
  if (group != 0) {
    ends = 0;
    for (int part = 0; part < parts; ++part) {
      auto const segments = static_cast<std::int64_t>(result.plan.segments[part]);
      ends += quotient(entries_of_part(extent(part), segments), group);
    }
  }
  result.groups = group_bound(result.entries, parts, group);
  result.plan.group = static_cast<index>(group);
  result.plan.ends = static_cast<index>(ends);
  // Of what ends together, 32 bits count.
  result.fits = result.tasks <= pass_plan<MaxParts>::max_index &&
                result.entries <= pass_plan<MaxParts>::max_index &&
                (!sums || (group <= max_ends && ends <= max_ends));
  return result;
}

}  // namespace addloss::cuda
