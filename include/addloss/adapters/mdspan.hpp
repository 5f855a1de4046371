// SPDX-License-Identifier: MIT
/// std::mdspan, and types with its members (Kokkos'), as tensors in host memory, where they lie.
///
///   std::mdspan<float, std::dextents<int, 4>> const student(data, B, C, H, W);
///   value_and_grad(ctx, distillation{}(schedule, student, target, timesteps), loss, gradient);
/// Shape, strides: those of the mdspan, whose layout must always have strides (right, left, stride).
/// Elements are const where its element type is: a const mdspan can be written through. One whose
/// accessor gives anything but the element itself is refused.
/// A batch [B, ...] must be of layout_right, or have samples without gaps.
/// An mdspan must be a variable, although it owns nothing: only tensor_view itself may be a
/// temporary. The memory is taken for the CPU's; for a GPU's write
/// `view<device_space>(m.data_handle(), B, C, H, W)`.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <addloss/core/tensor_traits.hpp>

namespace addloss {

/// What has the members of std::mdspan, memory behind a pointer, strides, and a rank of at most 8.
template <class M>
concept mdspan_like = requires(M const span, typename M::rank_type axis) {
  requires std::same_as<typename M::data_handle_type, typename M::element_type*>;
  requires std::same_as<typename M::reference, typename M::element_type&>;
  requires M::is_always_strided();
  requires(M::rank() <= 8);
  { span.data_handle() } -> std::convertible_to<typename M::element_type*>;
  { span.extent(axis) } -> std::convertible_to<std::int64_t>;
  { span.stride(axis) } -> std::convertible_to<std::int64_t>;
};

template <mdspan_like Span>
struct tensor_traits<Span> {
  static constexpr auto view(Span const& span) {
    constexpr int rank = static_cast<int>(Span::rank());
    tensor_view<stored_t<typename Span::element_type>, rank> result;
    result.data = detail::stored_pointer(span.data_handle());
    if constexpr (rank > 0) {  // without axes, stride() does not compile
      for (int axis = 0; axis < rank; ++axis) {
        auto const r = static_cast<typename Span::rank_type>(axis);
        result.extents[axis] = static_cast<std::int64_t>(span.extent(r));
        result.strides[axis] = static_cast<std::int64_t>(span.stride(r));
      }
    }
    return result;
  }
};

}  // namespace addloss
