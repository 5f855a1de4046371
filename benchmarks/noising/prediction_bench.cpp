// SPDX-License-Identifier: MIT
// The coefficients that make x_0, epsilon and a distillation loss's residual of a prediction, for a
// batch of 512 timesteps.
#include <addloss/noising/prediction.hpp>

#include <cstdint>

#include <addloss/schedule/discrete.hpp>

#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t count = 512;

template <add::prediction_type Prediction>
void coefficients(benchmark::State& state) {
  auto const schedule = add::scaled_linear_schedule();
  auto const table = schedule.table();
  auto const result = bench::take_turns(state, [&] {
    for (std::int64_t t = 0; t < count; ++t) {
      add::noise_level const level = table.at(t);
      benchmark::DoNotOptimize(Prediction::sample(level));
      benchmark::DoNotOptimize(Prediction::epsilon(level));
      benchmark::DoNotOptimize(Prediction::residual(level));
    }
  });
  bench::report_speed(state, result.seconds, count, 16 * count);
}

BENCHMARK(coefficients<add::epsilon_prediction>)->UseManualTime();
BENCHMARK(coefficients<add::v_prediction>)->UseManualTime();
BENCHMARK(coefficients<add::sample_prediction>)->UseManualTime();
BENCHMARK(coefficients<add::flow_prediction>)->UseManualTime();

}  // namespace
