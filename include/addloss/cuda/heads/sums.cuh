// SPDX-License-Identifier: MIT
/// Sums in double for heads on a GPU, in an order that the shape fixes.
#pragma once

#include <cstdint>

#include <addloss/core/math.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/tasks.cuh>

namespace addloss::cuda {

/// The sum over a warp, in every lane: neighbours first.
__device__ inline double sum_of_warp(double x) {
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) x += __shfl_xor_sync(0xffffffffU, x, apart);
  return x;
}

/// The sum over a block of `Threads`, in every thread: warps, then one after the other.
template <int Threads>
__device__ double sum_of_block(double x) {
  __shared__ double of_warp[Threads / 32];
  x = sum_of_warp(x);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < Threads / 32; ++warp) sum += of_warp[warp];
  __syncthreads();
  return sum;
}

/// The sum of term(i), i < size, over a block.
template <int Threads, class Term>
__device__ double sum_over_block(std::int64_t size, Term const& term) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < size; i += Threads) sum += term(i);
  return sum_of_block<Threads>(sum);
}

/// The sum of term(i), i < size, over the lanes of a warp.
template <class Term>
__device__ double sum_over_warp(std::int64_t size, int lane, Term const& term) {
  double sum = 0;
  for (std::int64_t i = lane; i < size; i += 32) sum += term(i);
  return sum_of_warp(sum);
}

/// out[piece, column] = sum of term(row, column) over the rows of a piece. 32 columns a block, so
/// that a warp reads 32 neighbours; its warps take the rows in turn.
template <class T, class Term>
struct column_pieces {
  static constexpr int threads = 256;
  static constexpr int lanes = threads / 32;

  Term term;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t rows_of_piece;
  T* out;

  [[nodiscard]] __host__ __device__ std::int64_t tiles() const { return (columns + 31) / 32; }
  [[nodiscard]] std::int64_t pieces() const { return (rows + rows_of_piece - 1) / rows_of_piece; }

  __device__ void operator()(std::int64_t task) const {
    __shared__ double of_lane[lanes][32];
    std::int64_t const piece = task / tiles();
    std::int64_t const column = task % tiles() * 32 + threadIdx.x % 32;
    int const lane = static_cast<int>(threadIdx.x / 32);
    std::int64_t const first = piece * rows_of_piece;
    std::int64_t const last = addloss::detail::at_most(first + rows_of_piece, rows);
    double sum = 0;
    if (column < columns) {
#pragma unroll 4
      for (std::int64_t row = first + lane; row < last; row += lanes) sum += term(row, column);
    }
    of_lane[lane][threadIdx.x % 32] = sum;
    __syncthreads();
    if (lane == 0 && column < columns) {
      sum = 0;
      for (int i = 0; i < lanes; ++i) sum += of_lane[i][threadIdx.x];
      out[piece * columns + column] = static_cast<T>(sum);
    }
    __syncthreads();
  }
};
template <class T, class Term>
void sum_columns(cuda_context const& ctx, std::int64_t rows, std::int64_t columns,
                 std::int64_t rows_of_piece, Term const& term, T* out) {
  column_pieces<T, Term> const body{term, rows, columns, rows_of_piece, out};
  run_tasks(ctx, body.pieces() * body.tiles(), body);
}

/// out[column] += the sum of its pieces.
template <class T>
struct add_pieces {
  T const* pieces;
  std::int64_t count;
  std::int64_t columns;
  T* out;

  __device__ void operator()(std::int64_t column) const {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      sum += static_cast<double>(pieces[i * columns + column]);
    }
    out[column] += static_cast<T>(sum);
  }
};

/// One number of a matrix.
template <class T>
struct column_entry {
  T const* x;
  std::int64_t columns;
  __device__ double operator()(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(x[row * columns + column]);
  }
};

/// out += the sums of the columns of x [rows, columns]: of up to 256 rows in double, rounded, then
/// those in double. `pieces`: memory for `numbers` of them.
struct column_sums {
  static constexpr std::int64_t rows_of_piece = 256;

  static std::int64_t numbers(std::int64_t rows, std::int64_t columns) {
    return (rows + rows_of_piece - 1) / rows_of_piece * columns;
  }
  template <class T>
  static void add(cuda_context const& ctx, std::int64_t rows, std::int64_t columns, T const* x,
                  T* pieces, T* out) {
    sum_columns(ctx, rows, columns, rows_of_piece, column_entry<T>{x, columns}, pieces);
    run_elements<1>(ctx, columns,
                    add_pieces<T>{pieces, numbers(rows, columns) / columns, columns, out});
  }
};

}  // namespace addloss::cuda
