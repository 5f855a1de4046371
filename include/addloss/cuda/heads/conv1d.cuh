// SPDX-License-Identifier: MIT
/// heads/conv1d.hpp and heads/linear.hpp on a GPU, as matrix products.
///
/// What y at one token is made of, the k C numbers of its window of k taps, is a row of a matrix.
/// So the products are
///   y      all rows times the weight
///   x_bar  the same of y_bar, with the weight of exchanged channels and reversed taps
///   weight_bar  the transpose of that second matrix times x: its taps, too, are reversed. Neither
///          x nor x_dot need be kept as windows.
/// The windows, with operands in T: written out, [B L, k C], k times the size of x, in the
/// workspace of a pass; y is one product.
/// With narrower operands, which are copies anyway: x with its circular padding, [B, L + k - 1, C],
/// where the windows lie overlapping, each C further on. Such rows are no matrix with a leading
/// dimension, but the windows k tokens apart are: a product is a strided batch of k, for the
/// windows that begin at r, r + k, r + 2 k, ..., r < k, of weight_bar for each tap. Windows that
/// reach into the next sample are left out when y is brought to [B, L, C'], and count nothing in
/// weight_bar, as the copy of x has zeros there. cuBLAS takes bfloat16 at full speed so, but on an
/// H200 float at a third and TF32 at half of the speed of one dense product.
/// With one tap, and operands in T, there are no copies: x, y_bar and the weight are read where
/// they are.
/// saved: the weight in both orders; with narrower operands also x with zeros after each sample,
/// and in saved_dot x_dot.
/// Nine taps, where `method` says so or by itself as on the CPU, and the product rounds no
/// operands: Toom-Cook's method (cuda/heads/toom_cook.cuh).
/// Same bits for any number of blocks, if the product's are. Bias gradient: columns of up to 256
/// tokens in double, rounded, then those in double.
#pragma once

#include <cstdint>
#include <type_traits>

#include <addloss/core/scalar.hpp>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/heads/product.cuh>
#include <addloss/cuda/heads/sums.cuh>
#include <addloss/cuda/heads/toom_cook.cuh>
#include <addloss/cuda/packet.cuh>
#include <addloss/cuda/tasks.cuh>
#include <addloss/heads/conv1d.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/linear.hpp>

namespace addloss::cuda {

/// Copies of x [B, L, C] with k - 1 more tokens a sample: around it, its own ones in a circle, or
/// behind it, zeros. Either may be null.
template <class T, class S>
struct pad_row {
  T const* x;
  S* circular;
  S* zeros;
  std::int64_t length;
  std::int64_t channels;
  std::int64_t padding;  ///< k - 1

  __device__ void operator()(std::int64_t row, int lane) const {
    std::int64_t const sample = row / (length + padding);
    std::int64_t const place = row % (length + padding);
    if (circular != nullptr) {
      std::int64_t token = (place - padding / 2) % length;
      if (token < 0) token += length;
      T const* const from = x + (sample * length + token) * channels;
#pragma unroll 4
      for (std::int64_t c = lane; c < channels; c += 32) {
        circular[row * channels + c] = narrow<S>(from[c]);
      }
    }
    if (zeros != nullptr) {
      T const* const from = x + (sample * length + place) * channels;
      bool const inside = place < length;
#pragma unroll 4
      for (std::int64_t c = lane; c < channels; c += 32) {
        zeros[row * channels + c] = narrow<S>(inside ? from[c] : T(0));
      }
    }
  }
};

/// The windows of x [B, L, C], [B, L, k, C]: each token to the k windows that it is in.
template <class T>
struct unfold_row {
  T const* x;
  T* windows;
  std::int64_t length;
  std::int64_t channels;
  std::int64_t taps;

  __device__ void operator()(std::int64_t row, int lane) const {
    std::int64_t const token = row % length;
    std::int64_t const sample = row - token;
    T const* const from = x + row * channels;
    std::int64_t to = (token + taps / 2) % length;
    for (std::int64_t t = 0; t < taps; ++t) {
      T* const window = windows + ((sample + to) * taps + t) * channels;
#pragma unroll 4
      for (std::int64_t c = lane; c < channels; c += 32) window[c] = from[c];
      to = to == 0 ? length - 1 : to - 1;
    }
  }
};

/// The windows' results brought together: y[b, l] = windows[b, l] + bias, from rows of
/// `length + padding` a sample; with no padding y may be `windows`. No bias: null.
template <class T>
struct unpad_row {
  T const* windows;
  T const* bias;
  T* y;
  std::int64_t length;
  std::int64_t channels;
  std::int64_t padding;

