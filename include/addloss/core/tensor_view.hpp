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
#include <addloss/core/error.hpp>
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
  static constexpr unsigned stored_axes = Rank == 0 ? 1 : Rank;  // no arrays of length 0 in C++

  T* data = nullptr;
  std::int64_t extents[stored_axes] = {};
  std::int64_t strides[stored_axes] = {};

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

namespace detail {

/// "[8,4,64,64]"
inline text bracketed(std::int64_t const* numbers, int count) {
  text out;
  out << "[";
  for (int i = 0; i < count; ++i) out << (i > 0 ? "," : "") << numbers[i];
  out << "]";
  return out;
}

/// Product of extents, or -1 where it does not fit 63 bits or an extent is negative. With an extent
/// of 0 it is 0, whatever the others are.
constexpr std::int64_t checked_product(std::int64_t const* extents, int count) {
  std::int64_t product = 1;
  bool fits = true;
  bool empty = false;
  for (int i = 0; i < count; ++i) {
    if (extents[i] < 0) return -1;
    empty = empty || extents[i] == 0;
    fits = fits && !__builtin_mul_overflow(product, extents[i], &product);
  }
  if (empty) return 0;
  return fits ? product : -1;
}

/// Refuses extents that no tensor has.
constexpr void check_extents(char const* function, argument_name argument,
                             std::int64_t const* extents, int rank) {
  if (checked_product(extents, rank) < 0) {
    fail(function, argument, "extents >= 0 whose product fits 63 bits", bracketed(extents, rank));
  }
}

/// The axis that is contiguous in a dense tensor: the last, or the first.
enum class storage_order { row_major, column_major };

/// Writes the strides of a dense tensor of checked extents.
constexpr void write_dense_strides(std::int64_t const* extents, int rank, std::int64_t* strides,
                                   storage_order order = storage_order::row_major) {
  std::int64_t stride = 1;
  for (int i = 0; i < rank; ++i) {
    int const axis = order == storage_order::row_major ? rank - 1 - i : i;
    strides[axis] = stride;
    // Too large only beside an extent of 0, where no element is to be reached.
    if (__builtin_mul_overflow(stride, extents[axis], &stride)) stride = 0;
  }
}

}  // namespace detail

/// A dense row-major view: the last extent is contiguous. `view(pointer, 8, 4, 64, 64)`
/// Half types of other libraries whose adapter is included become those of this one.
/// An extent of 0 makes an empty tensor.
/// Errors: a negative extent; extents whose product does not fit 63 bits.
template <class Space = host_space, class T, std::integral... Extents>
constexpr tensor_view<stored_t<T>, static_cast<int>(sizeof...(Extents)), Space> view(
    T* data, Extents... extents) {
  constexpr int rank = static_cast<int>(sizeof...(Extents));
  tensor_view<stored_t<T>, rank, Space> result;
  result.data = detail::stored_pointer(data);
  int axis = 0;
  ((result.extents[axis++] = static_cast<std::int64_t>(extents)), ...);
  detail::check_extents("view", "extents", result.extents, rank);
  detail::write_dense_strides(result.extents, rank, result.strides);
  return result;
}

}  // namespace addloss
