// SPDX-License-Identifier: MIT
/// What a layer of a discriminator head is: a plain value that computes on memory of its caller.
///
/// x [B, C, L] -> y [B, C', L], dense, row-major, the tokens last. Four passes:
///   forward            y = f(x; w)
///   backward           x_bar = (df/dx)^T y_bar,  w_bar += (df/dw)^T y_bar
///   tangent            y_dot = (df/dx) x_dot
///   tangent_backward   the gradient of  <y_bar, f(x; w)> + <y_dot_bar, (df/dx) x_dot>:
///                      x_bar = that with respect to x, w_bar += that with respect to w; x_dot,
///                      y_bar and y_dot_bar are constants
/// Derivatives of derivatives are compositions of these. For R1, s the sum of the logits:
///   forward; backward of y_bar = 1 gives v = ds/dx; tangent along x_dot = 2 gamma v / B;
///   tangent_backward with y_dot_bar = 1 and the hinge's y_bar
/// adds to w_bar the exact gradient of hinge + gamma |v|^2 / B, as with v held constant
/// d(|v|^2)/dw = 2 d[ds in direction v]/dw.
///
/// What a pass reads and writes, of the members of `layer_pass`:
/// | pass             | reads                                      | writes                |
/// | forward          | w x                                        | y saved               |
/// | backward         | w x saved y_bar                            | x_bar w_bar saved_bar |
/// | tangent          | w x saved x_dot                            | y_dot saved_dot       |
/// | tangent_backward | what these read and keep; y_bar y_dot_bar  | x_bar w_bar           |
/// `saved`, `saved_dot` and `saved_bar` carry intermediate results from one pass to the next:
/// tangent_backward wants those of a tangent pass with its x_dot, and those of a backward pass
/// whose y_bar, as it was left, is its y_dot_bar. x_bar, w_bar and y_dot may be null: they are not
/// computed; and saved_bar in `backward`: no tangent_backward will follow. w_bar is added to, all
/// else is overwritten. What is read and what is written do not overlap.
/// Memory is lent: tangent_backward, and backward without saved_bar, are the last passes over what
/// was kept and may overwrite it. backward with saved_bar may write to saved_dot, which the tangent
/// pass then fills. y_bar stays as it is, but where the layer has overwrites_y_bar = true.
/// A cheap layer, a norm or an activation, may have in_place = true: its x_bar may lie over x (in
/// backward) or x_dot (in tangent_backward), and what it kept is never overwritten. Its backward
/// pass is then done again instead of keeping what it gives (heads/sequence.hpp).
/// A layer that reads conditions says how many numbers a sample of each has: condition_sizes().
/// Parameters w and their gradients are contiguous buffers of the caller; `parameter(i)` names the
/// parts, i from 0 to parameters() - 1. Nothing is allocated: sizes are functions of the shape
/// alone.
/// A layer of layers passes its context on, whatever it is, and calls them through `layer_on`; one
/// that computes itself does so on the CPU, and a back end that has another way specialises
/// `layer_on` for it.
/// Same bits for any number of threads.
/// Errors: output_shape raises addloss::error for shapes that do not fit; the passes check nothing.
/// Source of the identity: Pearlmutter, Fast Exact Multiplication by the Hessian, 1994.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <variant>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/initialise.hpp>

namespace addloss {

/// [batch, channels, length].
struct feature_shape {
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int64_t length = 0;

  [[nodiscard]] constexpr std::int64_t size() const { return batch * channels * length; }
  bool operator==(feature_shape const&) const = default;
};

/// How a part of the parameters begins (heads/initialise.hpp).
using initial_values = std::variant<constant_value, fan_in_uniform, standard_normal>;

/// A named part of a layer's parameters: `size` numbers from `offset`, of shape `extents`.
struct parameter_view {
  char const* name;  ///< "weight", "bias"
  std::int64_t offset;
  int rank;
  std::int64_t extents[3];
  initial_values initial{};

