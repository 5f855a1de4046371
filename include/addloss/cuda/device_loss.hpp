// SPDX-License-Identifier: MIT
/// Losses on a GPU, called from units that nvcc does not compile (torch/losses.hpp is one of them).
///
///   auto const* const code = device_loss<mean, std::remove_cvref_t<decltype(loss)>>::linked;
///   std::size_t const bytes = code->workspace_bytes(loss);  // of `memory`
///   code->value_and_grad(stream, memory, bytes, loss, {value}, gradient, {});
/// `loss` is a loss bound to tensors in device_space. A unit that nvcc compiles names the losses
/// that it makes code of (cuda/device_loss.cuh); of all others `linked` is null.
/// Calls are those of cuda_context: they are only enqueued, allocate nothing and wait for nothing.
#pragma once

#include <cstddef>
#include <type_traits>

#include <addloss/losses/evaluate.hpp>

namespace addloss {

/// The code of a loss. `stream`: a cudaStream_t of the GPU that is current.
template <class Reduction, bound_loss Loss>
struct device_loss {
  static_assert(std::is_same_v<Loss, std::remove_cv_t<Loss>>,
                "device_loss: a loss's type without const, of which alone code is linked");
  using values = typename Loss::template values<typename Loss::arithmetic>;

  /// As in cuda/executor.cuh.
  std::size_t (*workspace_bytes)(Loss const& loss);
  /// The verb of losses/evaluate.hpp. `workspace`: memory of the GPU with any contents, at an
  /// address divisible by 16; nothing in it is kept from call to call.
  void (*value_and_grad)(void* stream, void* workspace, std::size_t bytes, Loss const& loss,
                         values const& value, typename Loss::gradients const& gradients,
                         typename Loss::options const& options);
  /// Writes c(t_b) of each sample: [B], consecutive. Null for losses that do not depend on a time.
  void (*weights)(void* stream, Loss const& loss, double* out);

  static inline device_loss const* linked = nullptr;
};

}  // namespace addloss
