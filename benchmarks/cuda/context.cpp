// SPDX-License-Identifier: MIT
// What the programs' output says of the GPU and of CUDA.
#include <cuda_runtime_api.h>

#include <string>

#include <benchmark/benchmark.h>

namespace {

[[maybe_unused]] bool const described = [] {
  cudaDeviceProp gpu{};
  if (cudaGetDeviceProperties(&gpu, 0) != cudaSuccess) return false;
  benchmark::AddCustomContext("gpu", gpu.name);
  benchmark::AddCustomContext("cuda", std::to_string(CUDART_VERSION / 1000) + "." +
                                          std::to_string(CUDART_VERSION % 1000 / 10));
  return true;
}();

}  // namespace
