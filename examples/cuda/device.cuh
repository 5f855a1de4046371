// SPDX-License-Identifier: MIT
/// What a trainer needs of a GPU beside the library: memory, products of matrices, loops.
/// Plain CUDA in float, so that nothing but the CUDA runtime is needed; a trainer in earnest takes
/// cuBLAS. The same bits from run to run: sums have an order that the shapes fix.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <addloss/cuda.cuh>

namespace demo {

using addloss::cuda::check;

/// Memory of the GPU, zero at first.
template <class T>
class device_array {
 public:
  explicit device_array(std::size_t size) : size_(size) {
    void* memory = nullptr;
    check("cudaMalloc", cudaMalloc(&memory, size * sizeof(T)));
    data_ = static_cast<T*>(memory);
    check("cudaMemset", cudaMemset(data_, 0, size * sizeof(T)));
    wait();
  }
  explicit device_array(std::vector<T> const& values) : device_array(values.size()) {
    write(values);
  }
  device_array(device_array const&) = delete;
  device_array& operator=(device_array const&) = delete;
  device_array(device_array&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
  }
  ~device_array() { cudaFree(data_); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  // Both copy when the GPU is done, and no stream goes on before they have.
  void write(std::vector<T> const& values) {
    wait();
    check("cudaMemcpy",
          cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    wait();
  }
  [[nodiscard]] std::vector<T> read() const {
    wait();
    std::vector<T> result(size_);
    check("cudaMemcpy",
          cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }

 private:
  static void wait() { check("cudaDeviceSynchronize", cudaDeviceSynchronize()); }

  T* data_ = nullptr;
  std::size_t size_;
};

inline constexpr int block_threads = 256;

template <class Body>
__global__ void __launch_bounds__(block_threads) loop(std::int64_t count, Body body) {
  std::int64_t const stride = std::int64_t{gridDim.x} * block_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * block_threads + threadIdx.x; i < count;
       i += stride) {
    body(i);
  }
}

/// body(i) for i = 0 .. count - 1, in any order. The body is a struct with a __device__ operator().
template <class Body>
void each(cudaStream_t stream, std::int64_t count, Body const& body) {
  auto const blocks = std::min<std::int64_t>((count + block_threads - 1) / block_threads, 1024);
  loop<<<static_cast<unsigned>(blocks), block_threads, 0, stream>>>(count, body);
  check("loop", cudaPeekAtLastError());
}

/// Rows and columns of memory that somebody else owns.
struct matrix {
  float const* data;
  int rows;
  int columns;
  int row_stride;
  int column_stride;

  matrix(float const* memory, int row_count, int column_count)
      : data(memory),
        rows(row_count),
        columns(column_count),
        row_stride(column_count),
        column_stride(1) {}
  [[nodiscard]] matrix transposed() const {
    matrix result = *this;
    std::swap(result.rows, result.columns);
    std::swap(result.row_stride, result.column_stride);
    return result;
  }
};

inline constexpr int tile = 32;

/// Elements [row, row + 32) x [column, column + 32), zero outside the matrix. Neighbouring threads
/// read neighbouring elements.
__device__ inline void load_tile(matrix const& from, int row, int column, int last_row,
                                 int last_column, float (&to)[tile][tile + 1]) {
  for (int i = static_cast<int>(threadIdx.x); i < tile * tile; i += block_threads) {
    int const r = from.column_stride == 1 ? i / tile : i % tile;
    int const c = from.column_stride == 1 ? i % tile : i / tile;
    bool const inside = row + r < last_row && column + c < last_column;
    to[r][c] = inside ? from.data[std::int64_t{row + r} * from.row_stride +
                                  std::int64_t{column + c} * from.column_stride]
                      : 0.0F;
  }
}

/// A block makes 32 x 32 elements of a b, a thread 2 x 2 of them; blockIdx.z: of the slice of
/// `depth` columns of a, which is written to a matrix of its own. (Told of no other blocks, ptxas
/// spills registers to make room for 8.)
template <bool Adds>
__global__ void __launch_bounds__(block_threads, 4)
    multiply_tiles(matrix a, matrix b, int depth, float* out) {
  __shared__ float a_tile[tile][tile + 1];
  __shared__ float b_tile[tile][tile + 1];
  constexpr int half = tile / 2;
  int const x = static_cast<int>(threadIdx.x) % half;
  int const y = static_cast<int>(threadIdx.x) / half;
  int const row = static_cast<int>(blockIdx.y) * tile;
  int const column = static_cast<int>(blockIdx.x) * tile;
  int const first = static_cast<int>(blockIdx.z) * depth;
  int const last = first + depth < a.columns ? first + depth : a.columns;
  float sum[2][2] = {};
  for (int k = first; k < last; k += tile) {
    load_tile(a, row, k, a.rows, last, a_tile);
    load_tile(b, k, column, last, b.columns, b_tile);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < tile; ++i) {
      for (int r = 0; r < 2; ++r) {
        for (int c = 0; c < 2; ++c) sum[r][c] += a_tile[y + r * half][i] * b_tile[i][x + c * half];
      }
    }
    __syncthreads();
  }
  out += std::int64_t{blockIdx.z} * a.rows * b.columns;
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 2; ++c) {
      int const at_row = row + y + r * half;
      int const at_column = column + x + c * half;
      if (at_row >= a.rows || at_column >= b.columns) continue;
      float& place = out[std::int64_t{at_row} * b.columns + at_column];
      place = Adds ? place + sum[r][c] : sum[r][c];
    }
  }
}

inline dim3 tiles_of(int rows, int columns, int slices) {
  return {static_cast<unsigned>((columns + tile - 1) / tile),
          static_cast<unsigned>((rows + tile - 1) / tile), static_cast<unsigned>(slices)};
}

/// out = a b
inline void multiply(cudaStream_t stream, matrix const& a, matrix const& b, float* out) {
  multiply_tiles<false>
      <<<tiles_of(a.rows, b.columns, 1), block_threads, 0, stream>>>(a, b, a.columns, out);
  check("multiply", cudaPeekAtLastError());
}

struct add_slices {
  float const* slices;
  int count;
  std::int64_t size;
  float* out;
  __device__ void operator()(std::int64_t i) const {
    float sum = 0;
    for (int slice = 0; slice < count; ++slice) sum += slices[slice * size + i];
    out[i] += sum;
  }
};

/// Products over many rows of a batch, whose results are too small to give a GPU work: slices of
/// the rows are multiplied side by side in `memory`, of slice_numbers() at least, and then added.
inline constexpr int slice_depth = 1024;

inline std::size_t slice_numbers(int rows, std::size_t result) {
  return static_cast<std::size_t>((rows + slice_depth - 1) / slice_depth) * result;
}

/// out += a^T b
inline void add_outer(cudaStream_t stream, matrix const& a, matrix const& b, float* memory,
                      float* out) {
  matrix const left = a.transposed();
  int const slices = (left.columns + slice_depth - 1) / slice_depth;
  if (slices == 1) {
    multiply_tiles<true><<<tiles_of(left.rows, b.columns, 1), block_threads, 0, stream>>>(
        left, b, left.columns, out);
  } else {
    multiply_tiles<false><<<tiles_of(left.rows, b.columns, slices), block_threads, 0, stream>>>(
        left, b, slice_depth, memory);
    std::int64_t const size = std::int64_t{left.rows} * b.columns;
    each(stream, size, add_slices{memory, slices, size, out});
  }
  check("add_outer", cudaPeekAtLastError());
}

}  // namespace demo
