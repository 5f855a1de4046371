// SPDX-License-Identifier: MIT
/// The discriminator heads of ADD as a module of LibTorch, trained with their exact R1.
///
///   auto const heads = std::make_shared<torch_heads<>>(settings);
///   torch::optim::Adam optimiser(heads->parameters(), 1e-4);
///   heads->update_state();
///   heads->discriminator(adversarial<>{}, real, fake).backward();  // gradients of the parameters
///   heads->generator(adversarial<>{}, fake).backward();            // and of the fakes' features
/// What is computed, and its shapes: heads/head_stack.hpp. Features of head k: [B, C_k, L_k], or
/// [B, C_k, H, W]; each condition [B, size]. All parameters are one tensor, "weights"; the state of
/// spectral normalisation is a buffer: torch::save and torch::load take both.
/// `discriminator` is differentiated with respect to the parameters alone, R1 included, which needs
/// no second derivative by LibTorch; `generator` with respect to the features alone. Gradients are
/// computed in forward, and once only: create_graph is refused.
/// Same bits for any number of threads. Memory for a step is kept from call to call.
/// Errors: addloss::error as those of head_stack; conditions that require gradients; tensors or
/// parameters on a GPU.
/// In .cpp units only: nvcc cannot read LibTorch's headers.
#pragma once

#include <torch/nn/module.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <addloss/adapters/torch.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cpu/executor.hpp>
#include <addloss/heads/head_stack.hpp>
#include <addloss/torch/fused.hpp>

namespace addloss {

template <arithmetic_scalar T = float>
class torch_heads : public torch::nn::Module {
 public:
  explicit torch_heads(std::vector<head_settings> const& settings, std::uint64_t seed = 0,
                       weight_normalisation normalisation = weight_normalisation::spectral)
      : stack_(projected_heads<T>(settings, normalisation)) {
    weights_ = at::empty({stack_.parameter_count()}, type);
    state_ = at::empty({stack_.state_count()}, type);
    stack_.initialise(seed, weights(), state());
    register_parameter("weights", weights_);
    register_buffer("state", state_);
  }

  /// Where each head's parameters are in "weights".
  [[nodiscard]] auto const& stack() const { return stack_; }

  /// One power iteration of spectral normalisation: before each step of the discriminator.
  void update_state(int threads = at::get_num_threads()) {
    stack_.update_state(cpu_context{.threads = threads}, weights(), state());
  }

  /// [B, L_k] of each head, without a graph.
  [[nodiscard]] std::vector<at::Tensor> logits(at::TensorList features,
                                               at::TensorList conditions = {},
                                               int threads = at::get_num_threads()) {
    inputs const in("features", features, conditions);
    std::vector<at::Tensor> result;
    std::vector<rows<T>> out;
    for (std::size_t k = 0; k < in.shapes.size(); ++k) {
      auto const shape = stack_.output_shape(static_cast<int>(k), in.shapes[k]);
      result.push_back(at::empty({shape.batch, shape.length}, type));
      out.push_back(rows_from_torch<T>(result.back()));
    }
    stack_.logits(cpu_context{.threads = threads}, weights(), state(), in.get(), out,
                  workspace(stack_.logits_workspace(in.shapes)));
    return result;
  }

  /// L_G of the fakes.
  template <class Loss, class Tokens, class Heads>
  at::Tensor generator(adversarial<Loss, Tokens, Heads> const& loss, at::TensorList fake,
                       at::TensorList conditions = {}, torch_options const& options = {}) {
    return detail::differentiable(fake.vec(), options, {}, [&](detail::torch_list gradients) {
      inputs const in("fake", fake, conditions);
      if (gradients.empty()) {
        for (at::Tensor const& features : fake) gradients.push_back(at::empty_like(features));
      }
      inputs const out("gradients", gradients, {});
      auto const result = stack_.generator_step(
          cpu_context{.threads = options.threads}, loss, weights(), state(), in.get(), out.written,
          workspace(stack_.generator_workspace(in.shapes)),
          {.grad_scale = options.grad_scale, .statistics = options.statistics});
      if (options.non_finite != nullptr) *options.non_finite = result.non_finite;
      return at::full({}, result.loss, type);
    });
  }