  __device__ void operator()(std::int64_t row, int lane) const {
    std::int64_t const from = (row + row / length * padding) * channels;
#pragma unroll 4
    for (std::int64_t c = lane; c < channels; c += 32) {
      T const value = windows[from + c];
      y[row * channels + c] = bias != nullptr ? value + bias[c] : value;
    }
  }
};

/// W [O, C, k] in the orders of the products: [O, k, C], and with reversed taps [k, O, C].
template <class T, class S>
struct pack_weight {
  T const* w;
  S* forward;
  S* reversed;
  std::int64_t out_channels;
  std::int64_t in_channels;
  std::int64_t taps;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t const o = i / in_channels;
    std::int64_t const c = i % in_channels;
    for (std::int64_t t = 0; t < taps; ++t) {
      S const value = narrow<S>(w[i * taps + t]);
      forward[(o * taps + t) * in_channels + c] = value;
      reversed[((taps - 1 - t) * out_channels + o) * in_channels + c] = value;
    }
  }
};

/// w_bar [O, C, k] += gradient, with reversed taps [k, O, C].
template <class T>
struct add_taps {
  T const* gradient;
  T* w_bar;
  std::int64_t size;  ///< O C
  std::int64_t taps;

  __device__ void operator()(std::int64_t i) const {
    for (std::int64_t t = 0; t < taps; ++t) {
      w_bar[i * taps + t] += gradient[(taps - 1 - t) * size + i];
    }
  }
};

/// The passes of a convolution.
template <class T, class Product>
struct convolution {
  using S = typename Product::template operand<T>;
  static constexpr bool narrow_operands = !std::is_same_v<S, T>;

  std::int64_t in_channels;
  std::int64_t out_channels;
  std::int64_t taps;
  feature_shape shape;

  convolution(conv1d<T> const& l, feature_shape x)
      : in_channels(l.in_channels), out_channels(l.out_channels), taps(l.kernel), shape(x) {}

  [[nodiscard]] layer_sizes sizes() const {
    layer_sizes result;
    if (packed()) result.saved = 2 * weight_numbers();
    if (narrow_operands) {
      result.saved += copy_numbers(in_channels);
      result.saved_dot = copy_numbers(in_channels);
    }
    result.workspace = operand_numbers();
    if (apart() > 1) result.workspace += product_numbers();
    if (taps > 1) result.workspace += detail::aligned(weight_count());
    result.workspace += detail::aligned(column_sums::numbers(rows(), out_channels));
    return result;
  }

  void forward(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    if (shape.size() == 0) return;
    saved_parts const memory = saved(p.saved);
    if (packed()) {
      run_elements<1>(
          ctx.gpu, in_channels * out_channels,
          pack_weight<T, S>{p.w, memory.forward, memory.reversed, out_channels, in_channels, taps});
    }
    apply(ctx, p, windows_of(ctx, p, p.x, in_channels, memory.x), p.w + weight_count(), p.y);
  }

  void tangent(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    if (shape.size() == 0) return;
    if (p.y_dot == nullptr && !narrow_operands) return;
    S const* const x_dot =
        windows_of(ctx, p, p.x_dot, in_channels, reinterpret_cast<S*>(p.saved_dot));
    if (p.y_dot != nullptr) apply(ctx, p, x_dot, nullptr, p.y_dot);
  }

  /// `second`: after a tangent, whose terms it adds.
  void backward(cuda_heads<Product> const& ctx, layer_pass<T> const& p, bool second) const {
    if (shape.size() == 0 || (p.x_bar == nullptr && p.w_bar == nullptr)) return;
    parts const memory = parts_of(p.workspace);
    S const* const y_bar = windows_of(ctx, p, p.y_bar, out_channels, nullptr);
    if (p.x_bar != nullptr) {
      S const* const w = packed() ? saved(p.saved).reversed : own(p.w);
      multiply(ctx, p, y_bar, out_channels, {w, in_channels}, in_channels, p.x_bar);
      gather(ctx, p, in_channels, nullptr, p.x_bar);
    }
    if (p.w_bar == nullptr) return;
    add_product(ctx, p, y_bar, narrow_operands ? saved(p.saved).x : own(p.x), false);
    if (second) {
      add_product(ctx, p, windows_of(ctx, p, p.y_dot_bar, out_channels, nullptr),
                  narrow_operands ? reinterpret_cast<S const*>(p.saved_dot) : own(p.x_dot), true);
    }
    if (taps > 1) {
      run_elements<1>(ctx.gpu, in_channels * out_channels,
                      add_taps<T>{memory.gradient, p.w_bar, in_channels * out_channels, taps});
    }
    column_sums::add(ctx.gpu, rows(), out_channels, p.y_bar, memory.bias, p.w_bar + weight_count());
  }

