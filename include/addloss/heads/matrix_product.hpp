// SPDX-License-Identifier: MIT
/// Dense matrix products for the layers of a head: C = A B or C += A B in the arithmetic of T.
///
/// A [rows, depth] is packed into memory of the caller, a block of `depth_block` columns at a time.
/// B [depth, columns] is never stored: a source of columns packs a panel of it on the stack when it
/// is needed, so a convolution has neither a padded nor an unrolled copy of its input. C is written
/// by the column's address, so its columns need not be at one distance.
/// Order of sums: an element of C is the sum over blocks of `depth_block` terms, in order, each
/// summed from 0 term by term (with a fused multiply-add where the instruction set has one); it
/// does not depend on threads, on the SIMD width or on where the element lies.
/// Rows and columns past the end are computed on valid numbers and not stored. The panel takes
/// depth_block * 192 bytes of the stack with AVX-512, half and a quarter of it below.
/// Method: Goto, van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008, with the
/// roles of A and B exchanged: the panel of B stays in the first-level cache, A streams from the
/// second.
#pragma once

#include <cstdint>

#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/lanes.hpp>

namespace addloss::detail {
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

/// A: element (row, p) lies at row * row_stride + (p / minor) * major_stride
/// + (p % minor) * minor_stride.
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

/// Where C lies: element (row, j) of a panel at row * row_stride + column[j].
template <arithmetic_scalar T>
struct product_destination {
  T* data;
  std::int64_t row_stride;
  T const* start;  ///< one a row, added to the products; or null
  bool accumulate;  ///< add to C, and not `start`
};

/// One tile of C and one block of the depth. `a` and `b` are packed, `column` as above.
template <arithmetic_scalar T>
[[gnu::noinline]] void multiply_tile(std::int64_t depth, T const* a, T const* b,
                                     product_destination<T> const& c, std::int64_t first_row,
                                     std::int64_t rows, std::int64_t const* column, int columns,
                                     bool add) {
  using tile = product_tile<T>;
  using pack = typename tile::pack;
  constexpr int width = pack::width;
  pack sum[tile::rows][tile::vectors];
  ADDLOSS_UNROLL(8)
  for (int i = 0; i < tile::rows; ++i) {
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < tile::vectors; ++j) sum[i][j] = pack(T(0));
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    pack factor[tile::vectors];
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < tile::vectors; ++j) {
      factor[j] = pack::load(b + p * tile::columns + j * width);
    }
    ADDLOSS_UNROLL(8)
    for (int i = 0; i < tile::rows; ++i) {
      T const scale = a[p * tile::rows + i];
      // One expression, or clang would not fuse it.
      ADDLOSS_UNROLL(3)
      for (int j = 0; j < tile::vectors; ++j) sum[i][j].lanes += scale * factor[j].lanes;
    }
  }
  // Offsets grow, so a vector whose last lane lies width - 1 after its first is a whole run.
  bool whole = rows == tile::rows && columns == tile::columns;
  for (int j = 0; j < tile::columns; j += width) {
    whole = whole && column[j + width - 1] - column[j] == width - 1;
  }
  T* to = c.data + first_row * c.row_stride;
  if (whole) {
    ADDLOSS_UNROLL(8)
    for (int i = 0; i < tile::rows; ++i, to += c.row_stride) {
      pack const start(c.start == nullptr ? T(0) : c.start[first_row + i]);
      ADDLOSS_UNROLL(3)
      for (int j = 0; j < tile::vectors; ++j) {
        int const lane = j * width;
        T* const place = to + column[lane];
        ((add ? pack::load(place) : start) + sum[i][j]).store(place);
      }
    }
    return;
  }
  alignas(64) T value[tile::rows][tile::columns];
  ADDLOSS_UNROLL(8)
  for (int i = 0; i < tile::rows; ++i) {
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < tile::vectors; ++j) sum[i][j].store(value[i] + j * width);
  }
  for (std::int64_t i = 0; i < rows; ++i, to += c.row_stride) {
    T const start = c.start == nullptr ? T(0) : c.start[first_row + i];
    for (int j = 0; j < columns; ++j) {
      T& element = to[column[j]];
      element = (add ? element : start) + value[i][j];
    }
  }
}

/// C (+)= A B. `packed`: memory for packed_size(rows, depth) numbers. `Source` has
///   columns                                        of B and C
///   locate(first, offsets)                         where `tile::columns` columns of C lie
///   pack(first, p, depth, panel)                   rows p ... of that many columns of B
/// and repeats its last column for those past the end.
template <arithmetic_scalar T, class Source>
void multiply(int threads, left_matrix<T> const& a, T* packed, Source const& source,
              product_destination<T> const& c) {
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
        multiply_tile<T>(length, packed + row * length, panel, c, row,
                         at_most(tile::rows, a.rows - row), column, columns, c.accumulate || p > 0);
      }
    });
  }
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
