// SPDX-License-Identifier: MIT
/// Heads on a GPU: the context that a `head_stack` and its layers run in, and what they share.
///
/// Layers read and write features with the tokens before the channels, [B, L, C]: the window of a
/// convolution is then one run of memory (cuda/heads/conv1d.cuh), and sums over tokens are sums of
/// columns, which neighbouring threads read side by side. A stack takes [B, C, L] as on the
/// CPU and turns it when it reads or writes it; a penalty's gradient stays as it is.
/// Spectral normalisation: sums in double; sigma stays as the terms of its sum, one a row of W, and
/// whoever needs it adds them up, in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <addloss/core/math.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/executor.cuh>
#include <addloss/cuda/heads/product.cuh>
#include <addloss/cuda/heads/sums.cuh>
#include <addloss/cuda/tasks.cuh>
#include <addloss/heads/head_executor.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/heads.hpp>
#include <addloss/losses/r1.hpp>

namespace addloss {

/// `gpu`: its stream, its limit of blocks, and the workspace of the losses; that of heads comes
/// with each call, as on the CPU.
template <class Product>
struct cuda_heads {
  using space = device_space;
  cuda_context gpu{};
  Product product{};
};
template <class Product>
cuda_heads(cuda_context, Product) -> cuda_heads<Product>;

namespace cuda {

/// y[b, j, i] = x[b, i, j] for matrices [rows, columns]. A block turns 32 x 32 elements.
template <class T>
struct transpose_tile {
  static constexpr int threads = 256;
  T const* x;
  T* y;
  std::int64_t rows;
  std::int64_t columns;

  [[nodiscard]] __host__ __device__ std::int64_t down() const { return (rows + 31) / 32; }
  [[nodiscard]] __host__ __device__ std::int64_t across() const { return (columns + 31) / 32; }

  __device__ void operator()(std::int64_t task) const {
    __shared__ T tile[32][33];
    std::int64_t const first_column = task % across() * 32;
    std::int64_t const first_row = task / across() % down() * 32;
    std::int64_t const matrix = task / across() / down() * rows * columns;
    int const lane = static_cast<int>(threadIdx.x % 32);
    for (int i = static_cast<int>(threadIdx.x / 32); i < 32; i += threads / 32) {
      if (first_row + i < rows && first_column + lane < columns) {
        tile[i][lane] = x[matrix + (first_row + i) * columns + first_column + lane];
      }
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x / 32); i < 32; i += threads / 32) {
      if (first_column + i < columns && first_row + lane < rows) {
        y[matrix + (first_column + i) * rows + first_row + lane] = tile[lane][i];
      }
    }
    __syncthreads();
  }
};
template <class T>
void transpose(cuda_context const& ctx, std::int64_t batch, std::int64_t rows, std::int64_t columns,
               T const* x, T* y) {
  transpose_tile<T> const body{x, y, rows, columns};
  run_tasks(ctx, batch * body.down() * body.across(), body);
}

// Spectral normalisation; W [rows, columns].

/// W^T u, a column.
template <class T>
struct spectral_column {
  T const* W;
  T const* u;
  std::int64_t columns;
  __device__ double operator()(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(u[row]) * static_cast<double>(W[row * columns + column]);
  }
};

/// out[row] = factor[row] (a[row,:] . b), b a vector, or with `b_stride` a matrix; no factor: 1.
template <class T, class Out>
struct row_dots {
  static constexpr int threads = 256;
  T const* a;
  T const* b;
  std::int64_t b_stride;
  T const* factor;
  std::int64_t columns;
  Out* out;

  __device__ void operator()(std::int64_t row) const {
    T const* const x = a + row * columns;
    T const* const y = b + row * b_stride;
    double const sum = sum_over_block<threads>(columns, [&](std::int64_t j) {
      return static_cast<double>(x[j]) * static_cast<double>(y[j]);
    });
    if (threadIdx.x != 0) return;
    out[row] = static_cast<Out>(factor != nullptr ? static_cast<double>(factor[row]) * sum : sum);
  }
};

/// x / max(|x|, epsilon), in place, by one block.
template <class T>
struct normalise_vector {
  static constexpr int threads = 256;
  T* x;
  std::int64_t size;
  double epsilon;

  __device__ void operator()(std::int64_t /*task*/) const {
    double const norm = sqrt(sum_over_block<threads>(size, [&](std::int64_t i) {
      return static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }));
    double const scale = norm < epsilon ? epsilon : norm;  // NaN stays
    for (std::int64_t i = threadIdx.x; i < size; i += threads) {
      x[i] = static_cast<T>(static_cast<double>(x[i]) / scale);
    }
  }
};

/// A row of W / sigma.
template <class T>
struct divide_row {
  static constexpr int threads = 256;
  T const* W;
  T* W_hat;
  double const* sigma;
  std::int64_t rows;
  std::int64_t columns;

  __device__ void operator()(std::int64_t row) const {
    double const factor =
        1 / sum_over_block<threads>(rows, [&](std::int64_t i) { return sigma[i]; });
    for (std::int64_t j = threadIdx.x; j < columns; j += threads) {
      W_hat[row * columns + j] = static_cast<T>(factor * static_cast<double>(W[row * columns + j]));
    }
  }
};

/// A row of gradient / sigma - (inner / sigma^2) u v^T.
template <class T>
struct divide_backward_row {
  static constexpr int threads = 256;
  T* gradient;
  T const* u;
  T const* v;
  double const* sigma;
  double const* inner;
  std::int64_t rows;
  std::int64_t columns;

