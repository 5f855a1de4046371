// SPDX-License-Identifier: MIT
/// Eigen::Tensor, TensorFixedSize and TensorMap of rank 0 to 8 as tensors in host memory.
///
///   Eigen::Tensor<float, 4, Eigen::RowMajor> student(B, C, H, W);
///   value_and_grad(ctx, distillation{}(schedule, student, target, timesteps), loss, gradient);
/// Shape: the dimensions. Strides: dense; the last axis is contiguous in a row-major tensor, the
/// first in a column-major one. Elements are const where the variable is, or maps const memory.
///
/// A batch [B, ...] must be row-major, as each sample must lie without gaps. Eigen's default is
/// column-major, which the losses refuse: "(expected axes 1.. without gaps, ...)".
/// Everything must be a variable, TensorMap as well, although it owns nothing: only tensor_view
/// itself may be a temporary. Expressions and TensorRef, which may have no memory, are refused.
/// Half types: as in adapters/eigen.hpp, which is a header of its own, as Eigen counts its tensors
/// among its unsupported modules, and they take a third longer to compile.
/// Errors: a TensorMap of extents that no memory has.
#pragma once

#include <cstdint>

#if __has_include(<unsupported/Eigen/Tensor>)  // Eigen 5
#include <unsupported/Eigen/Tensor>
#else
#include <unsupported/Eigen/CXX11/Tensor>
#endif

#include <addloss/adapters/eigen.hpp>
#include <addloss/core/tensor_traits.hpp>

namespace addloss {

namespace detail {

template <class Tensor>
struct eigen_tensor_traits {
  static auto view(Tensor& tensor) { return view_of_memory(tensor, tensor.data()); }
  static auto view(Tensor const& tensor) {
    // A const TensorMap gives a pointer to write through all the same.
    typename Tensor::Scalar const* const data = tensor.data();
    return view_of_memory(tensor, data);
  }

 private:
  template <class Element>
  static auto view_of_memory(Tensor const& tensor, Element* elements) {
    int constexpr rank = static_cast<int>(Tensor::NumIndices);
    auto constexpr order = static_cast<int>(Tensor::Layout) == Eigen::RowMajor
                               ? storage_order::row_major
                               : storage_order::column_major;
    tensor_view<stored_t<Element>, rank> result;
    result.data = stored_pointer(elements);
    for (int axis = 0; axis < rank; ++axis) {
      result.extents[axis] = tensor.dimensions()[static_cast<unsigned>(axis)];
    }
    check_extents("view", "Eigen::Tensor", result.extents, rank);
    write_dense_strides(result.extents, rank, result.strides, order);
    return result;
  }
};

}  // namespace detail

template <class T, int Rank, int Options, class Index>
  requires(Rank <= 8)
struct tensor_traits<Eigen::Tensor<T, Rank, Options, Index>>
    : detail::eigen_tensor_traits<Eigen::Tensor<T, Rank, Options, Index>> {};

template <class T, class Sizes, int Options, class Index>
  requires(Sizes::count <= 8)
struct tensor_traits<Eigen::TensorFixedSize<T, Sizes, Options, Index>>
    : detail::eigen_tensor_traits<Eigen::TensorFixedSize<T, Sizes, Options, Index>> {};

template <class Tensor, int Options, template <class> class MakePointer>
  requires(Tensor::NumIndices <= 8)
struct tensor_traits<Eigen::TensorMap<Tensor, Options, MakePointer>>
    : detail::eigen_tensor_traits<Eigen::TensorMap<Tensor, Options, MakePointer>> {};

}  // namespace addloss
