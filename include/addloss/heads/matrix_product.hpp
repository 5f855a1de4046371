// SPDX-License-Identifier: MIT
/// Dense matrix products, for layers of your own and for those of this library.
///
///   matrix_product      C[i,j]  = r[i] + s[j] + sum_p A[i,p] B[p,j]
///   add_matrix_product  C[i,j] += r[i] + s[j] + sum_p A[i,p] B[p,j]
/// A [m, k], B [k, n], C [m, n]; r [m] and s [n] may be absent. Extents of 0 are allowed: k = 0
/// leaves r + s. A and B may have any strides, so `transposed` costs nothing; the columns of C are
/// contiguous, its rows as far apart as you like. C overlaps nothing that is read.
///
///   matrix_product(ctx, view(x, rows, in), transposed(view(w, out, in)), view(y, rows, out),
///                  {.column_bias = bias});
///
/// In the arithmetic of T. Order of sums: terms are summed from 0 in blocks of 384, one by one
/// (with a fused multiply-add where the instruction set has one), and the blocks' sums added in
/// order to C + r + s. It depends on k alone: same bits for any number of threads, SIMD width and
/// position in memory. NaN and infinity go where the formula says. Nothing is allocated; a thread
/// takes up to 75 KiB of its stack.
/// Errors, before anything is written: extents that do not fit, columns of C that are not
/// contiguous.
/// Speed: bench_heads_matrix_product, beside Eigen 3.4. On one thread of a Zen 4 EPYC, g++ 12 -O3
/// -march=native, 93 to 110 of 117 GFLOP/s with float, 1.2 to 1.3 times as fast; as fast with SSE2.
///
/// How: a panel of B (384 x 48 floats with AVX-512) is copied to the stack, where it stays in the
/// first caches; rows of A, eight at a time, are multiplied with it as they lie in memory, the sums
/// in registers. Convolutions, whose A has no strides, pack it first (`detail::multiply`).
/// Source of the method: Goto, van de Geijn, Anatomy of High-Performance Matrix Multiplication,
/// 2008, with the roles of A and B exchanged.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/heads/lanes.hpp>