  __device__ void operator()(std::int64_t row) const {
    double const s = sum_over_block<threads>(rows, [&](std::int64_t i) { return sigma[i]; });
    double const p = sum_over_block<threads>(rows, [&](std::int64_t i) { return inner[i]; });
    double const along = -p / s * static_cast<double>(u[row]) / s;
    for (std::int64_t j = threadIdx.x; j < columns; j += threads) {
      T& g = gradient[row * columns + j];
      g = static_cast<T>(1 / s * static_cast<double>(g) + along * static_cast<double>(v[j]));
    }
  }
};

}  // namespace cuda

template <class Product>
struct head_executor<cuda_heads<Product>> {
  using heads = cuda_heads<Product>;

  /// A norm's backward pass takes longer than a convolution with one tap.
  static constexpr bool remakes_gradients = false;

  template <class T>
  static void check(heads const& ctx) {
    if constexpr (requires { ctx.product.template check<T>(ctx.gpu); }) {
      ctx.product.template check<T>(ctx.gpu);
    }
  }
  static cuda_context const& losses(heads const& ctx) { return ctx.gpu; }
  template <class T>
  static void check_losses(heads const& ctx, feature_shape features, feature_shape logits) {
    cuda::check_workspace_bytes(ctx.gpu, loss_bytes<T>(features, logits));
  }
  /// Bytes of the workspace that the losses of one head need.
  template <class T>
  static std::size_t loss_bytes(feature_shape features, feature_shape logits) {
    // An address that is not null; nothing is read.
    auto* const somewhere = reinterpret_cast<T const*>(std::uintptr_t{64});
    rows<T const, device_space> const map[] = {
        view<device_space>(somewhere, logits.batch, logits.length)};
    rows<T const, device_space> const gradient[] = {
        view<device_space>(somewhere, features.batch, features.channels, features.length)};
    return workspace_bytes(adversarial<>{}.template discriminator<T, device_space>(map, map),
                           r1{}.template on<T, device_space>(gradient));
  }

  template <class Body>
  static void each_element(heads const& ctx, std::int64_t size, Body const& body) {
    cuda::run_elements(ctx.gpu, size, body);
  }

  static constexpr std::int64_t feature_numbers(feature_shape shape) { return shape.size(); }
  template <class T>
  static T const* read_features(heads const& ctx, feature_shape shape, T const* x, T* memory) {
    cuda::transpose(ctx.gpu, shape.batch, shape.channels, shape.length, x, memory);
    return memory;
  }
  template <class T>
  static T* gradient_memory(T* /*x_bar*/, T* memory) {
    return memory;
  }
  template <class T>
  static void write_features(heads const& ctx, feature_shape shape, T const* memory, T* x_bar) {
    cuda::transpose(ctx.gpu, shape.batch, shape.length, shape.channels, memory, x_bar);
  }

  static constexpr std::int64_t sigma_numbers(spectral_norm const& norm) { return norm.rows; }
  template <class T>
  static void update(heads const& ctx, spectral_norm const& norm, T const* W, T* u, T* v) {
    for (int iteration = 0; iteration < norm.iterations; ++iteration) {
      cuda::sum_columns(ctx.gpu, norm.rows, norm.columns, norm.rows,
                        cuda::spectral_column<T>{W, u, norm.columns}, v);
      cuda::run_tasks(ctx.gpu, 1, cuda::normalise_vector<T>{v, norm.columns, norm.epsilon});
      cuda::run_tasks(ctx.gpu, norm.rows, cuda::row_dots<T, T>{W, v, 0, nullptr, norm.columns, u});
      cuda::run_tasks(ctx.gpu, 1, cuda::normalise_vector<T>{u, norm.rows, norm.epsilon});
    }
  }
  template <class T>
  static void sigma(heads const& ctx, spectral_norm const& norm, T const* W, T const* u, T const* v,
                    double* sigma) {
    cuda::run_tasks(ctx.gpu, norm.rows, cuda::row_dots<T, double>{W, v, 0, u, norm.columns, sigma});
  }
  template <class T>
  static void divide(heads const& ctx, spectral_norm const& norm, T const* W, double const* sigma,
                     T* W_hat) {
    cuda::run_tasks(ctx.gpu, norm.rows,
                    cuda::divide_row<T>{W, W_hat, sigma, norm.rows, norm.columns});
  }
  template <class T>
  static void divide_backward(heads const& ctx, spectral_norm const& norm, T const* W, T const* u,
                              T const* v, double const* sigma, T* gradient, double* scratch) {
    cuda::run_tasks(
        ctx.gpu, norm.rows,
        cuda::row_dots<T, double>{gradient, W, norm.columns, nullptr, norm.columns, scratch});
    cuda::run_tasks(
        ctx.gpu, norm.rows,
        cuda::divide_backward_row<T>{gradient, u, v, sigma, scratch, norm.rows, norm.columns});
  }
};

/// Bytes of the workspace that cuda_context needs for the losses of a stack's steps.
template <class Stack>
std::size_t head_loss_bytes(Stack const& stack, std::span<feature_shape const> shapes) {
  using executor = head_executor<cuda_heads<tiled_product<>>>;
  detail::check_same_heads("head_loss_bytes", "shapes", shapes.size(),
                           static_cast<std::size_t>(stack.size()));
  std::size_t most = 0;
  for (int k = 0; k < stack.size(); ++k) {
    feature_shape const shape = shapes[static_cast<std::size_t>(k)];
    std::size_t const bytes = executor::template loss_bytes<typename Stack::value_type>(
        shape, stack.output_shape(k, shape));
    if (bytes > most) most = bytes;
  }
  return most;
}

}  // namespace addloss
