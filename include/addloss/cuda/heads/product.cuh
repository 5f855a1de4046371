// SPDX-License-Identifier: MIT
/// Matrix products for heads on a GPU: what a layer asks for, and a plain kernel that does it.
///
///   C[i,j] (+)= sum_p A[i,p] B[p,j],  i < rows, j < columns, p < depth, for each of `batches`
/// Row-major: element (i, j) of a matrix lies at data[batch batch_stride + i ld + j], and of one
/// that is stored transposed at data[batch batch_stride + j ld + i]. Operands may overlap one
/// another and have a batch stride of 0 or less than their size; C may not.
/// A product is a policy, a value in the context of heads: `operand<T>` names the type that the
/// operands of layers in T are stored in, T itself or a narrower one; sums and C are in T.
/// `rounds_operands<T>`: whether it reads fewer digits of them than T has. `check<T>(context)`,
/// where it has one, refuses a context that it cannot run in, before heads enqueue anything.
///   tiled_product<>          the kernel below: of float or double as they are
///   tiled_product<bfloat16>  operands rounded to bfloat16, sums in float
///   cublas_product           cuBLAS (cuda/heads/cublas_product.cuh)
/// The kernel: each element of C is summed by one thread in the order of p, so the same bits for
/// any number of blocks. It is there for tests, and where there is no cuBLAS: it has no tensor
/// cores and no loads ahead.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/packet.cuh>
#include <addloss/cuda/tasks.cuh>

namespace addloss::cuda {

template <class S>
struct product_operand {
  S const* data;
  std::int64_t ld;
  std::int64_t batch_stride = 0;
  bool transposed = false;
};

template <class T, class S>
struct product_call {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t depth;
  std::int64_t batches;
  product_operand<S> a;
  product_operand<S> b;
  T* c;
  std::int64_t c_ld;
  std::int64_t c_batch_stride = 0;
  bool adds = false;
};

/// A block computes 64 x 64 elements, a thread 4 x 4 of them.
template <class T, class S>
struct product_tile {
  static constexpr int threads = 256;
  static constexpr int size = 64;
  static constexpr int deep = 16;

  product_call<T, S> call;

  [[nodiscard]] __host__ __device__ std::int64_t tiles_across() const {
    return (call.columns + size - 1) / size;
  }
  [[nodiscard]] __host__ __device__ std::int64_t tiles_down() const {
    return (call.rows + size - 1) / size;
  }
  [[nodiscard]] std::int64_t tasks() const { return call.batches * tiles_down() * tiles_across(); }

  __device__ void operator()(std::int64_t task) const {
    __shared__ T a[deep][size + 1];
    __shared__ T b[deep][size + 1];
    std::int64_t const across = task % tiles_across();
    std::int64_t const down = task / tiles_across() % tiles_down();
    std::int64_t const batch = task / tiles_across() / tiles_down();
    std::int64_t const first_row = down * size;
    std::int64_t const first_column = across * size;
    int const thread = static_cast<int>(threadIdx.x);
    int const row = thread / 16;
    int const column = thread % 16;
    T sum[4][4] = {};
    for (std::int64_t p = 0; p < call.depth; p += deep) {
      // Neighbouring threads read neighbours in memory.
#pragma unroll 1
      for (int i = thread; i < deep * size; i += threads) {
        int const q = call.a.transposed ? i / size : i % deep;
        int const r = call.a.transposed ? i % size : i / deep;
        a[q][r] = element(call.a, batch, first_row + r, p + q, call.rows, call.depth);
      }
#pragma unroll 1
      for (int i = thread; i < deep * size; i += threads) {
        int const q = call.b.transposed ? i % deep : i / size;
        int const c = call.b.transposed ? i / deep : i % size;
        b[q][c] = element(call.b, batch, p + q, first_column + c, call.depth, call.columns);
      }
      __syncthreads();
      int const last = static_cast<int>(addloss::detail::at_most(deep, call.depth - p));
      for (int q = 0; q < last; ++q) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] += a[q][row + 16 * i] * b[q][column + 16 * j];
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::int64_t const r = first_row + row + 16 * i;
      if (r >= call.rows) continue;
      T* const out = call.c + batch * call.c_batch_stride + r * call.c_ld;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        std::int64_t const c = first_column + column + 16 * j;
        if (c < call.columns) out[c] = call.adds ? out[c] + sum[i][j] : sum[i][j];
      }
    }
  }

 private:
  static __device__ T element(product_operand<S> const& of, std::int64_t batch, std::int64_t i,
                              std::int64_t j, std::int64_t rows, std::int64_t columns) {
    if (i >= rows || j >= columns) return T(0);
    std::int64_t const at = of.transposed ? j * of.ld + i : i * of.ld + j;
    return widen<T>(of.data[batch * of.batch_stride + at]);
  }
};

}  // namespace addloss::cuda

namespace addloss {

/// `Operand`: void, or the type that operands are rounded to.
template <class Operand = void>
struct tiled_product {
  template <arithmetic_scalar T>
  using operand = std::conditional_t<std::is_void_v<Operand>, T, Operand>;
  template <arithmetic_scalar T>
  static constexpr bool rounds_operands = !std::is_void_v<Operand>;

  template <arithmetic_scalar T>
  void multiply(cuda_context const& ctx, cuda::product_call<T, operand<T>> const& call) const {
    cuda::product_tile<T, operand<T>> const tile{call};
    cuda::run_tasks(ctx, tile.tasks(), tile);
  }
};

/// A policy for matrix products of heads in `T`.
template <class P, class T = float>
concept matrix_product =
    std::copyable<P> &&
    requires(P const product, cuda_context const ctx,
             cuda::product_call<T, typename P::template operand<T>> const call) {
      { P::template rounds_operands<T> } -> std::convertible_to<bool>;
      product.multiply(ctx, call);
    };

}  // namespace addloss