 private:
  /// x as the operand whose rows are windows: itself or in the workspace. Narrower operands go to
  /// `copy` as well, where it is not null, for add_product.
  S const* windows_of(cuda_heads<Product> const& ctx, layer_pass<T> const& p, T const* x,
                      std::int64_t channels, S* copy) const {
    S* const operand = parts_of(p.workspace).operand;
    if constexpr (narrow_operands) {
      bool const one = taps == 1 && copy != nullptr;  // the same
      run_rows(ctx.gpu, copied_rows(),
               pad_row<T, S>{x, one ? nullptr : operand, copy, shape.length, channels, padding()});
      return one ? copy : operand;
    } else {
      if (taps == 1) return x;
      run_rows(ctx.gpu, rows(), unfold_row<T>{x, operand, shape.length, channels, taps});
      return operand;
    }
  }
  /// y = W x + bias.
  void apply(cuda_heads<Product> const& ctx, layer_pass<T> const& p, S const* x, T const* bias,
             T* y) const {
    S const* const w = packed() ? saved(p.saved).forward : own(p.w);
    multiply(ctx, p, x, in_channels, {w, taps * in_channels, 0, true}, out_channels, y);
    gather(ctx, p, out_channels, bias, y);
  }
  /// The product of all windows with `weight`: to y, or if they overlap to the workspace.
  void multiply(cuda_heads<Product> const& ctx, layer_pass<T> const& p, S const* x,
                std::int64_t channels, product_operand<S> weight, std::int64_t y_channels,
                T* y) const {
    ctx.product.multiply(ctx.gpu,
                         product_call<T, S>{.rows = windows_of_batch(),
                                            .columns = y_channels,
                                            .depth = taps * channels,
                                            .batches = apart(),
                                            .a = {x, taps * channels, channels},
                                            .b = weight,
                                            .c = apart() > 1 ? parts_of(p.workspace).product : y,
                                            .c_ld = apart() * y_channels,
                                            .c_batch_stride = y_channels});
  }
  void gather(cuda_heads<Product> const& ctx, layer_pass<T> const& p, std::int64_t channels,
              T const* bias, T* y) const {
    if (apart() == 1 && bias == nullptr) return;
    run_rows(ctx.gpu, rows(),
             unpad_row<T>{apart() > 1 ? parts_of(p.workspace).product : y, bias, y, shape.length,
                          channels, padding()});
  }
  /// Adds the product of the windows of y_bar with x, to the gradient in the workspace (where the
  /// first overwrites), or with one tap to w_bar.
  void add_product(cuda_heads<Product> const& ctx, layer_pass<T> const& p, S const* y_bar,
                   S const* x, bool adds) const {
    bool const here = taps == 1;
    std::int64_t const rows_of_product = taps / apart() * out_channels;
    ctx.product.multiply(ctx.gpu,
                         product_call<T, S>{.rows = rows_of_product,
                                            .columns = in_channels,
                                            .depth = window_count(),
                                            .batches = apart(),
                                            .a = {y_bar, rows_of_product, out_channels, true},
                                            .b = {x, in_channels},
                                            .c = here ? p.w_bar : parts_of(p.workspace).gradient,
                                            .c_ld = in_channels,
                                            .c_batch_stride = in_channels * out_channels,
                                            .adds = here || adds});
  }

  /// Whether the weight is copied.
  [[nodiscard]] bool packed() const { return taps > 1 || narrow_operands; }
  /// x itself as an operand; null where it is copied.
  static S const* own(T const* x) {
    if constexpr (narrow_operands) {
      return nullptr;
    } else {
      return x;
    }
  }

