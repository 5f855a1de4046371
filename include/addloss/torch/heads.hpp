// SPDX-License-Identifier: MIT
/// The discriminator heads of ADD as a module of LibTorch, trained with their exact R1.
///
///   auto const heads = std::make_shared<torch_heads<>>(settings);
///   heads->to(device);
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
/// The heads run where their parameters lie, on the CPU or, with code for it (torch/device.hpp), on
/// a GPU: features and conditions must lie there, results will, and so must what options lead to:
/// statistics, penalties, gamma by number_at. On a GPU nothing waits; cublas_product is given
/// LibTorch's handle, but float is TF32 where the product says so, not where LibTorch allows it.
/// Same bits for any number of threads. On the CPU, memory for a step is kept from call to call.
/// Errors: addloss::error as those of head_stack; conditions that require gradients; tensors that
/// do not lie where the parameters do; parameters where the heads cannot run. Parameters that are
/// not finite are refused on the CPU alone.
/// In .cpp units only: nvcc cannot read LibTorch's headers.
#pragma once

#include <ATen/Functions.h>
#include <torch/nn/module.h>
#if defined(ADDLOSS_TORCH_CUDA)
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#endif

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <addloss/adapters/torch.hpp>
#include <addloss/core/config.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cpu/executor.hpp>
#include <addloss/cuda/heads/device_heads.hpp>
#include <addloss/heads/head_stack.hpp>
#include <addloss/torch/device.hpp>
#include <addloss/torch/fused.hpp>

