// SPDX-License-Identifier: MIT
/// Toom-Cook's nine-tap convolution (heads/toom_cook.hpp) on a GPU: matrix products with 4 times
/// fewer multiplications.
///
/// A row is a tile of 18 tokens of one sample; x, y and their gradients are [B, L, C], the
/// transforms V = B^T x, E = A y_bar and the products M each [40 points, rows, C], the weight's
/// transform U [40, O, C].
///   y      A^T of V_k U_k^T, U = G w
///   x_bar  the same of y_bar, with the weight of exchanged channels and reversed taps
///   w_bar  G^T of E_k^T V_k
/// Each is one product in a batch of 40. x and x_dot are transformed again for w_bar: to keep what
/// is twice their size costs more than it saves.
/// A thread transforms one channel of a tile, or one weight: neighbours read and write neighbours.
/// saved: the weight's two transforms. For products of operands that are not rounded: the
/// transforms make differences of large numbers.
/// Same bits for any number of blocks, if the product's are.
#pragma once

#include <cstdint>
#include <utility>

#include <addloss/core/math.hpp>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/heads/product.cuh>
#include <addloss/cuda/heads/sums.cuh>
#include <addloss/cuda/tasks.cuh>
#include <addloss/heads/conv1d.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/toom_cook.hpp>

namespace addloss::cuda {

using toom_cook_outer = addloss::detail::outer_toom_cook;
using toom_cook_inner = addloss::detail::inner_toom_cook;
inline constexpr int toom_cook_taps = 9;
inline constexpr int toom_cook_points = toom_cook_outer::points * toom_cook_inner::points;
/// Outputs of a tile, and the inputs that they are made of.
inline constexpr int toom_cook_step = toom_cook_outer::outputs * toom_cook_inner::outputs;
inline constexpr int toom_cook_window = toom_cook_step + toom_cook_taps - 1;

/// Calls `body<0>()`, ..., `body<Count - 1>()`.
template <int Count, class Body>
__device__ void each_constant(Body const& body) {
  [&]<int... N>(std::integer_sequence<int, N...>) {
    (body.template operator()<N>(), ...);
  }(std::make_integer_sequence<int, Count>{});
}

/// sum_n Coefficients::term<n> value<n>(), but for terms of 0.
template <class Coefficients, int Count, class T, class Value>
__device__ T combination(Value const& value) {
  T sum = T(0);
  each_constant<Count>([&]<int n>() {
    constexpr double coefficient = Coefficients::template term<n>;
    if constexpr (coefficient != 0)
      sum += static_cast<T>(coefficient) * value.template operator()<n>();
  });
  return sum;
}

/// Number i at all points (p, s), `apart` in `to`:
///   sum_{k,m} Outer(p, k) Inner(s, m) values[3 k + m]
/// The coefficients of a point are `Terms` of a matrix, its row or its column.
template <template <auto const&, int> class Terms, auto const& Outer, int OuterTerms,
          auto const& Inner, int InnerTerms, class T>
__device__ void combine_at_points(T const* values, T* to, std::int64_t apart, std::int64_t i) {
  each_constant<toom_cook_inner::points>([&]<int s>() {
    T part[OuterTerms];
    each_constant<OuterTerms>([&]<int k>() {
      part[k] =
          combination<Terms<Inner, s>, InnerTerms, T>([&]<int m>() { return values[3 * k + m]; });
    });
    each_constant<toom_cook_outer::points>([&]<int p>() {
      to[(p * toom_cook_inner::points + s) * apart + i] =
          combination<Terms<Outer, p>, OuterTerms, T>([&]<int k>() { return part[k]; });
    });
  });
}

/// One channel of one tile.
struct toom_cook_tiles {
  std::int64_t length;
  std::int64_t channels;
  std::int64_t tiles;  ///< of a sample
  std::int64_t points_apart;  ///< rows times channels

