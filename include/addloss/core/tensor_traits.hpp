// SPDX-License-Identifier: MIT
/// The customisation point through which any tensor type becomes a `tensor_view`.
///
/// Specialise `tensor_traits<Tensor>` with `static auto view(Tensor&)` (or `Tensor const&`, giving
/// a view of const elements) and every function of the library takes that tensor. The primary is
/// disabled. Adapters (adapters/) are such specialisations and nothing else.
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include <addloss/core/tensor_view.hpp>

namespace addloss {

/// Specialise for a tensor type, without const or reference.
template <class Tensor>
struct tensor_traits;

template <class T, int Rank, class Space>
struct tensor_traits<tensor_view<T, Rank, Space>> {
  static constexpr tensor_view<T, Rank, Space> view(tensor_view<T, Rank, Space> const& tensor) {
    return tensor;
  }
};

/// A scalar variable is a tensor of rank 0 on the host: where a loss is written to.
template <arithmetic_scalar T>
struct tensor_traits<T> {
  static constexpr tensor_view<T, 0> view(T& scalar) { return {&scalar, {}, {}}; }
  static constexpr tensor_view<T const, 0> view(T const& scalar) { return {&scalar, {}, {}}; }
};

namespace detail {
template <class View>
inline constexpr bool is_tensor_view = false;
template <class T, int Rank, class Space>
inline constexpr bool is_tensor_view<tensor_view<T, Rank, Space>> = true;
}  // namespace detail

/// `Tensor` (a forwarding reference type) can be viewed. An owning temporary cannot: its memory
/// would be gone before it is read; views may be temporaries.
template <class Tensor>
concept tensor_like =
    requires(std::remove_reference_t<Tensor>& tensor) {
      tensor_traits<std::remove_cvref_t<Tensor>>::view(tensor);
    } &&
    detail::is_tensor_view<decltype(tensor_traits<std::remove_cvref_t<Tensor>>::view(
        std::declval<std::remove_reference_t<Tensor>&>()))> &&
    (std::is_lvalue_reference_v<Tensor> || detail::is_tensor_view<std::remove_cvref_t<Tensor>>);

/// The view of a tensor.
template <tensor_like Tensor>
constexpr auto as_view(Tensor&& tensor) {
  return tensor_traits<std::remove_cvref_t<Tensor>>::view(tensor);
}

template <tensor_like Tensor>
using view_of = decltype(as_view(std::declval<Tensor>()));

/// A tensor in `Space` with elements of type `T` (exactly; `T const` can also be read from `T`).
template <class Tensor, class T, class Space>
concept tensor_in = tensor_like<Tensor> && std::same_as<typename view_of<Tensor>::space, Space> &&
                    (std::same_as<typename view_of<Tensor>::element_type, T> ||
                     std::same_as<typename view_of<Tensor>::element_type const, T>);

}  // namespace addloss
