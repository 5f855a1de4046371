// SPDX-License-Identifier: MIT
// Sampling in four steps with a student that computes nothing: what the updates between a student's
// calls take. Re-noising and the ancestral rule generate their noise; of DDIM's four updates the
// first does.
#include <addloss/noising/few_step.hpp>

#include <cstdint>

#include <addloss/cpu/executor.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/schedule/discrete.hpp>

#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t steps = 4;

template <class Rule>
void four_steps(benchmark::State& state) {
  std::int64_t const batch = state.range(0);
  std::int64_t const size = batch * 4 * 64 * 64;
  add::cpu_context const ctx{.threads = static_cast<int>(state.range(1))};
  add::discrete_schedule const schedule = add::scaled_linear_schedule();
  bench::aligned_array<float> x_t(size), x_0(size);
  auto const times = add::student_timesteps::trailing(steps);
  auto const student = [](auto const& /*x_t*/, std::int64_t /*t*/, auto const& /*x_0*/) {};
  auto const result = bench::take_turns(state, [&] {
    add::sample_few_steps(Rule{}, ctx, schedule.table(), times, {.seed = 42}, student,
                          add::view(x_t.data(), batch, 4, 64, 64),
                          add::view(x_0.data(), batch, 4, 64, 64));
  });
  // Each update writes x_t; all but the first read x_0, and x_t where the rule does.
  std::int64_t const moved = steps + (steps - 1) * (Rule::reads_noisy ? 2 : 1);
  bench::report_speed(state, result.seconds, steps * size, 4 * moved * size);
}

void settings(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Args({8, threads});
  benchmark->ArgNames({"", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(four_steps<add::re_noise>)->Apply(settings);
BENCHMARK(four_steps<add::ddim>)->Apply(settings);
BENCHMARK(four_steps<add::ancestral>)->Apply(settings);

}  // namespace
