// SPDX-License-Identifier: MIT
/// Normalisation of each sample over groups of channels, the alternative to local_norm that knows
/// nothing of the batch.
///
///   y = weight_c h + bias_c,  h = r (x - m),  r = 1 / sqrt(v + epsilon)
/// m, v: mean and biased variance over (the channels of a group, L), for each sample; a group is
/// `channels / groups` consecutive channels. Derivatives, sums, parameters, NaN, sizes of what is
/// saved and of the workspace: as in heads/local_norm.hpp, with these statistics.
/// Errors (output_shape): channels; groups < 1 or groups that do not divide the channels; epsilon
/// that is not a positive finite number.
/// Source: Wu & He, Group Normalization, 2018.
#pragma once

#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/local_norm.hpp>

namespace addloss {

struct group_norm {
  std::int64_t channels;
  std::int64_t groups = 32;
  double epsilon = 1e-5;  ///< added to the variance

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return 2 * channels; }
  [[nodiscard]] constexpr int parameters() const { return 2; }
  [[nodiscard]] constexpr parameter_view parameter(int i) const {
    return detail::norm_parameter(channels, i);
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    detail::check_norm(function, shape, channels, epsilon);
    if (groups < 1 || channels % groups != 0) {
      detail::fail(function, "groups",
                   detail::text() << "a divisor of the " << channels << " channels",
                   detail::text() << groups);
    }
    return shape;
  }
  [[nodiscard]] constexpr std::int64_t saved_size(feature_shape shape) const {
    return 2 * shape.batch * groups;
  }
  [[nodiscard]] constexpr std::int64_t workspace_size(feature_shape shape) const {
    return 2 * shape.batch * groups;
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
    return {ctx, shape, 1, channels / groups, epsilon};
  }
};

}  // namespace addloss
