// SPDX-License-Identifier: MIT
/// Discriminator heads on a GPU, called from units that nvcc does not compile (torch/heads.hpp is
/// one of them).
///
///   auto const* const of_all = device_heads<float>::linked;
///   auto const stack = of_all->make(settings, weight_normalisation::spectral);
///   device_head_stack<float> const heads{stack.get(), parameters, state};
///   auto const* const code = device_head_steps<float, adversarial<>>::linked;
///   device_call const call{stream, cublas, memory, code->generator_bytes(heads, shapes)};
///   code->generator_step(call, adversarial<>{}, heads, fake, gradients, {}, result);
/// The calls are those of a stack of projected heads, heads/head_stack.hpp, in the context of
/// cuda_heads.cuh. A unit that nvcc compiles names types, products and losses that it makes code of
/// (cuda/heads/device_heads.cuh); of all others `linked` is null.
/// Spans, rows and pointers lead to memory of the GPU, but for settings, shapes and lists of rows.
/// Calls are only enqueued, allocate nothing there and wait for nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/heads/head_stack.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/projected_head.hpp>

namespace addloss {

/// Where a call runs.
struct device_call {
  void* stream;  ///< a cudaStream_t of the GPU that is current
  void* cublas;  ///< a cublasHandle_t on that stream; not used by code of another product
  void* workspace;  ///< any contents, at an address divisible by 16; nothing is kept in it
  std::size_t bytes;
};

/// Heads and their numbers.
template <arithmetic_scalar T>
struct device_head_stack {
  void const* stack;  ///< by device_heads::make
  std::span<T const> parameters;
  std::span<T> state;  ///< written by update_state
};

/// The code of what depends on no loss.
template <arithmetic_scalar T>
struct device_heads {
  using stack = device_head_stack<T>;

  /// A stack of projected heads. Its type depends on the flags of the unit that it is made in, so
  /// it is known there alone.
  std::shared_ptr<void const> (*make)(std::span<head_settings const> heads,
                                      weight_normalisation normalisation);
  /// Needs no workspace.
  void (*update_state)(device_call const& call, stack const& heads);
  std::size_t (*logits_bytes)(stack const& heads, std::span<feature_shape const> shapes);
  void (*logits)(device_call const& call, stack const& heads,
                 head_inputs<T, device_space> const& in,
                 std::span<rows<T, device_space> const> logits);

  static inline device_heads const* linked = nullptr;
};

/// The code of the steps with a loss, an `adversarial`.
template <arithmetic_scalar T, class Loss>
struct device_head_steps {
  using stack = device_head_stack<T>;

  std::size_t (*generator_bytes)(stack const& heads, std::span<feature_shape const> shapes);
  void (*generator_step)(device_call const& call, Loss const& loss, stack const& heads,
                         head_inputs<T, device_space> const& fake,
                         std::span<rows<T, device_space> const> gradients,
                         generator_options const& options, generator_result* result);
  std::size_t (*discriminator_bytes)(stack const& heads, std::span<feature_shape const> shapes,
                                     discriminator_options const& options);
  void (*discriminator_step)(device_call const& call, Loss const& loss, stack const& heads,
                             head_inputs<T, device_space> const& real,
                             head_inputs<T, device_space> const& fake, std::span<T> gradients,
                             discriminator_options const& options, discriminator_result* result);

  static inline device_head_steps const* linked = nullptr;
};

}  // namespace addloss