  struct place {
    std::int64_t first;  ///< token
    std::int64_t origin;  ///< of token 0, in a tensor
  };
  [[nodiscard]] __device__ place at(std::int64_t i) const {
    std::int64_t const row = i / channels;
    std::int64_t const sample = row / tiles;
    return {(row - sample * tiles) * toom_cook_step, sample * length * channels + i % channels};
  }
};

/// V = B^T x
template <class T>
struct transform_input {
  toom_cook_tiles of;
  T const* x;
  T* v;

  __device__ void operator()(std::int64_t i) const {
    using outer = toom_cook_outer;
    using inner = toom_cook_inner;
    auto const [first, origin] = of.at(i);
    T window[toom_cook_window];
    std::int64_t token = (first - toom_cook_taps / 2) % of.length;
    if (token < 0) token += of.length;
#pragma unroll
    for (int r = 0; r < toom_cook_window; ++r) {
      window[r] = x[origin + token * of.channels];
      token = token + 1 == of.length ? 0 : token + 1;
    }
    combine_at_points<addloss::detail::matrix_row, outer::b, outer::points, inner::b,
                      inner::points>(window, v, of.points_apart, i);
  }
};

/// E = A y_bar
template <class T>
struct transform_gradient {
  toom_cook_tiles of;
  T const* y_bar;
  T* e;

  __device__ void operator()(std::int64_t i) const {
    using outer = toom_cook_outer;
    using inner = toom_cook_inner;
    auto const [first, origin] = of.at(i);
    T tile[toom_cook_step];
#pragma unroll
    for (int n = 0; n < toom_cook_step; ++n) {
      tile[n] = first + n < of.length ? y_bar[origin + (first + n) * of.channels] : T(0);
    }
    combine_at_points<addloss::detail::matrix_column, outer::a, outer::outputs, inner::a,
                      inner::outputs>(tile, e, of.points_apart, i);
  }
};

/// y = A^T M + bias; bias null: 0
template <class T>
struct transform_output {
  toom_cook_tiles of;
  T const* m;
  T const* bias;
  T* y;

  __device__ void operator()(std::int64_t i) const {
    using outer = toom_cook_outer;
    using inner = toom_cook_inner;
    T const start = bias == nullptr ? T(0) : bias[i % of.channels];
    T sum[outer::outputs][inner::outputs];
#pragma unroll
    for (int k = 0; k < outer::outputs; ++k) {
#pragma unroll
      for (int j = 0; j < inner::outputs; ++j) sum[k][j] = start;
    }
    each_constant<outer::points>([&]<int p>() {
      T value[inner::points];
#pragma unroll
      for (int s = 0; s < inner::points; ++s) {
        value[s] = m[(p * inner::points + s) * of.points_apart + i];
      }
      each_constant<inner::outputs>([&]<int j>() {
        T const part = combination<addloss::detail::matrix_row<inner::a, j>, inner::points, T>(
            [&]<int s>() { return value[s]; });
        each_constant<outer::outputs>([&]<int k>() {
          constexpr double coefficient = outer::a[k][p];
          if constexpr (coefficient != 0) sum[k][j] += static_cast<T>(coefficient) * part;
        });
      });
    });
    auto const [first, origin] = of.at(i);
#pragma unroll
    for (int n = 0; n < toom_cook_step; ++n) {
      if (first + n < of.length) {
        y[origin + (first + n) * of.channels] = sum[n / inner::outputs][n % inner::outputs];
      }
    }
  }
};

/// U = G w for w [O, C, 9], and the same of reversed taps.
template <class T>
struct transform_weight {
  T const* w;
  T* forward;
  T* reversed;
  std::int64_t size;  ///< O C

  __device__ void operator()(std::int64_t i) const {
    T taps[toom_cook_taps];
#pragma unroll
    for (int t = 0; t < toom_cook_taps; ++t) taps[t] = w[i * toom_cook_taps + t];
    transform([&]<int t>() { return taps[t]; }, forward + i);
    transform([&]<int t>() { return taps[toom_cook_taps - 1 - t]; }, reversed + i);
  }

