// SPDX-License-Identifier: MIT
#include <addloss/heads/matrix_product.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"

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

enum class order { rows, columns, neither };

/// A matrix in memory of its own, between numbers that are not part of it.
template <class T>
struct stored {
  std::vector<T> memory;
  tensor_view<T, 2> view;

  stored(std::int64_t rows, std::int64_t columns, order o, std::int64_t seed) {
    std::int64_t const row_stride = o == order::rows ? columns + 3 : o == order::columns ? 1 : 2;
    std::int64_t const column_stride = o == order::rows      ? 1
                                       : o == order::columns ? rows + 1
                                                             : 2 * rows + 1;
    memory = integers<T>(rows * row_stride + columns * column_stride + 2, seed);
    view.data = memory.data() + 1;
    view.extents[0] = rows;
    view.extents[1] = columns;
    view.strides[0] = row_stride;
    view.strides[1] = column_stride;
  }
  stored(stored const&) = delete;
  stored& operator=(stored const&) = delete;

  [[nodiscard]] T& operator()(std::int64_t i, std::int64_t j) const {
    return view.data[i * view.strides[0] + j * view.strides[1]];
  }
};

template <class T>
std::int64_t constexpr tile_rows = detail::product_tile<T>::rows;
template <class T>
std::int64_t constexpr tile_columns = detail::product_tile<T>::columns;
template <class T>
std::int64_t constexpr width = native_pack<T>::width;

}  // namespace

