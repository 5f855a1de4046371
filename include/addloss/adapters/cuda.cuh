// SPDX-License-Identifier: MIT
/// CUDA's half types: pointers to __half and __nv_bfloat16 as tensors of half and bfloat16, which
/// have their bits.
///
///   __half* images = ...;  // memory of the GPU
///   auto const student = view<device_space>(images, B, C, H, W);
/// Raw pointers need no adapter: their space is named, and not checked, as CUDA would take longer to
/// look a pointer up than a call takes. A pointer with gaps between its samples:
///   tensor_view<half const, 2, device_space>{data, {B, D}, {stride, 1}}
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
