// SPDX-License-Identifier: MIT
/// The three verbs: a loss, its gradient, or both in one pass.
///
///   value<Reduction>(ctx, loss, value)
///   grad<Reduction>(ctx, loss, gradient, options)
///   value_and_grad<Reduction>(ctx, loss, value, gradient, options)
/// `loss` is a loss bound to its inputs (distillation{}(...), discriminator_loss(...), ...).
/// `Reduction` over the batch: mean (default), sum, or per_sample.
/// Gradients are those of the reduced loss, times `upstream` of the sample and `grad_scale`; they
/// overwrite, or add inside `accumulate(...)`. A gradient may be written over the tensor it is the
/// gradient of; other overlap is not allowed.
/// All arguments are checked before the first write. Inputs are never written. No allocation.
#pragma once

#include <addloss/core/context.hpp>
#include <addloss/reduce/destination.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss {

/// A loss with its inputs: it names its arithmetic type, gradients and options, and makes the pass.
template <class L>
concept bound_loss = requires {
  typename L::arithmetic;
  typename L::gradients;
  typename L::options;
  typename L::space;
};

namespace detail {

template <class Reduction, class Context, class Loss, class Destination>
void evaluate(char const* function, Context const& ctx, Loss const& loss,
              Destination const& value, typename Loss::gradients const& gradients,
              typename Loss::options const& options) {
  executor<Context>::run(
      ctx, loss.template pass<Reduction>(function, value, gradients, options));
}


}  // namespace detail

/// What a loss can be written to in the space of `Loss`: float or double.
template <class Out, class Loss>
concept value_output =
    tensor_like<Out> && arithmetic_scalar<typename view_of<Out>::element_type> &&
    std::same_as<typename view_of<Out>::space, typename Loss::space>;

template <class Context, class Loss>
concept runs_in = context<Context> && bound_loss<Loss> &&
                  std::same_as<typename Context::space, typename Loss::space>;

template <batch_reduction Reduction = mean, context Context, bound_loss Loss,
          value_output<Loss> Value>
  requires(runs_in<Context, Loss>)
void value(Context const& ctx, Loss const& loss, Value&& out,
           typename Loss::options const& options = {}) {
  using view = view_of<Value>;
  detail::evaluate<Reduction>(
      "value", ctx, loss,
      destination<typename view::element_type, typename view::space>(as_view(out)), {}, options);
}

template <batch_reduction Reduction = mean, context Context, bound_loss Loss>
  requires(runs_in<Context, Loss>)
void grad(Context const& ctx, Loss const& loss, typename Loss::gradients const& gradients,
          typename Loss::options const& options = {}) {
  using nowhere = destination<typename Loss::arithmetic, typename Loss::space>;
  detail::evaluate<Reduction>("grad", ctx, loss, nowhere{}, gradients, options);
}

template <batch_reduction Reduction = mean, context Context, bound_loss Loss,
          value_output<Loss> Value>
  requires(runs_in<Context, Loss>)
void value_and_grad(Context const& ctx, Loss const& loss, Value&& out,
                    typename Loss::gradients const& gradients,
                    typename Loss::options const& options = {}) {
  using view = view_of<Value>;
  detail::evaluate<Reduction>(
      "value_and_grad", ctx, loss,
      destination<typename view::element_type, typename view::space>(as_view(out)), gradients,
      options);
}

}  // namespace addloss
