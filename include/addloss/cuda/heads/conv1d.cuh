// SPDX-License-Identifier: MIT
/// heads/conv1d.hpp and heads/linear.hpp on a GPU, as matrix products.
///
/// x is copied with its circular padding, [B, L + k - 1, C], k taps: then the k C numbers that y at
/// one token is made of lie one after the other, and those of the next token C further. Read as a
/// matrix of windows, its rows would overlap, which no leading dimension can say; but the windows
/// k tokens apart are the rows of a plain matrix. So
///   y     one product for the windows that begin at r, r + k, r + 2 k, ..., for each r < k: a
///         strided batch of k, as deep as k C, with no im2col and no sum over calls
///   x_bar the same of y_bar with the weight of exchanged channels and reversed taps
///   weight_bar[:, :, t]  one product over all tokens of all samples, with x begun t tokens later:
///         again a strided batch of k. Windows that reach into the next sample count nothing, as
///         y_bar has zeros there.
/// What the first two write for these windows is left out when y is brought to [B, L, C'], which adds
/// the bias.
/// Copies are in the type of the product's operands. With one tap, and operands in T, there are no
/// copies: x, y_bar and the weight are read where they are.
/// saved: the weight in both orders, x padded; saved_dot: x_dot padded; saved_bar: y_bar with zeros
/// after each sample.
/// `method` is the CPU's choice: Toom-Cook's has no place here.
/// Same bits for any number of blocks, if the product's are. Bias gradient: columns of up to 256
/// tokens in double, rounded, then those in double.
#pragma once

#include <cstdint>
#include <type_traits>

#include <addloss/core/scalar.hpp>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/heads/launch.cuh>
#include <addloss/cuda/heads/product.cuh>
#include <addloss/cuda/heads/sums.cuh>
#include <addloss/cuda/packet.cuh>
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

/// w_bar [O, C, k] += gradient [k, O, C].
template <class T>
struct add_taps {
  T const* gradient;
  T* w_bar;
  std::int64_t size;  ///< O C
  std::int64_t taps;

  __device__ void operator()(std::int64_t i) const {
    for (std::int64_t t = 0; t < taps; ++t) w_bar[i * taps + t] += gradient[t * size + i];
  }
};

/// One number of y_bar.
template <class T>
struct column_entry {
  T const* x;
  std::int64_t columns;
  __device__ double operator()(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(x[row * columns + column]);
  }
};

/// The passes of a convolution.
template <class T, class Product>
struct convolution {
  using S = typename Product::template operand<T>;
  static constexpr std::int64_t rows_of_piece = 256;

  std::int64_t in_channels;
  std::int64_t out_channels;
  std::int64_t taps;
  feature_shape shape;

  convolution(conv1d<T> const& l, feature_shape x)
      : in_channels(l.in_channels), out_channels(l.out_channels), taps(l.kernel), shape(x) {}

  [[nodiscard]] layer_sizes sizes() const {
    std::int64_t const wider = in_channels > out_channels ? in_channels : out_channels;
    layer_sizes result;
    if (copies()) {
      result.saved = 2 * weight_numbers() + copy_numbers(in_channels);
      result.saved_bar = copy_numbers(out_channels);
      result.saved_dot = copy_numbers(in_channels);
      result.workspace = 2 * copy_numbers(out_channels);
    }
    if (taps > 1) {
      result.workspace += window_numbers(wider) + detail::aligned(weight_count());
    }
    result.workspace += detail::aligned(pieces() * out_channels);
    return result;
  }

  void forward(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    if (shape.size() == 0) return;
    S const* x = own(p.x);
    if (copies()) {
      auto const memory = saved(p.saved);
      run_elements(
          ctx.gpu, in_channels * out_channels,
          pack_weight<T, S>{p.w, memory.forward, memory.reversed, out_channels, in_channels, taps});
      pad(ctx, p.x, in_channels, memory.x, nullptr);
      x = memory.x;
    }
    apply(ctx, p, x, p.w + weight_count(), p.y);
  }

  void tangent(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    if (shape.size() == 0) return;
    S const* x = own(p.x_dot);
    if (copies()) {
      S* const copy = reinterpret_cast<S*>(p.saved_dot);
      pad(ctx, p.x_dot, in_channels, copy, nullptr);
      x = copy;
    }
    if (p.y_dot != nullptr) apply(ctx, p, x, nullptr, p.y_dot);
  }

