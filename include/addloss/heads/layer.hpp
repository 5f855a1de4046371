// SPDX-License-Identifier: MIT
/// What a layer of a discriminator head is: a plain value that computes on memory of its caller.
///
/// x [B, C, L] -> y [B, C', L], dense, row-major, the tokens last. Four computations:
///   forward            y = f(x; w), keeping in `saved` what the others need
///   backward           x_bar = (df/dx)^T y_bar,  w_bar += (df/dw)^T y_bar
///   tangent            y_dot = (df/dx) x_dot                                     (w is constant)
///   tangent_backward   the backward pass of (x, x_dot) -> (f(x; w), (df/dx) x_dot):
///                      from (y_bar, y_dot_bar) to x_bar, x_dot_bar, and added to w_bar
/// The last two make derivatives of derivatives by composition: with v = grad_F s held constant,
/// grad_w |v|^2 = 2 grad_w [ds in direction v], one tangent pass and one tangent_backward pass.
/// Parameters w and their gradients are contiguous buffers of the caller; `parameter(i)` names the
/// parts. Gradients of parameters are added to, all other outputs are overwritten. An output that is
/// null is not computed (x_bar, x_dot_bar, w_bar). x, x_dot and the outputs do not overlap.
/// Nothing is allocated: `saved` and `workspace` have sizes that are functions of the shape alone.
/// Same bits for any number of threads.
/// Errors: output_shape raises addloss::error for shapes that do not fit; the rest checks nothing.
/// Source of the identity: Pearlmutter, Fast Exact Multiplication by the Hessian, 1994.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>

namespace addloss {

/// [batch, channels, length].
struct feature_shape {
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int64_t length = 0;

  [[nodiscard]] constexpr std::int64_t size() const { return batch * channels * length; }
  bool operator==(feature_shape const&) const = default;
};

/// A named part of a layer's parameters: `size` numbers from `offset`, of shape `extents`.
struct parameter_view {
  char const* name;  ///< "weight", "bias"
  std::int64_t offset;
  int rank;
  std::int64_t extents[3];

  [[nodiscard]] constexpr std::int64_t size() const {
    std::int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= extents[axis];
    return product;
  }
};

/// A layer in the arithmetic of `T`, float or double.
template <class L, class T>
concept layer = arithmetic_scalar<T> && std::copyable<L> &&
                requires(L const l, cpu_context const ctx, feature_shape shape, T const* in, T* out,
                         char const* function) {
                  { l.parameter_count() } -> std::same_as<std::int64_t>;  // numbers in w
                  { l.parameters() } -> std::same_as<int>;  // named parts of w
                  { l.parameter(0) } -> std::same_as<parameter_view>;
                  { l.output_shape(function, shape) } -> std::same_as<feature_shape>;
                  { l.saved_size(shape) } -> std::same_as<std::int64_t>;
                  { l.workspace_size(shape) } -> std::same_as<std::int64_t>;
                  // ctx, w, shape of x, x, y, saved, workspace
                  l.forward(ctx, in, shape, in, out, out, out);
                  // ctx, w, shape, x, saved, y_bar, x_bar, w_bar, workspace
                  l.backward(ctx, in, shape, in, in, in, out, out, out);
                  // ctx, w, shape, x, saved, x_dot, y_dot, workspace
                  l.tangent(ctx, in, shape, in, in, in, out, out);
                  // ctx, w, shape, x, saved, x_dot, y_bar, y_dot_bar, x_bar, x_dot_bar, w_bar,
                  // workspace
                  l.tangent_backward(ctx, in, shape, in, in, in, in, in, out, out, out, out);
                };

}  // namespace addloss
