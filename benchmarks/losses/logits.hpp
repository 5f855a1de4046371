// SPDX-License-Identifier: MIT
/// The logits of K heads and their gradients, for the benchmarks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <addloss/core/rows.hpp>

#include "limits.hpp"
#include "turns.hpp"

namespace bench {

/// Of one side, real or fake: [batch, tokens] each.
struct side {
  side(std::int64_t heads, std::int64_t batch, std::int64_t tokens, std::int64_t start) {
    for (std::int64_t k = 0; k < heads; ++k) {
      logits.emplace_back(batch * tokens, start + k);
      gradients.emplace_back(batch * tokens);
      logit_rows.emplace_back(addloss::view(logits.back().data(), batch, tokens));
      gradient_rows.emplace_back(addloss::view(gradients.back().data(), batch, tokens));
    }
  }
  void copy(std::int64_t size) {
    for (std::size_t k = 0; k < logits.size(); ++k) {
      limits::copy(gradients[k].data(), logits[k].data(), size);
    }
  }
  void append_gradients_to(std::vector<written>& outputs, std::int64_t size) {
    for (auto& gradient : gradients) outputs.push_back(numbers_of(gradient, size));
  }

  std::vector<aligned_array<float>> logits, gradients;
  std::vector<addloss::rows<float const>> logit_rows;
  std::vector<addloss::rows<float>> gradient_rows;
};

/// Both sides of a benchmark with arguments heads, tokens; or what else a loss takes pairs of.
struct pairs {
  static constexpr std::int64_t batch = 8;

  explicit pairs(benchmark::State const& state)
      : heads(state.range(0)),
        size(batch * state.range(1)),
        first(heads, batch, state.range(1), 0),
        second(heads, batch, state.range(1), 1) {}
  /// The limit: copies the logits to where the gradients go.
  void copy() {
    first.copy(size);
    second.copy(size);
  }
  std::vector<written> outputs() {
    std::vector<written> result;
    first.append_gradients_to(result, size);
    second.append_gradients_to(result, size);
    return result;
  }
  void report(benchmark::State& state, double seconds, double share) const {
    report_speed(state, seconds, 2 * heads * size, 4 * 4 * heads * size);
    state.counters["limit"] = share;
  }

  std::int64_t heads, size;
  side first, second;
};

/// A peer's loss of both sides, a call a head: loss(real, fake, their gradients, `Statistics`
/// numbers, size). No function for a peer that is not there.
template <std::size_t Statistics, class Loss>
std::function<double()> over_heads(Loss* loss, pairs& sides) {
  if (loss == nullptr) return {};
  return [loss, &real = sides.first, &fake = sides.second, size = sides.size] {
    double total = 0;
    for (std::size_t k = 0; k < real.logits.size(); ++k) {
      double statistics[Statistics];
      total += loss(real.logits[k].data(), fake.logits[k].data(), real.gradients[k].data(),
                    fake.gradients[k].data(), statistics, size);
      benchmark::DoNotOptimize(statistics);
    }
    return total;
  };
}

}  // namespace bench
