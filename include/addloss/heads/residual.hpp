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

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/head_executor.hpp>
#include <addloss/heads/layer.hpp>

namespace addloss {
namespace detail {

/// out = (out + in) factor
template <class T>
struct skip_elements {
  T factor;
  T const* in;
  T* out;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const {
    out[i] = (out[i] + in[i]) * factor;
  }
};
template <class T>
struct scale_elements {
  T factor;
  T* x;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const { x[i] *= factor; }
};

}  // namespace detail

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
    return sizes_on<cpu_context>(shape);
  }
  template <class Context>
  [[nodiscard]] layer_sizes sizes_on(feature_shape shape) const {
    layer_sizes result = layer_on<Context, Layer>::sizes(body, shape);
    if constexpr (copies) {
      result.saved_bar += detail::aligned(shape.size());
      result.workspace += detail::aligned(shape.size());
    }
    return result;
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires layer<Layer, T>
  void forward(Context const& ctx, layer_pass<T> const& p) const {
    layer_on<Context, Layer>::forward(body, ctx, p);
    skip(ctx, p.shape, p.x, p.y);
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires layer<Layer, T>
  void backward(Context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p);
    layer_pass<T> inner = p;
    if constexpr (copies) {
      inner.y_bar = p.saved_bar == nullptr ? p.workspace : p.saved_bar;
      copy(ctx, p, inner);
    }
    layer_on<Context, Layer>::backward(body, ctx, inner);
    add(ctx, p.shape, p.y_bar, p.x_bar);
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires layer<Layer, T>
  void tangent(Context const& ctx, layer_pass<T> const& p) const {
    layer_on<Context, Layer>::tangent(body, ctx, p);
    if (p.y_dot != nullptr) skip(ctx, p.shape, p.x_dot, p.y_dot);
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires layer<Layer, T>
  void tangent_backward(Context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p);
    layer_pass<T> inner = p;
    if constexpr (copies) {
      inner.y_bar = p.workspace;
      inner.y_dot_bar = p.saved_bar;
      copy(ctx, p, inner);
    }
    layer_on<Context, Layer>::tangent_backward(body, ctx, inner);
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
  template <class Context, class T>
  static void skip(Context const& ctx, feature_shape shape, T const* in, T* out) {
    head_executor<Context>::each_element(ctx, shape.size(),
                                         detail::skip_elements<T>{static_cast<T>(factor), in, out});
  }
  template <class Context, class T>
  static void scale(Context const& ctx, layer_pass<T> const& p) {
    head_executor<Context>::each_element(
        ctx, p.shape.size(), detail::scale_elements<T>{static_cast<T>(factor), p.y_bar});
  }
  /// y_bar of the body, and what follows the memory of copies.
  template <class Context, class T>
  static void copy(Context const& ctx, layer_pass<T> const& p, layer_pass<T>& inner) {
    std::int64_t const size = detail::aligned(p.shape.size());
    head_executor<Context>::each_element(ctx, p.shape.size(),
                                         detail::copy_elements<T>{p.y_bar, inner.y_bar});
    if (p.saved_bar != nullptr) inner.saved_bar = p.saved_bar + size;
    inner.workspace = p.workspace + size;
  }
  template <class Context, class T>
  static void add(Context const& ctx, feature_shape shape, T const* in, T* out) {
    if (out == nullptr) return;
    head_executor<Context>::each_element(ctx, shape.size(), detail::add_elements<T>{in, out});
  }
};
template <class Layer>
residual(Layer) -> residual<Layer>;

}  // namespace addloss
