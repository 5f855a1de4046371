// SPDX-License-Identifier: MIT
/// Makes the code of discriminator heads for cuda/heads/device_heads.hpp, in a unit that nvcc
/// compiles.
///
///   namespace {
///   using namespace addloss;
///   device_heads_code<float, cublas_product<>, adversarial<>> const heads_of_add;
///   }
/// | Product                   | products of matrices                               |
/// | tiled_product<>           | a plain kernel of the library                      |
/// | cublas_product<precision> | cuBLAS: also include cuda/heads/cublas_product.cuh |
/// Such an object tells the rest of the program of the code when the program starts, as those of
/// cuda/device_loss.cuh do: link its unit as it is. Its kernels take half a minute to compile.
/// One product for each `T`: a second object with another one takes the place of the first, or the
/// first of the second.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/heads/conv1d.cuh>
#include <addloss/cuda/heads/device_heads.hpp>
#include <addloss/cuda/heads/norm.cuh>
#include <addloss/cuda/heads/product.cuh>
#include <addloss/cuda/heads/projection.cuh>
#include <addloss/heads/head_stack.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/projected_head.hpp>

namespace addloss {

/// Makes the code of heads in `T`, and of their steps with each of `Losses`.
template <arithmetic_scalar T, class Product, class... Losses>
class device_heads_code {
 public:
  device_heads_code() {
    static constexpr device_heads<T> code{&make, &update_state, &logits_bytes, &logits};
    device_heads<T>::linked = &code;
    (link<Losses>(), ...);
  }

 private:
  using context = cuda_heads<Product>;
  using shape_list = std::span<feature_shape const>;
  using inputs = head_inputs<T, device_space>;
  using outputs = std::span<rows<T, device_space> const>;

  template <class Loss>
  static void link() {
    static constexpr device_head_steps<T, Loss> code{
        &generator_bytes, &generator_step<Loss>, &discriminator_bytes, &discriminator_step<Loss>};
    device_head_steps<T, Loss>::linked = &code;
  }

  using stack_type = decltype(projected_heads<T>(std::span<head_settings const>()));
  static std::shared_ptr<void const> make(std::span<head_settings const> heads,
                                          weight_normalisation normalisation) {
    return std::make_shared<stack_type const>(projected_heads<T>(heads, normalisation));
  }
  static stack_type const& stack_of(device_head_stack<T> const& heads) {
    return *static_cast<stack_type const*>(heads.stack);
  }

  /// A workspace: what the losses need, in whole cache lines, and numbers of the stack.
  static std::size_t loss_bytes(stack_type const& stack, shape_list shapes) {
    return (head_loss_bytes(stack, shapes) + 63) / 64 * 64;
  }
  static std::size_t bytes_of(std::int64_t numbers) {
    return static_cast<std::size_t>(numbers) * sizeof(T);
  }

  /// The context of a call, and the numbers of its workspace.
  struct place {
    context ctx;
    std::span<T> workspace;

    place(device_call const& call, std::size_t loss_bytes) {
      std::size_t const first = std::min(call.bytes, loss_bytes);
      ctx.gpu = {.stream = static_cast<cudaStream_t>(call.stream),
                 .workspace = call.workspace,
                 .bytes = first};
      if constexpr (requires { ctx.product.handle; }) {
        ctx.product.handle = static_cast<decltype(ctx.product.handle)>(call.cublas);
      }
      auto* const numbers = static_cast<unsigned char*>(call.workspace) + first;
      workspace = {reinterpret_cast<T*>(numbers), (call.bytes - first) / sizeof(T)};
      if (first > 0) zero_workspace(ctx.gpu);
    }
  };
  static place place_of_step(device_call const& call, stack_type const& stack, inputs const& in) {
    return {call, loss_bytes(stack, shapes_of(in))};
  }
  static std::vector<feature_shape> shapes_of(inputs const& in) {
    std::vector<feature_shape> result;
    for (auto const& map : in.features) {
      result.push_back({map.shape.extents[0], map.shape.extents[1], map.shape.extents[2]});
    }
    return result;
  }

  static void update_state(device_call const& call, device_head_stack<T> const& heads) {
    stack_of(heads).update_state(place(call, 0).ctx, heads.parameters, heads.state);
  }

  static std::size_t logits_bytes(device_head_stack<T> const& heads, shape_list shapes) {
    return bytes_of(stack_of(heads).template logits_workspace<context>(shapes));
  }
  static void logits(device_call const& call, device_head_stack<T> const& heads, inputs const& in,
                     outputs logits) {
    place const on(call, 0);
    stack_of(heads).logits(on.ctx, heads.parameters, heads.state, in, logits, on.workspace);
  }

  static std::size_t generator_bytes(device_head_stack<T> const& heads, shape_list shapes) {
    auto const& stack = stack_of(heads);
    return loss_bytes(stack, shapes) +
           bytes_of(stack.template generator_workspace<context>(shapes));
  }
  template <class Loss>
  static void generator_step(device_call const& call, Loss const& loss,
                             device_head_stack<T> const& heads, inputs const& fake,
                             outputs gradients, generator_options const& options,
                             generator_result* result) {
    auto const& stack = stack_of(heads);
    place const on = place_of_step(call, stack, fake);
    stack.generator_step(on.ctx, loss, heads.parameters, heads.state, fake, gradients, on.workspace,
                         options, result);
  }

  static std::size_t discriminator_bytes(device_head_stack<T> const& heads, shape_list shapes,
                                         discriminator_options const& options) {
    auto const& stack = stack_of(heads);
    return loss_bytes(stack, shapes) +
           bytes_of(stack.template discriminator_workspace<context>(shapes, options));
  }
  template <class Loss>
  static void discriminator_step(device_call const& call, Loss const& loss,
                                 device_head_stack<T> const& heads, inputs const& real,
                                 inputs const& fake, std::span<T> gradients,
                                 discriminator_options const& options,
                                 discriminator_result* result) {
    auto const& stack = stack_of(heads);
    place const on = place_of_step(call, stack, real);
    stack.discriminator_step(on.ctx, loss, heads.parameters, heads.state, real, fake,
                             {.values = gradients}, on.workspace, options, result);
  }
};

}  // namespace addloss
