// SPDX-License-Identifier: MIT
/// Normalisation of each sample over groups of channels, the alternative to local_norm that knows
/// nothing of the batch.
///
///   y = act(weight_c h + bias_c),  h = r (x - m),  r = 1 / sqrt(v + epsilon)
///   act(n) = n where n > 0, else s n,  s = negative_slope; s = 1: no activation
/// m, v: mean and biased variance over (the channels of a group, L), for each sample; a group is
/// `channels / groups` consecutive channels. Derivatives, sums, parameters, NaN, what is kept and
/// the workspace: as in heads/local_norm.hpp, with these statistics.
/// Errors (output_shape): channels; groups < 1 or groups that do not divide the channels; epsilon
/// that is not a positive finite number; a slope that is not finite.
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
  static constexpr bool in_place = true;

  std::int64_t channels;
  std::int64_t groups = 32;
  double epsilon = 1e-5;  ///< added to the variance
  double negative_slope = 1;  ///< of the leaky ReLU that follows; 1: none

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return 2 * channels; }
  [[nodiscard]] constexpr int parameters() const { return 2; }
  [[nodiscard]] constexpr parameter_view parameter(int i) const {
    return detail::norm_parameter(channels, i);
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    detail::check_norm(function, shape, channels, epsilon, negative_slope);
    if (groups < 1 || channels < groups || channels % groups != 0) {
      detail::fail(function, "groups",
                   detail::text() << "a divisor of the " << channels << " channels",
                   detail::text() << groups);
    }
    return shape;
  }
  [[nodiscard]] constexpr layer_sizes sizes(feature_shape shape) const {
    return detail::norm_sizes(shape.batch * groups, channels / groups);
  }

  template <arithmetic_scalar T>
  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).forward();
  }
  template <arithmetic_scalar T>
  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).backward();
  }
  template <arithmetic_scalar T>
  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).tangent();
  }
  template <arithmetic_scalar T>
  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).tangent_backward();
  }

 private:
  template <class T>
  detail::normalizer<T> over(cpu_context const& ctx, layer_pass<T> const& p) const {
    return {ctx, p, 1, channels / groups, epsilon, negative_slope};
  }
};

static_assert(layer<group_norm, float> && layer<group_norm, double>);

}  // namespace addloss
