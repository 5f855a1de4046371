// SPDX-License-Identifier: MIT
/// Convolution over the tokens with circular padding.
///
///   y[b,o,l] = bias[o] + sum_{i,t} W[o,i,t] x[b,i,(l + t - kernel/2) mod L],   t < kernel, odd
/// x [B, in_channels, L], y [B, out_channels, L], L >= 1 of any size (padding wraps more than once
/// where L < kernel). Parameters: weight [out_channels, in_channels, kernel], then bias
/// [out_channels]. For spectral normalisation the caller passes W / sigma as the weight and turns
/// the weight's gradient into that of W.
/// Gradients: x_bar[b,i,m] = sum_{o,t} W[o,i,t] y_bar[b,o,(m - t + kernel/2) mod L];
///   weight_bar[o,i,t] += sum_{b,l} y_bar[b,o,l] x[b,i,(l + t - kernel/2) mod L];
///   bias_bar[o] += sum_{b,l} y_bar[b,o,l].
/// The layer is linear in x: the tangent is the same without bias, and tangent_backward adds
/// y_dot_bar x_dot to the weight's gradient and nothing to the bias'.
/// Nothing is saved. The workspace holds one packed matrix: the weight or y_bar, whichever is
/// larger. Nothing is allocated; each thread takes 75 KiB of its stack.
/// Same bits for any number of threads: each element of an output is summed by one thread, in the
/// order of heads/matrix_product.hpp; gradients of parameters over samples, then tokens.
/// Errors (output_shape): an even or negative kernel, channels below 1, other channels than
/// in_channels, L < 1, B < 0.
/// Cost: 2 B L out_channels in_channels kernel operations each for y, for x_bar and for the weight's
/// gradient; tangent_backward twice those of backward.
/// Measured with 384 channels, L = 197, B = 8, float, on one thread of a Zen 4 EPYC, g++ 12 -O3
/// -march=native, against multiply-adds in registers (117 GFLOP/s): y 80 % (kernel 1) and 84 %
/// (kernel 9), x_bar 76 and 80 %, weight 83 and 87 %; Eigen 3.4, one product a tap, y 65 and 58 %.
/// To reproduce: bench_heads_conv1d, its counters peak and eigen.
#pragma once

#include <cstdint>
#include <cstring>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/matrix_product.hpp>

namespace addloss {

namespace detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// The channels and taps around each token, B of y = W x: row p is channel p / kernel at tap
/// p % kernel, column n is token n % L of sample n / L. C is [B, out_channels, L].
template <arithmetic_scalar T>
struct token_columns {
  static constexpr int tile = product_tile<T>::columns;

  T const* x;
  feature_shape shape;
  int kernel;
  std::int64_t out_channels;
  std::int64_t columns;

  token_columns(T const* data, feature_shape x_shape, int taps, std::int64_t y_channels)
      : x(data),
        shape(x_shape),
        kernel(taps),
        out_channels(y_channels),
        columns(x_shape.batch * x_shape.length) {}

  void locate(std::int64_t first, std::int64_t* offsets) const {
    place(first, 0, out_channels, offsets);
  }

  void pack(std::int64_t first, std::int64_t p, std::int64_t depth, T* panel) const {
    std::int64_t const length = shape.length;
    for (std::int64_t row = 0; row < at_most(kernel, depth); ++row) {
      std::int64_t const tap = (p + row) % kernel;
      array_of<std::int64_t, tile> offset;
      place(first, tap_shift(tap, kernel, length), shape.channels, offset);
      bool one_run = true;
      for (int j = 1; j < tile; ++j) one_run &= offset[j] == offset[0] + j;
      T const* channel = x + (p + row) / kernel * length;
      for (std::int64_t q = row; q < depth; q += kernel, channel += length) {
        T* const to = panel + q * tile;
        if (one_run) {
          std::memcpy(to, channel + offset[0], tile * sizeof(T));
        } else {
          for (int j = 0; j < tile; ++j) to[j] = channel[offset[j]];
        }
      }
    }
  }

  /// The tap's distance from its token, as a number in [0, length).
  static std::int64_t tap_shift(std::int64_t tap, int kernel, std::int64_t length) {
    std::int64_t const shift = (tap - kernel / 2) % length;
    return shift < 0 ? shift + length : shift;
  }

