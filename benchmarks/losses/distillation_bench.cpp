// SPDX-License-Identifier: MIT
// The distillation loss and its gradient: two tensors read, one written, as in STREAM's triad.
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>
#include <addloss/schedule/discrete.hpp>

#include "limits.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

/// Share of the speed of triad in the same run, for float: with the machine's own instruction set,
/// and with that of every x86-64.
constexpr double target = ADDLOSS_SIMD_BYTES > 16 ? 0.95 : 0.75;

/// The inputs and outputs of a benchmark with arguments B, C, H, W, threads.
template <class T>
struct tensors {
  explicit tensors(benchmark::State const& state)
      : extents{state.range(0), state.range(1), state.range(2), state.range(3)},
        size(extents[0] * extents[1] * extents[2] * extents[3]),
        threads(static_cast<int>(state.range(4))),
        student(size),
        target(size),
        gradient(size),
        timesteps(static_cast<std::size_t>(extents[0]), 500) {}

  auto view(bench::aligned_array<T>& array) const {
    return add::view(array.data(), extents[0], extents[1], extents[2], extents[3]);
  }
  auto loss() {
    return add::distillation<>{}(schedule.table(), view(student), view(target),
                                 add::view(timesteps.data(), extents[0]));
  }
  [[nodiscard]] std::int64_t bytes() const { return size * static_cast<std::int64_t>(sizeof(T)); }
  /// As many as fill a tensor: the limits move the same bytes, whatever T is.
  [[nodiscard]] std::int64_t floats() const { return bytes() / 4; }
  /// `tensors_moved`: read or written by one call.
  void report(benchmark::State& state, int tensors_moved, double seconds) const {
    state.counters["elements/s"] = static_cast<double>(size) / seconds;
    state.counters["bytes/s"] = static_cast<double>(tensors_moved * bytes()) / seconds;
  }

  std::int64_t extents[4];
  std::int64_t size;
  int threads;
  bench::aligned_array<T> student, target, gradient;
  std::vector<std::int64_t> timesteps;
  add::discrete_schedule schedule = add::scaled_linear_schedule();
};

template <class T>
void value_and_grad(benchmark::State& state) {
  tensors<T> data(state);
  add::cpu_context const ctx{.threads = data.threads};
  double value = 0;
  auto const loss = data.loss();
  auto const gradient = data.view(data.gradient);
  auto const limit = [&](auto triad) {
    return [&, triad] {
      triad(data.gradient.floats(), data.student.floats(), data.target.floats(), data.floats(),
            data.threads);
    };
  };
  auto const [seconds, share] = bench::take_turns(
      state, [&] { add::value_and_grad(ctx, loss, value, gradient); }, limit(limits::triad),
      limit(limits::streaming_triad));
  data.report(state, 3, seconds);
  state.counters["triad"] = share[0];
  state.counters["limit"] = std::min(share[0], share[1]);
  if (std::same_as<T, float>) state.counters["target"] = target;
}

template <class T>
void value(benchmark::State& state) {
  tensors<T> data(state);
  add::cpu_context const ctx{.threads = data.threads};
  double value = 0;
  auto const loss = data.loss();
  auto const [seconds, share] = bench::take_turns(
      state, [&] { add::value(ctx, loss, value); },
      [&] {
        benchmark::DoNotOptimize(
            limits::read(data.student.floats(), data.target.floats(), data.floats(), data.threads));
      });
  data.report(state, 2, seconds);
  state.counters["limit"] = share[0];
}

void settings(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"", "", "", "", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
}

void latents(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Args({8, 4, 64, 64, threads});
  settings(benchmark);
}

void images(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Args({8, 3, 512, 512, threads});
  for (int const threads : {1, 2}) benchmark->Args({64, 4, 128, 128, threads});
  settings(benchmark);
}

BENCHMARK(value_and_grad<float>)->Apply(latents);
BENCHMARK(value_and_grad<float>)->Apply(images);
BENCHMARK(value_and_grad<add::half>)->Apply(latents);
BENCHMARK(value_and_grad<add::bfloat16>)->Apply(latents);
BENCHMARK(value_and_grad<double>)->Apply(latents);
BENCHMARK(value<float>)->Apply(latents);

}  // namespace