  [[nodiscard]] constexpr std::int64_t size() const {
    std::int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= extents[axis];
    return product;
  }
};

/// How many numbers a layer keeps in each buffer of a pass.
struct layer_sizes {
  std::int64_t saved = 0;
  std::int64_t saved_bar = 0;
  std::int64_t saved_dot = 0;
  std::int64_t workspace = 0;
};

/// A condition of a batch (an embedding of its texts, of its images), which a `projection` reads.
template <arithmetic_scalar T>
struct condition {
  std::int64_t size = 0;  ///< numbers of a sample
  T const* values = nullptr;  ///< [B, size]
  T* gradient = nullptr;  ///< [B, size], added to by both backward passes; null: not computed
};

/// The memory of a pass.
template <arithmetic_scalar T>
struct layer_pass {
  feature_shape shape;  ///< of x
  T const* w = nullptr;
  T const* x = nullptr;
  T* y = nullptr;
  T const* x_dot = nullptr;
  T* y_dot = nullptr;
  T* y_bar = nullptr;
  T* y_dot_bar = nullptr;
  T* x_bar = nullptr;
  T* w_bar = nullptr;
  T* saved = nullptr;
  T* saved_bar = nullptr;
  T* saved_dot = nullptr;
  T* workspace = nullptr;  ///< holds nothing between passes
  std::span<condition<T> const> conditions{};
};

/// A layer in the arithmetic of `T`, float or double.
template <class L, class T>
concept layer = arithmetic_scalar<T> && std::copyable<L> &&
                requires(L const l, cpu_context const ctx, feature_shape shape,
                         layer_pass<T> const pass, char const* function) {
                  { l.parameter_count() } -> std::same_as<std::int64_t>;  // numbers in w
                  { l.parameters() } -> std::same_as<int>;  // named parts of w
                  { l.parameter(0) } -> std::same_as<parameter_view>;
                  { l.output_shape(function, shape) } -> std::same_as<feature_shape>;
                  { l.sizes(shape) } -> std::same_as<layer_sizes>;
                  l.forward(ctx, pass);
                  l.backward(ctx, pass);
                  l.tangent(ctx, pass);
                  l.tangent_backward(ctx, pass);
                };

/// A layer in a context: as it does it itself, or as a back end does it.
template <class Context, class L>
struct layer_on {
  static layer_sizes sizes(L const& l, feature_shape shape) {
    if constexpr (requires { l.template sizes_on<Context>(shape); }) {
      return l.template sizes_on<Context>(shape);
    } else {
      return l.sizes(shape);
    }
  }
  template <class T>
  static void forward(L const& l, Context const& ctx, layer_pass<T> const& p) {
    l.forward(ctx, p);
  }
  template <class T>
  static void backward(L const& l, Context const& ctx, layer_pass<T> const& p) {
    l.backward(ctx, p);
  }
  template <class T>
  static void tangent(L const& l, Context const& ctx, layer_pass<T> const& p) {
    l.tangent(ctx, p);
  }
  template <class T>
  static void tangent_backward(L const& l, Context const& ctx, layer_pass<T> const& p) {
    l.tangent_backward(ctx, p);
  }
};

namespace detail {

/// Where a part of a buffer may begin: at a whole cache line, if the buffer does (and float is what
/// it holds), so that no register is loaded from two.
constexpr std::int64_t aligned(std::int64_t offset) { return round_up(offset, 16); }

/// Of a pass: copies of them live on the stack.
inline constexpr int max_conditions = 4;

/// A layer in float or in double.
template <class L>
concept any_layer = layer<L, float> || layer<L, double>;

/// Whether x_bar may lie over x or x_dot.
template <class L>
constexpr bool in_place = requires { requires L::in_place; };

/// Whether the backward passes leave y_bar changed.
template <class L>
constexpr bool overwrites_y_bar = requires { requires L::overwrites_y_bar; };

/// Sizes of the conditions that a layer reads; none for most.
template <any_layer L>
std::span<std::int64_t const> condition_sizes_of(L const& l) {
  if constexpr (requires { l.condition_sizes(); }) {
    return l.condition_sizes();
  } else {
    return {};
  }
}

}  // namespace detail
}  // namespace addloss
