// SPDX-License-Identifier: MIT
/// The same linear map of every token.
///
///   y[b,o,l] = bias[o] + sum_i W[o,i] x[b,i,l]
/// x [B, in_channels, L], y [B, out_channels, L]. Parameters: weight [out_channels, in_channels],
/// then bias [out_channels].
/// Sums, memory, gradients and errors are those of a convolution of kernel 1 (heads/conv1d.hpp).
/// Only the rank of its weight differs: heads/spectral_weights.hpp normalises convolutions, and
/// leaves this one as it is.
#pragma once

#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/conv1d.hpp>
#include <addloss/heads/layer.hpp>

namespace addloss {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// Models `layer<linear<T>, T>`.
template <arithmetic_scalar T>
struct linear {
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;

  [[nodiscard]] conv1d<T> convolution() const {
    return {.in_channels = in_channels, .out_channels = out_channels};
  }

  [[nodiscard]] std::int64_t parameter_count() const { return convolution().parameter_count(); }
  [[nodiscard]] int parameters() const { return 2; }
  [[nodiscard]] parameter_view parameter(int index) const {
    parameter_view result = convolution().parameter(index);
    if (index == 0) result.rank = 2;
    return result;
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    return convolution().output_shape(function, shape);
  }
  [[nodiscard]] layer_sizes sizes(feature_shape shape) const { return convolution().sizes(shape); }

  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    convolution().forward(ctx, p);
  }
  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    convolution().backward(ctx, p);
  }
  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    convolution().tangent(ctx, p);
  }
  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    convolution().tangent_backward(ctx, p);
  }
};

static_assert(layer<linear<float>, float> && layer<linear<double>, double>);

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
