// SPDX-License-Identifier: MIT
#include <addloss/heads/sums.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace {

using namespace addloss;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Numbers of few bits: their products and sums are exact, in any order.
template <class T>
std::vector<T> integers(std::int64_t count, std::int64_t seed) {
  std::vector<T> x(at(count));
  for (std::int64_t i = 0; i < count; ++i) {
    x[at(i)] = static_cast<T>((i * 7919 + seed * 104729) % 61 - 30);
  }
  return x;
}

}  // namespace

TEMPLATE_TEST_CASE("dot is the sum of all products", "", float, double) {
  using T = TestType;
  for (std::int64_t count = 0; count < 70; ++count) {
    CAPTURE(count);
    auto const a = integers<T>(count, 1);
    auto const b = integers<T>(count, 2);
    double expected = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      expected += static_cast<double>(a[at(i)]) * static_cast<double>(b[at(i)]);
    }
    CHECK(detail::dot(a.data(), b.data(), count) == expected);
  }
}

TEST_CASE("dot of floats sums in double") {
  std::vector<float> a(100, 1.0F);
  std::vector<float> const ones(100, 1.0F);
  for (std::size_t const i : {3U, 50U, 99U}) {
    a[i] = 1e9F;
    a[i - 1] = -1e9F;
  }
  CHECK(detail::dot(a.data(), ones.data(), 100) == 94);
}

TEMPLATE_TEST_CASE("the numbers of a register are added to doubles in their order", "", float,
                   double) {
  using T = TestType;
  using pack = native_pack<T>;
  std::vector<T> numbers(at(pack::width));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<T>(1) / static_cast<T>(i + 3);
  }
  std::vector<double> sums(numbers.size(), 0.1);
  detail::wide_pack packs[pack::width / detail::wide_pack::width];
  for (auto& some : packs) some = detail::wide_pack(0.1);
  detail::add_wide<T>(pack::load(numbers.data()), packs);
  for (std::size_t i = 0; i < numbers.size(); ++i) sums[i] += static_cast<double>(numbers[i]);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    CHECK(packs[i / at(detail::wide_pack::width)].lanes[i % at(detail::wide_pack::width)] ==
          sums[i]);
  }
}

TEMPLATE_TEST_CASE("a term of NaN makes a sum NaN wherever it is", "", float, double) {
  using T = TestType;
  std::vector<T> const zeros(37);
  for (std::size_t i = 0; i < zeros.size(); ++i) {
    auto x = zeros;
    x[i] = std::numeric_limits<T>::quiet_NaN();
    CHECK(std::isnan(detail::dot(x.data(), zeros.data(), 37)));
    double sum[detail::column_block];
    detail::sum_columns<T>({zeros.data(), 1}, {x.data(), 37, 1}, {37, 0}, sum);
    for (std::size_t j = 0; j < 37; ++j) CHECK(std::isnan(sum[j]) == (i == j));
  }
}

TEMPLATE_TEST_CASE("sums of columns are those of all rows", "", float, double) {
  using T = TestType;
  for (std::int64_t const columns : {1, 5, 8, 17, 255, 256, 257, 600}) {
    for (std::int64_t const rows : {0, 1, 3, 4, 5, 9}) {
      CAPTURE(columns, rows);
      std::int64_t const stride = columns + 3;
      auto const weight = integers<T>(2 * rows, 1);
      auto const matrix = integers<T>(rows * stride, 2);
      for (std::int64_t block = 0; block < detail::column_blocks(columns); ++block) {
        detail::column_range const range(columns, block);
        std::vector<double> sum(detail::column_block, 99);
        detail::sum_columns<T>({weight.data(), 2}, {matrix.data(), stride, rows}, range,
                               sum.data());
        for (std::int64_t j = 0; j < range.count; ++j) {
          double expected = 0;
          for (std::int64_t i = 0; i < rows; ++i) {
            expected += static_cast<double>(weight[at(2 * i)]) *
                        static_cast<double>(matrix[at(i * stride + range.first + j)]);
          }
          if (sum[at(j)] != expected) FAIL("column " << range.first + j);
        }
        for (std::int64_t j = range.count; j < detail::column_block; ++j) {
          if (sum[at(j)] != 99) FAIL("wrote past the block");
        }
      }
    }
  }
}

TEST_CASE("blocks of columns cover all columns once") {
  for (std::int64_t const columns : {0, 1, 255, 256, 257, 512, 1000}) {
    std::int64_t next = 0;
    for (std::int64_t block = 0; block < detail::column_blocks(columns); ++block) {
      detail::column_range const range(columns, block);
      CHECK(range.first == next);
      CHECK(range.count > 0);
      next += range.count;
    }
    CHECK(next == columns);
  }
}

TEMPLATE_TEST_CASE("rows are written, added to, combined and scaled", "", float, double) {
  using T = TestType;
  for (std::int64_t count = 0; count < 20; ++count) {
    CAPTURE(count);
    auto const sum = integers<double>(count, 1);
    auto const x = integers<T>(count, 2);
    auto const y = integers<T>(count, 3);
    auto const start = integers<T>(count + 1, 4);  // one more than may be written
    auto written = start;
    auto added = start;
    auto combined = start;
    auto scaled = start;
    detail::write(0.5, sum.data(), 3.0, count, written.data());
    detail::add(0.5, sum.data(), count, added.data());
    detail::combine(2.0, combined.data(), -0.5, y.data(), count);
    detail::scale_row(0.25, x.data(), count, scaled.data());
    for (std::size_t j = 0; j < at(count); ++j) {
      CHECK(written[j] == static_cast<T>(0.5 * sum[j] + 3));
      CHECK(added[j] == static_cast<T>(0.5 * sum[j]) + start[j]);
      CHECK(combined[j] == 2 * start[j] - y[j] / 2);
      CHECK(scaled[j] == x[j] / 4);
    }
    for (auto const* out : {&written, &added, &combined, &scaled}) {
      CHECK((*out)[at(count)] == start[at(count)]);
    }
  }
}
