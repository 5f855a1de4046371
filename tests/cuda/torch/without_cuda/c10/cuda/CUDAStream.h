// SPDX-License-Identifier: MIT
/// What LibTorch has here where it is built for CUDA, as far as it is used: the stream of tensors in
/// without_cuda/tensors.cpp.
#pragma once

#include <c10/core/Device.h>
#include <cuda_runtime_api.h>

namespace c10::cuda {

struct CUDAStream {
  [[nodiscard]] cudaStream_t stream() const { return nullptr; }
};
inline CUDAStream getCurrentCUDAStream(DeviceIndex /*device*/ = -1) { return {}; }

}  // namespace c10::cuda
