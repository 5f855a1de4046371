// SPDX-License-Identifier: MIT
/// std::mdspan, and types with its members (Kokkos', CUDA's), as tensors where they lie.
///
///   std::mdspan<float, std::dextents<int, 4>> const student(data, B, C, H, W);
///   value_and_grad(ctx, distillation{}(schedule, student, target, timesteps), loss, gradient);
///   auto const on_gpu = view<device_space>(images);  // whatever `images` says of its memory
/// Shape, strides: those of the mdspan, whose layout must always have strides (right, left,
/// stride). Elements are const where its element type is: a const mdspan can be written through.
/// One whose accessor gives anything but the element itself is refused.
/// A batch [B, ...] must be of layout_right, or have samples without gaps.
/// Space: an mdspan does not know whose memory it views. With std::default_accessor it is taken for
/// the CPU's, as a pointer is; any other accessor may stand for a GPU's, and is not taken as it is.
/// Either name the space, `view<Space>(m)`, or say once what such an accessor means:
///   template <class T>
///   struct addloss::mdspan_space<my_gpu_accessor<T>> { using type = addloss::device_space; };
/// An mdspan must be a variable, although it owns nothing, but for view<Space>: only tensor_view
/// itself may be a temporary.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <version>

#if defined(__cpp_lib_mdspan)  // C++23
#include <mdspan>
#endif

#include <addloss/core/tensor_traits.hpp>

namespace addloss {

/// The space of an mdspan with this accessor, `type`. Without it, the space is named at each use.
template <class Accessor>
struct mdspan_space {};

#if defined(__cpp_lib_mdspan)
template <class T>
struct mdspan_space<std::default_accessor<T>> {
  using type = host_space;
};
#endif

/// What has the members of std::mdspan, memory behind a pointer, strides, and a rank of at most 8.
template <class M>
concept mdspan_like = requires(M const span, typename M::rank_type axis) {
  typename M::accessor_type;
  requires std::same_as<typename M::data_handle_type, typename M::element_type*>;
  requires std::same_as<typename M::reference, typename M::element_type&>;
  requires M::is_always_strided();
  requires(M::rank() <= 8);
  { span.data_handle() } -> std::convertible_to<typename M::element_type*>;
  { span.extent(axis) } -> std::convertible_to<std::int64_t>;
  { span.stride(axis) } -> std::convertible_to<std::int64_t>;
};

/// A view of an mdspan's memory in the space that is named.
template <class Space, mdspan_like Span>
constexpr auto view(Span const& span) {
  constexpr int rank = static_cast<int>(Span::rank());
  tensor_view<stored_t<typename Span::element_type>, rank, Space> result;
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

template <mdspan_like Span>
  requires requires { typename mdspan_space<typename Span::accessor_type>::type; }
struct tensor_traits<Span> {
  static constexpr auto view(Span const& span) {
    return addloss::view<typename mdspan_space<typename Span::accessor_type>::type>(span);
  }
};

}  // namespace addloss
