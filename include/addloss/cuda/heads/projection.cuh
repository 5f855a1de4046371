// SPDX-License-Identifier: MIT
/// heads/projection.hpp on a GPU.
///
/// A warp makes one logit, reading the C numbers of its token side by side; the gradient of a is a
/// sum over the tokens of a sample, 32 channels a block. All else is small. Formulas, parameters
/// and what is kept: as there. Sums in double, in an order that the shape fixes: same bits for any
/// number of blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include <addloss/core/scalar.hpp>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/heads/sums.cuh>
#include <addloss/cuda/tasks.cuh>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/projection.hpp>

namespace addloss::cuda {

/// A condition and its weights. m gets scale W c.
template <class T>
struct projected_condition {
  T const* values;
  T* gradient;
  std::int64_t size;
  std::int64_t weight;  ///< offset in the parameters
  std::int64_t stride;  ///< between rows of the weight
  double scale;
};

/// What the kernels of a projection share.
template <class T>
struct projection_pass {
  T const* w;
  T* w_bar;
  T* m;
  T* a;
  T* d;
  T* m_bar;
  T* a_bar;
  T* d_bar;
  std::int64_t batch;
  std::int64_t channels;
  std::int64_t length;
  std::int64_t width;
  double output_scale;
  int conditions;
  int projections;
  std::int64_t bias[addloss::detail::max_conditions];  ///< offsets
  projected_condition<T> condition[addloss::detail::max_conditions];
};

/// m [B, P]; row n is (p, b): the samples of one p read the same row of weights.
template <class T>
struct modulate {
  projection_pass<T> pass;
  __device__ void operator()(std::int64_t n, int lane) const {
    std::int64_t const p = n / pass.batch;
    std::int64_t const b = n % pass.batch;
    double sum = pass.conditions == 0 ? 1.0 : 0.0;
    for (int k = 0; k < pass.conditions; ++k) {
      auto const& c = pass.condition[k];
      T const* const weight = pass.w + c.weight + p * c.stride;
      T const* const values = c.values + b * c.size;
      sum += c.scale * sum_over_warp(c.size, lane, [&](std::int64_t j) {
               return static_cast<double>(weight[j]) * static_cast<double>(values[j]);
             });
    }
    for (int i = 0; i < pass.projections; ++i) {
      sum += static_cast<double>(pass.w[pass.bias[i] + p]);
    }
    if (lane == 0) pass.m[b * pass.width + p] = static_cast<T>(sum);
  }
};

/// a [B, C] and, as one more column, d [B].
template <class T>
struct combine_channels {
  projection_pass<T> pass;
  __device__ void operator()(std::int64_t n) const {
    std::int64_t const channels = pass.channels;
    std::int64_t const b = n / (channels + 1);
    std::int64_t const c = n % (channels + 1);
    T const* const m = pass.m + b * pass.width;
    // The biases follow the weights.
    T const* const column = c < channels ? pass.w + c : pass.w + pass.width * channels;
    std::int64_t const stride = c < channels ? channels : 1;
    double sum = 0;
    for (std::int64_t p = 0; p < pass.width; ++p) {
      sum += static_cast<double>(m[p]) * static_cast<double>(column[p * stride]);
    }
    T& out = c < channels ? pass.a[b * channels + c] : pass.d[b];
    out = static_cast<T>(pass.output_scale * sum);
  }
};

/// y[b, l] = a[b] . x[b, l, :] + d[b]; d null: 0.
template <class T>
struct contract_token {
  T const* x;
  T const* a;
  T const* d;
  T* y;
  std::int64_t channels;
  std::int64_t length;
  __device__ void operator()(std::int64_t row, int lane) const {
    std::int64_t const b = row / length;
    double const sum = sum_over_warp(channels, lane, [&](std::int64_t c) {
      return static_cast<double>(a[b * channels + c]) * static_cast<double>(x[row * channels + c]);
    });
    if (lane == 0) y[row] = static_cast<T>(d != nullptr ? sum + static_cast<double>(d[b]) : sum);
  }
};

/// x_bar[b, l, :] = a[b] y_bar[b, l].
template <class T>
struct expand_token {
  T const* a;
  T const* y_bar;
  T* x_bar;
  std::int64_t channels;
  std::int64_t length;
  __device__ void operator()(std::int64_t row, int lane) const {
    T const* const from = a + row / length * channels;
    T const factor = y_bar[row];
#pragma unroll 4
    for (std::int64_t c = lane; c < channels; c += 32) {
      x_bar[row * channels + c] = from[c] * factor;
    }
  }
};

/// A term of a_bar.
template <class T, bool Tangent>
struct channel_gradient {
  T const* x;
  T const* x_dot;
  T const* y_bar;
  T const* y_dot_bar;
  std::int64_t channels;
  __device__ double operator()(std::int64_t row, std::int64_t c) const {
    double sum = static_cast<double>(x[row * channels + c]) * static_cast<double>(y_bar[row]);
    if constexpr (Tangent) {
      sum += static_cast<double>(x_dot[row * channels + c]) * static_cast<double>(y_dot_bar[row]);
    }
    return sum;
  }
};

/// d_bar[b] = sum_l y_bar[b, l].
template <class T>
struct sum_tokens {
  T const* y_bar;
  T* d_bar;
  std::int64_t length;
  __device__ void operator()(std::int64_t b, int lane) const {
    double const sum = sum_over_warp(
        length, lane, [&](std::int64_t l) { return static_cast<double>(y_bar[b * length + l]); });
    if (lane == 0) d_bar[b] = static_cast<T>(sum);
  }
};

/// out += scale sum_i term(i), i < count, by one thread.
template <class T, class Term>
__device__ void add_sum(T& out, double scale, std::int64_t count, Term const& term) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += term(i);
  out = static_cast<T>(static_cast<double>(out) + scale * sum);
}