namespace addloss {

/// What is added to a product.
template <arithmetic_scalar T>
struct product_biases {
  T const* row_bias = nullptr;  ///< r [m]
  T const* column_bias = nullptr;  ///< s [n]
};

/// The same numbers with rows and columns exchanged.
template <class T, class Space>
constexpr tensor_view<T, 2, Space> transposed(tensor_view<T, 2, Space> const& matrix) {
  tensor_view<T, 2, Space> result;
  result.data = matrix.data;
  for (int axis = 0; axis < 2; ++axis) {
    result.extents[axis] = matrix.extents[1 - axis];
    result.strides[axis] = matrix.strides[1 - axis];
  }
  return result;
}

namespace detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// The part of C that is kept in registers: 24 of 32 registers of AVX-512, else 12 of 16.
template <arithmetic_scalar T>
struct product_tile {
  using pack = native_pack<T>;
  static constexpr int vectors = 3;
  static constexpr int columns = vectors * pack::width;
  static constexpr int rows = ADDLOSS_SIMD_BYTES == 64 ? 8 : columns % 4 == 0 ? 4 : 2;
};

/// Terms that are summed in registers: 256 was up to 8 % slower, with 384 channels.
inline constexpr std::int64_t depth_block = 384;

/// Fewer multiplications than this take less time than to wake a second thread.
inline constexpr std::int64_t parallel_products = 1 << 18;

/// Rows of A that are multiplied: element (i, p) of a tile at data[i row_stride + p depth_stride].
template <arithmetic_scalar T>
struct tile_rows {
  T const* data;
  std::int64_t row_stride;
  std::int64_t depth_stride;
};

/// The same of packed rows, whose strides the compiler knows.
template <arithmetic_scalar T>
struct packed_tile_rows {
  static constexpr std::int64_t row_stride = 1;
  static constexpr std::int64_t depth_stride = product_tile<T>::rows;
  T const* data;
};

/// Where C lies: element (row, j) of a panel at row * row_stride + column[j].
template <arithmetic_scalar T>
struct product_destination {
  T* data;
  std::int64_t row_stride;
  T const* row_bias;  ///< or null
  T const* column_bias;  ///< or null; of the panel
  bool accumulate;  ///< add to C; without, it is not read
};

/// Rows of C and up to Vectors vectors of columns, for one block of the depth. `b` is packed,
/// `column` as above; the first `rows` rows and `columns` columns are stored.
template <arithmetic_scalar T, int Rows, int Vectors, class A>
[[gnu::noinline]] void multiply_tile(std::int64_t depth, A a, T const* b,
                                     product_destination<T> const& c, std::int64_t first_row,
                                     std::int64_t rows, std::int64_t const* column, int columns) {
  using pack = native_pack<T>;
  constexpr int width = pack::width;
  array_of<array_of<pack, Vectors>, Rows> sum;
  ADDLOSS_UNROLL(8)
  for (int i = 0; i < Rows; ++i) {
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < Vectors; ++j) sum[i][j] = pack(T(0));
  }
  for (std::int64_t p = 0; p < depth; ++p, a.data += a.depth_stride, b += Vectors * width) {
    array_of<pack, Vectors> factor;
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < Vectors; ++j) factor[j] = pack::load(b + j * width);
    ADDLOSS_UNROLL(8)
    for (int i = 0; i < Rows; ++i) {
      T const scale = a.data[i * a.row_stride];
      // One expression, or clang would not fuse it.
      ADDLOSS_UNROLL(3)
      for (int j = 0; j < Vectors; ++j) sum[i][j].lanes += scale * factor[j].lanes;
    }
  }
  // Offsets grow, so a vector whose last lane lies width - 1 after its first is a whole run.
  bool whole = rows == Rows && columns == Vectors * width;
  for (int j = 0; whole && j < columns; j += width) {
    whole = column[j + width - 1] - column[j] == width - 1;
  }
  T* to = c.data + first_row * c.row_stride;
  if (whole) {
    ADDLOSS_UNROLL(8)
    for (int i = 0; i < Rows; ++i, to += c.row_stride) {
      pack const row_bias(c.row_bias == nullptr ? T(0) : c.row_bias[first_row + i]);
      ADDLOSS_UNROLL(3)
      for (int j = 0; j < Vectors; ++j) {
        int const lane = j * width;
        T* const place = to + column[lane];
        pack start = c.accumulate ? pack::load(place) : row_bias;
        if (c.accumulate && c.row_bias != nullptr) start += row_bias;
        if (c.column_bias != nullptr) start += pack::load(c.column_bias + lane);
        (start + sum[i][j]).store(place);
      }
    }
    return;
  }
  alignas(64) array_of<array_of<T, Vectors * width>, Rows> value;
  ADDLOSS_UNROLL(8)
  for (int i = 0; i < Rows; ++i) {
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < Vectors; ++j) sum[i][j].store(value[i] + j * width);
  }
  for (std::int64_t i = 0; i < rows; ++i, to += c.row_stride) {
    T const row_bias = c.row_bias == nullptr ? T(0) : c.row_bias[first_row + i];
    for (int j = 0; j < columns; ++j) {
      T& element = to[column[j]];
      T start = c.accumulate ? element : row_bias;
      if (c.accumulate && c.row_bias != nullptr) start += row_bias;
      if (c.column_bias != nullptr) start += c.column_bias[j];
      element = start + value[i][j];
    }
  }
}

/// A as convolutions have it: element (row, p) lies at row * row_stride + (p / minor) *
/// major_stride + (p % minor) * minor_stride.
template <arithmetic_scalar T>
struct left_matrix {
  T const* data;
  std::int64_t rows;
  std::int64_t depth;
  std::int64_t row_stride;
  std::int64_t minor;
  std::int64_t major_stride;
  std::int64_t minor_stride;
};

/// Numbers that are packed at a time.
template <arithmetic_scalar T>
constexpr std::int64_t packed_size(std::int64_t rows, std::int64_t depth) {
  return round_up(rows, product_tile<T>::rows) * at_most(depth_block, depth);
}

