// SPDX-License-Identifier: MIT
#include <addloss/cuda/plan.hpp>

#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace {

using namespace addloss;
using namespace addloss::cuda;

static_assert(packet_elements(2) == 8 && packet_elements(4) == 4 && packet_elements(8) == 2);
static_assert(step_elements(4) == 512);
// A step is whole groups of 64 elements, as generated noise is.
static_assert(step_elements(2) % 64 == 0 && step_elements(8) % 64 == 0);

// 32-bit plans: with the largest pass, below 4 KiB of kernel arguments.
static_assert(sizeof(pass_plan<64>) == sizeof(std::uint32_t) * (65 + 3 * 64 + 2));
// The ticket of a pass and those of its groups.
static_assert(4 * (1 + max_groups + 64) <= 528);
static_assert(sizeof(pass_plan<1>::index) == 8);

/// Segments of a row cover it once, in order, at whole steps.
bool covers(part_extent extent, int parts, int packet) {
  std::int64_t const segments = row_segments(extent, parts, packet);
  std::int64_t const steps = segment_steps(extent, parts, packet);
  std::int64_t const step = warps * step_elements(packet);
  std::int64_t next = 0;
  bool good = segments >= 1;
  for (std::int64_t i = 0; i < segments; ++i) {
    auto const [first, last] = segment_elements(extent.row_size, packet, steps, i);
    good = good && first == next && last > first && first % step == 0;
    next = last;
  }
  return good && next == extent.row_size;
}

}  // namespace

TEST_CASE("short rows are taken by a warp, long ones are cut into segments that cover them") {
  for (int const packet : {2, 4, 8}) {
    std::int64_t const step = step_elements(packet);
    CHECK(row_segments({5, 1}, 1, packet) == 0);
    CHECK(row_segments({5, step}, 1, packet) == 0);
    CHECK(row_segments({5, step + 1}, 1, packet) == 1);
    CHECK(row_segments({5, 4 * step + 1}, 1, packet) == 2);
    // Of many rows, a warp takes longer ones.
    CHECK(row_segments({few_rows, 4 * step}, 1, packet) == 0);
    CHECK(row_segments({few_rows, 4 * step + 1}, 1, packet) == 1);
    CHECK(row_segments({few_rows / 2, 4 * step}, 2, packet) == 0);
    CHECK(row_segments({few_rows / 2 - 1, 4 * step}, 2, packet) == 1);
    for (std::int64_t const size :
         {4 * step + 1, 8 * step, 8 * step + 1, 1000 * step - 1, 100000 * step + 5}) {
      for (std::int64_t const rows : {1, 3, 2048, 2049}) {
        std::int64_t const segments = row_segments({rows, size}, 1, packet);
        CAPTURE(packet, size, rows, segments);
        CHECK(covers({rows, size}, 1, packet));
        CHECK(segments <= (rows <= max_segments ? max_segments / rows : 1));
      }
    }
  }
}

TEST_CASE("tasks grow where there are many of them") {
  std::int64_t const step = warps * step_elements(4);
  CHECK(segment_steps({128, 2 * step}, 1, 4) == 1);
  CHECK(segment_steps({32, 8 * step}, 1, 4) == 1);
  CHECK(segment_steps({32, 9 * step}, 1, 4) == 2);
  CHECK(segment_steps({32, 8 * step}, 2, 4) == 2);
  CHECK(segment_steps({32, 64 * step}, 1, 4) == 4);
  CHECK(row_segments({32, 63 * step}, 1, 4) == 16);
}

