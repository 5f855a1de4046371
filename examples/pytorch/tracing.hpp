// SPDX-License-Identifier: MIT
/// Autograd of the operators, which torch.compile and other tracers can follow, and autocast.
///
/// The kernels of a device are functions that LibTorch differentiates, which a tracer does not see
/// through. So each operator `f` has a second one beside it, `f_and_gradients`, which gives the
/// loss and its gradients times grad_scale. Tensors with numbers go to `f`; those without any
/// (meta, fake, functional) go to `f_and_gradients`, whose outputs `backward` multiplies with plain
/// operations. There gradients have no second derivatives, and asking for them is an error.
#pragma once

#include <addloss/torch/fused.hpp>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace tracing {

using c10::OperatorHandle;
using torch::jit::Stack;
using tensors = std::vector<at::Tensor>;

inline std::string with_suffix(std::string const& name) { return name + "_and_gradients"; }

inline OperatorHandle find(std::string const& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "");
}

/// Calls `visit(argument)` for each argument on the stack that is differentiated.
template <class Visit>
void each_differentiated(OperatorHandle const& op, Stack& stack, Visit const& visit) {
  std::size_t const count = op.schema().arguments().size();
  std::size_t const first = stack.size() - count;
  for (std::size_t i = first; i < stack.size(); ++i) {
    if (i == first || stack[i].isTensorList()) visit(stack[i]);
  }
}

inline tensors differentiated(OperatorHandle const& op, Stack& stack) {
  tensors result;
  each_differentiated(op, stack, [&](c10::IValue const& argument) {
    if (argument.isTensor()) {
      result.push_back(argument.toTensor());
    } else {
      for (at::Tensor const& tensor : argument.toTensorVector()) result.push_back(tensor);
    }
  });
  return result;
}

/// Puts `change` of it in the place of a tensor, or of each in a list.
template <class Change>
void replace(c10::IValue& argument, Change const& change) {
  if (argument.isTensor()) {
    argument = change(argument.toTensor());
  } else if (argument.isTensorList()) {
    c10::List<at::Tensor> list;
    for (at::Tensor const& tensor : argument.toTensorVector()) list.push_back(change(tensor));
    argument = std::move(list);
  }
}

/// Whether the tensors have no numbers, or somebody wants to see each operation on them.
inline bool traced(tensors const& inputs) {
  if (c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Python)) return true;
  for (at::Tensor const& tensor : inputs) {
    auto const keys = tensor.key_set();
    if (tensor.is_meta() || keys.has(c10::DispatchKey::Python) ||
        keys.has(c10::DispatchKey::Functionalize)) {
      return true;
    }
  }
  return false;
}

struct traced_function : torch::autograd::Function<traced_function> {
  using context = torch::autograd::AutogradContext;

  static at::Tensor forward(context* ctx, at::TensorList /*inputs*/, OperatorHandle const& op,
                            Stack* stack) {
    at::AutoDispatchBelowAutograd const below;
    ctx->saved_data["grad_scale"] = stack->back();
    find(with_suffix(op.schema().name())).callBoxed(stack);
    ctx->save_for_backward(torch::jit::pop(*stack).toTensorVector());
    return torch::jit::pop(*stack).toTensor();
  }
  static tensors backward(context* ctx, tensors const& upstreams) {
    if (at::GradMode::is_enabled()) {
      addloss::detail::fail("backward", "create_graph", "one derivative of what is traced", "two");
    }
    tensors gradients = ctx->get_saved_variables();
    at::Tensor const upstream = upstreams[0] / ctx->saved_data["grad_scale"].toDouble();
    for (at::Tensor& gradient : gradients) {
      gradient = addloss::detail::times_upstream(gradient, upstream);
    }
    gradients.resize(gradients.size() + 2);  // of what is no tensor
    return gradients;
  }
};

