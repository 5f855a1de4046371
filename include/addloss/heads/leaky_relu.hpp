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
#include <addloss/core/context.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/layer.hpp>

namespace addloss {
namespace detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// body(i) for i in [0, size), a cheap computation on elements.
template <class Body>
void each_element(cpu_context const& ctx, std::int64_t size, Body const& body) {
  constexpr std::int64_t piece = 4096;
  each_task(ctx, (size + piece - 1) / piece, size, [&](std::int64_t task) {
    std::int64_t const last = size - task * piece < piece ? size : (task + 1) * piece;
    for (std::int64_t i = task * piece; i < last; ++i) body(i);
  });
}

}  // namespace ADDLOSS_ISA_NAMESPACE
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

  template <arithmetic_scalar T>
  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    auto const slope = static_cast<T>(negative_slope);
    detail::each_element(ctx, p.shape.size(), [=, x = p.x, y = p.y](std::int64_t i) {
      y[i] = x[i] > T(0) ? x[i] : slope * x[i];
    });
  }
  template <arithmetic_scalar T>
  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p, p.y_bar, p.x_bar);
  }
  template <arithmetic_scalar T>
  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p, p.x_dot, p.y_dot);
  }
  template <arithmetic_scalar T>
  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    scale(ctx, p, p.y_bar, p.x_bar);
  }

 private:
  /// out = d(x) in: the transpose of a diagonal is itself.
  template <class T>
  void scale(cpu_context const& ctx, layer_pass<T> const& p, T const* in, T* out) const {
    if (out == nullptr) return;
    auto const slope = static_cast<T>(negative_slope);
    detail::each_element(ctx, p.shape.size(), [=, x = p.x](std::int64_t i) {
      T const below = x[i] <= T(0) ? slope : x[i];  // x is NaN where it is neither
      out[i] = (x[i] > T(0) ? T(1) : below) * in[i];
    });
  }
};

static_assert(layer<leaky_relu, float> && layer<leaky_relu, double>);

}  // namespace addloss