/// Columns first ... of A, for each tile of rows: [column][row of the tile].
template <arithmetic_scalar T>
void pack_left(int threads, left_matrix<T> const& a, std::int64_t first, std::int64_t length,
               T* packed) {
  constexpr int tile = product_tile<T>::rows;
  each_task(threads, round_up(a.rows, tile) / tile, [&](std::int64_t index) {
    using square = simd_pack<T, tile>;
    array_of<T const*, tile> row;
    for (int i = 0; i < tile; ++i) {
      row[i] = a.data + at_most(index * tile + i, a.rows - 1) * a.row_stride;
    }
    T* to = packed + index * tile * length;
    std::int64_t major = first / a.minor;
    std::int64_t minor = first % a.minor;
    for (std::int64_t p = 0; p < length;) {
      std::int64_t const run = at_most(a.minor - minor, length - p);
      std::int64_t offset = major * a.major_stride + minor * a.minor_stride;
      std::int64_t done = 0;
      if constexpr (sizeof(square) <= ADDLOSS_SIMD_BYTES) {
        for (; a.minor_stride == 1 && done + tile <= run; done += tile, offset += tile) {
          array_of<T const*, tile> from;
          for (int i = 0; i < tile; ++i) from[i] = row[i] + offset;
          transpose_block<square>(from, to, tile);
          to += tile * tile;
        }
      }
      for (; done < run; ++done, offset += a.minor_stride) {
        for (int i = 0; i < tile; ++i) *to++ = row[i][offset];
      }
      p += run;
      minor = 0;
      ++major;
    }
  });
}

/// C (+)= A B for what has no strides. `packed`: memory for packed_size(rows, depth) numbers.
/// `Source` has
///   columns                                        of B and C
///   locate(first, offsets)                         where `tile::columns` columns of C lie
///   pack(first, p, depth, panel)                   rows p ... of that many columns of B
/// and repeats its last column for those past the end. C's columns need not be at one distance.
template <arithmetic_scalar T, class Source>
void multiply(int threads, left_matrix<T> const& a, T* packed, Source const& source,
              product_destination<T> c) {
  using tile = product_tile<T>;
  std::int64_t const panels = (source.columns + tile::columns - 1) / tile::columns;
  // At least one block, so that C is written where the depth is 0.
  for (std::int64_t p = 0; p == 0 || p < a.depth; p += depth_block) {
    std::int64_t const length = at_most(depth_block, a.depth - p);
    pack_left(threads, a, p, length, packed);
    each_task(threads, panels, [&](std::int64_t q) {
      alignas(64) T panel[depth_block * tile::columns];
      std::int64_t column[tile::columns];
      std::int64_t const first = q * tile::columns;
      auto const columns = static_cast<int>(at_most(tile::columns, source.columns - first));
      source.locate(first, column);
      source.pack(first, p, length, panel);
      for (std::int64_t row = 0; row < a.rows; row += tile::rows) {
        multiply_tile<T, tile::rows, tile::vectors>(
            length, packed_tile_rows<T>{packed + row * length}, panel, c, row,
            at_most(tile::rows, a.rows - row), column, columns);
      }
    });
    c.accumulate = true;
    c.row_bias = nullptr;
  }
}

/// `columns` columns of `depth` rows of B, from `b` on. Past the end the last one is repeated.
template <arithmetic_scalar T, int Vectors>
void pack_panel(T const* b, std::int64_t row_stride, std::int64_t column_stride, int columns,
                std::int64_t depth, T* panel) {
  using pack = native_pack<T>;
  constexpr int width = pack::width;
  constexpr int stride = Vectors * width;
  if (column_stride == 1 && columns == stride) {
    for (std::int64_t p = 0; p < depth; ++p, b += row_stride, panel += stride) {
      std::memcpy(panel, b, stride * sizeof(T));
    }
    return;
  }
  for (int j = 0; j < stride; j += width) {
    array_of<T const*, width> from;
    for (int i = 0; i < width; ++i) from[i] = b + at_most(j + i, columns - 1) * column_stride;
    std::int64_t p = 0;
    for (; row_stride == 1 && p + width <= depth; p += width) {
      transpose_block<pack>(from, panel + p * stride + j, stride);
      for (int i = 0; i < width; ++i) from[i] += width;
    }
    for (; p < depth; ++p) {
      for (int i = 0; i < width; ++i) {
        panel[p * stride + j + i] = *from[i];
        from[i] += row_stride;
      }
    }
  }
}

