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
static_assert(sizeof(pass_plan<64>) == sizeof(std::uint32_t) * (65 + 64 + 64));
static_assert(sizeof(pass_plan<1>::index) == 8);

/// Segments of a row cover it once, in order, at whole steps.
bool covers(std::int64_t row_size, int packet, std::int64_t segments) {
  std::int64_t const step = warps * step_elements(packet);
  std::int64_t next = 0;
  bool good = true;
  // The first and the last ones of many.
  std::int64_t const checked = segments < 200 ? segments : 100;
  for (std::int64_t i = 0; i < checked; ++i) {
    auto const [first, last] = segment_elements(row_size, packet, segments, i);
    good = good && first == next && last > first && first % step == 0;
    next = last;
  }
  if (checked < segments) next = segment_elements(row_size, packet, segments, segments - 100).first;
  for (std::int64_t i = segments - 100; checked < segments && i < segments; ++i) {
    auto const [first, last] = segment_elements(row_size, packet, segments, i);
    good = good && first == next && last > first && first % step == 0;
    next = last;
  }
  return good && next == row_size;
}

}  // namespace

TEST_CASE("short rows are taken by a warp, long ones are cut into segments that cover them") {
  for (int const packet : {2, 4, 8}) {
    std::int64_t const step = step_elements(packet);
    CHECK(row_segments({5, 1}, 1, packet, true) == 0);
    CHECK(row_segments({5, 4 * step}, 1, packet, true) == 0);
    CHECK(row_segments({5, 4 * step + 1}, 1, packet, true) == 1);
    for (std::int64_t const size :
         {4 * step + 1, 8 * step, 8 * step + 1, 1000 * step - 1, 100000 * step + 5}) {
      for (std::int64_t const rows : {1, 3, 8192, 8193}) {
        for (bool const sums : {false, true}) {
          std::int64_t const segments = row_segments({rows, size}, 1, packet, sums);
          CAPTURE(packet, size, rows, sums, segments);
          CHECK(segments >= 1);
          CHECK(covers(size, packet, segments));
          if (sums) CHECK(segments <= (rows <= 8192 ? 8192 / rows : 1));
        }
      }
    }
  }
}

TEST_CASE("extents beyond 32 and up to 63 bits") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (int const packet : {2, 4, 8}) {
    for (std::int64_t const size :
         {(std::int64_t{1} << 31) + 1, (std::int64_t{1} << 34) - 1, std::int64_t{1} << 50, most}) {
      CAPTURE(packet, size);
      CHECK(covers(size, packet, row_segments({1, size}, 1, packet, true)));
      CHECK(covers(size, packet, row_segments({1, size}, 1, packet, false)));
      CHECK(row_segments({1, size}, 64, packet, true) == 128);
    }
  }
  auto const many = make_plan<1>(
      1,
      [](int) {
        return part_extent{most, 1};
      },
      4, true);
  CHECK(many.tasks == most / 8 + 1);
  CHECK(many.entries == most);
  CHECK(many.fits);
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
}

TEST_CASE("parts of different extents lie one after the other") {
  std::vector<part_extent> const extents = {{20, 7}, {20, 2048}, {20, 2049}, {20, 20000}, {1, 5}};
  auto const [plan, tasks, entries, fits] = make_plan<64>(
      5, [&](int part) { return extents[static_cast<std::size_t>(part)]; }, 4, true);
  // 20 rows are 3 tasks of 8; 20000 elements are 5 steps of 4096.
  std::vector<std::uint32_t> const first_task = {0, 3, 6, 26, 126, 127};
  std::vector<std::uint32_t> const first_entry = {0, 20, 40, 60, 160};
  std::vector<std::uint32_t> const segments = {0, 0, 1, 5, 0};
  CHECK(std::vector<std::uint32_t>(plan.first_task, plan.first_task + 6) == first_task);
  CHECK(std::vector<std::uint32_t>(plan.first_entry, plan.first_entry + 5) == first_entry);
  CHECK(std::vector<std::uint32_t>(plan.segments, plan.segments + 5) == segments);
  CHECK(tasks == 127);
  CHECK(entries == 161);
  CHECK(fits);
}
