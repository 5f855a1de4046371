// SPDX-License-Identifier: MIT
/// Tensors of LibTorch (at::Tensor, torch::Tensor), where they lie.
///
///   auto const student = from_torch<float const, 4>(images, "student");
///   rows<float const> const features = rows_from_torch<float const>(maps[k], "features");
/// An at::Tensor knows type, rank and device only when the program runs; both functions check them:
/// | type   | that of `T`; at::Half and at::BFloat16 are half and bfloat16                        |
/// | device | host_space: CPU; device_space: CUDA                                                 |
/// | shape  | `Rank` extents; for rows, 1 to 8, of which the first is the batch                   |
/// | layout | strided, with memory; neither a conjugate nor a negative that is yet to be computed |
/// Strides are the tensor's: channels_last goes where samples without gaps go. `name` stands for
/// the tensor in errors. The tensor must be a variable and outlive the view. What is written
/// through a view, autograd does not see: for losses that it differentiates see torch/losses.hpp.
/// In units that nvcc compiles, use pointers: it cannot read LibTorch's headers.
/// Errors: whatever fails a check; an undefined tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/tensor_view.hpp>

namespace addloss {

template <>
struct stored_scalar<at::Half> {
  using type = half;
};
template <>
struct stored_scalar<at::BFloat16> {
  using type = bfloat16;
};

namespace detail {

template <class T>
consteval at::ScalarType torch_type() {
  if constexpr (std::same_as<T, half>) {
    return at::kHalf;
  } else if constexpr (std::same_as<T, bfloat16>) {
    return at::kBFloat16;
  } else {
    return c10::CppTypeToScalarType<T>::value;
  }
}

/// Checks all but the rank.
template <class T, class Space>
void check_torch_tensor(char const* function, char const* name, at::Tensor const& tensor) {
  if (!tensor.defined()) fail(function, name, "a tensor", "an undefined one");
  bool constexpr host = std::same_as<Space, host_space>;
  if (tensor.device().type() != (host ? at::kCPU : at::kCUDA)) {
    fail(function, name, host ? "a tensor on the CPU" : "a tensor on a CUDA GPU",
         text() << "one on " << tensor.device().str().c_str());
  }
  auto constexpr type = torch_type<std::remove_const_t<T>>();
  if (tensor.scalar_type() != type) {
    fail(function, name, c10::toString(type), c10::toString(tensor.scalar_type()));
  }
  if (tensor.layout() != at::kStrided || tensor.is_conj() || tensor.is_neg()) {
    fail(function, name, "a tensor whose memory holds its elements",
         tensor.layout() != at::kStrided ? "a sparse one" : "a lazy conjugate or negative");
  }
}

}  // namespace detail

template <class T, int Rank, class Space = host_space>
tensor_view<T, Rank, Space> from_torch(at::Tensor const& tensor, char const* name = "tensor") {
  detail::check_torch_tensor<T, Space>("from_torch", name, tensor);
  if (tensor.dim() != Rank) {
    detail::fail("from_torch", name, detail::text() << "rank " << Rank,
                 detail::text() << "rank " << tensor.dim());
  }
  tensor_view<T, Rank, Space> result;
  result.data = static_cast<T*>(tensor.data_ptr());
  for (int axis = 0; axis < Rank; ++axis) {
    result.extents[axis] = tensor.size(axis);
    result.strides[axis] = tensor.stride(axis);
  }
  return result;
}
/// A temporary may be gone before it is read.
template <class T, int Rank, class Space = host_space>
tensor_view<T, Rank, Space> from_torch(at::Tensor const&& tensor, char const* name = "") = delete;

/// A batch of any rank.
template <class T, class Space = host_space>
rows<T, Space> rows_from_torch(at::Tensor const& tensor, char const* name = "tensor") {
  detail::check_torch_tensor<T, Space>("rows_from_torch", name, tensor);
  if (tensor.dim() < 1 || tensor.dim() > detail::max_rank) {
    detail::fail("rows_from_torch", name, detail::text() << "rank 1 to " << detail::max_rank,
                 detail::text() << "rank " << tensor.dim());
  }
  rows<T, Space> result;
  result.data = static_cast<T*>(tensor.data_ptr());
  result.shape.rank = static_cast<int>(tensor.dim());
  for (int axis = 0; axis < result.shape.rank; ++axis) {
    result.shape.extents[axis] = tensor.size(axis);
    result.shape.strides[axis] = tensor.stride(axis);
  }
  result.count = tensor.size(0);
  result.row_size = detail::checked_product(result.shape.extents + 1, result.shape.rank - 1);
  result.row_stride = tensor.stride(0);
  return result;
}
template <class T, class Space = host_space>
rows<T, Space> rows_from_torch(at::Tensor const&& tensor, char const* name = "") = delete;

}  // namespace addloss
