// SPDX-License-Identifier: MIT
/// The three verbs: a loss, its gradient, or both in one pass.
///
///   value<Reduction>(ctx, loss, value)
///   grad<Reduction>(ctx, loss, gradient, options)
///   value_and_grad<Reduction>(ctx, loss, value, gradient, options)
/// `loss` is a loss bound to its inputs: `distillation{}(...)`, `adversarial{}.generator(...)`.
/// `Reduction` over the batch: mean (default), sum, or per_sample.
/// Gradients are those of the reduced loss, times `upstream` of the sample and `grad_scale`. They
/// overwrite, or add: `accumulate(...)` around one, `.accumulate = true` beside those of heads.
/// A gradient may be written over the tensor it is the gradient of; other overlap is not allowed.
/// All arguments are checked before the first write. Inputs are never written. No allocation.
#pragma once

#include <concepts>
#include <utility>

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

/// The outputs of `Loss` that an argument stands for: its own struct of them, or a destination,
/// which is the first (or only) of them.
template <class Loss, tensor_like Out>
  requires(arithmetic_scalar<typename view_of<Out>::element_type> && view_of<Out>::rank <= 1 &&
           std::same_as<typename view_of<Out>::space, typename Loss::space>)
auto values_of(Out&& out) {
  using element = typename view_of<Out>::element_type;
  return typename Loss::template values<element>{
      destination<element, typename Loss::space>(static_cast<Out&&>(out))};
}
template <class Loss, arithmetic_scalar T>
auto values_of(sum_and_count<T>& totals) {
  return typename Loss::template values<T>{destination<T, typename Loss::space>(totals)};
}
/// On a GPU, which a host's sum_and_count cannot be written from.
template <class Loss, arithmetic_scalar T>
  requires(!std::same_as<typename Loss::space, host_space>)
auto values_of(sum_and_count<T>* totals) {
  return typename Loss::template values<T>{destination<T, typename Loss::space>(totals)};
}
template <class Loss, class Out>
  requires(std::same_as<Out, typename Loss::template values<typename Out::value_type>>)
Out const& values_of(Out const& out) {
  return out;
}

template <class Context, class Pass>
void run_passes(Context const& ctx, Pass const& pass) {
  executor<Context>::run(ctx, pass);
}
/// The terms of a sum: checked both before the first is run.
template <class Context, class First, class Second>
void run_passes(Context const& ctx, std::pair<First, Second> const& passes) {
  executor<Context>::check(ctx, passes.first);
  executor<Context>::check(ctx, passes.second);
  executor<Context>::run(ctx, passes.first);
  executor<Context>::run(ctx, passes.second);
}

template <class Reduction, class Context, class Loss, class Output>
void evaluate(char const* function, Context const& ctx, Loss const& loss, Output const& value,
              typename Loss::gradients const& gradients, typename Loss::options const& options) {
  run_passes(ctx, loss.template pass<Reduction>(function, value, gradients, options));
}

}  // namespace detail

/// What `Loss` can be written to: a scalar, a tensor [B], a sum_and_count (of float or double, in
/// the space of the loss), or the loss's own struct of outputs.
template <class Out, class Loss>
concept value_output = requires(Out&& out) { detail::values_of<Loss>(static_cast<Out&&>(out)); };

template <class Context, class Loss>
concept runs_in = has_executor<Context> && bound_loss<Loss> &&
                  std::same_as<typename Context::space, typename Loss::space>;

template <batch_reduction Reduction = mean, context Context, bound_loss Loss,
          value_output<Loss> Value>
  requires(runs_in<Context, Loss>)
void value(Context const& ctx, Loss const& loss, Value&& out,
           typename Loss::options const& options = {}) {
  detail::evaluate<Reduction>("value", ctx, loss,
                              detail::values_of<Loss>(static_cast<Value&&>(out)), {}, options);
}

template <batch_reduction Reduction = mean, context Context, bound_loss Loss>
  requires(runs_in<Context, Loss>)
void grad(Context const& ctx, Loss const& loss, typename Loss::gradients const& gradients,
          typename Loss::options const& options = {}) {
  // Of double, whatever the loss computes in: one instantiation with a value in double.
  detail::evaluate<Reduction>("grad", ctx, loss, typename Loss::template values<double>{},
                              gradients, options);
}

template <batch_reduction Reduction = mean, context Context, bound_loss Loss,
          value_output<Loss> Value>
  requires(runs_in<Context, Loss>)
void value_and_grad(Context const& ctx, Loss const& loss, Value&& out,
                    typename Loss::gradients const& gradients,
                    typename Loss::options const& options = {}) {
  detail::evaluate<Reduction>("value_and_grad", ctx, loss,
                              detail::values_of<Loss>(static_cast<Value&&>(out)), gradients,
                              options);
}

}  // namespace addloss