/// Adds to the gradients of weight and, as one more column, bias.
template <class T>
struct classifier_gradient {
  projection_pass<T> pass;
  __device__ void operator()(std::int64_t n) const {
    std::int64_t const channels = pass.channels;
    std::int64_t const p = n / (channels + 1);
    std::int64_t const c = n % (channels + 1);
    T& out = pass.w_bar[c < channels ? p * channels + c : pass.width * channels + p];
    add_sum(out, pass.output_scale, pass.batch, [&](std::int64_t b) {
      T const bar = c < channels ? pass.a_bar[b * channels + c] : pass.d_bar[b];
      return static_cast<double>(pass.m[b * pass.width + p]) * static_cast<double>(bar);
    });
  }
};

/// m_bar [B, P], rows as in modulate.
template <class T>
struct modulation_gradient {
  projection_pass<T> pass;
  __device__ void operator()(std::int64_t n, int lane) const {
    std::int64_t const channels = pass.channels;
    std::int64_t const p = n / pass.batch;
    std::int64_t const b = n % pass.batch;
    double const sum = sum_over_warp(channels, lane, [&](std::int64_t c) {
      return static_cast<double>(pass.w[p * channels + c]) *
             static_cast<double>(pass.a_bar[b * channels + c]);
    });
    if (lane != 0) return;
    double const bias = static_cast<double>(pass.w[pass.width * channels + p]);
    pass.m_bar[b * pass.width + p] =
        static_cast<T>(pass.output_scale * (sum + bias * static_cast<double>(pass.d_bar[b])));
  }
};

/// Adds to the gradient of the weight of condition k.
template <class T>
struct condition_weight_gradient {
  projection_pass<T> pass;
  int k;
  __device__ void operator()(std::int64_t n) const {
    auto const& of = pass.condition[k];
    std::int64_t const p = n / of.size;
    std::int64_t const j = n % of.size;
    add_sum(pass.w_bar[of.weight + p * of.stride + j], of.scale, pass.batch, [&](std::int64_t b) {
      return static_cast<double>(pass.m_bar[b * pass.width + p]) *
             static_cast<double>(of.values[b * of.size + j]);
    });
  }
};

/// Adds to the gradients of the biases of all projections.
template <class T>
struct condition_bias_gradient {
  projection_pass<T> pass;
  __device__ void operator()(std::int64_t p) const {
    double sum = 0;
    for (std::int64_t b = 0; b < pass.batch; ++b) {
      sum += static_cast<double>(pass.m_bar[b * pass.width + p]);
    }
    for (int i = 0; i < pass.projections; ++i) {
      T& out = pass.w_bar[pass.bias[i] + p];
      out = static_cast<T>(static_cast<double>(out) + sum);
    }
  }
};

/// Adds to the gradient of condition k.
template <class T>
struct condition_gradient {
  projection_pass<T> pass;
  int k;
  __device__ void operator()(std::int64_t n) const {
    auto const& of = pass.condition[k];
    std::int64_t const b = n / of.size;
    std::int64_t const j = n % of.size;
    add_sum(of.gradient[n], of.scale, pass.width, [&](std::int64_t p) {
      return static_cast<double>(pass.m_bar[b * pass.width + p]) *
             static_cast<double>(pass.w[of.weight + p * of.stride + j]);
    });
  }
};

