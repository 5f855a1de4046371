// SPDX-License-Identifier: MIT
/// The last layer of a head: P logit channels, projected on conditions (embeddings of text, image).
///
///   out[b,p,l] = sum_c W[p,c] h[b,c,l] + bias[p]
///   logits[b,l] = sum_p out[b,p,l] m[b,p] / sqrt(P)
///   sum            m[b,:] = sum over conditions k of  W_k c_k[b,:] / sqrt(size_k) + b_k
///   concatenation  m[b,:] = W_c (c_0[b,:], c_1[b,:], ...) / sqrt(total size) + b_c
/// Without conditions P = 1 and logits = out, as if m = 1. h [B, C, L] -> logits [B, 1, L], B and L
/// at least 1. Conditions come with a pass (heads/layer.hpp): `conditions` in number, of the sizes
/// `condition_size`; they are constant in tangents, as parameters are.
/// Parameters: weight [P, C, 1], bias [P], then
///   sum            condition0.weight [P, size_0], condition0.bias [P], condition1.weight, ...
///   concatenation  condition.weight [P, total size], condition.bias [P]
/// out is never stored: with the row a = W^T m / sqrt(P) and the number d = bias . m / sqrt(P) of a
/// sample, logits[b,l] = a[b] . h[b,:,l] + d[b]. A pass reads h once.
/// Gradients: h_bar[b,c,l] = a[b,c] logits_bar[b,l], all others follow from
///   a_bar[b,c] = sum_l h[b,c,l] logits_bar[b,l],  d_bar[b] = sum_l logits_bar[b,l];
/// tangent_backward adds h_dot[b,c,l] logits_dot_bar[b,l] to the sum of a_bar.
/// Those of conditions are added to in both backward passes where there is memory for them, with or
/// without w_bar; pass no memory for them where they are not meant, as in R1's first backward pass.
/// m, a and d are saved. Sums in double (heads/sums.hpp). Same bits for any number of threads.
/// Errors (output_shape): channels, width, conditions, their sizes; a shape that does not fit.
/// Measured with C = 384, L = 197, B = 8, P = 64, a condition of 768 numbers, float, on one thread
/// of a Zen 4 EPYC, g++ 12: forward 0.11 ms with -O3 -march=native and 0.24 ms with -O2, backward
/// 0.25 and 0.50 ms (h_bar alone 0.07 and 0.17 ms), tangent_backward 0.35 and 0.68 ms.
/// Source: Miyato, Koyama, cGANs with Projection Discriminator, 2018, per token and with P
/// channels as in Sauer, Karras, Laine, Geiger, Aila, StyleGAN-T, 2023.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/sums.hpp>

namespace addloss {
namespace detail {

/// Raises an error where a pass was `given` other conditions than a layer reads (condition_sizes).
template <arithmetic_scalar T>
void check_conditions(char const* function, std::span<std::int64_t const> sizes,
                      std::span<condition<T> const> given) {
  if (given.size() != sizes.size()) {
    fail(function, "conditions", text() << static_cast<std::int64_t>(sizes.size()),
         text() << static_cast<std::int64_t>(given.size()));
  }
  for (std::size_t k = 0; k < given.size(); ++k) {
    argument_name const name("conditions", static_cast<std::int64_t>(k));
    if (given[k].size != sizes[k]) {
      fail(function, name, text() << sizes[k] << " numbers a sample", text() << given[k].size);
    }
    if (given[k].values == nullptr) fail(function, name, "values", "null");
  }
}

}  // namespace detail

/// How a projection combines several conditions: one projection each, added, or one of all.
enum class condition_combination { sum, concatenation };

inline namespace ADDLOSS_ISA_NAMESPACE {

/// Models `layer<projection<T>, T>`.
template <arithmetic_scalar T>
struct projection {
  static constexpr int max_conditions = detail::max_conditions;

  std::int64_t channels = 0;  ///< C
  std::int64_t width = 1;  ///< P
  int conditions = 0;  ///< 0 to max_conditions
  std::int64_t condition_size[max_conditions] = {};  ///< numbers of a sample
  condition_combination combination = condition_combination::sum;

  [[nodiscard]] std::int64_t parameter_count() const {
    std::int64_t count = width * (channels + 1);
    for (int i = 0; i < projections(); ++i) count += width * (input_size(i) + 1);
    return count;
  }
  [[nodiscard]] int parameters() const { return 2 + 2 * projections(); }
  [[nodiscard]] parameter_view parameter(int i) const {
    constexpr char const* weights[max_conditions] = {"condition0.weight", "condition1.weight",
                                                     "condition2.weight", "condition3.weight"};
    constexpr char const* biases[max_conditions] = {"condition0.bias", "condition1.bias",
                                                    "condition2.bias", "condition3.bias"};
    fan_in_uniform const initial{channels};
    if (i == 0) return {"weight", 0, 3, {width, channels, 1}, initial};
    if (i == 1) return {"bias", width * channels, 1, {width, 1, 1}, initial};
    int const n = i / 2 - 1;
    if (i % 2 == 0) {
      return {concatenates() ? "condition.weight" : weights[n],
              weight_offset(n),
              2,
              {width, input_size(n), 1},
              standard_normal{}};
    }
    return {concatenates() ? "condition.bias" : biases[n], bias_offset(n), 1, {width, 1, 1}};
  }
  [[nodiscard]] std::span<std::int64_t const> condition_sizes() const {
    return {condition_size, static_cast<std::size_t>(used())};
  }

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
      if (condition_size[k] < 1) {
        fail(function, {"condition_size", k}, "at least 1", text() << condition_size[k]);
      }
    }
    if (shape.batch < 1 || shape.length < 1 || shape.channels != channels) {
      fail(function, "shape", text() << "[B, " << channels << ", L] with B and L at least 1",
           text() << "[" << shape.batch << ", " << shape.channels << ", " << shape.length << "]");
    }
    return {shape.batch, 1, shape.length};
  }

