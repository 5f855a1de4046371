// SPDX-License-Identifier: MIT
/// Normalisation over small groups of samples, per channel, and what it shares with group_norm.
///
///   y = weight_c h + bias_c,  h = r (x - m),  r = 1 / sqrt(v + epsilon)
/// m, v: mean and biased variance of a statistic's N elements. local_norm: the batch is split into
/// G = ceil(B / virtual_batch) groups of B / G consecutive samples; a statistic is over (a group's
/// samples, L), for each channel. The same in training and evaluation: there are no running means.
///
/// Derivatives. <.>: mean over a statistic; for any u
///   u' = u - <u> - h <h u>,  A u = r u'  (A is dh/dx; it is symmetric)
/// With p = weight y_bar, q = weight y_dot_bar, u = x_dot, a = <h u>, b = <h q>:
///   backward           x_bar = A p,  weight_bar += sum y_bar h,  bias_bar += sum y_bar
///   tangent            y_dot = weight A u
///   tangent_backward   x_dot_bar = A q,  bias_bar += sum y_bar,
///                      weight_bar += sum (y_bar h + y_dot_bar A u),
///                      x_bar = A p - r^2 (b u' + a q' + k h),  k = <(q - <q>) u'>
/// The last line: sum q A u = N r k, with dr = -r^2 <h dx> and dh = A dx.
///
/// Sums are in double, in an order that the shape alone decides. A constant x gives h = 0 exactly.
/// NaN or infinity in x makes its whole statistic NaN. Parameters: weight [C], bias [C].
/// Saved: m and r of each statistic. Workspace: two numbers for each statistic.
/// Errors (output_shape): channels; B that G does not divide; virtual_batch < 1; epsilon that is
/// not a positive finite number.
/// Sources: Ioffe & Szegedy, Batch Normalization, 2015; the groups: Sauer et al., StyleGAN-T, 2023.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/leaky_relu.hpp>