  /// L_D + R1 (+ R2). `terms`, if any, is written: the loss before anything is differentiated.
  template <class Loss, class Tokens, class Heads>
  at::Tensor discriminator(adversarial<Loss, Tokens, Heads> const& loss, at::TensorList real,
                           at::TensorList fake, at::TensorList conditions = {},
                           discriminator_options const& step = {},
                           discriminator_result* terms = nullptr,
                           int threads = at::get_num_threads()) {
    torch_options options;
    options.grad_scale = step.grad_scale;
    return detail::differentiable({weights_}, options, {}, [&](detail::torch_list gradients) {
      inputs const in_real("real", real, conditions);
      inputs const in_fake("fake", fake, conditions);
      if (gradients.empty()) gradients.push_back(at::empty_like(weights_));
      auto const result = stack_.discriminator_step(
          cpu_context{.threads = threads}, loss, weights(), state(), in_real.get(), in_fake.get(),
          {.values = span_of("gradient", gradients[0])},
          workspace(stack_.discriminator_workspace(in_real.shapes, step)), step);
      if (terms != nullptr) *terms = result;
      return at::full({}, result.total, type);
    });
  }

 private:
  static constexpr at::ScalarType type = detail::torch_type<T>();

  /// Features and conditions as the heads take them.
  struct inputs {
    inputs(char const* name, at::TensorList features, at::TensorList given) {
      std::int64_t k = 0;
      for (at::Tensor const& tensor : features) {
        if (!tensor.defined() || tensor.dim() < 3 || tensor.dim() > 4) {
          detail::fail("torch_heads", {name, k}, "shape [B, C, L] or [B, C, H, W]",
                       tensor.defined() ? detail::text() << "rank " << tensor.dim() : "none");
        }
        // Flattened it would be a copy, which is gone before it is read.
        if (tensor.dim() == 4 && !tensor.is_contiguous()) {
          detail::fail("torch_heads", {name, k}, "a contiguous tensor", "one with strides");
        }
        at::Tensor const map = tensor.dim() == 4 ? tensor.flatten(2) : tensor;
        written.push_back(rows_from_torch<T>(map, name));
        read.emplace_back(written.back());
        shapes.push_back({map.size(0), map.size(1), map.size(2)});
        ++k;
      }
      k = 0;
      for (at::Tensor const& tensor : given) {
        auto const values = from_torch<T const, 2>(tensor, "conditions");
        if (tensor.requires_grad() || !tensor.is_contiguous() ||
            (!shapes.empty() && values.extents[0] != shapes[0].batch)) {
          detail::fail("torch_heads", {"conditions", k},
                       "a contiguous tensor, one row a sample, that requires no gradient",
                       detail::text() << values.extents[0] << " rows"
                                      << (tensor.requires_grad() ? " that require one" : ""));
        }
        conditions.push_back({values.extents[1], values.data});
        ++k;
      }
    }
    [[nodiscard]] head_inputs<T> get() const { return {read, conditions}; }

    std::vector<rows<T>> written;
    std::vector<rows<T const>> read;
    std::vector<feature_shape> shapes;
    std::vector<condition<T>> conditions;
  };

  /// Refuses what `to` has moved to where the heads do not run.
  static std::span<T> span_of(char const* name, at::Tensor const& tensor) {
    detail::check_torch_tensor<T, host_space>("torch_heads", name, tensor);
    return {static_cast<T*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.numel())};
  }
  std::span<T> weights() const { return span_of("weights", weights_); }
  std::span<T> state() const { return span_of("state", state_); }
  std::span<T> workspace(std::int64_t size) {
    if (!workspace_.defined() || workspace_.numel() < size) workspace_ = at::empty({size}, type);
    return span_of("workspace", workspace_);
  }

  decltype(projected_heads<T>(std::span<head_settings const>())) stack_;
  at::Tensor weights_;
  at::Tensor state_;
  at::Tensor workspace_;
};

}  // namespace addloss
