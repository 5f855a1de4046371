// SPDX-License-Identifier: MIT
/// heads/local_norm.hpp and heads/group_norm.hpp on a GPU, with their leaky ReLU.
///
/// A block has the elements of one statistic over several channels, or of eight channels with a
/// statistic each: it sweeps over them twice, for the sums and to write the result. 48 or 64
/// threads to each of eight neighbouring channels read whole sectors of 32 bytes; the second sweep
/// finds in the second-level cache what the first one read. With C = 384 and 32 samples in groups
/// of 8, that is 192 blocks.
/// Formulas, what is kept, NaN: as there. Sums in double: each thread of a channel adds its tokens,
/// then the threads are added, in an order that the shape fixes. Same bits for any number of
/// blocks.
/// Mean and variance come from one sweep of squares from the first element on: in double arithmetic
/// the variance loses as many digits as the square of that element's distance from the mean has, in
/// variances; in float none.
#pragma once

#include <cstdint>
#include <type_traits>

#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/tasks.cuh>
#include <addloss/heads/group_norm.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/local_norm.hpp>

namespace addloss::cuda {

enum class norm_step { forward, backward, tangent, tangent_backward };

/// What all four passes read and write.
template <class T>
struct norm_pass {
  T const* w;
  T const* x;
  T const* x_dot;
  T const* y_bar;
  T const* y_dot_bar;
  T* y;
  T* y_dot;
  T* x_bar;
  T* saved;
  T* saved_bar;
  T* saved_dot;
  T* parameter_sums;  ///< [groups of samples, C, 2]; null: not wanted
  std::int64_t channels;
  std::int64_t tokens;  ///< of a statistic: samples times length
  std::int64_t width;  ///< channels of a statistic
  double epsilon;
  T slope;
};

template <class T, norm_step Step>
struct normalise {
  static constexpr int columns = 8;
  /// Two blocks then find registers on a multiprocessor (80 a thread; 64 in the other passes), so
  /// that 192 are one wave on 132.
  static constexpr int lanes = Step == norm_step::tangent_backward ? 48 : 64;
  static constexpr int threads = columns * lanes;
  static constexpr int warps = threads / 32;

  norm_pass<T> pass;

  /// Blocks for each group of samples.
  [[nodiscard]] __host__ __device__ std::int64_t parts() const {
    return pass.width > 1 ? pass.channels / pass.width : (pass.channels + columns - 1) / columns;
  }

  __device__ void operator()(std::int64_t task) const {
    place const at = locate(task);
    if constexpr (Step == norm_step::forward) {
      forward(at);
    } else if constexpr (Step == norm_step::backward) {
      backward(at);
    } else if constexpr (Step == norm_step::tangent) {
      tangent(at);
    } else {
      tangent_backward(at);
    }
  }

 private:
  /// Channels [first, last) of a group of samples; of this thread: `column` and `lane`.
  struct place {
    std::int64_t group;
    std::int64_t first;
    std::int64_t last;
    std::int64_t statistic;
    int column;
    int lane;
  };
  struct moments {
    T mean;
    T scale;
  };
  /// <u> and <h u>, with u' = u - <u> - h <h u>.
  struct projection {
    T mean;
    T along;
    __device__ T rest(T u, T h) const { return u - mean - h * along; }
  };
  /// From the elements of a channel to its h, n and d.
  struct channel_map {
    T mean;
    T scale;
    T weight;
    T bias;
    T slope;
    __device__ T h(T x) const { return (x - mean) * scale; }
    // Fused by name: all passes must see the same sign.
    __device__ T normal(T h) const { return fma(weight, h, bias); }
    __device__ T slope_at(T h) const {
      T const n = normal(h);
      if (n > T(0)) return T(1);
      // Where n is NaN so is d, unless there is no activation.
      return n <= T(0) || slope == T(1) ? slope : n;
    }
  };

  [[nodiscard]] __device__ place locate(std::int64_t task) const {
    place at{};
    at.group = task / parts();
    std::int64_t const step = pass.width > 1 ? pass.width : columns;
    at.first = task % parts() * step;
    at.last = addloss::detail::at_most(at.first + step, pass.channels);
    at.column = static_cast<int>(threadIdx.x) % columns;
    at.lane = static_cast<int>(threadIdx.x) / columns;
    std::int64_t const channel =
        pass.width > 1 ? at.first : addloss::detail::at_most(at.first + at.column, at.last - 1);
    at.statistic = at.group * (pass.channels / pass.width) + channel / pass.width;
    return at;
  }
  [[nodiscard]] __device__ double count() const {
    return static_cast<double>(pass.tokens * pass.width);
  }
  [[nodiscard]] __device__ channel_map map_of(moments stat, std::int64_t channel) const {
    return {stat.mean, stat.scale, pass.w[channel], pass.w[pass.channels + channel], pass.slope};
  }
  [[nodiscard]] __device__ std::int64_t offset(place const& at, std::int64_t channel) const {
    return (at.group * pass.tokens + at.lane) * pass.channels + channel;
  }

