// SPDX-License-Identifier: MIT
/// Tensors for the tests on a GPU.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

using tensors = std::vector<at::Tensor>;

inline at::Device const gpu(at::kCUDA, 0);

inline at::Tensor numbers(at::IntArrayRef shape, double phase, at::ScalarType type = at::kFloat) {
  std::int64_t size = 1;
  for (std::int64_t const extent : shape) size *= extent;
  return (1.7 * at::sin(0.7 * at::arange(size, at::kDouble) + phase)).view(shape).to(type);
}

/// Copies without a graph.
inline tensors on(at::Device device, tensors const& all) {
  tensors result;
  for (at::Tensor const& tensor : all) result.push_back(tensor.detach().to(device));
  return result;
}
