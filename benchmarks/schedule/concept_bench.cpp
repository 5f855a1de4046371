// SPDX-License-Identifier: MIT
// The noise levels of a batch of 512 timesteps, by schedule; making a table of 1000 timesteps.
#include <addloss/schedule/concept.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/schedule/karras.hpp>

#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t count = 512;

/// Timesteps from 0 on, `step` apart.
template <add::noise_schedule Schedule>
void levels(benchmark::State& state, Schedule const& schedule, typename Schedule::time_type step) {
  std::vector<typename Schedule::time_type> times;
  for (std::int64_t i = 0; i < count; ++i) {
    times.push_back(static_cast<typename Schedule::time_type>(i) * step);
  }
  std::vector<add::noise_level> out(times.size());
  auto const result = bench::take_turns(state, [&] {
    for (std::size_t i = 0; i < times.size(); ++i) {
      schedule.check("bench", static_cast<std::int64_t>(i), times[i]);
      out[i] = schedule.at(times[i]);
    }
  });
  bench::report_speed(state, result.seconds, count, 24 * count);
}

void discrete(benchmark::State& state) {
  auto const schedule = add::scaled_linear_schedule();
  levels(state, schedule.table(), 1);
}
void rectified_flow(benchmark::State& state) {
  levels(state, add::rectified_flow{.shift = 3}, 1.0 / count);
}
void trigflow(benchmark::State& state) { levels(state, add::trigflow{}, 1.5 / count); }
void karras(benchmark::State& state) { levels(state, add::karras{}, 80.0 / count); }

void make(benchmark::State& state, auto const& schedule) {
  auto const result = bench::take_turns(state, [&] { benchmark::DoNotOptimize(schedule().at(0)); });
  bench::report_speed(state, result.seconds, 1000, 16 * 1000);
}
void make_scaled_linear(benchmark::State& state) {
  make(state, [] { return add::scaled_linear_schedule(); });
}
void make_cosine(benchmark::State& state) {
  make(state, [] { return add::cosine_schedule(); });
}
void make_zero_terminal_snr(benchmark::State& state) {
  auto const schedule = add::scaled_linear_schedule();
  make(state, [&] { return add::zero_terminal_snr(schedule); });
}

BENCHMARK(discrete)->UseManualTime();
BENCHMARK(rectified_flow)->UseManualTime();
BENCHMARK(trigflow)->UseManualTime();
BENCHMARK(karras)->UseManualTime();
BENCHMARK(make_scaled_linear)->UseManualTime();
BENCHMARK(make_cosine)->UseManualTime();
BENCHMARK(make_zero_terminal_snr)->UseManualTime();

}  // namespace
