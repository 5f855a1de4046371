// SPDX-License-Identifier: MIT
#include <addloss/reduce/pass.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <addloss/core/math.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/cpu/executor.hpp>
#include <addloss/reduce/operand.hpp>

#include "catch.hpp"

namespace {

using namespace addloss;
using addloss::detail::at_most;
using addloss::detail::split;

/// Sums x and x^2 and counts x > 1, over two parts of different extents.
struct recorder {
  using arithmetic = double;
  static constexpr unsigned operand_count = 1;
  static constexpr unsigned output_count = 1;
  static constexpr unsigned sum_count = 2;
  static constexpr unsigned tally_count = 1;
  static constexpr unsigned total_count = sum_count + tally_count + 1;
  static constexpr unsigned max_parts = 2;

  double const* x;
  part_extent size[2];
  std::vector<double>* rows_of_part;  // [part]: what write_sample was called with, in order
  std::vector<double>* last;

  struct element {
    template <class V>
    element_result<V, 2, 1, 1> operator()(V const (&v)[1]) const {
      return {{v[0], v[0] * v[0]}, {v[0]}, {v[0] > V(1)}};
    }
  };
  [[nodiscard]] int parts() const { return 2; }
  [[nodiscard]] part_extent extent(int part) const { return size[part]; }
  template <int>
  [[nodiscard]] detail::stored<double> operand(int part, std::int64_t /*row*/) const {
    return {x + (part == 0 ? 0 : size[0].rows * size[0].row_size), size[part].row_size};
  }
  template <int>
  [[nodiscard]] detail::output_rows<double> output(int /*part*/) const {
    return {};  // left out
  }
  [[nodiscard]] element row(int, std::int64_t) const { return {}; }
  [[nodiscard]] double row_weight(int part, std::int64_t row) const {
    return static_cast<double>(10 + part + row % 4);
  }
  [[nodiscard]] bool writes_samples() const { return true; }
  void write_sample(int part, std::int64_t row, double value) const {
    // Part 0 of a sample comes first.
    if (part == 1 && row < size[0].rows) {
      CHECK(rows_of_part[0].size() > 2 * static_cast<std::size_t>(row));
    }
    rows_of_part[part].push_back(static_cast<double>(row));
    rows_of_part[part].push_back(value);
  }
  void finish_part(int /*part*/, double const* totals) const {
    last->insert(last->end(), totals, totals + total_count);
  }
  void finish(double value, double bad) const {
    last->push_back(value);
    last->push_back(bad);
  }
};

struct with_memory : recorder {
  std::vector<double> memory;
};
struct without_tallies {
  using arithmetic = double;
  static constexpr unsigned operand_count = 1;
  static constexpr unsigned output_count = 0;
  static constexpr unsigned sum_count = 0;
  [[maybe_unused]] static constexpr unsigned total_count = 1;
  [[nodiscard]] int parts() const { return 1; }
  [[nodiscard]] part_extent extent(int) const { return {}; }
  [[nodiscard]] int row(int, std::int64_t) const { return 0; }
  [[nodiscard]] double row_weight(int, std::int64_t) const { return 0; }
  [[nodiscard]] bool writes_samples() const { return false; }
  void write_sample(int, std::int64_t, double) const {}
  void finish_part(int, double const*) const {}
  void finish(double, double) const {}
};
struct total_alone : recorder {
  void finish(double) const {}
};
struct silent_rows : recorder {
  void row_weight(int, std::int64_t) const {}
};
static_assert(fused_pass<recorder>);
static_assert(!fused_pass<with_memory> && !fused_pass<without_tallies>);
static_assert(!fused_pass<total_alone> && !fused_pass<silent_rows> && !fused_pass<int>);

static_assert(std::is_same_v<mask_of<float>, bool>);
static_assert(std::is_same_v<mask_of<native_pack<float>>, native_pack<float>::mask>);
static_assert(std::is_empty_v<detail::array_or_none<double, 0>>);
static_assert(sizeof(detail::array_or_none<double, 3>) == 3 * sizeof(double));

static_assert(at_most(3, 5) == 3 && at_most(5, 3) == 3 && at_most(4, 4) == 4);

// Groups of a block are whole, and so are the lanes of a group.
static_assert(detail::block_size % detail::group_size == 0);
static_assert(detail::group_size == 64 && detail::group_size % detail::lane_count == 0);

}  // namespace

TEST_CASE("pieces cover everything exactly once, and differ by one at most") {
  for (std::int64_t const size : {0, 1, 2, 7, 63, 64, 65, 1000, 4096}) {
    for (std::int64_t const count : {1, 2, 3, 16, 64, 5000}) {
      std::int64_t next = 0;
      std::int64_t least = std::numeric_limits<std::int64_t>::max();
      std::int64_t most = 0;
      bool good = true;
      for (std::int64_t i = 0; i < count; ++i) {
        auto const [first, last] = split(size, count, i);
        good = good && first == next && last >= first;
        next = last;
        least = std::min(least, last - first);
        most = std::max(most, last - first);
      }
      CAPTURE(size, count);
      CHECK((good && next == size));
      CHECK(most - least <= 1);
    }
  }
  // The first pieces are the larger ones, at sizes beyond 32 bits as well.
  CHECK(split(10, 4, 0).last == 3);
  CHECK(split(10, 4, 1).first == 3);
  CHECK(split(10, 4, 3).first == 8);
  constexpr std::int64_t huge = (std::int64_t{1} << 40) + 1;
  CHECK(split(huge, 2, 0).last == (std::int64_t{1} << 39) + 1);
  CHECK(split(huge, 2, 1).last == huge);
}