namespace addloss {
namespace detail {

/// What both kinds of normalisation check.
inline void check_norm(char const* function, feature_shape shape, std::int64_t channels,
                       double epsilon) {
  if (shape.channels != channels) {
    fail(function, "x", text() << channels << " channels", text() << shape.channels);
  }
  if (!(epsilon > 0 && math::is_finite(epsilon))) {
    fail(function, "epsilon", "a positive number", text() << epsilon);
  }
}

constexpr parameter_view norm_parameter(std::int64_t channels, int i) {
  return {i == 0 ? "weight" : "bias", i * channels, 1, {channels, 1, 1}};
}

inline namespace ADDLOSS_ISA_NAMESPACE {

/// Normalises x [B, C, L], cut into boxes of `samples` consecutive samples by `width` consecutive
/// channels; each box is one statistic. `samples` divides B, `width` divides C.
template <arithmetic_scalar T>
struct normalizer {
  cpu_context const& ctx;
  feature_shape shape;
  std::int64_t samples;
  std::int64_t width;
  double epsilon;

  [[nodiscard]] std::int64_t statistics() const {
    return samples == 0 ? 0 : shape.batch / samples * (shape.channels / width);
  }

  /// saved[2 s], saved[2 s + 1]: m and r.
  void forward(T const* w, T const* x, T* y, T* saved) const {
    each_task(ctx, statistics(), shape.size(), [&](std::int64_t s) {
      box const part = box_of(s);
      double const n = count();
      // From the first element on: exact for a constant, and less to cancel for a large mean.
      double const start = n > 0 ? static_cast<double>(x[row_offset(part.batch, part.channel)]) : 0;
      auto const from_start = [&](std::int64_t, std::int64_t i) {
        return std::array{static_cast<double>(x[i]) - start};
      };
      double const mean = start + sum_elements<1>(part, from_start)[0] / n;
      auto const squared = [&](std::int64_t, std::int64_t i) {
        double const d = static_cast<double>(x[i]) - mean;
        return std::array{d * d};
      };
      double const variance = sum_elements<1>(part, squared)[0] / n;
      moments const stat{static_cast<T>(mean), static_cast<T>(1 / std::sqrt(variance + epsilon))};
      saved[2 * s] = stat.mean;
      saved[2 * s + 1] = stat.scale;
      each_row(part, [&](std::int64_t, std::int64_t channel, std::int64_t row) {
        T const weight = w[channel];
        T const bias = w[shape.channels + channel];
        for (std::int64_t i = row; i < row + shape.length; ++i) y[i] = weight * stat(x[i]) + bias;
      });
    });
  }

  void backward(T const* w, T const* x, T const* saved, T const* y_bar, T* x_bar, T* w_bar) const {
    if (x_bar != nullptr) {
      each_task(ctx, statistics(), shape.size(), [&](std::int64_t s) {
        box const part = box_of(s);
        moments const stat = moments_of(saved, s);
        projection const p = project(part, stat, x, y_bar, w);
        each_row(part, [&](std::int64_t, std::int64_t channel, std::int64_t row) {
          for (std::int64_t i = row; i < row + shape.length; ++i) {
            x_bar[i] = stat.scale * p.rest(w[channel] * y_bar[i], stat(x[i]));
          }
        });
      });
    }
    if (w_bar == nullptr) return;
    add_parameters(w_bar, [&](std::int64_t batch, std::int64_t channel, std::int64_t row) {
      moments const stat = moments_of(saved, statistic_of(batch, channel));
      return [stat, x = x + row, y_bar = y_bar + row](std::int64_t i) {
        auto const g = static_cast<double>(y_bar[i]);
        return std::array{g * static_cast<double>(stat(x[i])), g};
      };
    });
  }

  void tangent(T const* w, T const* x, T const* saved, T const* x_dot, T* y_dot) const {
    each_task(ctx, statistics(), shape.size(), [&](std::int64_t s) {
      box const part = box_of(s);
      moments const stat = moments_of(saved, s);
      projection const u = project(part, stat, x, x_dot, nullptr);
      each_row(part, [&](std::int64_t, std::int64_t channel, std::int64_t row) {
        for (std::int64_t i = row; i < row + shape.length; ++i) {
          y_dot[i] = w[channel] * (stat.scale * u.rest(x_dot[i], stat(x[i])));
        }
      });
    });
  }

  /// workspace[2 s], workspace[2 s + 1]: <u> and <h u>, for the weights' gradients.
  void tangent_backward(T const* w, T const* x, T const* saved, T const* x_dot, T const* y_bar,
                        T const* y_dot_bar, T* x_bar, T* x_dot_bar, T* w_bar, T* workspace) const {
    if (x_bar == nullptr && x_dot_bar == nullptr && w_bar == nullptr) return;
    each_task(ctx, statistics(), shape.size(), [&](std::int64_t s) {
      box const part = box_of(s);
      moments const stat = moments_of(saved, s);
      projection const u = project(part, stat, x, x_dot, nullptr);
      workspace[2 * s] = u.mean;
      workspace[2 * s + 1] = u.along;
      if (x_bar == nullptr && x_dot_bar == nullptr) return;
      projection const q = project(part, stat, x, y_dot_bar, w);
      if (x_dot_bar != nullptr) {
        each_row(part, [&](std::int64_t, std::int64_t channel, std::int64_t row) {
          for (std::int64_t i = row; i < row + shape.length; ++i) {
            x_dot_bar[i] = stat.scale * q.rest(w[channel] * y_dot_bar[i], stat(x[i]));
          }
        });
      }
      if (x_bar == nullptr) return;
      projection const p = project(part, stat, x, y_bar, w);
      double const product = sum_elements<1>(part, [&](std::int64_t channel, std::int64_t i) {
        T const centred = w[channel] * y_dot_bar[i] - q.mean;
        T const rest = u.rest(x_dot[i], stat(x[i]));
        return std::array{static_cast<double>(centred) * static_cast<double>(rest)};
      })[0];
      auto const k = static_cast<T>(product / count());
      each_row(part, [&](std::int64_t, std::int64_t channel, std::int64_t row) {
        T const weight = w[channel];
        for (std::int64_t i = row; i < row + shape.length; ++i) {
          T const h = stat(x[i]);
          T const second =
              q.along * u.rest(x_dot[i], h) + u.along * q.rest(weight * y_dot_bar[i], h) + k * h;
          x_bar[i] = stat.scale * (p.rest(weight * y_bar[i], h) - stat.scale * second);
        }
      });
    });
    if (w_bar == nullptr) return;
    add_parameters(w_bar, [&](std::int64_t batch, std::int64_t channel, std::int64_t row) {
      std::int64_t const s = statistic_of(batch, channel);
      moments const stat = moments_of(saved, s);
      projection const u{workspace[2 * s], workspace[2 * s + 1]};
      return [=](std::int64_t i) {
        T const h = stat(x[row + i]);
        T const h_dot = stat.scale * u.rest(x_dot[row + i], h);
        auto const g = static_cast<double>(y_bar[row + i]);
        auto const g_dot = static_cast<double>(y_dot_bar[row + i]);
        return std::array{g * static_cast<double>(h) + g_dot * static_cast<double>(h_dot), g};
      };
    });
  }

 private:
  /// Samples and channels from `batch`, `channel` on.
  struct box {
    std::int64_t batch;
    std::int64_t channel;
    std::int64_t samples;
    std::int64_t width;
  };

  struct moments {
    T mean;
    T scale;
    /// h
    T operator()(T x) const { return (x - mean) * scale; }
  };

  struct projection {
    T mean;  ///< <u>
    T along;  ///< <h u>
    /// u'
    [[nodiscard]] T rest(T u, T h) const { return u - mean - h * along; }
  };

  [[nodiscard]] double count() const { return static_cast<double>(samples * width * shape.length); }
  [[nodiscard]] std::int64_t row_offset(std::int64_t batch, std::int64_t channel) const {
    return (batch * shape.channels + channel) * shape.length;
  }
  [[nodiscard]] box box_of(std::int64_t s) const {
    std::int64_t const across = shape.channels / width;
    return {s / across * samples, s % across * width, samples, width};
  }
  [[nodiscard]] std::int64_t statistic_of(std::int64_t batch, std::int64_t channel) const {
    return batch / samples * (shape.channels / width) + channel / width;
  }
  static moments moments_of(T const* saved, std::int64_t s) {
    return {saved[2 * s], saved[2 * s + 1]};
  }

  /// body(batch, channel, offset of the row), for each row of a box.
  template <class Body>
  void each_row(box part, Body const& body) const {
    for (std::int64_t b = part.batch; b < part.batch + part.samples; ++b) {
      for (std::int64_t c = part.channel; c < part.channel + part.width; ++c) {
        body(b, c, row_offset(b, c));
      }
    }
  }

  /// Sums over the elements of a box; terms_of(batch, channel, row)(i) gives those of element i of
  /// a row. Eight running sums for each, which a compiler can keep in registers.
  template <unsigned Count, class Terms>
  std::array<double, Count> sum(box part, Terms const& terms_of) const {
    constexpr unsigned lanes = 8;
    double lane[Count][lanes] = {};
    each_row(part, [&](std::int64_t batch, std::int64_t channel, std::int64_t row) {
      auto const terms = terms_of(batch, channel, row);
      auto const add = [&](std::int64_t i, unsigned j) {
        std::array<double, Count> const term = terms(i);
        for (unsigned k = 0; k < Count; ++k) lane[k][j] += term[k];
      };
      std::int64_t i = 0;
      for (; i + lanes <= shape.length; i += lanes) {
        for (unsigned j = 0; j < lanes; ++j) add(i + j, j);
      }
      for (unsigned j = 0; i < shape.length; ++i, ++j) add(i, j);
    });
    std::array<double, Count> result{};
    for (unsigned k = 0; k < Count; ++k) {
      auto const& l = lane[k];
      result[k] = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
    }
    return result;
  }

  /// As sum, of term(channel, i) for each element x[i] of a box.
  template <unsigned Count, class Term>
  std::array<double, Count> sum_elements(box part, Term const& term) const {
    return sum<Count>(part, [&](std::int64_t, std::int64_t channel, std::int64_t row) {
      return [&term, channel, row](std::int64_t i) { return term(channel, row + i); };
    });
  }

  /// <u> and <h u> of u = weight v, or of v itself where w is null.
  [[nodiscard]] projection project(box part, moments stat, T const* x, T const* v,
                                   T const* w) const {
    auto const totals = sum_elements<2>(part, [&](std::int64_t channel, std::int64_t i) {
      auto const u = static_cast<double>(w == nullptr ? v[i] : w[channel] * v[i]);
      return std::array{u, static_cast<double>(stat(x[i])) * u};
    });
    return {static_cast<T>(totals[0] / count()), static_cast<T>(totals[1] / count())};
  }

  /// Adds to the gradients of weight and bias the sums over each channel's rows of all samples.
  template <class Terms>
  void add_parameters(T* w_bar, Terms const& terms_of) const {
    each_task(ctx, shape.channels, shape.size(), [&](std::int64_t c) {
      auto const totals = sum<2>({0, c, shape.batch, 1}, terms_of);
      w_bar[c] += static_cast<T>(totals[0]);
      w_bar[shape.channels + c] += static_cast<T>(totals[1]);
    });
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE

}  // namespace detail

struct local_norm {
  std::int64_t channels;
  std::int64_t virtual_batch = 8;  ///< samples in a group, at most
  double epsilon = 1e-5;  ///< added to the variance

  [[nodiscard]] constexpr std::int64_t groups(feature_shape shape) const {
    return (shape.batch + virtual_batch - 1) / virtual_batch;
  }

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return 2 * channels; }
  [[nodiscard]] constexpr int parameters() const { return 2; }
  [[nodiscard]] constexpr parameter_view parameter(int i) const {
    return detail::norm_parameter(channels, i);
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    detail::check_norm(function, shape, channels, epsilon);
    if (virtual_batch < 1) {
      detail::fail(function, "virtual_batch", "at least 1", detail::text() << virtual_batch);
    }
    if (shape.batch > 0 && shape.batch % groups(shape) != 0) {
      detail::fail(function, "x",
                   detail::text() << "a batch that its " << groups(shape) << " groups of at most "
                                  << virtual_batch << " samples divide",
                   detail::text() << "a batch of " << shape.batch);
    }
    return shape;
  }
  [[nodiscard]] constexpr std::int64_t saved_size(feature_shape shape) const {
    return 2 * channels * groups(shape);
  }
  [[nodiscard]] constexpr std::int64_t workspace_size(feature_shape shape) const {
    return 2 * channels * groups(shape);
  }

  template <arithmetic_scalar T>
  void forward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T* y, T* saved,
               T* /*workspace*/) const {
    over<T>(ctx, shape).forward(w, x, y, saved);
  }
  template <arithmetic_scalar T>
  void backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T const* saved,
                T const* y_bar, T* x_bar, T* w_bar, T* /*workspace*/) const {
    over<T>(ctx, shape).backward(w, x, saved, y_bar, x_bar, w_bar);
  }
  template <arithmetic_scalar T>
  void tangent(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T const* saved,
               T const* x_dot, T* y_dot, T* /*workspace*/) const {
    over<T>(ctx, shape).tangent(w, x, saved, x_dot, y_dot);
  }
  template <arithmetic_scalar T>
  void tangent_backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x,
                        T const* saved, T const* x_dot, T const* y_bar, T const* y_dot_bar,
                        T* x_bar, T* x_dot_bar, T* w_bar, T* workspace) const {
    over<T>(ctx, shape)
        .tangent_backward(w, x, saved, x_dot, y_bar, y_dot_bar, x_bar, x_dot_bar, w_bar, workspace);
  }

 private:
  template <class T>
  detail::normalizer<T> over(cpu_context const& ctx, feature_shape shape) const {
    return {ctx, shape, shape.batch > 0 ? shape.batch / groups(shape) : 0, 1, epsilon};
  }
};

}  // namespace addloss
