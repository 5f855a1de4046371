// SPDX-License-Identifier: MIT
// The relativistic loss and approximate R1 on K heads' pairs of logits, with both gradients and, the
// first, statistics, in one call. The limit copies the logits to where the gradients go.
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

constexpr std::int64_t batch = 8;

void relativistic(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const size = batch * state.range(1);
  bench::side real(heads, batch, state.range(1), 0);
  bench::side fake(heads, batch, state.range(1), 1);
  std::vector<add::pair_statistics> statistics(static_cast<std::size_t>(heads));
  std::vector<bench::written> outputs;
  real.append_gradients_to(outputs, size);
  fake.append_gradients_to(outputs, size);
  double value = 0;
  auto const [seconds, share] = bench::take_turns_with_peers(
      state,
      {bench::over_heads<4>(peers::eigen.relativistic, real, fake, size),
       bench::over_heads<4>(peers::xtensor.relativistic, real, fake, size)},
      outputs,
      [&] {
        add::value_and_grad(add::cpu_context{},
                            add::paired<>{}.discriminator<float>(real.logit_rows, fake.logit_rows),
                            value, {.first = real.gradient_rows, .second = fake.gradient_rows},
                            {.statistics = statistics});
        return value;
      },
      [&] {
        real.copy(size);
        fake.copy(size);
      });
  bench::report_speed(state, seconds, 2 * heads * size, 4 * 4 * heads * size);
  state.counters["limit"] = share[0];
}

void approximate_r1(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const size = batch * state.range(1);
  bench::side real(heads, batch, state.range(1), 0);
  bench::side perturbed(heads, batch, state.range(1), 1);
  double value = 0;
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(
            add::cpu_context{},
            add::approximate_r1<>{}.on<float>(real.logit_rows, perturbed.logit_rows), value,
            {.first = real.gradient_rows, .second = perturbed.gradient_rows});
      },
      [&] {
        real.copy(size);
        perturbed.copy(size);
      });
  bench::report_speed(state, seconds, 2 * heads * size, 4 * 4 * heads * size);
  state.counters["limit"] = share[0];
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"heads", "tokens"})->ArgsProduct({{1, 5}, {257}});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(relativistic)->Apply(sizes);
BENCHMARK(approximate_r1)->Apply(sizes);

}  // namespace
