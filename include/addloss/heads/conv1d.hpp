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
/// Two methods. `direct`: nothing is kept, the workspace holds a block of one packed matrix.
/// `toom_cook`, for nine taps: 4 times fewer multiplications (heads/toom_cook.hpp); keeps the
/// transforms of x, x_dot and y_bar, 2.2 times their size each. `automatic` takes the faster one:
/// Toom-Cook's where there are at least 32 channels, in and out, and 96 tokens in the batch (1.2 to
/// 3 times faster there).
/// Nothing is allocated; each thread takes up to 75 KiB of its stack.
/// Error in float, relative to the largest output: direct below 1e-6, Toom-Cook's up to 1e-5 (384
/// channels), in double 1e-14. NaN or infinity in x, which spoils nine outputs, spoils those of one
/// or two tiles of 18 tokens by Toom-Cook's method, and infinity may become NaN.
/// Same bits for any number of threads: each element of an output is summed by one thread, in the
/// order of heads/matrix_product.hpp; gradients of parameters over samples, then tokens.
/// Errors (output_shape): an even or negative kernel, one other than 9 for Toom-Cook's method,
/// channels below 1, other channels than in_channels, L < 1, B < 0.
/// Cost in direct form: 2 B L out_channels in_channels kernel operations each for y, for x_bar and
/// for the weight's gradient; tangent_backward one more of the latter.
/// Speed: bench_heads_conv1d, as a share of what multiply-adds in registers reach, beside Eigen's.
/// On one thread of a Zen 4 EPYC, g++ 12 -O3 -march=native, with 384 channels, L = 197, B = 8,
/// float, the direct products reach 85 to 91 % of that (117 GFLOP/s).
#pragma once

#include <cstdint>
#include <cstring>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/matrix_product.hpp>
#include <addloss/heads/toom_cook.hpp>

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

/// How a convolution is computed. Toom-Cook's method is for kernel 9; see toom_cook.hpp.
enum class convolution_method { automatic, direct, toom_cook };