 private:
  template <class Tap>
  __device__ void transform(Tap const& tap, T* to) const {
    using outer = toom_cook_outer;
    using inner = toom_cook_inner;
    each_constant<outer::points>([&]<int p>() {
      T part[3];
      each_constant<3>([&]<int b>() {
        part[b] = combination<addloss::detail::matrix_row<outer::g, p>, 3, T>(
            [&]<int a>() { return tap.template operator()<3 * a + b>(); });
      });
      each_constant<inner::points>([&]<int s>() {
        to[(p * inner::points + s) * size] =
            combination<addloss::detail::matrix_row<inner::g, s>, 3, T>(
                [&]<int b>() { return part[b]; });
      });
    });
  }
};

/// w_bar [O, C, 9] += G^T Z
template <class T>
struct add_weight_gradient {
  T const* z;
  T* w_bar;
  std::int64_t size;  ///< O C

  __device__ void operator()(std::int64_t i) const {
    using outer = toom_cook_outer;
    using inner = toom_cook_inner;
    T sum[toom_cook_taps] = {};
    each_constant<outer::points>([&]<int p>() {
      T value[inner::points];
#pragma unroll
      for (int s = 0; s < inner::points; ++s) value[s] = z[(p * inner::points + s) * size + i];
      each_constant<3>([&]<int b>() {
        T const part = combination<addloss::detail::matrix_column<inner::g, b>, inner::points, T>(
            [&]<int s>() { return value[s]; });
        each_constant<3>([&]<int a>() {
          constexpr double coefficient = outer::g[p][a];
          if constexpr (coefficient != 0) sum[3 * a + b] += static_cast<T>(coefficient) * part;
        });
      });
    });
#pragma unroll
    for (int t = 0; t < toom_cook_taps; ++t) w_bar[i * toom_cook_taps + t] += sum[t];
  }
};

/// The passes of a convolution by Toom-Cook's method.
template <class T, class Product>
struct toom_cook_convolution {
  std::int64_t in_channels;
  std::int64_t out_channels;
  feature_shape shape;

  toom_cook_convolution(conv1d<T> const& l, feature_shape x)
      : in_channels(l.in_channels), out_channels(l.out_channels), shape(x) {}

  [[nodiscard]] layer_sizes sizes() const {
    return {.saved = 2 * weight_numbers(),
            .workspace = 2 * tensor_numbers() + product_numbers() +
                         detail::aligned(column_sums::numbers(tokens(), out_channels))};
  }

  void forward(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    if (shape.size() == 0) return;
    run_elements<1>(ctx.gpu, weights(),
                    transform_weight<T>{p.w, p.saved, p.saved + weight_numbers(), weights()});
    apply(ctx, p, p.x, p.w + toom_cook_taps * weights(), p.y);
  }

  void tangent(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    if (shape.size() == 0 || p.y_dot == nullptr) return;
    apply(ctx, p, p.x_dot, nullptr, p.y_dot);
  }

  /// `second`: after a tangent, whose terms it adds.
  void backward(cuda_heads<Product> const& ctx, layer_pass<T> const& p, bool second) const {
    if (shape.size() == 0) return;
    if (p.x_bar != nullptr) {
      convolve(ctx, p, p.y_bar, out_channels, {p.saved + weight_numbers(), in_channels, weights()},
               nullptr, in_channels, p.x_bar);
    }
    if (p.w_bar == nullptr) return;
    parts const memory = parts_of(p.workspace);
    add_product(ctx, p, p.x, p.y_bar, false);
    if (second) add_product(ctx, p, p.x_dot, p.y_dot_bar, true);
    run_elements<1>(ctx.gpu, weights(), add_weight_gradient<T>{memory.product, p.w_bar, weights()});
    column_sums::add(ctx.gpu, tokens(), out_channels, p.y_bar, memory.bias,
                     p.w_bar + toom_cook_taps * weights());
  }

