// SPDX-License-Identifier: MIT
/// A layer with a skip connection, scaled so that the variance of independent terms is kept.
///
///   y = (f(x) + x) / sqrt(2)
/// f: any layer whose output has the shape of its input. All four computations are linear in what
/// they are given besides x and w:
///   y_dot = (f_dot + x_dot) / sqrt(2),  x_bar = f's x_bar of y_bar / sqrt(2), + y_bar / sqrt(2)
/// Parameters and what is saved: those of f. Workspace: that of f and two more of x's size.
/// Errors (output_shape): those of f; an output of another shape.
/// Source: as in the discriminator heads of Sauer et al., StyleGAN-T, 2023.
#pragma once

#include <concepts>
#include <cstdint>
#include <numbers>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/leaky_relu.hpp>

namespace addloss {
namespace detail {

/// A layer in float or in double.
template <class L>
concept any_layer = layer<L, float> || layer<L, double>;

}  // namespace detail

template <detail::any_layer Layer>
struct residual {
  Layer body;

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return body.parameter_count(); }
  [[nodiscard]] constexpr int parameters() const { return body.parameters(); }
  [[nodiscard]] constexpr parameter_view parameter(int i) const { return body.parameter(i); }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    feature_shape const out = body.output_shape(function, shape);
    if (out != shape) {
      detail::fail(function, "residual", describe("an output of the shape ", shape),
                   describe("", out));
    }
    return out;
  }
  [[nodiscard]] constexpr std::int64_t saved_size(feature_shape shape) const {
    return body.saved_size(shape);
  }
  [[nodiscard]] constexpr std::int64_t workspace_size(feature_shape shape) const {
    return body.workspace_size(shape) + 2 * shape.size();
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void forward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T* y, T* saved,
               T* workspace) const {
    body.forward(ctx, w, shape, x, y, saved, workspace);
    skip(ctx, shape, x, y);
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T const* saved,
                T const* y_bar, T* x_bar, T* w_bar, T* workspace) const {
    T* const scaled = workspace;
    scale(ctx, shape, y_bar, scaled);
    body.backward(ctx, w, shape, x, saved, scaled, x_bar, w_bar, workspace + shape.size());
    add(ctx, shape, scaled, x_bar);
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void tangent(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T const* saved,
               T const* x_dot, T* y_dot, T* workspace) const {
    body.tangent(ctx, w, shape, x, saved, x_dot, y_dot, workspace);
    skip(ctx, shape, x_dot, y_dot);
  }

  template <arithmetic_scalar T>
    requires layer<Layer, T>
  void tangent_backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x,
                        T const* saved, T const* x_dot, T const* y_bar, T const* y_dot_bar,
                        T* x_bar, T* x_dot_bar, T* w_bar, T* workspace) const {
    T* const scaled = workspace;
    T* const scaled_dot = workspace + shape.size();
    scale(ctx, shape, y_bar, scaled);
    scale(ctx, shape, y_dot_bar, scaled_dot);
    body.tangent_backward(ctx, w, shape, x, saved, x_dot, scaled, scaled_dot, x_bar, x_dot_bar,
                          w_bar, scaled_dot + shape.size());
    add(ctx, shape, scaled, x_bar);
    add(ctx, shape, scaled_dot, x_dot_bar);
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
