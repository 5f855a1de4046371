// SPDX-License-Identifier: MIT
/// A layer with a skip connection, scaled so that the variance of independent terms is kept.
///
///   y = (f(x) + x) / sqrt(2)
/// f: any layer whose output has the shape of its input.
///   y_dot = (f_dot + x_dot) / sqrt(2);  x_bar = f's for y_bar / sqrt(2), plus y_bar / sqrt(2)
/// The backward passes leave y_bar / sqrt(2) in y_bar, which is kept for an f that overwrites it,
/// too. Parameters, and all else that is kept: those of f.
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
  static constexpr bool overwrites_y_bar = true;

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
    if constexpr (copies) {
      result.saved_bar += detail::aligned(shape.size());
      result.workspace += detail::aligned(shape.size());
    }
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
    scale(ctx, p);
    layer_pass<T> inner = p;
    if constexpr (copies) {
      inner.y_bar = p.saved_bar == nullptr ? p.workspace : p.saved_bar;
      copy(ctx, p, inner);
    }
    body.backward(ctx, inner);
    add(ctx, p.shape, p.y_bar, p.x_bar);
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
    scale(ctx, p);
    layer_pass<T> inner = p;
    if constexpr (copies) {
      inner.y_bar = p.workspace;
      inner.y_dot_bar = p.saved_bar;
      copy(ctx, p, inner);
    }
    body.tangent_backward(ctx, inner);
    add(ctx, p.shape, p.y_bar, p.x_bar);
  }

 private:
  static constexpr double factor = std::numbers::sqrt2 / 2;
  /// y_bar is wanted after the body's pass.
  static constexpr bool copies = detail::overwrites_y_bar<Layer>;

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
  static void scale(cpu_context const& ctx, layer_pass<T> const& p) {
    detail::each_element(ctx, p.shape.size(),
                         [y_bar = p.y_bar](std::int64_t i) { y_bar[i] *= static_cast<T>(factor); });
  }
  /// y_bar of the body, and what follows the memory of copies.
  template <class T>
  static void copy(cpu_context const& ctx, layer_pass<T> const& p, layer_pass<T>& inner) {
    std::int64_t const size = detail::aligned(p.shape.size());
    detail::each_element(ctx, p.shape.size(),
                         [from = p.y_bar, to = inner.y_bar](std::int64_t i) { to[i] = from[i]; });
    if (p.saved_bar != nullptr) inner.saved_bar = p.saved_bar + size;
    inner.workspace = p.workspace + size;
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