inline namespace ADDLOSS_ISA_NAMESPACE {

template <arithmetic_scalar T>
struct conv1d {
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  int kernel = 1;  ///< taps, odd
  convolution_method method = convolution_method::automatic;

  [[nodiscard]] std::int64_t weight_count() const { return out_channels * in_channels * kernel; }
  [[nodiscard]] std::int64_t parameter_count() const { return weight_count() + out_channels; }
  [[nodiscard]] int parameters() const { return 2; }
  [[nodiscard]] parameter_view parameter(int index) const {
    fan_in_uniform const initial{in_channels * kernel};
    if (index == 0) return {"weight", 0, 3, {out_channels, in_channels, kernel}, initial};
    return {"bias", weight_count(), 1, {out_channels, 1, 1}, initial};
  }

  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    using detail::fail;
    using detail::text;
    if (kernel < 1 || kernel % 2 == 0) {
      fail(function, "kernel", "an odd number of at least 1", text() << kernel);
    }
    if (method == convolution_method::toom_cook && kernel != 9) {
      fail(function, "kernel", "9 for Toom-Cook's method", text() << kernel);
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

  [[nodiscard]] layer_sizes sizes(feature_shape shape) const {
    if (by_toom_cook(shape)) {
      auto const t = nine_taps({.threads = 1}, shape);
      std::int64_t const in = t.tensor_size(in_channels);
      std::int64_t const out = t.tensor_size(out_channels);
      return {in, out, in, t.scratch_size() + (in > out ? in : out) + out};
    }
    std::int64_t size = detail::packed_size<T>(out_channels, in_channels * kernel);
    for (std::int64_t const other :
         {detail::packed_size<T>(in_channels, out_channels * kernel),
          detail::packed_size<T>(out_channels, shape.batch * shape.length)}) {
      if (other > size) size = other;
    }
    return {.workspace = size};
  }

  /// Whether passes over this shape are done by Toom-Cook's method.
  [[nodiscard]] bool by_toom_cook(feature_shape shape) const {
    if (method != convolution_method::automatic) return method == convolution_method::toom_cook;
    return kernel == 9 && in_channels >= 32 && out_channels >= 32 &&
           shape.batch * shape.length >= 96;
  }

  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    if (by_toom_cook(p.shape)) {
      auto const t = nine_taps(ctx, p.shape);
      auto const memory = memory_of(t, p.workspace);
      t.transform(p.x, memory.scratch, p.saved);
      t.multiply(p.w, p.saved, memory.scratch, memory.product);
      t.inverse(memory.product, p.w + weight_count(), memory.scratch, p.y);
      return;
    }
    apply(ctx, p.w, p.w + weight_count(), p.shape, p.x, p.y, p.workspace);
  }

  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    if (by_toom_cook(p.shape)) {
      backward_nine_taps(ctx, p, p.saved_bar, nullptr, nullptr);
    } else {
      if (p.x_bar != nullptr) apply_transpose(ctx, p.w, p.shape, p.y_bar, p.x_bar, p.workspace);
      if (p.w_bar != nullptr) add_weight_gradient(ctx, p, p.x, p.y_bar);
    }
    if (p.w_bar != nullptr) add_bias_gradient(ctx, p);
  }

  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    if (by_toom_cook(p.shape)) {
      auto const t = nine_taps(ctx, p.shape);
      auto const memory = memory_of(t, p.workspace);
      t.transform(p.x_dot, memory.scratch, p.saved_dot);
      if (p.y_dot == nullptr) return;
      t.multiply(p.w, p.saved_dot, memory.scratch, memory.product);
      t.inverse(memory.product, nullptr, memory.scratch, p.y_dot);
    } else if (p.y_dot != nullptr) {
      apply(ctx, p.w, nullptr, p.shape, p.x_dot, p.y_dot, p.workspace);
    }
  }

  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    if (by_toom_cook(p.shape)) {
      backward_nine_taps(ctx, p, nullptr, p.saved_dot, p.saved_bar);
    } else {
      if (p.x_bar != nullptr) apply_transpose(ctx, p.w, p.shape, p.y_bar, p.x_bar, p.workspace);
      if (p.w_bar != nullptr) {
        add_weight_gradient(ctx, p, p.x, p.y_bar);
        add_weight_gradient(ctx, p, p.x_dot, p.y_dot_bar);
      }
    }
    if (p.w_bar != nullptr) add_bias_gradient(ctx, p);
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
    detail::multiply<T>(threads, {w, out_channels, depth, depth, depth, 0, 1}, workspace,
                        detail::token_columns<T>(x, shape, kernel, out_channels),
                        {y, shape.length, bias, nullptr, false});
  }

  /// A convolution of y_bar with the weight of exchanged channels and reversed taps.
  void apply_transpose(cpu_context const& ctx, T const* w, feature_shape shape, T const* y_bar,
                       T* x_bar, T* workspace) const {
    int const threads = threads_for(ctx, shape);
    std::int64_t const depth = out_channels * kernel;
    detail::multiply<T>(
        threads, {w + kernel - 1, in_channels, depth, kernel, kernel, in_channels * kernel, -1},
        workspace,
        detail::token_columns<T>(y_bar, {shape.batch, out_channels, shape.length}, kernel,
                                 in_channels),
        {x_bar, shape.length, nullptr, nullptr, false});
  }

  void add_weight_gradient(cpu_context const& ctx, layer_pass<T> const& p, T const* x,
                           T const* y_bar) const {
    int const threads = threads_for(ctx, p.shape);
    std::int64_t const length = p.shape.length;
    std::int64_t const depth = p.shape.batch * length;
    detail::multiply<T>(threads,
                        {y_bar, out_channels, depth, length, length, out_channels * length, 1},
                        p.workspace, detail::tap_columns<T>(x, p.shape, kernel),
                        {p.w_bar, in_channels * kernel, nullptr, nullptr, true});
  }

  void add_bias_gradient(cpu_context const& ctx, layer_pass<T> const& p) const {
    std::int64_t const length = p.shape.length;
    detail::each_task(threads_for(ctx, p.shape), out_channels, [&](std::int64_t o) {
      T sum = 0;
      for (std::int64_t b = 0; b < p.shape.batch; ++b) {
        sum += detail::sum_of_tokens(p.y_bar + (b * out_channels + o) * length, length);
      }
      p.w_bar[weight_count() + o] += sum;
    });
  }

  [[nodiscard]] detail::toom_cook<T> nine_taps(cpu_context const& ctx, feature_shape shape) const {
    return {threads_for(ctx, shape), shape.batch, shape.length, in_channels, out_channels};
  }

  struct toom_cook_memory {
    T* scratch;
    T* product;
    T* gradient;
  };
  [[nodiscard]] toom_cook_memory memory_of(detail::toom_cook<T> const& t, T* workspace) const {
    T* const product = workspace + t.scratch_size();
    T* const gradient =
        product + t.tensor_size(in_channels > out_channels ? in_channels : out_channels);
    return {workspace, product, gradient};
  }

  /// Both backward passes; that of a tangent has V_dot and E_dot. E goes to the workspace where it
  /// is not kept.
  void backward_nine_taps(cpu_context const& ctx, layer_pass<T> const& p, T* kept, T const* v_dot,
                          T const* e_dot) const {
    if (p.x_bar == nullptr && p.w_bar == nullptr && kept == nullptr) return;
    auto const t = nine_taps(ctx, p.shape);
    auto const memory = memory_of(t, p.workspace);
    T* const e = kept != nullptr ? kept : memory.gradient;
    t.transform_gradient(p.y_bar, memory.scratch, e);
    if (p.x_bar != nullptr) {
      t.multiply_transposed(p.w, e, memory.scratch, memory.product);
      t.inverse_gradient(memory.product, memory.scratch, p.x_bar);
    }
    if (p.w_bar != nullptr) {
      t.add_weight_gradient(p.saved, e, v_dot, e_dot, memory.scratch, p.w_bar);
    }
  }
};

static_assert(layer<conv1d<float>, float> && layer<conv1d<double>, double>);

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