  /// More tokens of a copied sample.
  [[nodiscard]] std::int64_t padding() const { return narrow_operands ? taps - 1 : 0; }
  /// Windows so many tokens apart do not overlap in memory.
  [[nodiscard]] std::int64_t apart() const { return padding() + 1; }
  [[nodiscard]] std::int64_t rows() const { return shape.batch * shape.length; }
  [[nodiscard]] std::int64_t copied_rows() const {
    return shape.batch * (shape.length + padding());
  }
  /// Up to the last token of the last sample.
  [[nodiscard]] std::int64_t window_count() const { return copied_rows() - padding(); }
  [[nodiscard]] std::int64_t windows_of_batch() const {
    return (window_count() + apart() - 1) / apart();
  }
  [[nodiscard]] std::int64_t weight_count() const { return out_channels * in_channels * taps; }

  // Numbers of T.
  static std::int64_t numbers(std::int64_t operands) {
    constexpr std::int64_t each = sizeof(T) / sizeof(S);
    return detail::aligned((operands + each - 1) / each);
  }
  [[nodiscard]] std::int64_t weight_numbers() const { return numbers(weight_count()); }
  [[nodiscard]] std::int64_t wider() const {
    return in_channels > out_channels ? in_channels : out_channels;
  }
  /// A padded copy. The last windows of a batch reach beyond it, by less than two windows: what
  /// they read makes only what is left out.
  [[nodiscard]] std::int64_t copy_numbers(std::int64_t channels) const {
    return numbers((copied_rows() + (taps > 1 ? 2 * taps : 0)) * channels);
  }
  [[nodiscard]] std::int64_t operand_numbers() const {
    if (narrow_operands) return copy_numbers(wider());
    return taps > 1 ? detail::aligned(rows() * taps * wider()) : 0;
  }
  [[nodiscard]] std::int64_t product_numbers() const {
    return detail::aligned(apart() * windows_of_batch() * wider());
  }

  struct saved_parts {
    S* forward;
    S* reversed;
    S* x;  ///< of narrower operands
  };
  [[nodiscard]] saved_parts saved(T* memory) const {
    if (!packed()) return {};
    return {reinterpret_cast<S*>(memory), reinterpret_cast<S*>(memory + weight_numbers()),
            reinterpret_cast<S*>(memory + 2 * weight_numbers())};
  }
  struct parts {
    S* operand;
    T* product;
    T* gradient;
    T* bias;
  };
  [[nodiscard]] parts parts_of(T* workspace) const {
    parts result{};
    result.operand = reinterpret_cast<S*>(workspace);
    result.product = workspace + operand_numbers();
    result.gradient = result.product + (apart() > 1 ? product_numbers() : 0);
    result.bias = result.gradient + (taps > 1 ? detail::aligned(weight_count()) : 0);
    return result;
  }
};

}  // namespace addloss::cuda

namespace addloss {

template <class Product, arithmetic_scalar T>
struct layer_on<cuda_heads<Product>, conv1d<T>> {
  using heads = cuda_heads<Product>;
  static layer_sizes sizes(conv1d<T> const& l, feature_shape shape) {
    return by_method(l, shape, [](auto const& method) { return method.sizes(); });
  }
  static void forward(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    by_method(l, p.shape, [&](auto const& method) { method.forward(ctx, p); });
  }
  static void backward(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    by_method(l, p.shape, [&](auto const& method) { method.backward(ctx, p, false); });
  }
  static void tangent(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    by_method(l, p.shape, [&](auto const& method) { method.tangent(ctx, p); });
  }
  static void tangent_backward(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    by_method(l, p.shape, [&](auto const& method) { method.backward(ctx, p, true); });
  }

 private:
  template <class Body>
  static auto by_method(conv1d<T> const& l, feature_shape shape, Body const& body) {
    if constexpr (!Product::template rounds_operands<T>) {
      if (l.by_toom_cook(shape)) return body(cuda::toom_cook_convolution<T, Product>(l, shape));
    }
    return body(cuda::convolution<T, Product>(l, shape));
  }
};

template <class Product, arithmetic_scalar T>
struct layer_on<cuda_heads<Product>, linear<T>> {
  using heads = cuda_heads<Product>;
  using on_convolution = layer_on<heads, conv1d<T>>;
  static layer_sizes sizes(linear<T> const& l, feature_shape shape) {
    return on_convolution::sizes(l.convolution(), shape);
  }
  static void forward(linear<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    on_convolution::forward(l.convolution(), ctx, p);
  }
  static void backward(linear<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    on_convolution::backward(l.convolution(), ctx, p);
  }
  static void tangent(linear<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    on_convolution::tangent(l.convolution(), ctx, p);
  }
  static void tangent_backward(linear<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    on_convolution::tangent_backward(l.convolution(), ctx, p);
  }
};

}  // namespace addloss
