// SPDX-License-Identifier: MIT
/// A GPU that works on the memory of the host: the tests written for the CPU then run on it as they
/// are. That memory is managed memory of CUDA, which both read: tests/cuda/unified_main.cpp takes
/// the heap and the stack of the tests from it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include <addloss/core/context.hpp>
#include <addloss/cuda.cuh>

#include "cuda/inside_cuda.hpp"

/// Waits after each pass, as the CPU's calls return when their work is done.
struct unified_context {
  using space = addloss::host_space;
};

/// A workspace that all passes share.
inline addloss::cuda_context unified_workspace() {
  static addloss::cuda_context const result = [] {
    cuda_scope const scope;
    addloss::cuda_context context;
    context.bytes = std::size_t{1} << 22;
    addloss::cuda::check("cudaMalloc", cudaMalloc(&context.workspace, context.bytes));
    addloss::zero_workspace(context);
    return context;
  }();
  return result;
}

template <>
struct addloss::executor<unified_context> {
  template <fused_pass Pass>
  static void check(unified_context const& /*context*/, Pass const& pass) {
    executor<cuda_context>::check(unified_workspace(), pass);
  }
  template <fused_pass Pass>
  static void run(unified_context const& /*context*/, Pass const& pass) {
    cuda_scope const scope;
    executor<cuda_context>::run(unified_workspace(), pass);
    cuda::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  }
};
