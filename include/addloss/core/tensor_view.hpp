// SPDX-License-Identifier: MIT
/// A view of somebody else's tensor: pointer, extents and strides, with the memory space in its
/// type. Trivially copyable; owns nothing.
///
/// Strides count elements, not bytes, and may be any 64-bit value. A view of device memory cannot
/// be passed where host memory is read, nor the other way round: that does not compile.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/config.hpp>
#include <addloss/core/scalar.hpp>

namespace addloss {

struct host_space {};    ///< memory that the CPU reads
struct device_space {};  ///< memory that a GPU reads

/// `T const` for what is read, `T` for what is written.
template <class T, int Rank, class Space = host_space>
  requires(Rank >= 0 && Rank <= 8)
struct tensor_view {
  using element_type = T;
  using value_type = std::remove_const_t<T>;
  using space = Space;
  static constexpr int rank = Rank;
  static constexpr unsigned slots = Rank == 0 ? 1 : Rank;  // no arrays of length 0 in C++

  T* data = nullptr;
  std::int64_t extents[slots] = {};
  std::int64_t strides[slots] = {};

  /// A view to write through can be read through. (A template, as nvcc warns of a conversion of
  /// `T const` to itself even where it is constrained away.)
  template <class U>
    requires(std::same_as<U, T const> && !std::same_as<U, T>)
  constexpr operator tensor_view<U, Rank, Space>() const {  // NOLINT(*-explicit-*)
    tensor_view<U, Rank, Space> result;
    result.data = data;
    for (int axis = 0; axis < Rank; ++axis) {
      result.extents[axis] = extents[axis];
      result.strides[axis] = strides[axis];
    }
    return result;
  }
};

/// A dense row-major view: the last extent is contiguous. `view(pointer, 8, 4, 64, 64)`
/// Half types of other libraries whose adapter is included become those of this one.
template <class Space = host_space, class T, std::integral... Extents>
constexpr tensor_view<stored_t<T>, static_cast<int>(sizeof...(Extents)), Space> view(
    T* data, Extents... extents) {
  constexpr int rank = static_cast<int>(sizeof...(Extents));
  tensor_view<stored_t<T>, rank, Space> result;
  result.data = detail::stored_pointer(data);
  int axis = 0;
  ((result.extents[axis++] = static_cast<std::int64_t>(extents)), ...);
  std::int64_t stride = 1;
  for (axis = rank - 1; axis >= 0; --axis) {
    result.strides[axis] = stride;
    stride *= result.extents[axis];
  }
  return result;
}

}  // namespace addloss