/// Up to Vectors vectors of columns of C, from `first` on.
template <int Vectors, arithmetic_scalar T>
void multiply_panel(tensor_view<T const, 2> const& a, tensor_view<T const, 2> const& b,
                    product_destination<T> c, std::int64_t first) {
  using tile = product_tile<T>;
  constexpr int width = Vectors * tile::pack::width;
  alignas(64) array_of<T, depth_block * width> panel;
  auto const columns = static_cast<int>(at_most(width, b.extents[1] - first));
  array_of<std::int64_t, width> column;
  for (int j = 0; j < width; ++j) column[j] = j;
  c.data += first;
  if (c.column_bias != nullptr) c.column_bias += first;
  auto const [rows, depth] = a.extents;
  // At least one block, so that C is written where the depth is 0.
  for (std::int64_t p = 0; p == 0 || p < depth; p += depth_block) {
    std::int64_t const length = at_most(depth_block, depth - p);
    pack_panel<T, Vectors>(b.data + p * b.strides[0] + first * b.strides[1], b.strides[0],
                           b.strides[1], columns, length, panel);
    T const* const from = a.data + p * a.strides[1];
    auto const multiply_rows = [&]<int Rows>(std::integral_constant<int, Rows> /*rows*/,
                                             std::int64_t row) {
      multiply_tile<T, Rows, Vectors>(
          length, tile_rows<T>{from + row * a.strides[0], a.strides[0], a.strides[1]}, panel, c,
          row, Rows, column, columns);
    };
    std::int64_t row = 0;
    for (; row + tile::rows <= rows; row += tile::rows) {
      multiply_rows(std::integral_constant<int, tile::rows>{}, row);
    }
    for (; row < rows; ++row) multiply_rows(std::integral_constant<int, 1>{}, row);
    c.accumulate = true;
    c.row_bias = c.column_bias = nullptr;
  }
}

template <arithmetic_scalar T>
void check_product(char const* function, tensor_view<T const, 2> const& a,
                   tensor_view<T const, 2> const& b, tensor_view<T, 2> const& c) {
  auto const check = [&](char const* what, std::int64_t found, std::int64_t expected) {
    if (found != expected) fail(function, what, text() << expected, text() << found);
  };
  for (std::int64_t const extent : {a.extents[0], a.extents[1], b.extents[1]}) {
    if (extent < 0) fail(function, "extent", "at least 0", text() << extent);
  }
  check("rows of B", b.extents[0], a.extents[1]);
  check("rows of C", c.extents[0], a.extents[0]);
  check("columns of C", c.extents[1], b.extents[1]);
  if (c.extents[1] > 1) check("distance of the columns of C", c.strides[1], 1);
}

/// Wide panels, and single vectors for what is less than a wide one.
template <arithmetic_scalar T>
void multiply(cpu_context const& ctx, tensor_view<T const, 2> const& a,
              tensor_view<T const, 2> const& b, product_destination<T> const& c) {
  using tile = product_tile<T>;
  constexpr int width = tile::pack::width;
  std::int64_t const columns = b.extents[1];
  std::int64_t const wide = (columns + width - 1) / tile::columns;
  std::int64_t const rest = columns > wide * tile::columns ? columns - wide * tile::columns : 0;
  bool const parallel = a.extents[0] * a.extents[1] * columns >= parallel_products;
  each_task(parallel ? ctx.threads : 1, wide + (rest + width - 1) / width, [&](std::int64_t q) {
    if (q < wide) {
      multiply_panel<tile::vectors>(a, b, c, q * tile::columns);
    } else {
      multiply_panel<1>(a, b, c, wide * tile::columns + (q - wide) * width);
    }
  });
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace detail

inline namespace ADDLOSS_ISA_NAMESPACE {

/// C = A B + r + s
template <arithmetic_scalar T>
void matrix_product(cpu_context const& ctx, std::type_identity_t<tensor_view<T const, 2>> a,
                    std::type_identity_t<tensor_view<T const, 2>> b, tensor_view<T, 2> c,
                    std::type_identity_t<product_biases<T>> bias = {}) {
  detail::check_product<T>("matrix_product", a, b, c);
  detail::multiply<T>(ctx, a, b, {c.data, c.strides[0], bias.row_bias, bias.column_bias, false});
}

/// C += A B + r + s
template <arithmetic_scalar T>
void add_matrix_product(cpu_context const& ctx, std::type_identity_t<tensor_view<T const, 2>> a,
                        std::type_identity_t<tensor_view<T const, 2>> b, tensor_view<T, 2> c,
                        std::type_identity_t<product_biases<T>> bias = {}) {
  detail::check_product<T>("add_matrix_product", a, b, c);
  detail::multiply<T>(ctx, a, b, {c.data, c.strides[0], bias.row_bias, bias.column_bias, true});
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
