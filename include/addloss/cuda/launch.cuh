// SPDX-License-Identifier: MIT
/// Launches kernels on a context's stream, so that the next one starts while this one works.
///
/// From sm_90 on a kernel need not wait for the end of the one before it to be started
/// ("programmatic dependent launch"): it is there when the other ends, has read its arguments and
/// found its task, and waits by itself. Nothing else overlaps: kernels of others, before and after
/// ours, see the stream's order as ever.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include <addloss/core/math.hpp>
#include <addloss/cuda/context.cuh>

namespace addloss::cuda {

/// Every kernel calls this before it touches memory that an earlier one may write or read. From
/// sm_90 on it returns when those before it on the stream have ended and what they wrote can be
/// read; then the next one may start, and waits here in turn.
__device__ inline void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Whether `Kernel` may be started early on the current device. It must wait by itself there, which
/// is no matter of the device alone: code for an older one may run on it. And graphs take such
/// launches from CUDA 12.3 on.
template <auto Kernel>
bool can_overlap() {
  constexpr int devices = 64;
  static std::atomic<signed char> known[devices];  // 0: not asked yet; 1: yes; -1: no
  int device = 0;
  check("cudaGetDevice", cudaGetDevice(&device));
  if (device >= devices) return false;
  signed char answer = known[device].load(std::memory_order_relaxed);
  if (answer == 0) {
    cudaFuncAttributes attributes;
    check("cudaFuncGetAttributes", cudaFuncGetAttributes(&attributes, Kernel));
    int driver = 0;
    check("cudaDriverGetVersion", cudaDriverGetVersion(&driver));
    answer = attributes.ptxVersion >= 90 && driver >= 12030 ? 1 : -1;
    known[device].store(answer, std::memory_order_relaxed);
  }
  return answer > 0;
}

/// Enqueues `Kernel` on the context's stream: a block for each task, but at most `ctx.blocks`.
template <auto Kernel, class... Arguments>
void launch_kernel(cuda_context const& ctx, std::int64_t tasks, int threads,
                   Arguments const&... arguments) {
  constexpr std::int64_t most = 0x7fffffff;
  std::int64_t const limit = ctx.blocks == 0 ? most : addloss::detail::at_most(ctx.blocks, most);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(addloss::detail::at_most(tasks, limit)));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = ctx.stream;
  config.attrs = &early;
  config.numAttrs = ctx.overlap && can_overlap<Kernel>() ? 1 : 0;
  // Its status is this launch's own: cudaGetLastError would report and clear other calls' errors.
  check("launch", cudaLaunchKernelEx(&config, Kernel, arguments...));
}

}  // namespace addloss::cuda
