// SPDX-License-Identifier: MIT
// Sampling in four steps on a GPU with a student that computes nothing: what the updates between a
// student's calls take, one launch each. Re-noising and the ancestral rule generate their noise; of
// DDIM's four updates the first does.
#include <addloss/noising/few_step.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"

namespace {

namespace add = addloss;

constexpr int steps = 4;

template <class T>
struct tensors {
  explicit tensors(std::int64_t size) : x_t(size), x_0(size) {}
  bench::device_numbers<T> x_t, x_0;
};

/// Arguments: B, elements of a sample, calls in a graph.
template <class T, class Rule>
void four_steps(benchmark::State& state) {
  std::int64_t const samples = state.range(0);
  std::int64_t const row = state.range(1);
  std::int64_t const size = samples * row;
  // Each update writes x_t; all but the first read x_0, and x_t where the rule does.
  std::int64_t const moved = steps + (steps - 1) * (Rule::reads_noisy ? 2 : 1);
  std::int64_t const bytes = moved * size * static_cast<std::int64_t>(sizeof(T));
  std::vector<tensors<T>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(bytes); ++i) sets.emplace_back(size);
  auto const schedule = add::scaled_linear_schedule();
  auto const times = add::student_timesteps::trailing(steps);
  auto const student = [](auto const& /*x_t*/, std::int64_t /*t*/, auto const& /*x_0*/) {};
  auto const view = [&](bench::device_numbers<T> const& of) {
    return add::view<add::device_space>(of.data(), samples, row);
  };
  bench::device const gpu(0);
  bench::take_device_turns(state, gpu.context().stream,
                           {.graph = state.range(2),
                            .sets = std::ssize(sets),
                            .elements = steps * size,
                            .bytes = bytes,
                            .launches = steps},
                           [&](std::int64_t i) {
                             auto const& set = sets[static_cast<std::size_t>(i)];
                             add::sample_few_steps(Rule{}, gpu.context(), schedule.table(), times,
                                                   {.seed = 42}, student, view(set.x_t),
                                                   view(set.x_0));
                           });
}

BENCHMARK(four_steps<float, add::re_noise>)->Apply(bench::latents);
BENCHMARK(four_steps<float, add::re_noise>)->Apply(bench::images);
BENCHMARK(four_steps<float, add::ddim>)->Apply(bench::latents);
BENCHMARK(four_steps<float, add::ddim>)->Apply(bench::images);
BENCHMARK(four_steps<float, add::ancestral>)->Apply(bench::latents);
BENCHMARK(four_steps<float, add::ancestral>)->Apply(bench::images);
BENCHMARK(four_steps<add::half, add::re_noise>)->Apply(bench::images);
BENCHMARK(four_steps<add::bfloat16, add::re_noise>)->Apply(bench::images);

}  // namespace