  void backward(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    backward(ctx, p, p.saved_bar, false);
  }
  void tangent_backward(cuda_heads<Product> const& ctx, layer_pass<T> const& p) const {
    backward(ctx, p, nullptr, true);
  }

 private:
  /// Both; `kept`: where y_bar goes that a tangent_backward reads as y_dot_bar.
  void backward(cuda_heads<Product> const& ctx, layer_pass<T> const& p, T* kept,
                bool second) const {
    if (shape.size() == 0) return;
    parts const memory = parts_of(p.workspace);
    S const* circular = own(p.y_bar);
    S const* zeros = own(p.y_bar);
    if (copies()) {
      S* const to = kept != nullptr ? reinterpret_cast<S*>(kept) : memory.zeros;
      bool const both = p.x_bar != nullptr && taps > 1;
      bool const any = kept != nullptr || p.w_bar != nullptr || (p.x_bar != nullptr && taps == 1);
      pad(ctx, p.y_bar, out_channels, both ? memory.circular : nullptr, any ? to : nullptr);
      zeros = to;
      circular = taps > 1 ? memory.circular : to;
    }
    if (p.x_bar != nullptr) {
      S const* const w = copies() ? saved(p.saved).reversed : own(p.w);
      windows(ctx, p, circular, out_channels, {w, in_channels}, in_channels, p.x_bar);
      unpad(ctx, p, in_channels, nullptr, p.x_bar);
    }
    if (p.w_bar == nullptr) return;
    add_product(ctx, p, zeros, copies() ? saved(p.saved).x : own(p.x), false);
    if (second) {
      bool const copied = copies();
      add_product(ctx, p, copied ? reinterpret_cast<S const*>(p.saved_bar) : own(p.y_dot_bar),
                  copied ? reinterpret_cast<S const*>(p.saved_dot) : own(p.x_dot), true);
    }
    if (taps > 1) {
      run_elements(ctx.gpu, in_channels * out_channels,
                   add_taps<T>{memory.gradient, p.w_bar, in_channels * out_channels, taps});
    }
    std::int64_t const rows = shape.batch * shape.length;
    sum_columns(ctx.gpu, rows, out_channels, rows_of_piece, column_entry<T>{p.y_bar, out_channels},
                memory.bias);
    run_elements(ctx.gpu, out_channels,
                 add_pieces<T>{memory.bias, pieces(), out_channels, p.w_bar + weight_count()});
  }

  /// y = W x + bias.
  void apply(cuda_heads<Product> const& ctx, layer_pass<T> const& p, S const* x, T const* bias,
             T* y) const {
    S const* const w = copies() ? saved(p.saved).forward : own(p.w);
    windows(ctx, p, x, in_channels, {w, taps * in_channels, 0, true}, out_channels, y);
    unpad(ctx, p, out_channels, bias, y);
  }

  /// The product of all windows with `weight`: with one tap to y, else to the workspace.
  void windows(cuda_heads<Product> const& ctx, layer_pass<T> const& p, S const* x,
               std::int64_t channels, product_operand<S> weight, std::int64_t y_channels,
               T* y) const {
    ctx.product.multiply(ctx.gpu,
                         product_call<T, S>{.rows = windows_of_batch(),
                                            .columns = y_channels,
                                            .depth = taps * channels,
                                            .batches = taps,
                                            .a = {x, taps * channels, channels},
                                            .b = weight,
                                            .c = taps > 1 ? parts_of(p.workspace).windows : y,
                                            .c_ld = taps * y_channels,
                                            .c_batch_stride = y_channels});
  }
  void unpad(cuda_heads<Product> const& ctx, layer_pass<T> const& p, std::int64_t channels,
             T const* bias, T* y) const {
    if (taps == 1 && bias == nullptr) return;
    run_rows(ctx.gpu, shape.batch * shape.length,
             unpad_row<T>{taps > 1 ? parts_of(p.workspace).windows : y, bias, y, shape.length,
                          channels, taps - 1});
  }
  /// Adds y_bar^T x, to the gradient in the workspace (where the first overwrites), or with one tap
  /// to w_bar.
  void add_product(cuda_heads<Product> const& ctx, layer_pass<T> const& p, S const* y_bar,
                   S const* x, bool adds) const {
    bool const here = taps == 1;
    ctx.product.multiply(ctx.gpu,
                         product_call<T, S>{.rows = out_channels,
                                            .columns = in_channels,
                                            .depth = window_count(),
                                            .batches = taps,
                                            .a = {y_bar, out_channels, 0, true},
                                            .b = {x, in_channels, in_channels},
                                            .c = here ? p.w_bar : parts_of(p.workspace).gradient,
                                            .c_ld = in_channels,
                                            .c_batch_stride = in_channels * out_channels,
                                            .adds = here || adds});
  }
  void pad(cuda_heads<Product> const& ctx, T const* x, std::int64_t channels, S* circular,
           S* zeros) const {
    if (circular == nullptr && zeros == nullptr) return;
    run_rows(ctx.gpu, padded_rows(),
             pad_row<T, S>{x, circular, zeros, shape.length, channels, taps - 1});
  }