TEMPLATE_TEST_CASE("a product is its formula for all sizes, strides and biases", "", float,
                   double) {
  using T = TestType;
  // Of parts of a tile, of a vector, of a whole panel and more; no rows, columns or depth at all.
  std::int64_t const rows[] = {0, 1, tile_rows<T> - 1, 2 * tile_rows<T> + 1};
  std::int64_t const columns[] = {0,
                                  1,
                                  width<T> + 1,
                                  tile_columns<T> - width<T>,
                                  tile_columns<T> - 1,
                                  2 * tile_columns<T>,
                                  tile_columns<T> + width<T> + 3};
  order const orders[] = {order::rows, order::columns, order::neither};
  int bias_case = 0;
  for (std::int64_t const m : rows) {
    for (std::int64_t const n : columns) {
      for (std::int64_t const k : {0, 1, 2 * static_cast<int>(width<T>) + 1}) {
        for (order const of_a : orders) {
          for (order const of_b : orders) {
            CAPTURE(m, n, k, of_a, of_b);
            stored<T> const a(m, k, of_a, 1);
            stored<T> const b(k, n, of_b, 2);
            stored<T> const c(m, n, order::rows, 3);
            auto const start = c.memory;
            auto const r = integers<T>(m, 4);
            auto const s = integers<T>(n, 5);
            ++bias_case;  // all four, in turns
            product_biases<T> const bias{.row_bias = bias_case % 2 == 0 ? r.data() : nullptr,
                                         .column_bias = bias_case % 4 < 2 ? s.data() : nullptr};
            auto expected = start;
            for (bool const adds : {false, true}) {
              if (adds) {
                add_matrix_product({}, a.view, b.view, c.view, bias);
              } else {
                matrix_product({}, a.view, b.view, c.view, bias);
              }
              for (std::int64_t i = 0; i < m; ++i) {
                for (std::int64_t j = 0; j < n; ++j) {
                  T sum = adds ? expected[at(1 + i * c.view.strides[0] + j)] : T(0);
                  if (bias.row_bias != nullptr) sum += r[at(i)];
                  if (bias.column_bias != nullptr) sum += s[at(j)];
                  for (std::int64_t p = 0; p < k; ++p) sum += a(i, p) * b(p, j);
                  expected[at(1 + i * c.view.strides[0] + j)] = sum;
                }
              }
              if (c.memory != expected) FAIL("another product, or something else was written");
            }
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("terms are summed in blocks of 384", "", float, double) {
  using T = TestType;
  // Next to 2 / epsilon a 1 is lost: that of the first block. The second block's two are not.
  std::int64_t const depth = 2 * 384;
  T const large = 2 / std::numeric_limits<T>::epsilon();
  std::vector<T> a(at(depth));
  a[0] = large;
  a[383] = a[384] = a[767] = 1;
  std::vector<T> const ones(at(depth), 1);
  T c = 0;
  matrix_product({}, view(a.data(), 1, depth), view(ones.data(), depth, 1), view(&c, 1, 1));
  CHECK(c == large + 2);
  T const bias = 3;
  c = 100;
  add_matrix_product({}, view(ones.data(), 1, depth), view(ones.data(), depth, 1), view(&c, 1, 1),
                     {.row_bias = &bias, .column_bias = &bias});
  CHECK(c == 106 + depth);  // the biases once
}

TEMPLATE_TEST_CASE("a product has the same bits on any number of threads and in any place", "",
                   float, double) {
  using T = TestType;
  std::int64_t const m = 67;
  std::int64_t const n = 131;
  std::int64_t const k = 401;
  REQUIRE(m * n * k > detail::parallel_products);
  std::vector<T> a(at(m * k));
  std::vector<T> b(at(k * n));
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<T>(std::sin(1.7 * double(i)));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<T>(std::cos(2.3 * double(i)));
  std::vector<T> once(at(m * n));
  matrix_product({.threads = 1}, view(a.data(), m, k), view(b.data(), k, n),
                 view(once.data(), m, n));
  for (int const threads : {2, 3}) {
    std::vector<T> c(at(m * n), std::numeric_limits<T>::quiet_NaN());
    matrix_product({.threads = threads}, view(a.data(), m, k), view(b.data(), k, n),
                   view(c.data(), m, n));
    CHECK(std::memcmp(c.data(), once.data(), c.size() * sizeof(T)) == 0);
  }
  // One element at a time.
  for (std::int64_t const i : {0, 65, 66}) {
    for (std::int64_t const j : {0, 127, 130}) {
      T c = 0;
      auto column = view(b.data() + j, k, 1);
      column.strides[0] = n;
      matrix_product({}, view(a.data() + i * k, 1, k), column, view(&c, 1, 1));
      CHECK(c == once[at(i * n + j)]);
    }
  }
}

TEST_CASE("NaN in a factor reaches the row or the column it belongs to") {
  std::int64_t const size = 70;
  std::vector<float> a(at(size * size), 1);
  std::vector<float> b(at(size * size), 1);
  std::vector<float> c(at(size * size));
  auto const of = [&](std::vector<float>& x) { return view(x.data(), size, size); };
  a[at(69 * size + 3)] = std::numeric_limits<float>::quiet_NaN();
  b[at(5 * size + 68)] = std::numeric_limits<float>::infinity();
  matrix_product({}, of(a), of(b), of(c));
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = 0; j < size; ++j) {
      float const element = c[at(i * size + j)];
      if (std::isnan(element) != (i == 69)) FAIL("NaN at " << i << ", " << j);
      if (i != 69 && std::isinf(element) != (j == 68)) FAIL("infinity at " << i << ", " << j);
    }
  }
}

TEST_CASE("a transposed view exchanges extents and strides") {
  float x[6] = {};
  auto const v = transposed(view(x, 2, 3));
  CHECK(v.data == x);
  CHECK(v.extents[0] == 3);
  CHECK(v.extents[1] == 2);
  CHECK(v.strides[0] == 1);
  CHECK(v.strides[1] == 3);
}

TEST_CASE("a product reports matrices that do not fit, and writes nothing") {
  float x[64] = {};
  std::vector<float> y(64, 7);
  auto const error = [&](auto const& a, auto const& b, tensor_view<float, 2> const& c) {
    return error_of([&] { matrix_product({}, a, b, c); });
  };
  CHECK(error(view(x, 2, 3), view(x, 3, 4), view(y.data(), 2, 4)) == "no error");
  y.assign(64, 7);
  CHECK(error(view(x, 2, 3), view(x, 2, 4), view(y.data(), 2, 4)) ==
        "matrix_product: rows of B (expected 3, got 2)");
  CHECK(error(view(x, 2, 3), view(x, 3, 4), view(y.data(), 3, 4)) ==
        "matrix_product: rows of C (expected 2, got 3)");
  CHECK(error(view(x, 2, 3), view(x, 3, 4), view(y.data(), 2, 5)) ==
        "matrix_product: columns of C (expected 4, got 5)");
  auto negative = view(x, 2, 3);
  negative.extents[1] = -3;
  CHECK(error(negative, view(x, 3, 4), view(y.data(), 2, 4)) ==
        "matrix_product: extent (expected at least 0, got -3)");
  CHECK(error(view(x, 2, 3), view(x, 3, 4), transposed(view(y.data(), 4, 2))) ==
        "matrix_product: distance of the columns of C (expected 1, got 2)");
  CHECK(error_of([&] {
          add_matrix_product({}, view(x, 2, 3), view(x, 2, 4), view(y.data(), 2, 4));
        }) == "add_matrix_product: rows of B (expected 3, got 2)");
  CHECK(y == std::vector<float>(64, 7));
}