  /// body(i) for the elements of a channel that this thread has.
  template <class Body>
  __device__ void each_element(place const& at, std::int64_t channel, Body const& body) const {
    std::int64_t const stride = lanes * pass.channels;
    std::int64_t i = offset(at, channel);
#pragma unroll 4
    for (std::int64_t token = at.lane; token < pass.tokens; token += lanes, i += stride) body(i);
  }
  /// body(channel) for the channels that this thread has.
  template <class Body>
  __device__ void each_channel(place const& at, Body const& body) const {
    for (std::int64_t c = at.first + at.column; c < at.last; c += columns) body(c);
  }

  /// The sums of this thread's statistic. terms(channel) makes add(i, sums), which adds the terms
  /// of an element; of_channel(channel, sums, writes_part) gets those of each channel and may
  /// change them, in all threads of the channel alike, in one of which `writes_part` is true.
  template <int Count, class Terms, class OfChannel>
  __device__ void sum(place const& at, double (&total)[Count], Terms const& terms,
                      OfChannel const& of_channel) const {
    __shared__ double of_warp[Count][warps][columns];
#pragma unroll
    for (int k = 0; k < Count; ++k) total[k] = 0;
    for (std::int64_t tile = at.first; tile < at.last; tile += columns) {
      std::int64_t const channel = tile + at.column;
      double part[Count] = {};
      if (channel < at.last) {
        auto const add = terms(channel);
        each_element(at, channel, [&](std::int64_t i) { add(i, part); });
      }
#pragma unroll
      for (int k = 0; k < Count; ++k) {
        part[k] += __shfl_xor_sync(0xffffffffU, part[k], columns);
        part[k] += __shfl_xor_sync(0xffffffffU, part[k], 2 * columns);
        if (threadIdx.x % 32 < columns) of_warp[k][threadIdx.x / 32][at.column] = part[k];
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < Count; ++k) {
        part[k] = 0;
        for (int warp = 0; warp < warps; ++warp) part[k] += of_warp[k][warp][at.column];
      }
      __syncthreads();
      if (channel < at.last) of_channel(channel, part, at.lane == 0);
#pragma unroll
      for (int k = 0; k < Count; ++k) {
        if (pass.width > 1) {
#pragma unroll
          for (int apart = 1; apart < columns; apart *= 2) {
            part[k] += __shfl_xor_sync(0xffffffffU, part[k], apart);
          }
        }
        total[k] += part[k];
      }
    }
  }
  struct as_they_are {
    template <int Count>
    __device__ void operator()(std::int64_t, double (&)[Count], bool) const {}
  };

  /// One of the threads of a statistic.
  [[nodiscard]] __device__ bool writes(place const& at) const {
    if (at.lane != 0) return false;
    return pass.width > 1 ? at.column == 0 : at.first + at.column < at.last;
  }
  __device__ void keep(place const& at, T first, T second, T* to) const {
    if (!writes(at)) return;
    to[2 * at.statistic] = first;
    to[2 * at.statistic + 1] = second;
  }
  [[nodiscard]] __device__ projection project(double sum, double sum_along) const {
    return {static_cast<T>(sum / count()), static_cast<T>(sum_along / count())};
  }
  [[nodiscard]] __device__ projection kept(place const& at, T const* from) const {
    return {from[2 * at.statistic], from[2 * at.statistic + 1]};
  }
  [[nodiscard]] __device__ moments moments_of(place const& at) const {
    return {pass.saved[2 * at.statistic], pass.saved[2 * at.statistic + 1]};
  }
  __device__ void keep_parameter_sums(place const& at, std::int64_t channel, double weight_bar,
                                      double bias_bar) const {
    if (pass.parameter_sums == nullptr) return;
    T* const to = pass.parameter_sums + 2 * (at.group * pass.channels + channel);
    to[0] = static_cast<T>(weight_bar);
    to[1] = static_cast<T>(bias_bar);
  }

