// SPDX-License-Identifier: MIT
/// What LibTorch has here where it is built for CUDA, as far as it is used.
#pragma once

#include <ATen/Context.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

namespace at::cuda {

/// Where LibTorch may take TF32, a handle is in a math mode that cublas_product<> refuses.
inline void* getCurrentCUDABlasHandle() {
  TORCH_CHECK(NoTF32Guard::should_disable_tf32() || !at::globalContext().allowTF32CuBLAS(),
              "a handle in the math mode of TF32");
  return nullptr;
}

}  // namespace at::cuda
