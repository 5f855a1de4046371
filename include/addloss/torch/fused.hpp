// SPDX-License-Identifier: MIT
/// What torch/losses.hpp and torch/heads.hpp share: a value whose gradients are computed with it,
/// as a function that LibTorch differentiates.
///
/// forward computes the value and, where an input requires it, the gradients of the value; backward
/// multiplies them with the upstream gradient, of one number, or of one a sample [B]. Where
/// backward is itself differentiated (create_graph), gradients carry second derivatives if `slopes`
/// gives them; third ones are refused where they would not be 0.
/// In .cpp units only: nvcc cannot read LibTorch's headers.
#pragma once

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <addloss/core/error.hpp>
#include <addloss/losses/adversarial.hpp>

namespace addloss {

/// Settings of a loss that LibTorch differentiates.
struct torch_options {
  int threads = at::get_num_threads();  ///< on the CPU
  /// Gradients are kept times this and divided by it in backward. For half types: the scale that
  /// the loss is multiplied with before backward, so that they do not underflow in between.
  double grad_scale = 1;
  // In the memory of the device that the tensors lie on:
  std::int64_t* non_finite = nullptr;  ///< as in evaluation_options
  std::span<head_statistics> statistics{};  ///< of adversarial losses, as in adversarial_options
};

namespace detail {

using torch_list = std::vector<at::Tensor>;

/// The number at torch_options::non_finite: [1].
inline at::Tensor torch_count(std::int64_t* number, at::Device device) {
  return at::for_blob(number, {1})
      .options(at::TensorOptions(at::kLong).device(device))
      .target_device(device)
      .make_tensor();
}

/// Gradients as differentiable functions of the inputs.
using torch_slopes =
    std::function<torch_list(torch_list const& inputs, torch_list const& gradients)>;

/// What backward keeps besides tensors.
struct fused_settings : torch::CustomClassHolder {
  torch_slopes slopes;
  double grad_scale = 1;
};

/// upstream [] or [B] times a gradient [B, ...] of any type, in float at least.
inline at::Tensor times_upstream(at::Tensor const& gradient, at::Tensor const& upstream) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(upstream.dim() * gradient.dim()), 1);
  if (upstream.dim() > 0) shape[0] = upstream.size(0);
  auto const type = at::promote_types(gradient.scalar_type(), upstream.scalar_type());
  return (gradient.to(type) * upstream.view(shape).to(type)).to(gradient.scalar_type());
}

/// A derivative that was computed as if it were constant in `input`, so that differentiating it is
/// an error.
struct last_derivative : torch::autograd::Function<last_derivative> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*ctx*/, at::Tensor const& derivative,
                            at::Tensor const& /*input*/) {
    return derivative.clone();
  }
  static torch_list backward(torch::autograd::AutogradContext* /*ctx*/, torch_list const& /*up*/) {
    fail("backward", "create_graph", "at most two derivatives", "three");
  }
};

/// `second` times `difference`, which is 0: what adds a second derivative to a gradient.
/// `constant`: the third one is 0.
struct second_derivative : torch::autograd::Function<second_derivative> {
  using context = torch::autograd::AutogradContext;

  static at::Tensor forward(context* ctx, at::Tensor const& difference, at::Tensor const& second,
                            bool constant) {
    ctx->save_for_backward({difference, second});
    ctx->saved_data["constant"] = constant;
    return difference * second;
  }
  static torch_list backward(context* ctx, torch_list const& upstreams) {
    torch_list const saved = ctx->get_saved_variables();
    at::Tensor result = upstreams[0] * saved[1];
    if (at::GradMode::is_enabled() && !ctx->saved_data["constant"].toBool()) {
      result = last_derivative::apply(result, saved[0]);
    }
    return {result, at::Tensor(), at::Tensor()};
  }
};

struct fused_function : torch::autograd::Function<fused_function> {
  using context = torch::autograd::AutogradContext;

  template <class Evaluate>
  static at::Tensor forward(context* ctx, at::TensorList inputs, Evaluate const& evaluate,
                            c10::intrusive_ptr<fused_settings> const& settings) {
    torch_list saved(inputs.begin(), inputs.end());
    torch_list gradients;
    for (at::Tensor const& input : inputs) gradients.push_back(at::empty_like(input));
    at::Tensor value = evaluate(gradients);
    saved.insert(saved.end(), gradients.begin(), gradients.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["settings"] = c10::IValue::make_capsule(settings);
    return value;
  }

  static torch_list backward(context* ctx, torch_list const& upstreams) {
    torch_list const saved = ctx->get_saved_variables();
    auto const settings =
        c10::static_intrusive_pointer_cast<fused_settings>(ctx->saved_data["settings"].toCapsule());
    auto const middle = saved.begin() + static_cast<std::ptrdiff_t>(saved.size() / 2);
    torch_list gradients(middle, saved.end());
    at::Tensor const& upstream = upstreams[0];
    double scale = settings->grad_scale;
    bool const twice = at::GradMode::is_enabled();
    if (twice) {
      if (!settings->slopes) fail("backward", "create_graph", "one derivative", "two");
      // Slopes are those of the loss itself, which half types could not hold without the scale.
      for (at::Tensor& gradient : gradients) {
        gradient = gradient.to(at::promote_types(gradient.scalar_type(), at::kFloat)) / scale;
      }
      scale = 1;
      gradients = settings->slopes({saved.begin(), middle}, gradients);
    }
    // Most often the loss itself is differentiated: nothing is left to multiply.
    bool const done =
        !twice && upstream.dim() == 0 && upstream.is_cpu() && upstream.item<double>() == scale;
    for (at::Tensor& gradient : gradients) {
      if (!done) gradient = times_upstream(gradient, scale == 1 ? upstream : upstream / scale);
    }
    gradients.resize(gradients.size() + 2);  // of what is no tensor
    return gradients;
  }
};

/// evaluate(gradients) gives the value and writes a gradient for each input, or none where the list
/// is empty.
template <class Evaluate>
at::Tensor differentiable(torch_list const& inputs, torch_options const& options,
                          torch_slopes slopes, Evaluate const& evaluate) {
  bool wanted = false;
  for (at::Tensor const& input : inputs) wanted = wanted || input.requires_grad();
  if (!wanted || !at::GradMode::is_enabled()) return evaluate(torch_list());
  if (!std::isfinite(options.grad_scale) || options.grad_scale == 0) {
    fail("value_and_grad", "grad_scale", "a finite number other than 0",
         text() << options.grad_scale);
  }
  auto settings = c10::make_intrusive<fused_settings>();
  settings->slopes = std::move(slopes);
  settings->grad_scale = options.grad_scale;
  return fused_function::apply(at::TensorList(inputs), evaluate, settings);
}

}  // namespace detail
}  // namespace addloss