  __device__ void forward(place const& at) const {
    // From the first element on, in double: exact for a constant, and nothing of a large mean is in
    // the squares.
    std::int64_t const first_channel =
        pass.width > 1 ? at.first : addloss::detail::at_most(at.first + at.column, at.last - 1);
    T const* const x = pass.x;
    auto const start =
        static_cast<double>(x[at.group * pass.tokens * pass.channels + first_channel]);
    double sums[2];
    sum(
        at, sums,
        [&](std::int64_t) {
          return [=](std::int64_t i, double(&part)[2]) {
            double const d = static_cast<double>(x[i]) - start;
            part[0] += d;
            part[1] += d * d;
          };
        },
        as_they_are{});
    double const distance = sums[0] / count();
    double variance = sums[1] / count() - distance * distance;
    if (variance < 0) variance = 0;  // by rounding; NaN stays
    // Were 1 / sqrt(infinity) = 0 let through, h would be 0 without a trace of the overflow.
    double const scale =
        math::is_finite(variance) ? 1 / sqrt(variance + pass.epsilon) : variance - variance;
    moments const stat{static_cast<T>(start + distance), static_cast<T>(scale)};
    keep(at, stat.mean, stat.scale, pass.saved);
    each_channel(at, [&](std::int64_t channel) {
      channel_map const c = map_of(stat, channel);
      each_element(at, channel, [&](std::int64_t i) {
        T const n = c.normal(c.h(x[i]));
        pass.y[i] = n > T(0) ? n : c.slope * n;
      });
    });
  }

  __device__ void backward(place const& at) const {
    moments const stat = moments_of(at);
    T const* const x = pass.x;
    T const* const y_bar = pass.y_bar;
    double sums[2];  // of p h, p
    sum(
        at, sums,
        [&](std::int64_t channel) {
          return [=, c = map_of(stat, channel)](std::int64_t i, double(&part)[2]) {
            T const h = c.h(x[i]);
            T const g = c.slope_at(h) * y_bar[i];
            part[0] += static_cast<double>(g * h);
            part[1] += static_cast<double>(g);
          };
        },
        [&](std::int64_t channel, double(&part)[2], bool writes_part) {
          if (writes_part) keep_parameter_sums(at, channel, part[0], part[1]);
          auto const weight = static_cast<double>(pass.w[channel]);
          part[0] *= weight;
          part[1] *= weight;
        });
    projection const p = project(sums[1], sums[0]);
    if (pass.saved_bar != nullptr) keep(at, p.mean, p.along, pass.saved_bar);
    if (pass.x_bar == nullptr) return;
    each_channel(at, [&](std::int64_t channel) {
      channel_map const c = map_of(stat, channel);
      each_element(at, channel, [&](std::int64_t i) {
        T const h = c.h(x[i]);
        pass.x_bar[i] = c.scale * p.rest(c.weight * (c.slope_at(h) * y_bar[i]), h);
      });
    });
  }

  __device__ void tangent(place const& at) const {
    moments const stat = moments_of(at);
    T const* const x = pass.x;
    T const* const x_dot = pass.x_dot;
    double sums[2];
    sum(
        at, sums,
        [&](std::int64_t channel) {
          return [=, c = map_of(stat, channel)](std::int64_t i, double(&part)[2]) {
            part[0] += static_cast<double>(x_dot[i]);
            part[1] += static_cast<double>(x_dot[i] * c.h(x[i]));
          };
        },
        as_they_are{});
    projection const u = project(sums[0], sums[1]);
    keep(at, u.mean, u.along, pass.saved_dot);
    if (pass.y_dot == nullptr) return;
    each_channel(at, [&](std::int64_t channel) {
      channel_map const c = map_of(stat, channel);
      each_element(at, channel, [&](std::int64_t i) {
        T const h = c.h(x[i]);
        pass.y_dot[i] = c.slope_at(h) * (c.weight * (c.scale * u.rest(x_dot[i], h)));
      });
    });
  }

  __device__ void tangent_backward(place const& at) const {
    moments const stat = moments_of(at);
    projection const u = kept(at, pass.saved_dot);
    projection const q = kept(at, pass.saved_bar);
    T const* const x = pass.x;
    T const* const x_dot = pass.x_dot;
    T const* const y_bar = pass.y_bar;
    T const* const y_dot_bar = pass.y_dot_bar;
    double sums[4];  // of p h, p, q u', u'
    sum(
        at, sums,
        [&](std::int64_t channel) {
          return [=, c = map_of(stat, channel)](std::int64_t i, double(&part)[4]) {
            T const h = c.h(x[i]);
            T const d = c.slope_at(h);
            T const g = d * y_bar[i];
            T const rest = u.rest(x_dot[i], h);
            part[0] += static_cast<double>(g * h);
            part[1] += static_cast<double>(g);
            part[2] += static_cast<double>(d * y_dot_bar[i] * rest);
            part[3] += static_cast<double>(rest);
          };
        },
        [&](std::int64_t channel, double(&part)[4], bool writes_part) {
          if (writes_part) {
            keep_parameter_sums(at, channel, part[0] + static_cast<double>(stat.scale) * part[2],
                                part[1]);
          }
          auto const weight = static_cast<double>(pass.w[channel]);
          part[0] *= weight;
          part[1] *= weight;
          part[2] *= weight;
        });
    if (pass.x_bar == nullptr) return;
    projection const p = project(sums[1], sums[0]);
    // sum u' is 0 but for rounding, which a large <q> would magnify.
    T const k = static_cast<T>((sums[2] - static_cast<double>(q.mean) * sums[3]) / count());
    each_channel(at, [&](std::int64_t channel) {
      channel_map const c = map_of(stat, channel);
      each_element(at, channel, [&](std::int64_t i) {
        T const h = c.h(x[i]);
        T const weight = c.weight * c.slope_at(h);
        T const u_rest = u.rest(x_dot[i], h);
        T const q_rest = q.rest(weight * y_dot_bar[i], h);
        T const second = q.along * u_rest + u.along * q_rest + k * h;
        T const first = p.rest(weight * y_bar[i], h);
        pass.x_bar[i] = c.scale * (first - c.scale * second);
      });
    });
  }
};

/// Adds the groups' parts to the gradients of weight and bias.
template <class T>
struct add_norm_parameters {
  T const* sums;
  T* w_bar;
  std::int64_t groups;
  std::int64_t channels;