TEST_CASE("extents beyond 32 and up to 63 bits") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (int const packet : {2, 4, 8}) {
    for (std::int64_t const size :
         {(std::int64_t{1} << 31) + 1, (std::int64_t{1} << 34) - 1, std::int64_t{1} << 50, most}) {
      CAPTURE(packet, size);
      CHECK(covers({1, size}, 1, packet));
      CHECK(covers({1, size}, 64, packet));
      CHECK(row_segments({1, size}, 64, packet) == 48);
    }
  }
  auto const many = make_plan<1>(
      1,
      [](int) {
        return part_extent{most, 1};
      },
      4, true);
  CHECK(many.tasks == most / 4 + 1);
  CHECK(many.entries == most);
  // As many entries of a group cannot be counted.
  CHECK_FALSE(many.fits);
  constexpr std::int64_t countable = max_groups * ((std::int64_t{1} << 32) - 4);
  CHECK(make_plan<1>(
            1,
            [](int) {
              return part_extent{countable, 1};
            },
            4, true)
            .fits);
  // Of many parts only 2^32 pieces fit.
  constexpr std::int64_t limit = std::int64_t{1} << 32;
  CHECK(make_plan<64>(
            1,
            [](int) {
              return part_extent{limit - 1, 1};
            },
            4, true)
            .fits);
  CHECK_FALSE(make_plan<64>(
                  1,
                  [](int) {
                    return part_extent{limit, 1};
                  },
                  4, true)
                  .fits);
  CHECK_FALSE(make_plan<64>(
                  2,
                  [](int) {
                    return part_extent{limit / 2, 1};
                  },
                  4, true)
                  .fits);
  // Nor do sums of extents that 63 bits do not hold.
  auto const beyond = make_plan<64>(
      64,
      [](int) {
        return part_extent{most, 1};
      },
      4, true);
  CHECK(beyond.tasks == most);
  CHECK(beyond.entries == most);
  CHECK_FALSE(beyond.fits);
}

TEST_CASE("parts of different extents lie one after the other") {
  std::vector<part_extent> const extents = {{20, 7}, {20, 2048}, {20, 2049}, {20, 20000}, {1, 5}};
  auto const [plan, tasks, entries, groups, fits] = make_plan<64>(
      5, [&](int part) { return extents[static_cast<std::size_t>(part)]; }, 4, true);
  // 20 rows of a warp each are 5 tasks, of a block each 20; 20000 elements are 10 steps of 2048,
  // four of which are a task where there are 1000 of them.
  std::vector<std::uint32_t> const first_task = {0, 5, 25, 65, 125, 126};
  std::vector<std::uint32_t> const first_entry = {0, 20, 40, 80, 140};
  std::vector<std::uint32_t> const segments = {0, 1, 2, 3, 0};
  CHECK(std::vector<std::uint32_t>(plan.first_task, plan.first_task + 6) == first_task);
  CHECK(std::vector<std::uint32_t>(plan.first_entry, plan.first_entry + 5) == first_entry);
  CHECK(std::vector<std::uint32_t>(plan.segments, plan.segments + 5) == segments);
  CHECK(plan.segment_steps[3] == 4);
  CHECK(tasks == 126);
  CHECK(entries == 141);
  // Few entries are added up at once, when all tasks have ended.
  CHECK(plan.group == 0);
  CHECK(plan.ends == 126);
  CHECK(groups == 0);
  CHECK(fits);
}

TEST_CASE("entries are cut into groups that no two parts share") {
  CHECK(group_size(0) == 0);
  CHECK(group_size(ungrouped_entries) == 0);
  CHECK(group_size(ungrouped_entries + 1) == group_entries);
  CHECK(group_size(max_groups * group_entries) == group_entries);
  // A block's rows are in one group.
  CHECK(group_size(max_groups * group_entries + 1) == group_entries + 4);
  for (std::int64_t const rows : {9, 64, 65, 1000, 123457}) {
    for (int const parts : {1, 2, 7, 64}) {
      auto const cut = make_plan<64>(
          parts,
          [&](int part) {
            return part_extent{rows, 1 + part % 3 * 3000};
          },
          4, true);
      auto const& plan = cut.plan;
      CAPTURE(rows, parts, cut.entries, plan.group);
      if (plan.group == 0) {
        CHECK(cut.entries <= ungrouped_entries);
        CHECK(plan.ends == cut.tasks);
        CHECK(cut.groups == 0);
        continue;
      }
      std::int64_t next = 0;
      std::int64_t ends = 0;
      bool good = plan.group % warps == 0;
      for (int part = 0; part < parts; ++part) {
        std::int64_t const count = rows * row_entries(plan.segments[part]);
        std::int64_t const first = first_group(plan.first_entry[part], part, plan.group);
        good = good && first >= next;
        next = first + quotient(count, plan.group);
        ends += quotient(count, plan.group);
      }
      CHECK(good);
      CHECK(next <= cut.groups);
      CHECK(cut.groups <= max_groups + parts);
      CHECK(plan.ends == ends);
    }
  }
}

TEST_CASE("a segment's row, beyond 32 bits too") {
  CHECK(row_of_segment(std::int64_t{1} << 40, 1) == std::int64_t{1} << 40);
  CHECK(row_of_segment(3071, 1024) == 2);
  CHECK(row_of_segment(0, 2) == 0);
}
