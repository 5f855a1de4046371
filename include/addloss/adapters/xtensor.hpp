// SPDX-License-Identifier: MIT
/// xtensor's tensors, arrays, views and adaptors as tensors in host memory, where they lie.
///
///   xt::xtensor<float, 4> student({B, C, H, W});
///   value_and_grad(ctx, distillation{}(schedule, student, target, timesteps), loss, gradient);
///   xt::xarray<float> images({B, C, H, W});
///   auto const student = from_xtensor<4>(images);
/// xtensor, xtensor_fixed, xtensor_adaptor and views of them have their rank in their type. That of
/// an xarray, its adaptors and every strided_view is known only when the program runs:
/// `from_xtensor` checks it and gives the view. Shape and strides are those of the expression;
/// elements are const where the variable is, or adapts const memory. What has no memory or no
/// strides of its own (a + b, broadcast, views by xt::keep or xt::drop) is refused.
///
/// A batch [B, ...] must be row-major, xtensor's default, as each sample must lie without gaps; a
/// column-major one is refused by the losses: "(expected axes 1.. without gaps, ...)".
/// Everything must be a variable, views and adaptors as well: only tensor_view itself may be a
/// temporary. Works with xtensor 0.24 and, where its headers have moved, from 0.26 on.
/// Errors: from_xtensor: another rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#if __has_include(<xtensor/core/xexpression.hpp>)  // 0.26
#include <xtensor/core/xexpression.hpp>
#else
#include <xtensor/xexpression.hpp>
#endif

#include <addloss/core/error.hpp>
#include <addloss/core/tensor_traits.hpp>

namespace addloss {

/// An expression of xtensor that has a pointer to its memory, and strides.
template <class T>
concept xtensor_strided = xt::is_xexpression<T>::value && requires(T const& expression) {
  requires std::is_pointer_v<decltype(expression.data())>;
  expression.data_offset();
  expression.strides();
};

/// One whose rank is known at compile time.
template <class T>
concept xtensor_ranked =
    xtensor_strided<T> && (std::tuple_size<typename T::shape_type>::value <= 8);

namespace detail {

template <int Rank, class Expression>
auto view_of_xtensor(Expression& tensor) {
  auto* const data =
      stored_pointer(tensor.data() + static_cast<std::ptrdiff_t>(tensor.data_offset()));
  tensor_view<std::remove_pointer_t<decltype(data)>, Rank> result;
  result.data = data;
  for (unsigned axis = 0; axis < static_cast<unsigned>(Rank); ++axis) {
    result.extents[axis] = static_cast<std::int64_t>(tensor.shape()[axis]);
    result.strides[axis] = static_cast<std::int64_t>(tensor.strides()[axis]);
  }
  return result;
}

}  // namespace detail

template <xtensor_ranked Expression>
struct tensor_traits<Expression> {
  static auto view(Expression& tensor) { return detail::view_of_xtensor<rank>(tensor); }
  static auto view(Expression const& tensor) { return detail::view_of_xtensor<rank>(tensor); }

 private:
  static constexpr int rank =
      static_cast<int>(std::tuple_size<typename Expression::shape_type>::value);
};

/// The view of an expression whose rank must be `Rank`.
template <int Rank, class Expression>
  requires(xtensor_strided<std::remove_const_t<Expression>>)
auto from_xtensor(Expression& tensor) {
  if (static_cast<int>(tensor.dimension()) != Rank) {
    detail::fail("from_xtensor", "tensor", detail::text() << "rank " << Rank,
                 detail::text() << "rank " << static_cast<int>(tensor.dimension()));
  }
  return detail::view_of_xtensor<Rank>(tensor);
}
/// A temporary would be gone before it is read.
template <int Rank, class Expression>
auto from_xtensor(Expression const&&) = delete;

}  // namespace addloss
