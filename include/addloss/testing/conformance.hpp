// SPDX-License-Identifier: MIT
/// Tests of an adapter, yours or the library's: of a specialisation of `tensor_traits`.
///
///   static_assert(addloss::testing::adapted<matrix>);
///   matrix m(3, 4);
///   auto const result = addloss::testing::check_view(m, [&](auto i, auto j) { return &m(i, j); });
///   CHECK(result.passed);
///   CHECK(result.elements == 12);
/// The memory itself is neither read nor written, so device tensors can be checked as well.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <addloss/core/tensor_traits.hpp>

namespace addloss::testing {

/// A variable and a const variable of the type can be viewed, with one rank, space and type of
/// element; const gives no more than the variable does. Temporaries are refused, but for views.
template <class Tensor>
concept adapted =
    tensor_like<Tensor&> && tensor_like<Tensor const&> &&
    (!tensor_like<Tensor> || std::same_as<view_of<Tensor&>, Tensor>)&&view_of<Tensor&>::rank ==
        view_of<Tensor const&>::rank &&
    std::same_as<typename view_of<Tensor&>::space, typename view_of<Tensor const&>::space> &&
    std::same_as<typename view_of<Tensor&>::value_type,
                 typename view_of<Tensor const&>::value_type> &&
    (std::is_const_v<typename view_of<Tensor const&>::element_type> ||
     !std::is_const_v<typename view_of<Tensor&>::element_type>);

template <int Rank>
struct view_result {
  std::int64_t elements = 0;  ///< that were compared: the product of the view's extents
  /// Of the first element that the view places elsewhere than the tensor.
  std::int64_t index[Rank == 0 ? 1U : static_cast<unsigned>(Rank)] = {};
  bool passed = true;

  explicit operator bool() const { return passed; }
};

/// Compares where the view of `tensor` places each element with `address(i, j, ...)`, where the
/// tensor itself has it. Extents: see `view_result::elements`.
template <class Tensor, class Address>
  requires(tensor_like<Tensor&>)
auto check_view(Tensor& tensor, Address const& address) {
  constexpr int rank = view_of<Tensor&>::rank;
  auto const view = as_view(tensor);
  view_result<rank> result;
  detail::check_extents("check_view", "extents", view.extents, rank);
  std::int64_t const count = detail::checked_product(view.extents, rank);
  for (; result.elements < count; ++result.elements) {
    std::int64_t rest = result.elements;
    std::int64_t offset = 0;
    for (int axis = rank - 1; axis >= 0; --axis) {
      result.index[axis] = rest % view.extents[axis];
      rest /= view.extents[axis];
      offset += result.index[axis] * view.strides[axis];
    }
    // Of another type where the tensor holds another library's half type.
    void const* const expected = [&]<std::size_t... Axis>(std::index_sequence<Axis...>) {
      return address(result.index[Axis]...);
    }(std::make_index_sequence<static_cast<std::size_t>(rank)>{});
    if (view.data + offset != expected) {
      result.passed = false;
      return result;
    }
  }
  return result;
}

}  // namespace addloss::testing