  /// saved: m, a and d; workspace: their gradients.
  [[nodiscard]] layer_sizes sizes(feature_shape shape) const {
    std::int64_t const count = shape.batch * (width + channels + 1);
    return {.saved = count, .workspace = count};
  }

  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    auto const [m, a, d] = parts_of(p.saved, p.shape);
    modulate(ctx, p, m);
    combine_channels(ctx, p, m, a);
    T const* const bias = p.w + width * channels;
    for (std::int64_t b = 0; b < p.shape.batch; ++b) {
      d[b] = static_cast<T>(output_scale() * detail::dot(bias, m + b * width, width));
    }
    contract(ctx, p.shape, p.x, a, d, p.y);
  }

  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    backward_rows<false>(ctx, p);
  }

  /// logits_dot[b,l] = a[b] . h_dot[b,:,l].
  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    if (p.y_dot == nullptr) return;
    contract(ctx, p.shape, p.x_dot, parts_of(p.saved, p.shape).a, nullptr, p.y_dot);
  }

  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    backward_rows<true>(ctx, p);
  }

  // Where parameters and what is kept lie, for other back ends too.

  /// m [B, P], a [B, C], d [B], or their gradients.
  struct parts {
    T* m;
    T* a;
    T* d;
  };
  [[nodiscard]] parts parts_of(T* memory, feature_shape shape) const {
    if (memory == nullptr) return {};
    T* const a = memory + shape.batch * width;
    return {memory, a, a + shape.batch * channels};
  }

  /// `conditions`, within bounds before output_shape has refused a wrong number.
  [[nodiscard]] int used() const {
    if (conditions < 0) return 0;
    return conditions < max_conditions ? conditions : max_conditions;
  }
  [[nodiscard]] bool concatenates() const {
    return combination == condition_combination::concatenation;
  }
  /// Weights of conditions, each with a bias.
  [[nodiscard]] int projections() const { return concatenates() && used() > 1 ? 1 : used(); }
  /// Columns of weight n.
  [[nodiscard]] std::int64_t input_size(int n) const {
    if (!concatenates()) return condition_size[n];
    std::int64_t total = 0;
    for (int k = 0; k < used(); ++k) total += condition_size[k];
    return total;
  }
  [[nodiscard]] std::int64_t weight_offset(int n) const {
    std::int64_t offset = width * (channels + 1);
    for (int i = 0; i < n; ++i) offset += width * (input_size(i) + 1);
    return offset;
  }
  [[nodiscard]] std::int64_t bias_offset(int n) const {
    return weight_offset(n) + width * input_size(n);
  }

  /// What condition k is multiplied by: P rows of the parameters, and a number.
  struct condition_weight {
    std::int64_t offset;
    std::int64_t stride;
    double scale;
  };
  [[nodiscard]] condition_weight weight_of(int k) const {
    int const n = concatenates() ? 0 : k;
    std::int64_t offset = weight_offset(n);
    if (concatenates()) {
      for (int i = 0; i < k; ++i) offset += condition_size[i];
    }
    std::int64_t const stride = input_size(n);
    return {offset, stride, 1 / std::sqrt(static_cast<double>(stride))};
  }
  [[nodiscard]] double output_scale() const { return 1 / std::sqrt(static_cast<double>(width)); }

  [[nodiscard]] bool wants_condition_gradient(layer_pass<T> const& p) const {
    for (int k = 0; k < conditions; ++k) {
      if (p.conditions[static_cast<std::size_t>(k)].gradient != nullptr) return true;
    }
    return false;
  }

 private:
  /// m of all samples.
  void modulate(cpu_context const& ctx, layer_pass<T> const& p, T* m) const {
    std::int64_t const batch = p.shape.batch;
    std::int64_t const work = batch * (parameter_count() - width * (channels + 1));
    // The samples of one p are neighbours: they read the same row of weights.
    detail::each_task(ctx, batch * width, work, [&](std::int64_t n) {
      std::int64_t const row = n / batch;
      std::int64_t const b = n % batch;
      double sum = conditions == 0 ? 1.0 : 0.0;
      for (int k = 0; k < conditions; ++k) {
        auto const [offset, stride, scale] = weight_of(k);
        std::int64_t const size = condition_size[k];
        T const* const values = p.conditions[static_cast<std::size_t>(k)].values;
        sum += scale * detail::dot(p.w + offset + row * stride, values + b * size, size);
      }
      for (int i = 0; i < projections(); ++i) {
        sum += static_cast<double>(p.w[bias_offset(i) + row]);
      }
      m[b * width + row] = static_cast<T>(sum);
    });
  }

  /// a[b,:] = W^T m[b,:] / sqrt(P).
  void combine_channels(cpu_context const& ctx, layer_pass<T> const& p, T const* m, T* a) const {
    std::int64_t const batch = p.shape.batch;
    column_sums(ctx, batch, channels, batch * width * channels,
                [&](std::int64_t b, detail::column_range range, double* sum) {
                  detail::sum_columns<T>({m + b * width, 1}, {p.w, channels, width}, range, sum);
                  detail::write(output_scale(), sum, 0.0, range.count,
                                a + b * channels + range.first);
                });
  }

  /// y[b,l] = a[b] . x[b,:,l] + d[b]; d null: 0.
  void contract(cpu_context const& ctx, feature_shape shape, T const* x, T const* a, T const* d,
                T* y) const {
    std::int64_t const length = shape.length;
    column_sums(ctx, shape.batch, length, shape.size(),
                [&](std::int64_t b, detail::column_range range, double* sum) {
                  detail::sum_columns<T>({a + b * channels, 1},
                                         {x + b * channels * length, length, channels}, range, sum);
                  detail::write(1.0, sum, d != nullptr ? static_cast<double>(d[b]) : 0.0,
                                range.count, y + b * length + range.first);
                });
  }

  /// Both backward passes; that of `Tangent` has the terms with h_dot too.
  template <bool Tangent>
  void backward_rows(cpu_context const& ctx, layer_pass<T> const& p) const {
    bool const sums = p.w_bar != nullptr || wants_condition_gradient(p);
    if (!sums && p.x_bar == nullptr) return;
    T const* const a = parts_of(p.saved, p.shape).a;
    parts const bar = parts_of(p.workspace, p.shape);
    std::int64_t const length = p.shape.length;
    detail::each_task(ctx, p.shape.batch * channels, p.shape.size(), [&](std::int64_t n) {
      std::int64_t const row = n * length;
      std::int64_t const logits = n / channels * length;
      T const* const y_bar = p.y_bar + logits;
      if (p.x_bar != nullptr) {
        detail::scale_row(static_cast<double>(a[n]), y_bar, length, p.x_bar + row);
      }
      if (!sums) return;
      double sum = detail::dot(p.x + row, y_bar, length);
      if constexpr (Tangent) sum += detail::dot(p.x_dot + row, p.y_dot_bar + logits, length);
      bar.a[n] = static_cast<T>(sum);
    });
    if (!sums) return;
    for (std::int64_t b = 0; b < p.shape.batch; ++b) {
      double sum = 0;
      for (std::int64_t l = 0; l < length; ++l) sum += static_cast<double>(p.y_bar[b * length + l]);
      bar.d[b] = static_cast<T>(sum);
    }
    if (p.w_bar != nullptr) backward_classifier(ctx, p, bar);
    if (conditions == 0) return;
    backward_modulation(ctx, p, bar);
    for (int k = 0; k < conditions; ++k) {
      if (p.w_bar != nullptr) backward_weight(ctx, p, k, bar.m);
      if (p.conditions[static_cast<std::size_t>(k)].gradient != nullptr) {
        backward_condition(ctx, p, k, bar.m);
      }
    }
    if (p.w_bar == nullptr) return;
    for (int i = 0; i < projections(); ++i) {
      for (std::int64_t row = 0; row < width; ++row) {
        double sum = 0;
        for (std::int64_t b = 0; b < p.shape.batch; ++b) {
          sum += static_cast<double>(bar.m[b * width + row]);
        }
        add(p.w_bar[bias_offset(i) + row], sum);
      }
    }
  }

  static void add(T& sum, double term) { sum = static_cast<T>(static_cast<double>(sum) + term); }

  /// From the gradients of a and d to those of weight and bias.
  void backward_classifier(cpu_context const& ctx, layer_pass<T> const& p, parts bar) const {
    std::int64_t const batch = p.shape.batch;
    T const* const m = parts_of(p.saved, p.shape).m;
    column_sums(ctx, width, channels, batch * width * channels,
                [&](std::int64_t row, detail::column_range range, double* sum) {
                  detail::sum_columns<T>({m + row, width}, {bar.a, channels, batch}, range, sum);
                  detail::add(output_scale(), sum, range.count,
                              p.w_bar + row * channels + range.first);
                });
    for (std::int64_t row = 0; row < width; ++row) {
      double sum = 0;
      for (std::int64_t b = 0; b < batch; ++b) {
        sum += static_cast<double>(m[b * width + row]) * static_cast<double>(bar.d[b]);
      }
      add(p.w_bar[width * channels + row], output_scale() * sum);
    }
  }

  /// From the gradients of a and d to that of m.
  void backward_modulation(cpu_context const& ctx, layer_pass<T> const& p, parts bar) const {
    std::int64_t const batch = p.shape.batch;
    T const* const bias = p.w + width * channels;
    detail::each_task(ctx, batch * width, batch * width * channels, [&](std::int64_t n) {
      std::int64_t const row = n / batch;
      std::int64_t const b = n % batch;
      double const sum = detail::dot(p.w + row * channels, bar.a + b * channels, channels) +
                         static_cast<double>(bias[row]) * static_cast<double>(bar.d[b]);
      bar.m[b * width + row] = static_cast<T>(output_scale() * sum);
    });
  }

  /// From the gradient of m to that of condition k's weight.
  void backward_weight(cpu_context const& ctx, layer_pass<T> const& p, int k,
                       T const* m_bar) const {
    std::int64_t const batch = p.shape.batch;
    std::int64_t const size = condition_size[k];
    T const* const values = p.conditions[static_cast<std::size_t>(k)].values;
    condition_weight const weight = weight_of(k);
    column_sums(ctx, width, size, batch * width * size,
                [&](std::int64_t row, detail::column_range range, double* sum) {
                  detail::sum_columns<T>({m_bar + row, width}, {values, size, batch}, range, sum);
                  detail::add(weight.scale, sum, range.count,
                              p.w_bar + weight.offset + row * weight.stride + range.first);
                });
  }

  /// From the gradient of m to that of condition k.
  void backward_condition(cpu_context const& ctx, layer_pass<T> const& p, int k,
                          T const* m_bar) const {
    std::int64_t const batch = p.shape.batch;
    std::int64_t const size = condition_size[k];
    T* const gradient = p.conditions[static_cast<std::size_t>(k)].gradient;
    condition_weight const weight = weight_of(k);
    column_sums(ctx, batch, size, batch * width * size,
                [&](std::int64_t b, detail::column_range range, double* sum) {
                  detail::sum_columns<T>({m_bar + b * width, 1},
                                         {p.w + weight.offset, weight.stride, width}, range, sum);
                  detail::add(weight.scale, sum, range.count, gradient + b * size + range.first);
                });
  }

  /// body(row, range, sum) for each block of columns of each row; `sum`: memory for sum_columns.
  template <class Body>
  static void column_sums(cpu_context const& ctx, std::int64_t rows, std::int64_t columns,
                          std::int64_t work, Body const& body) {
    std::int64_t const blocks = detail::column_blocks(columns);
    detail::each_task(ctx, rows * blocks, work, [&](std::int64_t n) {
      double sum[detail::column_block];
      body(n / blocks, detail::column_range(columns, n % blocks), sum);
    });
  }
};

static_assert(layer<projection<float>, float> && layer<projection<double>, double>);

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
