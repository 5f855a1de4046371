// SPDX-License-Identifier: MIT
/// CUDA's half types: pointers to __half and __nv_bfloat16 as tensors of half and bfloat16, which
/// have their bits.
///
///   __half* images = ...;  // memory of the GPU
///   auto student = view<device_space>(images, B, C, H, W);
///   student.strides[0] = stride;  // in elements, where there are gaps between samples
/// Raw pointers need no adapter: their space is named, and not checked, as CUDA would take longer
/// to look a pointer up than a call takes. A loss that names its type names it in full,
/// `generator<addloss::half>(...)`: without its namespace `half` may be CUDA's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <addloss/core/scalar.hpp>

namespace addloss {

template <>
struct stored_scalar<__half> {
  using type = half;
};
template <>
struct stored_scalar<__nv_bfloat16> {
  using type = bfloat16;
};

}  // namespace addloss
