// SPDX-License-Identifier: MIT
// add_noise on a GPU, with stored noise and with noise generated in the kernel.
#include <addloss/noising/forward.hpp>

#include <cstdint>
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
  auto const bytes = size * static_cast<std::int64_t>(sizeof(T));
  std::int64_t const moved = (Stored ? 3 : 2) * bytes;
  std::vector<tensors<T>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(moved); ++i) sets.emplace_back(size, Stored);
  auto const schedule = add::scaled_linear_schedule();
  bench::device_copy_of<add::noise_level> const levels(
      std::vector<add::noise_level>(schedule.table().levels, schedule.table().levels + 1000));
  bench::device_copy_of<std::int64_t> const t(
      std::vector<std::int64_t>(static_cast<std::size_t>(samples), 500));
  add::schedule_table<add::device_space> const table{levels.data(), 1000};
  auto const view = [&](T* data) { return add::view<add::device_space>(data, samples, row); };
  bench::device const gpu(0);
  bench::take_device_turns(
      state, gpu.context().stream, {.graph = state.range(2), .bytes = moved},
      static_cast<std::int64_t>(sets.size()),
      [&](std::int64_t i) {
        auto const& set = sets[static_cast<std::size_t>(i)];
        auto const times = add::view<add::device_space>(t.data(), samples);
        if constexpr (Stored) {
          add::add_noise(gpu.context(), table, view(set.x0.data()), times, view(set.noise->data()),
                         view(set.out.data()));
        } else {
          add::add_noise(gpu.context(), table, view(set.x0.data()), times,
                         add::normal_noise{{.seed = 42}}, view(set.out.data()));
        }
      },
      bytes,
      [&](std::int64_t i) {
        auto const& set = sets[static_cast<std::size_t>(i)];
        bench::copy_on_device(gpu.context().stream, set.out.data(), set.x0.data(), bytes);
      });
}

void latents(benchmark::internal::Benchmark* benchmark) {
  for (int const graph : {0, 1, 20}) benchmark->Args({8, 4 * 64 * 64, graph});
  benchmark->ArgNames({"", "", "graph"});
  bench::settings(benchmark);
}
void images(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({48, 3 * 512 * 512, 0})->ArgNames({"", "", "graph"});
  bench::settings(benchmark);
}

BENCHMARK(add_noise<float, true>)->Apply(latents);
BENCHMARK(add_noise<float, false>)->Apply(latents);
BENCHMARK(add_noise<float, true>)->Apply(images);
BENCHMARK(add_noise<float, false>)->Apply(images);
BENCHMARK(add_noise<add::half, true>)->Apply(images);
BENCHMARK(add_noise<add::half, false>)->Apply(images);
BENCHMARK(add_noise<add::bfloat16, true>)->Apply(images);
BENCHMARK(add_noise<add::bfloat16, false>)->Apply(images);
BENCHMARK(add_noise<double, true>)->Apply(images);

}  // namespace
