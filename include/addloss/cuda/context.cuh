// SPDX-License-Identifier: MIT
/// Where a pass runs on a GPU: a stream, and memory that somebody else owns.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/tensor_view.hpp>

namespace addloss {

/// The GPU that is current when a call is made; `stream` is one of its. Calls enqueue kernels there
/// and return: they allocate nothing, wait for nothing, touch no other stream and have no state, so
/// that a CUDA graph can capture them. What a captured call reads from memory may change from
/// replay to replay: tensors, timesteps, upstream weights, a noise key behind normal_noise_at, and
/// weights and grad_scale behind number_at. Pointers, sizes and what is given by value may not.
/// Make a call once before it is captured: CUDA loads a kernel when it is first launched.
///
/// `workspace`: memory of the GPU, `bytes` long, at an address divisible by 16: as much as
/// workspace_bytes says (cuda/executor.cuh); none is needed by what sums nothing (add_noise, ...).
/// Its first cuda::workspace_header bytes must be 0 before the first call, or no loss is written;
/// zero_workspace does that, once, and every call leaves them so. Calls on one stream may share it,
/// calls that may overlap may not.
struct cuda_context {
  using space = device_space;
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t bytes = 0;
  /// At most so many thread blocks a launch; 0: as many as there is work. Results are the same
  /// bits.
  unsigned blocks = 0;
  /// A kernel may be started while the one before it works, and waits there (cuda/launch.cuh).
  bool overlap = true;
};

/// A call of the CUDA runtime that failed.
class cuda_error : public error {
 public:
  cuda_error(char const* text, cudaError_t code) noexcept : error(text), code_(code) {}
  [[nodiscard]] cudaError_t code() const noexcept { return code_; }

 private:
  cudaError_t code_;
};

namespace cuda {

inline constexpr std::size_t workspace_alignment = 16;
/// Tickets, for all of a pass and for each of its groups (cuda/plan.hpp), and room up to an address
/// divisible by 16.
inline constexpr std::size_t workspace_header = 528;

/// Raises cuda_error unless `code` is success. It is not left as the runtime's last error, which
/// whoever asks next would take for that of a call of theirs.
inline void check(char const* call, cudaError_t code) {
  if (code == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  detail::text message;
  message << "cuda_context: " << call << " (expected " << cudaGetErrorName(cudaSuccess) << ", got "
          << cudaGetErrorName(code) << ": " << cudaGetErrorString(code) << ")";
  cuda_error const e(message.c_str(), code);
#if defined(ADDLOSS_ERROR_HANDLER) || !defined(__cpp_exceptions)
  detail::raise(e);
#else
  throw e;  // as its own type
#endif
}

}  // namespace cuda

/// Enqueues the zeroing of the workspace's header: once, after it was allocated.
inline void zero_workspace(cuda_context const& ctx) {
  cuda::check(
      "zero_workspace",
      cudaMemsetAsync(ctx.workspace, 0,
                      ctx.bytes < cuda::workspace_header ? ctx.bytes : cuda::workspace_header,
                      ctx.stream));
}

}  // namespace addloss