 private:
  /// y = W x + bias
  void apply(cuda_heads<Product> const& ctx, layer_pass<T> const& p, T const* x, T const* bias,
             T* y) const {
    convolve(ctx, p, x, in_channels, {p.saved, in_channels, weights(), true}, bias, out_channels,
             y);
  }
  void convolve(cuda_heads<Product> const& ctx, layer_pass<T> const& p, T const* x,
                std::int64_t channels, product_operand<T> weight, T const* bias,
                std::int64_t y_channels, T* y) const {
    parts const memory = parts_of(p.workspace);
    run_elements<1>(ctx.gpu, rows() * channels,
                    transform_input<T>{tiles_of(channels), x, memory.input});
    ctx.product.multiply(ctx.gpu,
                         product_call<T, T>{.rows = rows(),
                                            .columns = y_channels,
                                            .depth = channels,
                                            .batches = toom_cook_points,
                                            .a = {memory.input, channels, rows() * channels},
                                            .b = weight,
                                            .c = memory.product,
                                            .c_ld = y_channels,
                                            .c_batch_stride = rows() * y_channels});
    run_elements<1>(ctx.gpu, rows() * y_channels,
                    transform_output<T>{tiles_of(y_channels), memory.product, bias, y});
  }
  /// Z = E^T V, of y_bar and x; `adds`: to what is there.
  void add_product(cuda_heads<Product> const& ctx, layer_pass<T> const& p, T const* x,
                   T const* y_bar, bool adds) const {
    parts const memory = parts_of(p.workspace);
    run_elements<1>(ctx.gpu, rows() * in_channels,
                    transform_input<T>{tiles_of(in_channels), x, memory.input});
    run_elements<1>(ctx.gpu, rows() * out_channels,
                    transform_gradient<T>{tiles_of(out_channels), y_bar, memory.gradient});
    ctx.product.multiply(
        ctx.gpu,
        product_call<T, T>{.rows = out_channels,
                           .columns = in_channels,
                           .depth = rows(),
                           .batches = toom_cook_points,
                           .a = {memory.gradient, out_channels, rows() * out_channels, true},
                           .b = {memory.input, in_channels, rows() * in_channels},
                           .c = memory.product,
                           .c_ld = in_channels,
                           .c_batch_stride = weights(),
                           .adds = adds});
  }

  [[nodiscard]] std::int64_t tokens() const { return shape.batch * shape.length; }
  [[nodiscard]] std::int64_t tiles() const {
    return (shape.length + toom_cook_step - 1) / toom_cook_step;
  }
  [[nodiscard]] std::int64_t rows() const { return shape.batch * tiles(); }
  [[nodiscard]] toom_cook_tiles tiles_of(std::int64_t channels) const {
    return {shape.length, channels, tiles(), rows() * channels};
  }
  [[nodiscard]] std::int64_t weights() const { return out_channels * in_channels; }
  [[nodiscard]] std::int64_t weight_numbers() const {
    return detail::aligned(toom_cook_points * weights());
  }
  [[nodiscard]] std::int64_t tensor_numbers() const {
    std::int64_t const wider = in_channels > out_channels ? in_channels : out_channels;
    return detail::aligned(toom_cook_points * rows() * wider);
  }
  [[nodiscard]] std::int64_t product_numbers() const {
    return tensor_numbers() > weight_numbers() ? tensor_numbers() : weight_numbers();
  }

  struct parts {
    T* input;
    T* gradient;
    T* product;
    T* bias;
  };
  [[nodiscard]] parts parts_of(T* workspace) const {
    T* const product = workspace + 2 * tensor_numbers();
    return {workspace, workspace + tensor_numbers(), product, product + product_numbers()};
  }
};

}  // namespace addloss::cuda