/// The kernel of `f` for autograd.
inline void differentiate(OperatorHandle const& op, Stack* stack) {
  tensors const inputs = differentiated(op, *stack);
  bool wanted = false;
  for (at::Tensor const& input : inputs) wanted = wanted || input.requires_grad();
  if (wanted && at::GradMode::is_enabled() && traced(inputs)) {
    torch::jit::push(*stack, traced_function::apply(at::TensorList(inputs), op, stack));
  } else {
    at::AutoDispatchBelowAutograd const below;
    op.callBoxed(stack);
  }
}

/// The kernel of `f_and_gradients`, by that of `f`.
inline void gradients_of(OperatorHandle const& op, Stack* stack) {
  tensors inputs;
  auto const variable = [&](at::Tensor const& tensor) {
    inputs.push_back(tensor.detach().requires_grad_());
    return inputs.back();
  };
  each_differentiated(op, *stack, [&](c10::IValue& argument) { replace(argument, variable); });
  double const grad_scale = stack->back().toDouble();
  std::string const name = op.schema().name();
  at::AutoGradMode const enable(true);
  find(name.substr(0, name.size() - with_suffix("").size())).callBoxed(stack);
  at::Tensor const value = torch::jit::pop(*stack).toTensor();
  tensors gradients = torch::autograd::grad({value}, inputs, {at::full_like(value, grad_scale)});
  torch::jit::push(*stack, value.detach(), std::move(gradients));
}

/// The kernel of `f` under autocast, where some tensors are of a half type and some are not: all
/// become the widest of them. Double tensors (levels are) and integers stay.
inline void cast_alike(OperatorHandle const& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard const below(c10::autocast_dispatch_keyset);
  auto const casts = [](at::Tensor const& tensor) {
    return tensor.defined() && tensor.is_floating_point() && tensor.scalar_type() != at::kDouble;
  };
  auto const arguments = std::span(*stack).last(op.schema().arguments().size());
  std::optional<at::ScalarType> widest;
  for (c10::IValue& argument : arguments) {
    replace(argument, [&](at::Tensor const& tensor) {
      auto const type = tensor.scalar_type();
      if (casts(tensor)) widest = at::promote_types(widest.value_or(type), type);
      return tensor;
    });
  }
  for (c10::IValue& argument : arguments) {
    replace(argument,
            [&](at::Tensor const& tensor) { return casts(tensor) ? tensor.to(*widest) : tensor; });
  }
  op.callBoxed(stack);
}

/// What the loss of such tensors looks like, and its gradients.
template <bool Gradients>
void shapes_of(OperatorHandle const& op, Stack* stack) {
  tensors gradients = differentiated(op, *stack);
  if (gradients.empty()) addloss::detail::fail("addloss", "heads", "1 to 32 heads", "0");
  auto const type = gradients[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor const value = at::empty({}, gradients[0].options().dtype(type));
  torch::jit::drop(*stack, op.schema().arguments().size());
  torch::jit::push(*stack, value);
  if constexpr (Gradients) {
    for (at::Tensor& gradient : gradients) gradient = at::empty_like(gradient);
    torch::jit::push(*stack, std::move(gradients));
  }
}

inline void define(torch::Library& library, std::string const& name, std::string const& arguments) {
  library.def((name + "(" + arguments + ") -> Tensor").c_str());
  library.def((with_suffix(name) + "(" + arguments + ") -> (Tensor, Tensor[])").c_str());
}

inline void register_autograd(torch::Library& library, std::string const& name) {
  library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&differentiate>());
}
inline void register_casts(torch::Library& library, std::string const& name) {
  library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&cast_alike>());
}
inline void register_gradients(torch::Library& library, std::string const& name) {
  library.impl(with_suffix(name).c_str(),
               torch::CppFunction::makeFromBoxedFunction<&gradients_of>());
}
inline void register_shapes(torch::Library& library, std::string const& name) {
  library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&shapes_of<false>>());
  library.impl(with_suffix(name).c_str(),
               torch::CppFunction::makeFromBoxedFunction<&shapes_of<true>>());
}

}  // namespace tracing
