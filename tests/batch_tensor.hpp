// SPDX-License-Identifier: MIT
/// Images of a small batch, for the tests of noising and distillation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <addloss/core/tensor_view.hpp>

#include "storage_types.hpp"

namespace batch_tests {

using namespace addloss;

inline constexpr std::size_t batch = 3;
inline constexpr std::size_t size = 2 * 35;  ///< no multiple of 64: a group of noise is cut

/// [3, 2, 35], with `gap` elements between samples that nobody may touch.
template <class T>
struct batch_tensor {
  std::size_t gap;
  std::vector<T> memory;

  batch_tensor() : batch_tensor(0) {}
  explicit batch_tensor(std::size_t space)
      : gap(space), memory(batch * (size + gap), stored_as<T>(guard)) {}

  static batch_tensor random(unsigned seed, std::size_t space = 0) {
    batch_tensor result(space);
    std::mt19937 bits(seed);
    std::normal_distribution<double> normal;
    each([&](std::size_t b, std::size_t i) { result.at(b, i) = stored_as<T>(normal(bits)); });
    return result;
  }

  T& at(std::size_t b, std::size_t i) { return memory[b * (size + gap) + i]; }
  /// visit(b, i) for element i of sample b.
  static void each(auto const& visit) {
    for (std::size_t b = 0; b < batch; ++b) {
      for (std::size_t i = 0; i < size; ++i) visit(b, i);
    }
  }
  tensor_view<T, 3> view() {
    auto place = addloss::view(memory.data(), batch, 2, 35);
    place.strides[0] = static_cast<std::int64_t>(size + gap);
    return place;
  }
  bool untouched() {
    bool same = gaps_untouched();
    each([&](std::size_t b, std::size_t i) { same = same && as_double(at(b, i)) == guard; });
    return same;
  }
  bool gaps_untouched() {
    bool same = true;
    for (std::size_t i = 0; i < memory.size(); ++i) {
      if (i % (size + gap) >= size) same = same && as_double(memory[i]) == guard;
    }
    return same;
  }
};

}  // namespace batch_tests
