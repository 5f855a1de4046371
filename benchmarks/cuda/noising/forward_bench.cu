// SPDX-License-Identifier: MIT
// add_noise on a GPU, with stored noise and with noise generated in the kernel.
#include <addloss/noising/forward.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"

namespace {

namespace add = addloss;

template <class T>
struct tensors {
  tensors(std::int64_t size, bool stored) : x0(size), out(size) {
    if (stored) noise = std::make_unique<bench::device_numbers<T>>(size);
  }
  bench::device_numbers<T> x0, out;
  std::unique_ptr<bench::device_numbers<T>> noise;
};

/// Arguments: B, elements of a sample, calls in a graph.
template <class T, bool Stored>
void add_noise(benchmark::State& state) {
  std::int64_t const samples = state.range(0);
  std::int64_t const row = state.range(1);
  std::int64_t const size = samples * row;
  std::int64_t const bytes = (Stored ? 3 : 2) * size * static_cast<std::int64_t>(sizeof(T));
  std::vector<tensors<T>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(bytes); ++i) sets.emplace_back(size, Stored);
  bench::device_schedule const schedule(samples);
  auto const view = [&](T* data) { return add::view<add::device_space>(data, samples, row); };
  bench::device const gpu(0);
  bench::take_device_turns(
      state, gpu.context().stream,
      {.graph = state.range(2), .sets = std::ssize(sets), .elements = size, .bytes = bytes},
      [&](std::int64_t i) {
        auto const& set = sets[static_cast<std::size_t>(i)];
        auto const table = schedule.table();
        auto const times = schedule.timesteps();
        if constexpr (Stored) {
          add::add_noise(gpu.context(), table, view(set.x0.data()), times, view(set.noise->data()),
                         view(set.out.data()));
        } else {
          add::add_noise(gpu.context(), table, view(set.x0.data()), times,
                         add::normal_noise{{.seed = 42}}, view(set.out.data()));
        }
      });
}

BENCHMARK(add_noise<float, true>)->Apply(bench::latents);
BENCHMARK(add_noise<float, false>)->Apply(bench::latents);
BENCHMARK(add_noise<float, true>)->Apply(bench::images);
BENCHMARK(add_noise<float, false>)->Apply(bench::images);
BENCHMARK(add_noise<add::half, true>)->Apply(bench::images);
BENCHMARK(add_noise<add::half, false>)->Apply(bench::images);
BENCHMARK(add_noise<add::bfloat16, true>)->Apply(bench::images);
BENCHMARK(add_noise<add::bfloat16, false>)->Apply(bench::images);
BENCHMARK(add_noise<double, true>)->Apply(bench::images);

}  // namespace
