// SPDX-License-Identifier: MIT
/// std::span, std::vector and std::array as tensors of rank 1 in host memory.
///
///   std::vector<float> losses(8);
///   value<per_sample>(ctx, loss, losses);
/// Elements are const where the container is, or for a span where its element type is. A container
/// must be a variable: a temporary vector or array would be gone before it is read, and does not
/// satisfy `tensor_like`. A span must be a variable as well, although it owns nothing: only
/// tensor_view itself may be a temporary. For a tensor of higher rank over the same memory write
/// `view(losses.data(), 2, 4)`.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

#include <addloss/core/tensor_traits.hpp>

namespace addloss {

template <class T, std::size_t Extent>
struct tensor_traits<std::span<T, Extent>> {
  static constexpr tensor_view<stored_t<T>, 1> view(std::span<T, Extent> const& tensor) {
    return addloss::view(tensor.data(), tensor.size());
  }
};

/// std::vector<bool> stores no elements that can be pointed to.
template <class T, class Allocator>
  requires(!std::same_as<T, bool>)
struct tensor_traits<std::vector<T, Allocator>> {
  static constexpr tensor_view<stored_t<T>, 1> view(std::vector<T, Allocator>& tensor) {
    return addloss::view(tensor.data(), tensor.size());
  }
  static constexpr tensor_view<stored_t<T const>, 1> view(std::vector<T, Allocator> const& tensor) {
    return addloss::view(tensor.data(), tensor.size());
  }
};

template <class T, std::size_t Size>
struct tensor_traits<std::array<T, Size>> {
  static constexpr tensor_view<stored_t<T>, 1> view(std::array<T, Size>& tensor) {
    return addloss::view(tensor.data(), tensor.size());
  }
  static constexpr tensor_view<stored_t<T const>, 1> view(std::array<T, Size> const& tensor) {
    return addloss::view(tensor.data(), tensor.size());
  }
};

}  // namespace addloss
