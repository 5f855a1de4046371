// SPDX-License-Identifier: MIT
/// Logits or features of K heads, for the tests of losses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <addloss/core/rows.hpp>
#include <addloss/core/tensor_view.hpp>

#include "storage_types.hpp"

namespace head_tests {

using namespace addloss;

/// [B, L_k] of each head k, or with `Rank` 3 [B, k + 1, L_k], with `gap` elements between samples
/// that nobody may touch.
template <class T, int Rank = 2>
struct head_tensors {
  std::size_t batch;
  std::vector<std::size_t> sizes{};  ///< of a sample
  std::size_t gap;
  std::vector<std::vector<T>> memory{};
  std::vector<rows<T const>> read{};
  std::vector<rows<T>> write{};

  head_tensors(std::size_t samples, std::vector<std::size_t> const& lengths, std::size_t space = 0)
      : batch(samples), gap(space) {
    for (std::size_t const length : lengths) {
      std::size_t const channels = Rank == 3 ? sizes.size() + 1 : 1;
      sizes.push_back(channels * length);
      memory.emplace_back(batch * (sizes.back() + gap), stored_as<T>(guard));
      if constexpr (Rank == 3) {
        add_head(view(memory.back().data(), batch, channels, length));
      } else {
        add_head(view(memory.back().data(), batch, length));
      }
    }
  }
  head_tensors(head_tensors&&) = default;  // a copy would be views of the original

  T& at(std::size_t k, std::size_t b, std::size_t i) { return memory[k][b * (sizes[k] + gap) + i]; }

  /// visit(k, b, i) for element i of sample b of head k.
  void each_index(auto const& visit) const {
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t i = 0; i < sizes[k]; ++i) visit(k, b, i);
      }
    }
  }
  void each(auto const& visit) {
    each_index([&](std::size_t k, std::size_t b, std::size_t i) { visit(at(k, b, i)); });
  }
  void fill(unsigned seed, double spread = 1.5) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, spread);
    each([&](T& x) { x = stored_as<T>(normal(random)); });
  }
  [[nodiscard]] bool gaps_untouched() const {
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      std::size_t const stride = sizes[k] + gap;
      for (std::size_t i = 0; i < memory[k].size(); ++i) {
        if (i % stride >= sizes[k] && as_double(memory[k][i]) != guard) return false;
      }
    }
    return true;
  }

 private:
  void add_head(tensor_view<T, Rank> place) {
    place.strides[0] = static_cast<std::int64_t>(sizes.back() + gap);
    write.emplace_back(place);
    read.emplace_back(place);
  }
};

}  // namespace head_tests
