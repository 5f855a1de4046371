// SPDX-License-Identifier: MIT
// Drawing the timesteps of a batch.
#include <addloss/sampler/sample.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/sampler/logit_normal.hpp>
#include <addloss/sampler/mixture.hpp>
#include <addloss/sampler/shifted.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/sampler/uniform.hpp>

#include "turns.hpp"

namespace {

namespace add = addloss;

void sample(benchmark::State& state, auto const& sampler) {
  std::vector<std::int64_t> times(static_cast<std::size_t>(state.range(0)));
  auto const result =
      bench::take_turns(state, [&] { add::sample_timesteps(sampler, {.seed = 42}, times); });
  bench::report_speed(state, result.seconds, state.range(0), 8 * state.range(0));
}

void student(benchmark::State& state) { sample(state, add::student_timesteps::trailing(4)); }
void uniform(benchmark::State& state) { sample(state, add::uniform_timesteps{}); }
void logit_normal(benchmark::State& state) { sample(state, add::logit_normal_timesteps{}); }
void shifted(benchmark::State& state) { sample(state, add::shifted_timesteps{}); }
void mixture(benchmark::State& state) {
  sample(state, add::mixture<add::uniform_timesteps, add::logit_normal_timesteps>{});
}

BENCHMARK(student)->Arg(8)->Arg(512)->UseManualTime();
BENCHMARK(uniform)->Arg(8)->Arg(512)->UseManualTime();
BENCHMARK(logit_normal)->Arg(8)->Arg(512)->UseManualTime();
BENCHMARK(shifted)->Arg(8)->Arg(512)->UseManualTime();
BENCHMARK(mixture)->Arg(8)->Arg(512)->UseManualTime();

}  // namespace
