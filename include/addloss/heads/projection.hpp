// SPDX-License-Identifier: MIT
/// The last layer of a head: P logit channels, projected on conditions (embeddings of text, image).
///
///   out = conv1d(h), C -> P channels, kernel 1:  out[b,p,l] = sum_c W[p,c] h[b,c,l] + bias[p]
///   m[b,p] = sum over conditions c_k of  sum_i W_k[p,i] c_k[b,i] / sqrt(size_k) + b_k[p]
///   logits[b,l] = sum_p out[b,p,l] m[b,p] / sqrt(P)
/// Without conditions P = 1 and logits = out, as if m = 1. h [B, C, L] -> logits [B, 1, L].
/// out is never stored: with the row a = W^T m / sqrt(P) and the number d = bias . m / sqrt(P) of a
/// sample, logits[b,l] = a[b] . h[b,:,l] + d[b]. A pass reads h once.
/// A `layer` (heads/layer.hpp); conditions are constant in tangents, as parameters are.
/// w = (weight [P, C, 1], bias [P], then of each condition weight [P, size], bias [P]). For a
/// classifier with spectral norm, w holds W / sigma.
/// Gradients of conditions are added to, as several heads and passes share one condition.
/// Sums in double. Same bits for any number of threads. Nothing is allocated.
/// Source: Miyato, Koyama, cGANs with Projection Discriminator, 2018, per token and with P
/// channels as in Sauer, Karras, Laine, Geiger, Aila, StyleGAN-T, 2023.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/spectral_norm.hpp>  // detail::dot, sum_rows

namespace addloss {

/// One condition of a batch.
template <arithmetic_scalar T>
struct condition {
  std::int64_t size = 0;  ///< numbers of a sample
  T const* values = nullptr;  ///< [B, size]
  T* gradient = nullptr;  ///< [B, size], added to by the backward passes; null: not computed
};

inline namespace ADDLOSS_ISA_NAMESPACE {

template <arithmetic_scalar T>
struct projection {
  static constexpr int max_conditions = 4;

  std::int64_t channels = 0;  ///< C
  std::int64_t width = 1;  ///< P
  int conditions = 0;  ///< of `given` that are used
  condition<T> given[max_conditions] = {};

  [[nodiscard]] std::int64_t parameter_count() const { return condition_offset(conditions); }
  [[nodiscard]] int parameters() const { return 2 + 2 * conditions; }
  [[nodiscard]] parameter_view parameter(int i) const {
    constexpr char const* names[2 + 2 * max_conditions] = {"weight",
                                                           "bias",
                                                           "condition0.weight",
                                                           "condition0.bias",
                                                           "condition1.weight",
                                                           "condition1.bias",
                                                           "condition2.weight",
                                                           "condition2.bias",
                                                           "condition3.weight",
                                                           "condition3.bias"};
    if (i == 0) return {names[0], 0, 3, {width, channels, 1}};
    if (i == 1) return {names[1], width * channels, 1, {width, 1, 1}};
    int const k = i / 2 - 1;
    std::int64_t const offset = condition_offset(k);
    if (i % 2 == 0) return {names[i], offset, 2, {width, given[k].size, 1}};
    return {names[i], offset + width * given[k].size, 1, {width, 1, 1}};
  }

  /// Checks everything: the shape, and the conditions (values must be set).
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    using detail::fail;
    using detail::text;
    if (channels < 1) fail(function, "channels", "at least 1", text() << channels);
    if (width < 1) fail(function, "width", "at least 1", text() << width);
    if (conditions < 0 || conditions > max_conditions) {
      fail(function, "conditions", text() << "0 to " << max_conditions, text() << conditions);
    }
    if (conditions == 0 && width != 1) {
      fail(function, "width", "1 without conditions", text() << width);
    }
    for (int k = 0; k < conditions; ++k) {
      if (given[k].size < 1 || given[k].values == nullptr) {
        fail(function, detail::argument_name("given", k), "values of size 1 or more",
             given[k].values == nullptr ? text("null") : text() << given[k].size);
      }
    }
    if (shape.batch < 1 || shape.length < 1 || shape.channels != channels) {
      fail(function, "shape", text() << "[B, " << channels << ", L] with B and L at least 1",
           text() << "[" << shape.batch << ", " << shape.channels << ", " << shape.length << "]");
    }
    return {shape.batch, 1, shape.length};
  }

  /// m, a and d.
  [[nodiscard]] std::int64_t saved_size(feature_shape shape) const {
    return shape.batch * (width + channels + 1);
  }
  /// Their gradients.
  [[nodiscard]] std::int64_t workspace_size(feature_shape shape) const { return saved_size(shape); }

  void forward(cpu_context const& ctx, T const* w, feature_shape shape, T const* h, T* logits,
               T* saved, T* /*workspace*/) const {
    auto const [m, a, d] = parts_of(saved, shape);
    double const scale = 1 / std::sqrt(static_cast<double>(width));
    T const* const bias = w + width * channels;
    detail::each_task(
        ctx, shape.batch * width, shape.batch * condition_work(),
        [&, m = m](std::int64_t n) { m[n] = static_cast<T>(modulation(w, n / width, n % width)); });
    std::int64_t const blocks = detail::column_blocks(channels);
    detail::each_task(ctx, shape.batch * blocks, shape.batch * width * channels,
                      [&, m = m, a = a](std::int64_t n) {
                        std::int64_t const b = n / blocks;
                        detail::sum_rows(detail::strided<T>{m + b * width, 1}, width, w, channels,
                                         n % blocks, [&](std::int64_t c, double sum) {
                                           a[b * channels + c] = static_cast<T>(scale * sum);
                                         });
                      });
    for (std::int64_t b = 0; b < shape.batch; ++b) {
      d[b] = static_cast<T>(scale * detail::dot(bias, m + b * width, width));
    }
    contract(ctx, shape, h, a, d, logits);
  }

  void backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* h, T const* saved,
                T const* logits_bar, T* h_bar, T* w_bar, T* workspace) const {
    backward_rows<false>(ctx, w, shape, h, nullptr, saved, logits_bar, nullptr, h_bar, nullptr,
                         w_bar, workspace);
  }

