// SPDX-License-Identifier: MIT
/// Eigen's matrices, arrays and vectors as tensors in host memory, where they lie.
///
///   Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> student(B, D);
///   value_and_grad(ctx, distillation{}(schedule, student, target, timesteps), loss, gradient);
/// Matrix, Array, Map, Ref, Block, Transpose, Diagonal and every other expression that Eigen gives
/// direct access to: of fixed or dynamic size, row- or column-major, with any strides. Expressions
/// without memory (a + b) are refused.
/// Shape: [size] where a size is 1 at compile time (a vector), else [rows, columns]. Strides are
/// those of the expression. Elements are const where the variable is, or maps const memory.
///
/// A batch [B, D] must be row-major, as each sample must lie without gaps. Eigen's default is
/// column-major, which the losses refuse: "(expected axes 1.. without gaps, ...)". There, store one
/// sample a column, [D, B], and pass the transpose, which copies nothing:
///   auto student = columns.transpose();  // [B, D]
/// Everything must be a variable, Map, Ref and Block as well, although they own nothing: only
/// tensor_view itself may be a temporary. For a higher rank over the same memory write
/// `view(matrix.data(), 2, 3, 4)`; Eigen::Tensor is in adapters/eigen_tensor.hpp.
///
/// Elements of Eigen::half and Eigen::bfloat16 are viewed as addloss::half and addloss::bfloat16,
/// which have their bits; `view` of a pointer to them, too.
#pragma once

#include <Eigen/Core>

#include <addloss/core/tensor_traits.hpp>

namespace addloss {

template <>
struct stored_scalar<Eigen::half> {
  using type = half;
};
template <>
struct stored_scalar<Eigen::bfloat16> {
  using type = bfloat16;
};

namespace detail {

/// Deduces the base class, so that nothing is instantiated for types that are not Eigen's.
template <class Derived>
void is_dense_expression(Eigen::DenseBase<Derived> const*);

}  // namespace detail

/// A dense expression of Eigen that has a pointer to its memory, and strides.
template <class T>
concept eigen_dense = requires(T const* expression) {
  detail::is_dense_expression(expression);
} && (static_cast<unsigned>(T::Flags) & static_cast<unsigned>(Eigen::DirectAccessBit)) != 0;

template <eigen_dense Expression>
struct tensor_traits<Expression> {
  static constexpr auto view(Expression& tensor) { return view_of_memory(tensor, tensor.data()); }
  static constexpr auto view(Expression const& tensor) {
    return view_of_memory(tensor, tensor.data());
  }

 private:
  template <class Element>
  static constexpr auto view_of_memory(Expression const& tensor, Element* elements) {
    using T = stored_t<Element>;
    T* const data = detail::stored_pointer(elements);
    if constexpr (Expression::IsVectorAtCompileTime) {
      return tensor_view<T, 1>{data, {tensor.size()}, {tensor.innerStride()}};
    } else {
      return tensor_view<T, 2>{
          data, {tensor.rows(), tensor.cols()}, {tensor.rowStride(), tensor.colStride()}};
    }
  }
};

}  // namespace addloss