 private:
  /// Offsets of the tokens that lie `shift` after those of a panel, in a tensor of `channels`.
  void place(std::int64_t first, std::int64_t shift, std::int64_t channels,
             std::int64_t* offsets) const {
    std::int64_t const length = shape.length;
    std::int64_t sample = first / length;
    std::int64_t token = first % length;
    for (int j = 0; j < tile; ++j) {
      std::int64_t const at = token + shift;
      offsets[j] = sample * channels * length + (at < length ? at : at - length);
      if (first + j + 1 >= columns) continue;  // the last column again
      if (++token == length) {
        token = 0;
        ++sample;
      }
    }
  }
};

/// The transpose, B of weight_bar = y_bar x^T: row p is token p % L of sample p / L, column n is
/// channel n / kernel at tap n % kernel. C is [out_channels, channels, kernel].
template <arithmetic_scalar T>
struct tap_columns {
  using tile = product_tile<T>;
  using native = native_pack<T>;

  T const* x;
  feature_shape shape;
  int kernel;
  std::int64_t columns;

  tap_columns(T const* data, feature_shape x_shape, int taps)
      : x(data), shape(x_shape), kernel(taps), columns(x_shape.channels * taps) {}

  void locate(std::int64_t first, std::int64_t* offsets) const {
    for (int j = 0; j < tile::columns; ++j) offsets[j] = at_most(first + j, columns - 1);
  }

  void pack(std::int64_t first, std::int64_t p, std::int64_t depth, T* panel) const {
    for (int j = 0; j < tile::columns; j += native::width) {
      pack_vector(first + j, p, depth, panel + j);
    }
  }

 private:
  void pack_vector(std::int64_t first, std::int64_t p, std::int64_t depth, T* to) const {
    constexpr int width = native::width;
    std::int64_t const length = shape.length;
    array_of<T const*, width> channel;
    array_of<std::int64_t, width> shift;
    for (int j = 0; j < width; ++j) {
      std::int64_t const column = at_most(first + j, columns - 1);
      channel[j] = x + column / kernel * length;
      shift[j] = token_columns<T>::tap_shift(column % kernel, kernel, length);
    }
    std::int64_t const sample_size = shape.channels * length;
    std::int64_t sample = p / length * sample_size;
    std::int64_t token = p % length;
    for (std::int64_t end = p + depth; p < end;) {
      array_of<T const*, width> from;
      bool whole = token + width <= length && p + width <= end;
      for (int j = 0; j < width; ++j) {
        std::int64_t const at = token + shift[j];
        std::int64_t const wrapped = at < length ? at : at - length;
        whole &= wrapped + width <= length;
        from[j] = channel[j] + sample + wrapped;
      }
      std::int64_t const step = whole ? width : 1;
      if (whole) {
        transpose_block<native>(from, to, tile::columns);
      } else {
        for (int j = 0; j < width; ++j) to[j] = *from[j];
      }
      p += step;
      to += step * tile::columns;
      token += step;
      if (token == length) {
        token = 0;
        sample += sample_size;
      }
    }
  }
};

/// The sum of x in the order of 16 lanes, whatever the SIMD width.
template <arithmetic_scalar T>
T sum_of_tokens(T const* x, std::int64_t length) {
  constexpr int lanes = 16;
  using pack = native_pack<T>;
  constexpr int packs = lanes / pack::width;
  array_of<pack, packs> sum;
  for (int j = 0; j < packs; ++j) sum[j] = pack(T(0));
  std::int64_t l = 0;
  for (; l + lanes <= length; l += lanes) {
    for (int j = 0; j < packs; ++j) sum[j] += pack::load(x + l + j * pack::width);
  }
  T lane[lanes];
  for (int j = 0; j < packs; ++j) sum[j].store(lane + j * pack::width);
  for (int j = 0; l < length; ++j, ++l) lane[j] += x[l];
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace detail

inline namespace ADDLOSS_ISA_NAMESPACE {

/// Models `layer<conv1d<T>, T>`.
template <arithmetic_scalar T>
struct conv1d {
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  int kernel = 1;  ///< taps, odd

  [[nodiscard]] std::int64_t weight_count() const { return out_channels * in_channels * kernel; }
  [[nodiscard]] std::int64_t parameter_count() const { return weight_count() + out_channels; }
  [[nodiscard]] int parameters() const { return 2; }
  [[nodiscard]] parameter_view parameter(int index) const {
    if (index == 0) return {"weight", 0, 3, {out_channels, in_channels, kernel}};
    return {"bias", weight_count(), 1, {out_channels, 1, 1}};
  }

  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    using detail::fail;
    using detail::text;
    if (kernel < 1 || kernel % 2 == 0) {
      fail(function, "kernel", "an odd number of at least 1", text() << kernel);
    }
    if (in_channels < 1) fail(function, "in_channels", "at least 1", text() << in_channels);
    if (out_channels < 1) fail(function, "out_channels", "at least 1", text() << out_channels);
    if (shape.batch < 0) fail(function, "batch", "at least 0", text() << shape.batch);
    if (shape.channels != in_channels) {
      fail(function, "channels", text() << in_channels, text() << shape.channels);
    }
    if (shape.length < 1) fail(function, "length", "at least 1", text() << shape.length);
    return {shape.batch, out_channels, shape.length};
  }

  [[nodiscard]] std::int64_t saved_size(feature_shape /*shape*/) const { return 0; }
  [[nodiscard]] std::int64_t workspace_size(feature_shape shape) const {
    std::int64_t size = detail::packed_size<T>(out_channels, in_channels * kernel);
    for (std::int64_t const other :
         {detail::packed_size<T>(in_channels, out_channels * kernel),
          detail::packed_size<T>(out_channels, shape.batch * shape.length)}) {
      if (other > size) size = other;
    }
    return size;
  }

  void forward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T* y,
               T* /*saved*/, T* workspace) const {
    apply(ctx, w, w + weight_count(), shape, x, y, workspace);
  }

  void backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x,
                T const* /*saved*/, T const* y_bar, T* x_bar, T* w_bar, T* workspace) const {
    if (x_bar != nullptr) apply_transpose(ctx, w, shape, y_bar, x_bar, workspace);
    if (w_bar != nullptr) {
      add_weight_gradient(ctx, shape, x, y_bar, w_bar, workspace);
      add_bias_gradient(ctx, shape, y_bar, w_bar + weight_count());
    }
  }