  [[nodiscard]] bool copies() const { return taps > 1 || !std::is_same_v<S, T>; }
  /// x itself as an operand; null where there are copies.
  static S const* own(T const* x) {
    if constexpr (std::is_same_v<S, T>) {
      return x;
    } else {
      return nullptr;
    }
  }

  [[nodiscard]] std::int64_t weight_count() const { return out_channels * in_channels * taps; }
  [[nodiscard]] std::int64_t padded_rows() const { return shape.batch * (shape.length + taps - 1); }
  /// Up to the last token of the last sample.
  [[nodiscard]] std::int64_t window_count() const { return padded_rows() - (taps - 1); }
  [[nodiscard]] std::int64_t windows_of_batch() const { return (window_count() + taps - 1) / taps; }
  [[nodiscard]] std::int64_t pieces() const {
    return (shape.batch * shape.length + rows_of_piece - 1) / rows_of_piece;
  }

  // Numbers of T.
  static std::int64_t numbers(std::int64_t operands) {
    constexpr std::int64_t each = sizeof(T) / sizeof(S);
    return detail::aligned((operands + each - 1) / each);
  }
  [[nodiscard]] std::int64_t weight_numbers() const { return numbers(weight_count()); }
  /// A padded copy. The last windows of a batch reach beyond it, by less than two windows: what they
  /// read makes only what is left out.
  [[nodiscard]] std::int64_t copy_numbers(std::int64_t channels) const {
    return numbers((padded_rows() + (taps > 1 ? 2 * taps : 0)) * channels);
  }
  [[nodiscard]] std::int64_t window_numbers(std::int64_t channels) const {
    return detail::aligned(taps * windows_of_batch() * channels);
  }

  struct saved_parts {
    S* forward;
    S* reversed;
    S* x;
  };
  [[nodiscard]] saved_parts saved(T* memory) const {
    return {reinterpret_cast<S*>(memory), reinterpret_cast<S*>(memory + weight_numbers()),
            reinterpret_cast<S*>(memory + 2 * weight_numbers())};
  }
  struct parts {
    S* circular;
    S* zeros;
    T* windows;
    T* gradient;
    T* bias;
  };
  [[nodiscard]] parts parts_of(T* workspace) const {
    std::int64_t const wider = in_channels > out_channels ? in_channels : out_channels;
    T* next = workspace;
    parts result{};
    if (copies()) {
      result.circular = reinterpret_cast<S*>(next);
      next += copy_numbers(out_channels);
      result.zeros = reinterpret_cast<S*>(next);
      next += copy_numbers(out_channels);
    }
    if (taps > 1) {
      result.windows = next;
      next += window_numbers(wider);
      result.gradient = next;
      next += detail::aligned(weight_count());
    }
    result.bias = next;
    return result;
  }
};

}  // namespace addloss::cuda

namespace addloss {

template <class Product, arithmetic_scalar T>
struct layer_on<cuda_heads<Product>, conv1d<T>> {
  using heads = cuda_heads<Product>;
  static layer_sizes sizes(conv1d<T> const& l, feature_shape shape) {
    return cuda::convolution<T, Product>(l, shape).sizes();
  }
  static void forward(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::convolution<T, Product>(l, p.shape).forward(ctx, p);
  }
  static void backward(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::convolution<T, Product>(l, p.shape).backward(ctx, p);
  }
  static void tangent(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::convolution<T, Product>(l, p.shape).tangent(ctx, p);
  }
  static void tangent_backward(conv1d<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::convolution<T, Product>(l, p.shape).tangent_backward(ctx, p);
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
