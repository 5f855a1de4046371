// SPDX-License-Identifier: MIT
/// The logits of K heads and their gradients in the memory of a GPU, for the benchmarks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"

namespace bench {

/// Of one side, real or fake: [batch, tokens] each.
template <class T>
struct device_side {
  device_side(std::int64_t heads, std::int64_t batch, std::int64_t tokens, std::int64_t start) {
    for (std::int64_t k = 0; k < heads; ++k) {
      memory.push_back(std::make_unique<device_numbers<T>>(batch * tokens, 0, start + k));
      logit_rows.emplace_back(add::view<add::device_space>(memory.back()->data(), batch, tokens));
      memory.push_back(std::make_unique<device_numbers<T>>(batch * tokens));
      gradient_rows.emplace_back(
          add::view<add::device_space>(memory.back()->data(), batch, tokens));
    }
  }
  std::vector<std::unique_ptr<device_numbers<T>>> memory;
  std::vector<add::rows<T const, add::device_space>> logit_rows;
  std::vector<add::rows<T, add::device_space>> gradient_rows;
};

/// Both sides, or what else a loss takes pairs of.
template <class T>
struct device_pairs {
  device_pairs(std::int64_t heads, std::int64_t batch, std::int64_t tokens)
      : first(heads, batch, tokens, 0), second(heads, batch, tokens, 1) {}
  device_side<T> first, second;
};

/// A benchmark with arguments heads, B, tokens, calls in a graph.
template <class T>
struct device_logits {
  /// `sides`: of these a call reads the logits and writes the gradients.
  device_logits(benchmark::State const& state, int sides)
      : heads(static_cast<std::size_t>(state.range(0))) {
    what.graph = state.range(3);
    what.elements = sides * state.range(0) * state.range(1) * state.range(2);
    what.bytes = 2 * what.elements * static_cast<std::int64_t>(sizeof(T));
    what.sets = sets_of(what.bytes);
    for (std::int64_t i = 0; i < what.sets; ++i) {
      sets.push_back(
          std::make_unique<device_pairs<T>>(state.range(0), state.range(1), state.range(2)));
    }
  }
  [[nodiscard]] device_pairs<T> const& set(std::int64_t i) const {
    return *sets[static_cast<std::size_t>(i)];
  }

  std::size_t heads;
  device_calls what;
  std::vector<std::unique_ptr<device_pairs<T>>> sets;
};

inline void logit_settings(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"heads", "", "", "graph"});
  settings(benchmark);
}
/// What StyleGAN-T's heads see of a ViT: 16 x 16 patches and a class token.
inline void tokens(benchmark::internal::Benchmark* benchmark) {
  for (int const graph : {0, 1, 20}) benchmark->Args({5, 8, 257, graph});
  logit_settings(benchmark);
}
/// 64 MiB or more a head of either side.
inline void many_tokens(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({5, 512, 256 * 256, 0});
  logit_settings(benchmark);
}

}  // namespace bench
