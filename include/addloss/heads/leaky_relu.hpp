// SPDX-License-Identifier: MIT
/// Leaky rectified linear unit, a layer without parameters.
///
///   y = x where x > 0, else a x,  a = negative_slope
/// Derivative d: 1 where x > 0, else a; at the kink, 0, it is a. Piecewise linear: the second
/// derivative is taken as 0.
///   y_dot = d x_dot;  x_bar = d y_bar,  x_dot_bar = d y_dot_bar
/// NaN in x becomes NaN in y and, unlike in PyTorch, in all of x_bar, y_dot and x_dot_bar.
/// Nothing is saved, no workspace, any shape.
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
  double negative_slope = 0.2;

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return 0; }
  [[nodiscard]] constexpr int parameters() const { return 0; }
  [[nodiscard]] constexpr parameter_view parameter(int /*i*/) const { return {"", 0, 0, {}}; }
  [[nodiscard]] constexpr feature_shape output_shape(char const* /*function*/,
                                                     feature_shape shape) const {
    return shape;
  }
  [[nodiscard]] constexpr std::int64_t saved_size(feature_shape /*shape*/) const { return 0; }
  [[nodiscard]] constexpr std::int64_t workspace_size(feature_shape /*shape*/) const { return 0; }

  template <arithmetic_scalar T>
  void forward(cpu_context const& ctx, T const* /*w*/, feature_shape shape, T const* x, T* y,
               T* /*saved*/, T* /*workspace*/) const {
    auto const slope = static_cast<T>(negative_slope);
    detail::each_element(ctx, shape.size(),
                         [=](std::int64_t i) { y[i] = x[i] > T(0) ? x[i] : slope * x[i]; });
  }

  template <arithmetic_scalar T>
  void backward(cpu_context const& ctx, T const* /*w*/, feature_shape shape, T const* x,
                T const* /*saved*/, T const* y_bar, T* x_bar, T* /*w_bar*/,
                T* /*workspace*/) const {
    if (x_bar != nullptr) scale(ctx, shape, x, y_bar, x_bar);
  }

  template <arithmetic_scalar T>
  void tangent(cpu_context const& ctx, T const* /*w*/, feature_shape shape, T const* x,
               T const* /*saved*/, T const* x_dot, T* y_dot, T* /*workspace*/) const {
    scale(ctx, shape, x, x_dot, y_dot);
  }

  template <arithmetic_scalar T>
  void tangent_backward(cpu_context const& ctx, T const* /*w*/, feature_shape shape, T const* x,
                        T const* /*saved*/, T const* /*x_dot*/, T const* y_bar, T const* y_dot_bar,
                        T* x_bar, T* x_dot_bar, T* /*w_bar*/, T* /*workspace*/) const {
    if (x_bar != nullptr) scale(ctx, shape, x, y_bar, x_bar);
    if (x_dot_bar != nullptr) scale(ctx, shape, x, y_dot_bar, x_dot_bar);
  }

 private:
  /// out = d(x) in: the transpose of a diagonal is itself.
  template <class T>
  void scale(cpu_context const& ctx, feature_shape shape, T const* x, T const* in, T* out) const {
    auto const slope = static_cast<T>(negative_slope);
    detail::each_element(ctx, shape.size(), [=](std::int64_t i) {
      T const below = x[i] <= T(0) ? slope : x[i];  // x is NaN where it is neither
      out[i] = (x[i] > T(0) ? T(1) : below) * in[i];
    });
  }
};

}  // namespace addloss