  __device__ void operator()(std::int64_t c) const {
    double weight_bar = 0;
    double bias_bar = 0;
    for (std::int64_t group = 0; group < groups; ++group) {
      T const* const part = sums + 2 * (group * channels + c);
      weight_bar += static_cast<double>(part[0]);
      bias_bar += static_cast<double>(part[1]);
    }
    w_bar[c] += static_cast<T>(weight_bar);
    w_bar[channels + c] += static_cast<T>(bias_bar);
  }
};

/// The statistics of a norm over a shape: of `samples` samples and `width` channels each.
struct norm_extent {
  std::int64_t samples;
  std::int64_t width;
  double epsilon;
  double negative_slope;
};

template <norm_step Step, class T>
void run_norm(cuda_context const& ctx, norm_extent const& norm, layer_pass<T> const& p) {
  if (p.shape.size() == 0) return;
  constexpr bool gradients = Step == norm_step::backward || Step == norm_step::tangent_backward;
  constexpr bool second = Step == norm_step::tangent_backward;
  if (gradients && p.x_bar == nullptr && p.w_bar == nullptr && (second || p.saved_bar == nullptr)) {
    return;
  }
  std::int64_t const channels = p.shape.channels;
  std::int64_t const groups = p.shape.batch / norm.samples;
  normalise<T, Step> const body{{.w = p.w,
                                 .x = p.x,
                                 .x_dot = p.x_dot,
                                 .y_bar = p.y_bar,
                                 .y_dot_bar = p.y_dot_bar,
                                 .y = p.y,
                                 .y_dot = p.y_dot,
                                 .x_bar = p.x_bar,
                                 .saved = p.saved,
                                 .saved_bar = p.saved_bar,
                                 .saved_dot = p.saved_dot,
                                 .parameter_sums = p.w_bar != nullptr ? p.workspace : nullptr,
                                 .channels = channels,
                                 .tokens = norm.samples * p.shape.length,
                                 .width = norm.width,
                                 .epsilon = norm.epsilon,
                                 .slope = static_cast<T>(norm.negative_slope)}};
  run_tasks(ctx, groups * body.parts(), body);
  if (gradients && p.w_bar != nullptr) {
    run_elements<1>(ctx, channels, add_norm_parameters<T>{p.workspace, p.w_bar, groups, channels});
  }
}

inline norm_extent extent_of(local_norm const& l, feature_shape shape) {
  std::int64_t const samples = shape.batch > 0 ? shape.batch / l.groups(shape) : 1;
  return {samples, 1, l.epsilon, l.negative_slope};
}
inline norm_extent extent_of(group_norm const& l, feature_shape /*shape*/) {
  return {1, l.channels / l.groups, l.epsilon, l.negative_slope};
}

template <class L>
concept norm_layer = std::is_same_v<L, local_norm> || std::is_same_v<L, group_norm>;

}  // namespace addloss::cuda

namespace addloss {

template <class Product, cuda::norm_layer L>
struct layer_on<cuda_heads<Product>, L> {
  using heads = cuda_heads<Product>;
  using step = cuda::norm_step;
  static layer_sizes sizes(L const& l, feature_shape shape) { return l.sizes(shape); }
  template <class T>
  static void forward(L const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::run_norm<step::forward>(ctx.gpu, cuda::extent_of(l, p.shape), p);
  }
  template <class T>
  static void backward(L const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::run_norm<step::backward>(ctx.gpu, cuda::extent_of(l, p.shape), p);
  }
  template <class T>
  static void tangent(L const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::run_norm<step::tangent>(ctx.gpu, cuda::extent_of(l, p.shape), p);
  }
  template <class T>
  static void tangent_backward(L const& l, heads const& ctx, layer_pass<T> const& p) {
    cuda::run_norm<step::tangent_backward>(ctx.gpu, cuda::extent_of(l, p.shape), p);
  }
};

}  // namespace addloss
