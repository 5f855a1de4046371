// SPDX-License-Identifier: MIT
/// Dense matrix products for the layers of a head: C = A B or C += A B in the arithmetic of T.
///
/// A [rows, depth] is packed once, by `pack_left`, into memory of the caller. B [depth, columns] is
/// never stored: a source of columns packs a panel of it on the stack when it is needed, so a
/// convolution has neither a padded nor an unrolled copy of its input. C is written by the column's
/// address, so its columns need not be at one distance.
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
#include <cstring>
#include <utility>

#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// The part of C that is kept in registers: 24 of 32 registers of AVX-512, else 12 of 16.
template <arithmetic_scalar T>
struct product_tile {
  using pack = native_pack<T>;
  static constexpr int rows = ADDLOSS_SIMD_BYTES == 64 ? 8 : 4;
  static constexpr int vectors = 3;
  static constexpr int columns = vectors * pack::width;
};

/// Terms that are summed in registers: 256 was up to 8 % slower, with 384 channels.
inline constexpr std::int64_t depth_block = 384;

/// Fewer multiplications than this take less time than to wake a second thread.
inline constexpr std::int64_t parallel_products = 1 << 18;

/// T[Count]. (g++ warns of an int as the size of an array where it depends on a template.)
template <class T, int Count>
using array_of = T[static_cast<unsigned>(Count)];

constexpr std::int64_t round_up(std::int64_t count, std::int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

template <class Pack, bool Upper, std::size_t... Lane>
ADDLOSS_INLINE Pack interleave(Pack a, Pack b, std::index_sequence<Lane...> /*lanes*/) {
  constexpr int width = Pack::width;
  return Pack(__builtin_shufflevector(
      a.lanes, b.lanes,
      (static_cast<int>(Lane) / 2 + (Upper ? width / 2 : 0) + (Lane % 2 == 0 ? 0 : width))...));
}

/// to[i * to_stride + j] = from[j][i] for i, j < Pack::width. Interleaving the upper with the lower
/// half of the rows turns the bits of the row's and the lane's number by one: log2(width) turns
/// exchange the two.
template <class Pack>
ADDLOSS_INLINE void transpose_block(typename Pack::value_type const* const* from,
                                    typename Pack::value_type* to, std::int64_t to_stride) {
  constexpr int width = Pack::width;
  constexpr auto lanes = std::make_index_sequence<static_cast<unsigned>(width)>{};
  array_of<Pack, width> rows;
#pragma GCC unroll 16
  for (int j = 0; j < width; ++j) rows[j] = Pack::load(from[j]);
#pragma GCC unroll 4
  for (int turn = 1; turn < width; turn *= 2) {
    array_of<Pack, width> turned;
#pragma GCC unroll 8
    for (int j = 0; j < width / 2; ++j) {
      turned[2 * j] = interleave<Pack, false>(rows[j], rows[j + width / 2], lanes);
      turned[2 * j + 1] = interleave<Pack, true>(rows[j], rows[j + width / 2], lanes);
    }
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) rows[j] = turned[j];
  }
#pragma GCC unroll 16
  for (int i = 0; i < width; ++i) rows[i].store(to + i * to_stride);
}

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

/// Numbers that `pack_left` writes.
template <arithmetic_scalar T>
constexpr std::int64_t packed_size(std::int64_t rows, std::int64_t depth) {
  return round_up(rows, product_tile<T>::rows) * depth;
}

