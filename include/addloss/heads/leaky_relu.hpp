// SPDX-License-Identifier: MIT
/// Leaky rectified linear unit, a layer without parameters.
///
///   y = x where x > 0, else a x,  a = negative_slope
/// Derivative d: 1 where x > 0, else a; at the kink, 0, it is a. Piecewise linear: the second
/// derivative is taken as 0.
///   y_dot = d x_dot;  x_bar = d y_bar, in both backward passes
/// NaN in x becomes NaN in y and, unlike in PyTorch, in x_bar and y_dot.
/// Nothing is saved, no workspace, any shape. x_bar may lie over x or x_dot.
/// Source: Maas, Hannun, Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models, 2013.
#pragma once

#include <cstdint>

#include <addloss/core/config.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/head_executor.hpp>
#include <addloss/heads/layer.hpp>

namespace addloss {
namespace detail {

template <class T>
struct leaky_element {
  T slope;
  T const* x;
  T* y;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const {
    y[i] = x[i] > T(0) ? x[i] : slope * x[i];
  }
};
/// out = d(x) in.
template <class T>
struct leaky_slope {
  T slope;
  T const* x;
  T const* in;
  T* out;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const {
    T const below = x[i] <= T(0) ? slope : x[i];  // x is NaN where it is neither
    out[i] = (x[i] > T(0) ? T(1) : below) * in[i];
  }
};

}  // namespace detail

struct leaky_relu {
  static constexpr bool in_place = true;

  double negative_slope = 0.2;

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return 0; }
  [[nodiscard]] constexpr int parameters() const { return 0; }
  [[nodiscard]] constexpr parameter_view parameter(int /*i*/) const { return {"", 0, 0, {}}; }
  [[nodiscard]] constexpr feature_shape output_shape(char const* /*function*/,
                                                     feature_shape shape) const {
    return shape;
  }
  [[nodiscard]] constexpr layer_sizes sizes(feature_shape /*shape*/) const { return {}; }

  template <head_context Context = cpu_context, arithmetic_scalar T>
  void forward(Context const& ctx, layer_pass<T> const& p) const {
    head_executor<Context>::each_element(
        ctx, p.shape.size(), detail::leaky_element<T>{static_cast<T>(negative_slope), p.x, p.y});
  }
  template <head_context Context = cpu_context, arithmetic_scalar T>
  void backward(Context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p, p.y_bar, p.x_bar);
  }
  template <head_context Context = cpu_context, arithmetic_scalar T>
  void tangent(Context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p, p.x_dot, p.y_dot);
  }
  template <head_context Context = cpu_context, arithmetic_scalar T>
  void tangent_backward(Context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p, p.y_bar, p.x_bar);
  }

 private:
  /// The transpose of a diagonal is itself.
  template <class Context, class T>
  void scale(Context const& ctx, layer_pass<T> const& p, T const* in, T* out) const {
    if (out == nullptr) return;
    head_executor<Context>::each_element(
        ctx, p.shape.size(), detail::leaky_slope<T>{static_cast<T>(negative_slope), p.x, in, out});
  }
};

static_assert(layer<leaky_relu, float> && layer<leaky_relu, double>);

}  // namespace addloss