  void tangent(cpu_context const& ctx, T const* w, feature_shape shape, T const* /*x*/,
               T const* /*saved*/, T const* x_dot, T* y_dot, T* workspace) const {
    apply(ctx, w, nullptr, shape, x_dot, y_dot, workspace);
  }

  void tangent_backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x,
                        T const* saved, T const* x_dot, T const* y_bar, T const* y_dot_bar,
                        T* x_bar, T* x_dot_bar, T* w_bar, T* workspace) const {
    backward(ctx, w, shape, x, saved, y_bar, x_bar, w_bar, workspace);
    if (x_dot_bar != nullptr) apply_transpose(ctx, w, shape, y_dot_bar, x_dot_bar, workspace);
    if (w_bar != nullptr) add_weight_gradient(ctx, shape, x_dot, y_dot_bar, w_bar, workspace);
  }

 private:
  [[nodiscard]] int threads_for(cpu_context const& ctx, feature_shape shape) const {
    return ctx.threads > 1 &&
                   shape.batch * shape.length * weight_count() >= detail::parallel_products
               ? ctx.threads
               : 1;
  }

  void apply(cpu_context const& ctx, T const* w, T const* bias, feature_shape shape, T const* x,
             T* y, T* workspace) const {
    int const threads = threads_for(ctx, shape);
    std::int64_t const depth = in_channels * kernel;
    detail::pack_left<T>(threads, {w, out_channels, depth, depth, depth, 0, 1}, workspace);
    detail::multiply<T>(threads, workspace, out_channels, depth,
                        detail::token_columns<T>(x, shape, kernel, out_channels),
                        {y, shape.length, bias, false});
  }

  /// A convolution of y_bar with the weight of exchanged channels and reversed taps.
  void apply_transpose(cpu_context const& ctx, T const* w, feature_shape shape, T const* y_bar,
                       T* x_bar, T* workspace) const {
    int const threads = threads_for(ctx, shape);
    std::int64_t const depth = out_channels * kernel;
    detail::pack_left<T>(
        threads, {w + kernel - 1, in_channels, depth, kernel, kernel, in_channels * kernel, -1},
        workspace);
    detail::multiply<T>(threads, workspace, in_channels, depth,
                        detail::token_columns<T>(y_bar, {shape.batch, out_channels, shape.length},
                                                 kernel, in_channels),
                        {x_bar, shape.length, nullptr, false});
  }

  void add_weight_gradient(cpu_context const& ctx, feature_shape shape, T const* x, T const* y_bar,
                           T* weight_bar, T* workspace) const {
    int const threads = threads_for(ctx, shape);
    std::int64_t const length = shape.length;
    std::int64_t const depth = shape.batch * length;
    detail::pack_left<T>(
        threads, {y_bar, out_channels, depth, length, length, out_channels * length, 1}, workspace);
    detail::multiply<T>(threads, workspace, out_channels, depth,
                        detail::tap_columns<T>(x, shape, kernel),
                        {weight_bar, in_channels * kernel, nullptr, true});
  }

  void add_bias_gradient(cpu_context const& ctx, feature_shape shape, T const* y_bar,
                         T* bias_bar) const {
    detail::each_task(threads_for(ctx, shape), out_channels, [&](std::int64_t o) {
      T sum = 0;
      for (std::int64_t b = 0; b < shape.batch; ++b) {
        sum += detail::sum_of_tokens(y_bar + (b * out_channels + o) * shape.length, shape.length);
      }
      bias_bar[o] += sum;
    });
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