template <class T>
projection_pass<T> pass_of(projection<T> const& l, layer_pass<T> const& p) {
  auto const kept = l.parts_of(p.saved, p.shape);
  auto const bar = l.parts_of(p.workspace, p.shape);
  projection_pass<T> pass{.w = p.w,
                          .w_bar = p.w_bar,
                          .m = kept.m,
                          .a = kept.a,
                          .d = kept.d,
                          .m_bar = bar.m,
                          .a_bar = bar.a,
                          .d_bar = bar.d,
                          .batch = p.shape.batch,
                          .channels = l.channels,
                          .length = p.shape.length,
                          .width = l.width,
                          .output_scale = l.output_scale(),
                          .conditions = l.conditions,
                          .projections = l.projections(),
                          .bias = {},
                          .condition = {}};
  for (int i = 0; i < l.projections(); ++i) pass.bias[i] = l.bias_offset(i);
  for (int k = 0; k < l.conditions; ++k) {
    auto const [offset, stride, scale] = l.weight_of(k);
    auto const& given = p.conditions[static_cast<std::size_t>(k)];
    pass.condition[k] = {given.values, given.gradient, given.size, offset, stride, scale};
  }
  return pass;
}

/// Both backward passes.
template <bool Tangent, class T>
void projection_backward(cuda_context const& ctx, projection<T> const& l, layer_pass<T> const& p) {
  projection_pass<T> const pass = pass_of(l, p);
  std::int64_t const rows = pass.batch * pass.length;
  if (p.x_bar != nullptr) {
    run_rows(ctx, rows, expand_token<T>{pass.a, p.y_bar, p.x_bar, pass.channels, pass.length});
  }
  bool const conditions = l.wants_condition_gradient(p);
  if (p.w_bar == nullptr && !conditions) return;
  sum_columns(ctx, rows, pass.channels, pass.length,
              channel_gradient<T, Tangent>{p.x, p.x_dot, p.y_bar, p.y_dot_bar, pass.channels},
              pass.a_bar);
  run_rows(ctx, pass.batch, sum_tokens<T>{p.y_bar, pass.d_bar, pass.length});
  if (p.w_bar != nullptr) {
    run_elements<1>(ctx, pass.width * (pass.channels + 1), classifier_gradient<T>{pass});
  }
  if (pass.conditions == 0) return;
  run_rows(ctx, pass.batch * pass.width, modulation_gradient<T>{pass});
  if (p.w_bar != nullptr) {
    run_elements<1>(ctx, pass.width, condition_bias_gradient<T>{pass});
  }
  for (int k = 0; k < pass.conditions; ++k) {
    std::int64_t const size = pass.condition[k].size;
    if (p.w_bar != nullptr) {
      run_elements<1>(ctx, pass.width * size, condition_weight_gradient<T>{pass, k});
    }
    if (pass.condition[k].gradient != nullptr) {
      run_elements<1>(ctx, pass.batch * size, condition_gradient<T>{pass, k});
    }
  }
}

}  // namespace addloss::cuda

namespace addloss {

template <class Product, arithmetic_scalar T>
struct layer_on<cuda_heads<Product>, projection<T>> {
  using heads = cuda_heads<Product>;
  static layer_sizes sizes(projection<T> const& l, feature_shape shape) { return l.sizes(shape); }
  static void forward(projection<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    auto const pass = cuda::pass_of(l, p);
    cuda::run_rows(ctx.gpu, pass.batch * pass.width, cuda::modulate<T>{pass});
    cuda::run_elements<1>(ctx.gpu, pass.batch * (pass.channels + 1),
                          cuda::combine_channels<T>{pass});
    contract(ctx, pass, p.x, pass.d, p.y);
  }
  static void backward(projection<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::projection_backward<false>(ctx.gpu, l, p);
  }
  static void tangent(projection<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    if (p.y_dot == nullptr) return;
    contract(ctx, cuda::pass_of(l, p), p.x_dot, nullptr, p.y_dot);
  }
  static void tangent_backward(projection<T> const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::projection_backward<true>(ctx.gpu, l, p);
  }

 private:
  static void contract(heads const& ctx, cuda::projection_pass<T> const& pass, T const* x,
                       T const* d, T* y) {
    cuda::run_rows(ctx.gpu, pass.batch * pass.length,
                   cuda::contract_token<T>{x, pass.a, d, y, pass.channels, pass.length});
  }
};

}  // namespace addloss
