// SPDX-License-Identifier: MIT
// The R1 penalty of K heads' feature gradients [8, 384, 197] and its cotangents: one tensor read
// and one written a head, as in a copy.
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/r1.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <addloss/cpu/executor.hpp>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t batch = 8;
constexpr std::int64_t row_size = 384 * 197;
constexpr std::int64_t size = batch * row_size;

void r1(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  int const threads = static_cast<int>(state.range(1));
  std::vector<bench::aligned_array<float>> features, cotangents;
  std::vector<add::rows<float const>> feature_rows;
  std::vector<add::rows<float>> cotangent_rows;
  std::vector<bench::written> outputs;
  for (std::int64_t k = 0; k < heads; ++k) {
    features.emplace_back(size, k);
    cotangents.emplace_back(size);
    feature_rows.emplace_back(add::view(features.back().data(), batch, row_size));
    cotangent_rows.emplace_back(add::view(cotangents.back().data(), batch, row_size));
    outputs.push_back(bench::numbers_of(cotangents.back(), size));
  }
  add::r1 const penalty{.gamma = 1e-5};
  auto const call = [&](auto* of_head) -> std::function<double()> {
    if (of_head == nullptr || threads > 1) return {};
    return [&, of_head] {
      double total = 0;
      for (std::size_t k = 0; k < features.size(); ++k) {
        total += of_head(features[k].data(), 1e-5, cotangents[k].data(), batch, row_size);
      }
      return total;
    };
  };
  double value = 0;
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, {call(peers::eigen.r1), call(peers::xtensor.r1)}, outputs,
      [&] {
        add::value_and_grad(add::cpu_context{.threads = threads}, penalty.on<float>(feature_rows),
                            value, {.features = cotangent_rows});
        return value;
      },
      [&] {
        for (std::size_t k = 0; k < features.size(); ++k) {
          limits::copy(cotangents[k].data(), features[k].data(), size, threads);
        }
      });
  bench::report_speed(state, seconds, heads * size, 2 * 4 * heads * size);
  state.counters["limit"] = share[0];
}

BENCHMARK(r1)
    ->ArgNames({"heads", "threads"})
    ->ArgsProduct({{1, 5}, {1, 2}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
