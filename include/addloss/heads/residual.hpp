// SPDX-License-Identifier: MIT
/// A layer with a skip connection, scaled so that the variance of independent terms is kept.
///
///   y = (f(x) + x) / sqrt(2)
/// f: any layer whose output has the shape of its input.
///   y_dot = (f_dot + x_dot) / sqrt(2);  x_bar = f's for y_bar / sqrt(2), plus y_bar / sqrt(2)
/// Parameters: those of f. Kept: what f keeps, and in saved_bar the y_bar of f.
/// Errors (output_shape): those of f; an output of another shape.
/// Source: as in the discriminator heads of Sauer et al., StyleGAN-T, 2023.
#pragma once

#include <cstdint>
#include <numbers>
#include <span>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/leaky_relu.hpp>

namespace addloss {

template <detail::any_layer Layer>
struct residual {
  Layer body;

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return body.parameter_count(); }
  [[nodiscard]] constexpr int parameters() const { return body.parameters(); }
  [[nodiscard]] constexpr parameter_view parameter(int i) const { return body.parameter(i); }
  [[nodiscard]] std::span<std::int64_t const> condition_sizes() const {
    return detail::condition_sizes_of(body);
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    feature_shape const out = body.output_shape(function, shape);
    if (out != shape) {
      detail::fail(function, "residual", describe("an output of the shape ", shape),
                   describe("", out));
    }
    return out;
  }
  [[nodiscard]] layer_sizes sizes(feature_shape shape) const {
    layer_sizes result = body.sizes(shape);
    result.saved_bar += detail::aligned(shape.size());
    result.workspace += detail::aligned(shape.size());
    return result;
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    body.forward(ctx, p);
    skip(ctx, p.shape, p.x, p.y);
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    bool const keep = p.saved_bar != nullptr;
    T* const scaled = keep ? p.saved_bar : p.workspace;
    scale(ctx, p.shape, p.y_bar, scaled);
    layer_pass<T> inner = p;
    inner.y_bar = scaled;
    inner.saved_bar = keep ? p.saved_bar + detail::aligned(p.shape.size()) : nullptr;
    inner.workspace = p.workspace + detail::aligned(p.shape.size());
    body.backward(ctx, inner);
    add(ctx, p.shape, scaled, p.x_bar);
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    body.tangent(ctx, p);
    if (p.y_dot != nullptr) skip(ctx, p.shape, p.x_dot, p.y_dot);
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    T* const scaled = p.workspace;
    scale(ctx, p.shape, p.y_bar, scaled);
    layer_pass<T> inner = p;
    inner.y_bar = scaled;
    inner.y_dot_bar = p.saved_bar;
    inner.saved_bar = p.saved_bar + detail::aligned(p.shape.size());
    inner.workspace = p.workspace + detail::aligned(p.shape.size());
    body.tangent_backward(ctx, inner);
    add(ctx, p.shape, scaled, p.x_bar);
  }

 private:
  static constexpr double factor = std::numbers::sqrt2 / 2;

  static detail::text describe(char const* before, feature_shape shape) {
    return detail::text() << before << "[" << shape.batch << ", " << shape.channels << ", "
                          << shape.length << "]";
  }
  /// out = (out + in) / sqrt(2)
  template <class T>
  static void skip(cpu_context const& ctx, feature_shape shape, T const* in, T* out) {
    detail::each_element(ctx, shape.size(), [=](std::int64_t i) {
      out[i] = (out[i] + in[i]) * static_cast<T>(factor);
    });
  }
  template <class T>
  static void scale(cpu_context const& ctx, feature_shape shape, T const* in, T* out) {
    detail::each_element(ctx, shape.size(),
                         [=](std::int64_t i) { out[i] = in[i] * static_cast<T>(factor); });
  }
  template <class T>
  static void add(cpu_context const& ctx, feature_shape shape, T const* in, T* out) {
    if (out == nullptr) return;
    detail::each_element(ctx, shape.size(), [=](std::int64_t i) { out[i] += in[i]; });
  }
};
template <class Layer>
residual(Layer) -> residual<Layer>;

}  // namespace addloss