  /// logits_dot[b,l] = a[b] . h_dot[b,:,l].
  void tangent(cpu_context const& ctx, T const* /*w*/, feature_shape shape, T const* /*h*/,
               T const* saved, T const* h_dot, T* logits_dot, T* /*workspace*/) const {
    contract(ctx, shape, h_dot, parts_of(saved, shape).a, nullptr, logits_dot);
  }

  void tangent_backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* h,
                        T const* saved, T const* h_dot, T const* logits_bar,
                        T const* logits_dot_bar, T* h_bar, T* h_dot_bar, T* w_bar,
                        T* workspace) const {
    backward_rows<true>(ctx, w, shape, h, h_dot, saved, logits_bar, logits_dot_bar, h_bar,
                        h_dot_bar, w_bar, workspace);
  }

 private:
  /// m [B, P], a [B, C], d [B], or their gradients.
  template <class U>
  struct parts {
    U* m;
    U* a;
    U* d;
  };
  template <class U>
  [[nodiscard]] parts<U> parts_of(U* memory, feature_shape shape) const {
    U* const a = memory + shape.batch * width;
    return {memory, a, a + shape.batch * channels};
  }

  /// Where the parameters of condition k begin.
  [[nodiscard]] std::int64_t condition_offset(int k) const {
    std::int64_t offset = width * (channels + 1);
    for (int i = 0; i < k; ++i) offset += width * (given[i].size + 1);
    return offset;
  }
  [[nodiscard]] std::int64_t condition_work() const {
    return parameter_count() - condition_offset(0);
  }
  [[nodiscard]] static double condition_scale(condition<T> const& c) {
    return 1 / std::sqrt(static_cast<double>(c.size));
  }

  /// m[b,p].
  [[nodiscard]] double modulation(T const* w, std::int64_t b, std::int64_t p) const {
    if (conditions == 0) return 1;
    double result = 0;
    for (int k = 0; k < conditions; ++k) {
      condition<T> const& c = given[k];
      T const* const weight = w + condition_offset(k);
      double const sum = detail::dot(weight + p * c.size, c.values + b * c.size, c.size);
      result += sum * condition_scale(c) + static_cast<double>(weight[width * c.size + p]);
    }
    return result;
  }

  /// y[b,l] = a[b] . x[b,:,l] + d[b]; d null: 0.
  void contract(cpu_context const& ctx, feature_shape shape, T const* x, T const* a, T const* d,
                T* y) const {
    std::int64_t const blocks = detail::column_blocks(shape.length);
    detail::each_task(ctx, shape.batch * blocks, shape.size(), [&](std::int64_t n) {
      std::int64_t const b = n / blocks;
      double const start = d != nullptr ? static_cast<double>(d[b]) : 0.0;
      detail::sum_rows(detail::strided<T>{a + b * channels, 1}, channels,
                       x + b * channels * shape.length, shape.length, n % blocks,
                       [&](std::int64_t l, double sum) {
                         y[b * shape.length + l] = static_cast<T>(start + sum);
                       });
    });
  }

  /// Both backward passes; those of `Tangent` have the terms with h_dot and logits_dot_bar too.
  template <bool Tangent>
  void backward_rows(cpu_context const& ctx, T const* w, feature_shape shape, T const* h,
                     T const* h_dot, T const* saved, T const* y_bar, T const* y_dot_bar, T* h_bar,
                     T* h_dot_bar, T* w_bar, T* workspace) const {
    bool const sums = w_bar != nullptr || wants_condition_gradient();
    auto const a = parts_of(saved, shape).a;
    auto const bar = parts_of(workspace, shape);
    std::int64_t const length = shape.length;
    auto const spread = [length](T factor, T const* y, T* x) {
      if (x == nullptr) return;
      for (std::int64_t l = 0; l < length; ++l) x[l] = factor * y[l];
    };
    auto const row = [length](T* x, std::int64_t n) {
      return x != nullptr ? x + n * length : nullptr;
    };
    detail::each_task(ctx, shape.batch * channels, shape.size(), [&](std::int64_t n) {
      T const* const y = y_bar + n / channels * length;
      spread(a[n], y, row(h_bar, n));
      double sum = sums ? detail::dot(h + n * length, y, length) : 0.0;
      if constexpr (Tangent) {
        T const* const y_dot = y_dot_bar + n / channels * length;
        spread(a[n], y_dot, row(h_dot_bar, n));
        if (sums) sum += detail::dot(h_dot + n * length, y_dot, length);
      }
      if (sums) bar.a[n] = static_cast<T>(sum);
    });
    if (!sums) return;
    for (std::int64_t b = 0; b < shape.batch; ++b) {
      double sum = 0;
      for (std::int64_t l = 0; l < length; ++l) sum += static_cast<double>(y_bar[b * length + l]);
      bar.d[b] = static_cast<T>(sum);
    }
    backward_parameters(ctx, w, shape, saved, bar, w_bar);
  }

  [[nodiscard]] bool wants_condition_gradient() const {
    for (int k = 0; k < conditions; ++k) {
      if (given[k].gradient != nullptr) return true;
    }
    return false;
  }

  static void add(T& sum, double term) { sum = static_cast<T>(static_cast<double>(sum) + term); }

  /// From the gradients of a and d to those of parameters and conditions.
  void backward_parameters(cpu_context const& ctx, T const* w, feature_shape shape, T const* saved,
                           parts<T> bar, T* w_bar) const {
    std::int64_t const batch = shape.batch;
    double const scale = 1 / std::sqrt(static_cast<double>(width));
    T const* const m = parts_of(saved, shape).m;
    T const* const bias = w + width * channels;
    if (w_bar != nullptr) {
      std::int64_t const blocks = detail::column_blocks(channels);
      detail::each_task(ctx, width * blocks, batch * width * channels, [&](std::int64_t n) {
        std::int64_t const p = n / blocks;
        detail::sum_rows(
            detail::strided<T>{m + p, width}, batch, bar.a, channels, n % blocks,
            [&](std::int64_t c, double sum) { add(w_bar[p * channels + c], scale * sum); });
      });
      for (std::int64_t p = 0; p < width; ++p) {
        double sum = 0;
        for (std::int64_t b = 0; b < batch; ++b) {
          sum += static_cast<double>(m[b * width + p]) * static_cast<double>(bar.d[b]);
        }
        add(w_bar[width * channels + p], scale * sum);
      }
    }
    if (conditions == 0) return;
    detail::each_task(ctx, batch * width, batch * width * channels, [&](std::int64_t n) {
      std::int64_t const b = n / width;
      std::int64_t const p = n % width;
      double const sum = detail::dot(w + p * channels, bar.a + b * channels, channels) +
                         static_cast<double>(bias[p]) * static_cast<double>(bar.d[b]);
      bar.m[n] = static_cast<T>(scale * sum);
    });
    for (int k = 0; k < conditions; ++k) {
      std::int64_t const offset = condition_offset(k);
      if (w_bar != nullptr) backward_weight(ctx, batch, given[k], bar.m, w_bar + offset);
      if (given[k].gradient != nullptr) {
        backward_condition(ctx, batch, given[k], bar.m, w + offset);
      }
    }
  }

  void backward_weight(cpu_context const& ctx, std::int64_t batch, condition<T> const& c,
                       T const* m_bar, T* w_bar) const {
    double const scale = condition_scale(c);
    std::int64_t const blocks = detail::column_blocks(c.size);
    detail::each_task(ctx, width * blocks, batch * width * c.size, [&](std::int64_t n) {
      std::int64_t const p = n / blocks;
      detail::sum_rows(
          detail::strided<T>{m_bar + p, width}, batch, c.values, c.size, n % blocks,
          [&](std::int64_t i, double sum) { add(w_bar[p * c.size + i], scale * sum); });
    });
    for (std::int64_t p = 0; p < width; ++p) {
      double sum = 0;
      for (std::int64_t b = 0; b < batch; ++b) sum += static_cast<double>(m_bar[b * width + p]);
      add(w_bar[width * c.size + p], sum);
    }
  }

  void backward_condition(cpu_context const& ctx, std::int64_t batch, condition<T> const& c,
                          T const* m_bar, T const* weight) const {
    double const scale = condition_scale(c);
    std::int64_t const blocks = detail::column_blocks(c.size);
    detail::each_task(ctx, batch * blocks, batch * width * c.size, [&](std::int64_t n) {
      std::int64_t const b = n / blocks;
      detail::sum_rows(
          detail::strided<T>{m_bar + b * width, 1}, width, weight, c.size, n % blocks,
          [&](std::int64_t i, double sum) { add(c.gradient[b * c.size + i], scale * sum); });
    });
  }
};

static_assert(layer<projection<float>, float> && layer<projection<double>, double>);

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
