// SPDX-License-Identifier: MIT
// The first values of the weight of a head's convolution, [384, 384, 9].
#include <addloss/heads/initialise.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

#include "turns.hpp"

namespace {

constexpr std::int64_t size = 384 * 384 * 9;

void initialise(benchmark::State& state, auto const& rule) {
  bench::aligned_array<float> values(size);
  auto const result = bench::take_turns(state, [&] {
    addloss::initialise(rule, {.seed = 1, .index = 0},
                        std::span(values.data(), static_cast<std::size_t>(size)));
  });
  bench::report_speed(state, result.seconds, size, 4 * size);
}

void uniform(benchmark::State& state) { initialise(state, addloss::fan_in_uniform{384 * 9}); }
void normal(benchmark::State& state) { initialise(state, addloss::standard_normal{}); }

BENCHMARK(uniform)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(normal)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