/// For each block of the depth, for each tile of rows: [depth of the block][rows of the tile].
template <arithmetic_scalar T>
void pack_left(int threads, left_matrix<T> const& a, T* packed) {
  constexpr int tile = product_tile<T>::rows;
  std::int64_t const padded = round_up(a.rows, tile);
  each_task(threads, padded / tile, [&](std::int64_t index) {
    using square = simd_pack<T, tile>;
    array_of<T const*, tile> row;
    for (int i = 0; i < tile; ++i) {
      row[i] = a.data + at_most(index * tile + i, a.rows - 1) * a.row_stride;
    }
    for (std::int64_t first = 0; first < a.depth; first += depth_block) {
      std::int64_t const length = at_most(depth_block, a.depth - first);
      T* to = packed + first * padded + index * tile * length;
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
#pragma GCC unroll 8
  for (int i = 0; i < tile::rows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < tile::vectors; ++j) sum[i][j] = pack(T(0));
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    pack factor[tile::vectors];
#pragma GCC unroll 3
    for (int j = 0; j < tile::vectors; ++j) {
      factor[j] = pack::load(b + p * tile::columns + j * width);
    }
#pragma GCC unroll 8
    for (int i = 0; i < tile::rows; ++i) {
      T const scale = a[p * tile::rows + i];
      // One expression, or clang would not fuse it.
#pragma GCC unroll 3
      for (int j = 0; j < tile::vectors; ++j) sum[i][j].lanes += scale * factor[j].lanes;
    }
  }
  alignas(64) T value[tile::rows][tile::columns];
#pragma GCC unroll 8
  for (int i = 0; i < tile::rows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < tile::vectors; ++j) sum[i][j].store(value[i] + j * width);
  }
  for (int j = 0; j < columns; j += width) {
    int const lanes = columns - j < width ? columns - j : width;
    // Offsets grow, so this is a whole run.
    bool const run = lanes == width && column[j + width - 1] - column[j] == width - 1;
    T* to = c.data + first_row * c.row_stride;
    for (std::int64_t i = 0; i < rows; ++i, to += c.row_stride) {
      T const start = c.start == nullptr ? T(0) : c.start[first_row + i];
      if (run) {
        pack const before = add ? pack::load(to + column[j]) : pack(start);
        (before + pack::load(value[i] + j)).store(to + column[j]);
      } else {
        for (int lane = j; lane < j + lanes; ++lane) {
          T& element = to[column[lane]];
          element = (add ? element : start) + value[i][lane];
        }
      }
    }
  }
}

/// C (+)= A B. `Source` has
///   columns                                        of B and C
///   locate(first, offsets)                         where `tile::columns` columns of C lie
///   pack(first, p, depth, panel)                   rows p ... of that many columns of B
/// and repeats its last column for those past the end.
template <arithmetic_scalar T, class Source>
void multiply(int threads, T const* packed, std::int64_t rows, std::int64_t depth,
              Source const& source, product_destination<T> const& c) {
  using tile = product_tile<T>;
  constexpr std::int64_t group = 8;  // panels that share a block of A in the second-level cache
  std::int64_t const padded = round_up(rows, tile::rows);
  std::int64_t const panels = (source.columns + tile::columns - 1) / tile::columns;
  std::int64_t const rounds = (panels + group * threads - 1) / (group * threads);
  std::int64_t const tasks = at_most(rounds * threads, panels);
  each_task(threads, tasks, [&](std::int64_t task) {
    alignas(64) T panel[depth_block * tile::columns];
    std::int64_t column[tile::columns];
    std::int64_t const last_panel = panels * (task + 1) / tasks;
    // At least one block, so that C is written where the depth is 0.
    for (std::int64_t p = 0; p == 0 || p < depth; p += depth_block) {
      std::int64_t const length = at_most(depth_block, depth - p);
      for (std::int64_t q = panels * task / tasks; q < last_panel; ++q) {
        std::int64_t const first = q * tile::columns;
        auto const columns = static_cast<int>(at_most(tile::columns, source.columns - first));
        source.locate(first, column);
        source.pack(first, p, length, panel);
        for (std::int64_t row = 0; row < padded; row += tile::rows) {
          multiply_tile<T>(length, packed + p * padded + row * length, panel, c, row,
                           at_most(tile::rows, rows - row), column, columns, c.accumulate || p > 0);
        }
      }
    }
  });
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
