// SPDX-License-Identifier: MIT
// The discriminator's hinge loss of K heads, real and fake, with its gradients and statistics: all
// in one call. The same by other losses, and the student's side. The limit copies the logits to
// where the gradients go, and computes nothing.
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/evaluate.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>

#include "losses/logits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr double target_us = 2;  // 5 heads of 257 tokens

void hinge_discriminator(benchmark::State& state) {
  bench::pairs sides(state);
  std::vector<add::head_statistics> statistics(static_cast<std::size_t>(sides.heads));
  double value = 0;
  auto const [seconds, share] = bench::take_turns_with_peers(
      state,
      {bench::over_heads<6>(peers::eigen.hinge, sides),
       bench::over_heads<6>(peers::xtensor.hinge, sides)},
      sides.outputs(),
      [&] {
        add::value_and_grad(add::cpu_context{},
                            add::adversarial<>{}.discriminator<float>(sides.first.logit_rows,
                                                                      sides.second.logit_rows),
                            value,
                            {.real = sides.first.gradient_rows, .fake = sides.second.gradient_rows},
                            {.statistics = statistics});
        return value;
      },
      [&] { sides.copy(); });
  sides.report(state, seconds, share[0]);
  if (sides.heads == 5 && state.range(1) == 257) state.counters["median_us_at_most"] = target_us;
}

template <class Loss>
void discriminator(benchmark::State& state) {
  bench::pairs sides(state);
  double value = 0;
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(
            add::cpu_context{},
            add::adversarial<Loss>{}.template discriminator<float>(sides.first.logit_rows,
                                                                   sides.second.logit_rows),
            value, {.real = sides.first.gradient_rows, .fake = sides.second.gradient_rows});
      },
      [&] { sides.copy(); });
  sides.report(state, seconds, share[0]);
}

template <class Loss>
void generator(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const size = bench::pairs::batch * state.range(1);
  bench::side fake(heads, bench::pairs::batch, state.range(1), 0);
  double value = 0;
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(add::cpu_context{},
                            add::adversarial<Loss>{}.template generator<float>(fake.logit_rows),
                            value, {.fake = fake.gradient_rows});
      },
      [&] { fake.copy(size); });
  bench::report_speed(state, seconds, heads * size, 2 * 4 * heads * size);
  state.counters["limit"] = share[0];
}

void five_heads(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"heads", "tokens"})->Args({5, 257});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(discriminator<add::non_saturating>)->Apply(five_heads);
BENCHMARK(discriminator<add::least_squares>)->Apply(five_heads);
BENCHMARK(discriminator<add::wasserstein>)->Apply(five_heads);
BENCHMARK(generator<add::hinge>)->Apply(five_heads);
BENCHMARK(hinge_discriminator)
    ->ArgNames({"heads", "tokens"})
    ->ArgsProduct({benchmark::CreateDenseRange(1, 8, 1), {257}})
    ->ArgsProduct({{1, 5}, {1025}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
