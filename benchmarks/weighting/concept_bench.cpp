// SPDX-License-Identifier: MIT
// The weights of a batch of 512 timesteps, by weighting.
#include <addloss/weighting/concept.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/schedule/discrete.hpp>
#include <addloss/weighting/exponential.hpp>
#include <addloss/weighting/sds.hpp>
#include <addloss/weighting/snr.hpp>
#include <addloss/weighting/uniform.hpp>

#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t count = 512;

template <add::weighting Weighting>
void weights(benchmark::State& state) {
  auto const schedule = add::scaled_linear_schedule();
  auto const table = schedule.table();
  Weighting weighting;
  std::vector<double> out(static_cast<std::size_t>(count));
  auto const result = bench::take_turns(state, [&] {
    benchmark::DoNotOptimize(weighting);
    for (std::int64_t t = 0; t < count; ++t) {
      out[static_cast<std::size_t>(t)] = weighting.at(table.at(t));
    }
  });
  bench::report_speed(state, result.seconds, count, 24 * count);
}

BENCHMARK(weights<add::uniform>)->UseManualTime();
BENCHMARK(weights<add::exponential>)->UseManualTime();
BENCHMARK(weights<add::sds>)->UseManualTime();
BENCHMARK(weights<add::snr>)->UseManualTime();
BENCHMARK(weights<add::min_snr>)->UseManualTime();

}  // namespace