namespace addloss {

namespace detail {

#if defined(ADDLOSS_TORCH_CUDA)
/// That of the current stream, which LibTorch sets to a math mode whenever it gives it away.
inline void* torch_cublas() {
  at::NoTF32Guard const full;
  return at::cuda::getCurrentCUDABlasHandle();
}
#else
void* torch_cublas();  // never called
#endif

}  // namespace detail

inline namespace ADDLOSS_ISA_NAMESPACE {

/// The terms of the discriminator's loss, without a graph, where the heads are: reading one waits
/// for the step.
struct discriminator_terms {
  at::Tensor adversarial;  ///< Double, []
  at::Tensor penalty;  ///< Double, []
  at::Tensor non_finite;  ///< Long, []: as in discriminator_result
};

template <arithmetic_scalar T = float>
class torch_heads : public torch::nn::Module {
 public:
  explicit torch_heads(std::vector<head_settings> settings, std::uint64_t seed = 0,
                       weight_normalisation normalisation = weight_normalisation::spectral)
      : settings_(std::move(settings)), stack_(projected_heads<T>(settings_, normalisation)) {
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
    detail::in_torch_space(weights_, [&]<class Space>() {
      if constexpr (on_host<Space>) {
        stack_.update_state(cpu_context{.threads = threads}, weights(), state());
      } else {
        auto const& code = device_code<device_heads<T>>();
        on_gpu(0, [&](auto const& call) { code.update_state(call, device_stack()); });
      }
    });
  }

  /// [B, L_k] of each head, without a graph.
  [[nodiscard]] std::vector<at::Tensor> logits(at::TensorList features,
                                               at::TensorList conditions = {},
                                               int threads = at::get_num_threads()) {
    return detail::in_torch_space(weights_, [&]<class Space>() {
      inputs<Space> const in(device(), "features", features, conditions);
      std::vector<at::Tensor> result;
      std::vector<rows<T, Space>> out;
      for (std::size_t k = 0; k < in.shapes.size(); ++k) {
        auto const shape = stack_.output_shape(static_cast<int>(k), in.shapes[k]);
        result.push_back(at::empty({shape.batch, shape.length}, weights_.options()));
        out.push_back(rows_from_torch<T, Space>(result.back()));
      }
      if constexpr (on_host<Space>) {
        stack_.logits(cpu_context{.threads = threads}, weights(), state(), in.get(), out,
                      workspace(stack_.logits_workspace(in.shapes)));
      } else {
        auto const& code = device_code<device_heads<T>>();
        auto const heads = device_stack();
        on_gpu(code.logits_bytes(heads, in.shapes),
               [&](auto const& call) { code.logits(call, heads, in.get(), out); });
      }
      return result;
    });
  }

  /// L_G of the fakes.
  template <class Loss, class Tokens, class Heads>
  at::Tensor generator(adversarial<Loss, Tokens, Heads> const& loss, at::TensorList fake,
                       at::TensorList conditions = {}, torch_options const& options = {}) {
    return detail::in_torch_space(weights_, [&]<class Space>() {
      inputs<Space> const in(device(), "fake", fake, conditions);
      return detail::differentiable(fake.vec(), options, {}, [&](detail::torch_list gradients) {
        if (gradients.empty()) {
          for (at::Tensor const& features : fake) gradients.push_back(at::empty_like(features));
        }
        inputs<Space> const out(device(), "gradients", gradients, {});
        generator_options const step{.grad_scale = options.grad_scale,
                                     .statistics = options.statistics};
        auto const numbers = memory_of<generator_result>();
        auto* const result = static_cast<generator_result*>(numbers.data_ptr());
        if constexpr (on_host<Space>) {
          stack_.generator_step(cpu_context{.threads = options.threads}, loss, weights(), state(),
                                in.get(), out.written,
                                workspace(stack_.generator_workspace(in.shapes)), step, result);
        } else {
          auto const& code = device_code<device_head_steps<T, adversarial<Loss, Tokens, Heads>>>();
          auto const heads = device_stack();
          on_gpu(code.generator_bytes(heads, in.shapes), [&](auto const& call) {
            code.generator_step(call, loss, heads, in.get(), out.written, step, result);
          });
        }
        if (options.non_finite != nullptr) {
          detail::torch_count(options.non_finite, device()).copy_(numbers.view(at::kLong)[1]);
        }
        return value_in(numbers);
      });
    });
  }

  /// L_D + R1 (+ R2). `terms`, if any, is set.
  template <class Loss, class Tokens, class Heads>
  at::Tensor discriminator(adversarial<Loss, Tokens, Heads> const& loss, at::TensorList real,
                           at::TensorList fake, at::TensorList conditions = {},
                           discriminator_options const& step = {},
                           discriminator_terms* terms = nullptr,
                           int threads = at::get_num_threads()) {
    torch_options options;
    options.grad_scale = step.grad_scale;
    return detail::differentiable({weights_}, options, {}, [&](detail::torch_list gradients) {
      return detail::in_torch_space(weights_, [&]<class Space>() {
        inputs<Space> const in_real(device(), "real", real, conditions);
        inputs<Space> const in_fake(device(), "fake", fake, conditions);
        if (gradients.empty()) gradients.push_back(at::empty_like(weights_));
        auto const gradient = numbers_of<Space>("gradient", gradients[0]);
        auto const numbers = memory_of<discriminator_result>();
        auto* const result = static_cast<discriminator_result*>(numbers.data_ptr());
        if constexpr (on_host<Space>) {
          stack_.discriminator_step(cpu_context{.threads = threads}, loss, weights(), state(),
                                    in_real.get(), in_fake.get(), {.values = gradient},
                                    workspace(stack_.discriminator_workspace(in_real.shapes, step)),
                                    step, result);
        } else {
          auto const& code = device_code<device_head_steps<T, adversarial<Loss, Tokens, Heads>>>();
          auto const heads = device_stack();
          on_gpu(code.discriminator_bytes(heads, in_real.shapes, step), [&](auto const& call) {
            code.discriminator_step(call, loss, heads, in_real.get(), in_fake.get(), gradient, step,
                                    result);
          });
        }
        if (terms != nullptr) *terms = {numbers[1], numbers[2], numbers.view(at::kLong)[3]};
        return value_in(numbers);
      });
    });
  }

 private:
  static constexpr at::ScalarType type = detail::torch_type<T>();
  template <class Space>
  static constexpr bool on_host = std::same_as<Space, host_space>;

  /// Features and conditions as the heads take them.
  template <class Space>
  struct inputs {
    inputs(at::Device device, char const* name, at::TensorList features, at::TensorList given) {
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
        written.push_back(detail::rows_on<T, Space>(device, map, name));
        read.emplace_back(written.back());
        shapes.push_back({map.size(0), map.size(1), map.size(2)});
        ++k;
      }
      k = 0;
      for (at::Tensor const& tensor : given) {
        detail::check_same_gpu("from_torch", "conditions", device, tensor);
        auto const values = from_torch<T const, 2, Space>(tensor, "conditions");
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
    [[nodiscard]] head_inputs<T, Space> get() const { return {read, conditions}; }

    std::vector<rows<T, Space>> written;
    std::vector<rows<T const, Space>> read;
    std::vector<feature_shape> shapes;
    std::vector<condition<T>> conditions;
  };

  [[nodiscard]] at::Device device() const { return weights_.device(); }

  /// Refuses what `to` has made of another type, or moved to where the heads do not run.
  template <class Space>
  std::span<T> numbers_of(char const* name, at::Tensor const& tensor) const {
    detail::check_same_gpu("torch_heads", name, device(), tensor);
    detail::check_torch_tensor<T, Space>("torch_heads", name, tensor);
    return {static_cast<T*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.numel())};
  }
  std::span<T> weights() const { return numbers_of<host_space>("weights", weights_); }
  std::span<T> state() const { return numbers_of<host_space>("state", state_); }
  std::span<T> workspace(std::int64_t size) {
    if (!workspace_.defined() || workspace_.numel() < size) workspace_ = at::empty({size}, type);
    return numbers_of<host_space>("workspace", workspace_);
  }

  /// Memory for what a step gives: numbers of 8 bytes, the loss first.
  template <class Result>
  [[nodiscard]] at::Tensor memory_of() const {
    static_assert(sizeof(Result) % sizeof(double) == 0);
    return at::empty({sizeof(Result) / sizeof(double)},
                     at::TensorOptions(at::kDouble).device(device()));
  }
  static at::Tensor value_in(at::Tensor const& numbers) {
    return numbers[0].to(type, /*non_blocking=*/false, /*copy=*/true);
  }

  // On a GPU.

  template <class Code>
  static Code const& device_code() {
    return detail::linked_code<Code>("torch_heads", "heads",
                                     "device_heads_code of them (cuda/heads/device_heads.cuh)");
  }
  device_head_stack<T> device_stack() {
    if (!device_stack_) {
      device_stack_ = device_code<device_heads<T>>().make(settings_, stack_.normalisation());
    }
    return {device_stack_.get(), numbers_of<device_space>("weights", weights_),
            numbers_of<device_space>("state", state_)};
  }
  template <class Body>
  void on_gpu(std::size_t bytes, Body const& body) const {
    detail::call_on_device(device(), bytes, [&](void* stream, void* workspace) {
      body(device_call{stream, detail::torch_cublas(), workspace, bytes});
    });
  }

  std::vector<head_settings> settings_;
  decltype(projected_heads<T>(std::span<head_settings const>())) stack_;
  at::Tensor weights_;
  at::Tensor state_;
  at::Tensor workspace_;
  std::shared_ptr<void const> device_stack_;
};

}  // namespace ADDLOSS_ISA_NAMESPACE

}  // namespace addloss
