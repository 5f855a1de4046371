// SPDX-License-Identifier: MIT
// The relativistic loss and approximate R1 on K heads' pairs of logits, with both gradients and,
// the first, statistics, in one call. The limit copies the logits to where the gradients go.
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/paired.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>

#include "losses/logits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

void relativistic(benchmark::State& state) {
  bench::pairs sides(state);
  std::vector<add::pair_statistics> statistics(static_cast<std::size_t>(sides.heads));
  double value = 0;
  auto const [seconds, share] = bench::take_turns_with_peers(
      state,
      {bench::over_heads<4>(peers::eigen.relativistic, sides),
       bench::over_heads<4>(peers::xtensor.relativistic, sides)},
      sides.outputs(),
      [&] {
        add::value_and_grad(
            add::cpu_context{},
            add::paired<>{}.discriminator<float>(sides.first.logit_rows, sides.second.logit_rows),
            value, {.first = sides.first.gradient_rows, .second = sides.second.gradient_rows},
            {.statistics = statistics});
        return value;
      },
      [&] { sides.copy(); });
  sides.report(state, seconds, share[0]);
}

void approximate_r1(benchmark::State& state) {
  bench::pairs sides(state);
  double value = 0;
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(
            add::cpu_context{},
            add::approximate_r1<>{}.on<float>(sides.first.logit_rows, sides.second.logit_rows),
            value, {.first = sides.first.gradient_rows, .second = sides.second.gradient_rows});
      },
      [&] { sides.copy(); });
  sides.report(state, seconds, share[0]);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"heads", "tokens"})->ArgsProduct({{1, 5}, {257}});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(relativistic)->Apply(sizes);
BENCHMARK(approximate_r1)->Apply(sizes);

}  // namespace
