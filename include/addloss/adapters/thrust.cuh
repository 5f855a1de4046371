// SPDX-License-Identifier: MIT
/// Vectors and pointers of Thrust as tensors, where they lie.
///
///   thrust::device_vector<__half> images(B * C * H * W);
///   thrust::device_vector<float> loss(1);
///   value_and_grad(ctx, ..., view(loss.data()), view(gradient.data(), B, C, H, W));
/// device_vector: rank 1 in device_space; host_vector: rank 1 in host_space. Elements are const
/// where the vector is, which must be a variable. For a higher rank write
/// `view(images.data(), B, C, H, W)`: a device_ptr names its space itself. CUDA's half types: as in
/// adapters/cuda.cuh.
/// Memory that host and GPU share (universal_vector) is of the space that the call needs:
/// `view<device_space>(thrust::raw_pointer_cast(v.data()), B, C, H, W)`.
#pragma once

#include <thrust/device_ptr.h>
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>

#include <concepts>

#include <addloss/adapters/cuda.cuh>
#include <addloss/core/tensor_traits.hpp>

namespace addloss {

/// A dense row-major view of the GPU's memory.
template <class T, std::integral... Extents>
auto view(thrust::device_ptr<T> data, Extents... extents) {
  return view<device_space>(data.get(), extents...);
}

template <class T, class Allocator>
struct tensor_traits<thrust::device_vector<T, Allocator>> {
  static auto view(thrust::device_vector<T, Allocator>& tensor) {
    return addloss::view<device_space>(thrust::raw_pointer_cast(tensor.data()), tensor.size());
  }
  static auto view(thrust::device_vector<T, Allocator> const& tensor) {
    return addloss::view<device_space>(thrust::raw_pointer_cast(tensor.data()), tensor.size());
  }
};

template <class T, class Allocator>
struct tensor_traits<thrust::host_vector<T, Allocator>> {
  static auto view(thrust::host_vector<T, Allocator>& tensor) {
    return addloss::view(thrust::raw_pointer_cast(tensor.data()), tensor.size());
  }
  static auto view(thrust::host_vector<T, Allocator> const& tensor) {
    return addloss::view(thrust::raw_pointer_cast(tensor.data()), tensor.size());
  }
};

}  // namespace addloss
