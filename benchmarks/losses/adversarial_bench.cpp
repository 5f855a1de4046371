// SPDX-License-Identifier: MIT
// The discriminator's hinge loss of K heads, real and fake, with its gradients and statistics: all in
// one call. The same by other losses, and the student's side. The limit copies the logits to where the gradients go, and computes nothing.
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

constexpr std::int64_t batch = 8;
constexpr double target_us = 2;  // 5 heads of 257 tokens

void hinge_discriminator(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const size = batch * state.range(1);
  bench::side real(heads, batch, state.range(1), 0);
  bench::side fake(heads, batch, state.range(1), 1);
  std::vector<add::head_statistics> statistics(static_cast<std::size_t>(heads));
  std::vector<bench::written> outputs;
  real.append_gradients_to(outputs, size);
  fake.append_gradients_to(outputs, size);
  double value = 0;
  auto const [seconds, share] = bench::take_turns_with_peers(
      state,
      {bench::over_heads<6>(peers::eigen.hinge, real, fake, size),
       bench::over_heads<6>(peers::xtensor.hinge, real, fake, size)},
      outputs,
      [&] {
        add::value_and_grad(
            add::cpu_context{},
            add::adversarial<>{}.discriminator<float>(real.logit_rows, fake.logit_rows), value,
            {.real = real.gradient_rows, .fake = fake.gradient_rows}, {.statistics = statistics});
        return value;
      },
      [&] {
        real.copy(size);
        fake.copy(size);
      });
  bench::report_speed(state, seconds, 2 * heads * size, 4 * 4 * heads * size);
  state.counters["limit"] = share[0];
  if (heads == 5 && state.range(1) == 257) state.counters["median_us_at_most"] = target_us;
}

template <class Loss>
void discriminator(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const size = batch * state.range(1);
  bench::side real(heads, batch, state.range(1), 0);
  bench::side fake(heads, batch, state.range(1), 1);
  double value = 0;
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(add::cpu_context{},
                            add::adversarial<Loss>{}.template discriminator<float>(real.logit_rows,
                                                                                   fake.logit_rows),
                            value, {.real = real.gradient_rows, .fake = fake.gradient_rows});
      },
      [&] {
        real.copy(size);
        fake.copy(size);
      });
  bench::report_speed(state, seconds, 2 * heads * size, 4 * 4 * heads * size);
  state.counters["limit"] = share[0];
}

template <class Loss>
void generator(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const size = batch * state.range(1);
  bench::side fake(heads, batch, state.range(1), 0);
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