TEST_CASE("a pass gets the loss of every row once, and the totals of each part") {
  struct extents {
    part_extent size[2];
  };
  // Few rows, many rows, several blocks and segments.
  for (extents const& e : {extents{{{1, 1}, {2, 65}}}, extents{{{70, 3}, {3, 5000}}},
                           extents{{{2, 40001}, {64, 64}}}, extents{{{65, 2}, {129, 1}}}}) {
    std::int64_t const count =
        e.size[0].rows * e.size[0].row_size + e.size[1].rows * e.size[1].row_size;
    std::vector<double> x;
    // Multiples of 1/4: every sum is exact.
    for (std::int64_t i = 0; i < count; ++i) x.push_back(static_cast<double>(i * 7 % 13) / 4 - 1);
    std::vector<double> rows_of_part[2];
    std::vector<double> last;
    executor<cpu_context>::run(cpu_context{},
                               recorder{x.data(), {e.size[0], e.size[1]}, rows_of_part, &last});
    std::vector<double> expected_rows[2];
    std::vector<double> expected_last;
    std::size_t n = 0;
    double value = 0;
    for (int part = 0; part < 2; ++part) {
      double total[4] = {};
      for (std::int64_t b = 0; b < e.size[part].rows; ++b) {
        double row[3] = {};
        for (std::int64_t i = 0; i < e.size[part].row_size; ++i, ++n) {
          row[0] += x[n];
          row[1] += x[n] * x[n];
          row[2] += x[n] > 1 ? 1 : 0;
        }
        expected_rows[part].push_back(static_cast<double>(b));
        double const weighted = static_cast<double>(10 + part + b % 4) * row[0];
        expected_rows[part].push_back(weighted);
        value += weighted;
        for (int k = 0; k < 3; ++k) total[k] += row[k];
      }
      for (double const t : total) expected_last.push_back(t);
    }
    expected_last.push_back(value);
    expected_last.push_back(0);
    CAPTURE(e.size[0].rows, e.size[0].row_size);
    CHECK(rows_of_part[0] == expected_rows[0]);
    CHECK(rows_of_part[1] == expected_rows[1]);
    CHECK(last == expected_last);
  }
}

TEST_CASE(
    "non-finite elements are counted in the part they are in, and spoil the row they are in") {
  std::vector<double> x(3 * 130, 0.5);
  x[130 + 7] = std::numeric_limits<double>::quiet_NaN();
  x[130 + 129] = std::numeric_limits<double>::infinity();
  std::vector<double> rows_of_part[2];
  std::vector<double> last;
  executor<cpu_context>::run(cpu_context{},
                             recorder{x.data(), {{2, 130}, {1, 130}}, rows_of_part, &last});
  REQUIRE(rows_of_part[0].size() == 4);
  CHECK(rows_of_part[0][1] == 650);
  CHECK(std::isnan(rows_of_part[0][3]));
  REQUIRE(last.size() == 10);
  CHECK(last[2] == 1);  // infinity is greater than 1, NaN is not
  CHECK(last[3] == 2);
  CHECK(last[7] == 0);
  CHECK(std::isnan(last[8]));
  CHECK(last[9] == 2);
}

namespace {

/// Sums without a single output, which no loss of the library is.
struct sum_only {
  using arithmetic = double;
  static constexpr unsigned operand_count = 1;
  static constexpr unsigned output_count = 0;
  static constexpr unsigned sum_count = 1;
  static constexpr unsigned tally_count = 0;
  static constexpr unsigned total_count = 2;
  static constexpr unsigned max_parts = 1;
  struct element {
    template <class V>
    addloss::element_result<V, 1, 0> operator()(V const (&x)[1]) const {
      return {{x[0]}, {}, {}};
    }
  };
  double const* data;
  double* total;

  [[nodiscard]] int parts() const { return 1; }
  [[nodiscard]] addloss::part_extent extent(int /*part*/) const { return {1, 100}; }
  template <int>
  [[nodiscard]] addloss::detail::stored<double> operand(int /*part*/, std::int64_t /*row*/) const {
    return {data, 100};
  }
  [[nodiscard]] element row(int /*part*/, std::int64_t /*row*/) const { return {}; }
  [[nodiscard]] double row_weight(int /*part*/, std::int64_t /*row*/) const { return 1; }
  [[nodiscard]] bool writes_samples() const { return false; }
  void write_sample(int /*part*/, std::int64_t /*row*/, double /*value*/) const {}
  void finish_part(int /*part*/, double const* /*totals*/) const {}
  void finish(double value, double /*bad*/) const { *total = value; }
};

}  // namespace

TEST_CASE("a pass may write nothing") {
  std::vector<double> const x(100, 0.25);
  double total = 0;
  executor<cpu_context>::run(cpu_context{}, sum_only{x.data(), &total});
  CHECK(total == 25);
}
