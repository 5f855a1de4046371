// SPDX-License-Identifier: MIT
// The distillation loss and its gradient. From a target: two tensors read, one written, as in
// STREAM's triad. From the teacher's raw predictions with guidance: three read, one written.
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>
#include <addloss/schedule/discrete.hpp>

#include "limits.hpp"
#include "peers.hpp"
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
        target(size, 1),
        gradient(size),
        timesteps(batch(), 500),
        alpha(batch(), schedule.at(500).alpha),
        sigma(batch(), schedule.at(500).sigma) {}

  auto view(bench::aligned_array<T>& array) const {
    return add::view(array.data(), extents[0], extents[1], extents[2], extents[3]);
  }
  template <add::distance Distance = add::squared>
  auto loss() {
    return add::distillation<add::exponential, Distance>{}(
        schedule.table(), view(student), view(target), add::view(timesteps.data(), extents[0]));
  }
  [[nodiscard]] std::size_t batch() const { return static_cast<std::size_t>(extents[0]); }
  [[nodiscard]] std::int64_t bytes() const { return size * static_cast<std::int64_t>(sizeof(T)); }
  /// As many as fill a tensor: the limits move the same bytes, whatever T is.
  [[nodiscard]] std::int64_t floats() const { return bytes() / 4; }
  /// `tensors_moved`: read or written by one call.
  void report(benchmark::State& state, int tensors_moved, double seconds) const {
    bench::report_speed(state, seconds, size, tensors_moved * bytes());
  }

  std::int64_t extents[4];
  std::int64_t size;
  int threads;
  add::discrete_schedule schedule = add::scaled_linear_schedule();
  bench::aligned_array<T> student, target, gradient;
  std::vector<std::int64_t> timesteps;
  std::vector<double> alpha, sigma;  ///< alpha is the weight of the exponential weighting too
};

template <class T, add::distance Distance = add::squared>
void value_and_grad(benchmark::State& state) {
  tensors<T> data(state);
  add::cpu_context const ctx{.threads = data.threads};
  double value = 0;
  auto const loss = data.template loss<Distance>();
  auto const gradient = data.view(data.gradient);
  auto const limit = [&](auto triad) {
    return [&, triad] {
      triad(data.gradient.floats(), data.student.floats(), data.target.floats(), data.floats(),
            data.threads);
    };
  };
  bench::peer_calls peers;
  std::vector<bench::written> outputs;
  if constexpr (std::same_as<T, float> && std::same_as<Distance, add::squared>) {
    auto const call = [&](auto* distillation) {
      return bench::call_of(distillation, data.student.data(), data.target.data(),
                            data.alpha.data(), data.gradient.data(), data.extents[0],
                            data.size / data.extents[0]);
    };
    if (data.threads == 1) {
      peers = {call(peers::eigen.distillation), call(peers::xtensor.distillation)};
    }
    outputs = {bench::numbers_of(data.gradient, data.size)};
    state.counters["triad_at_least"] = target;
  }
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, peers, outputs,
      [&] {
        add::value_and_grad(ctx, loss, value, gradient);
        return value;
      },
      limit(limits::triad), limit(limits::streaming_triad));
  data.report(state, 3, seconds);
  state.counters["triad"] = share[0];
  state.counters["limit"] = std::min(share[0], share[1]);
}

/// An epsilon prediction with guidance; its residual does not read the student.
void from_teacher(benchmark::State& state) {
  constexpr double guidance = 7.5;
  tensors<float> data(state);
  bench::aligned_array<float> unconditional(data.size, 2);
  add::cpu_context const ctx{.threads = data.threads};
  add::teacher_predictions<float> const teacher{.noise = data.view(data.student),
                                                .conditional = data.view(data.target),
                                                .unconditional = data.view(unconditional),
                                                .guidance_scale = guidance};
  auto const loss = add::distillation<>{}.from_teacher(
      add::epsilon_prediction{}, data.schedule.table(), data.view(data.student), teacher,
      add::view(data.timesteps.data(), data.extents[0]));
  auto const gradient = data.view(data.gradient);
  double value = 0;
  auto const call = [&](auto* distillation) {
    return bench::call_of(distillation, data.student.data(), data.target.data(),
                          unconditional.data(), guidance, data.alpha.data(), data.alpha.data(),
                          data.sigma.data(), data.gradient.data(), data.extents[0],
                          data.size / data.extents[0]);
  };
  bench::peer_calls peers;
  if (data.threads == 1) {
    peers = {call(peers::eigen.teacher_distillation), call(peers::xtensor.teacher_distillation)};
  }
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, peers, std::array{bench::numbers_of(data.gradient, data.size)},
      [&] {
        add::value_and_grad(ctx, loss, value, gradient);
        return value;
      },
      [&] {
        benchmark::DoNotOptimize(
            limits::read(data.student.data(), unconditional.data(), data.size, data.threads));
        limits::copy(data.gradient.data(), data.target.data(), data.size, data.threads);
      });
  data.report(state, 4, seconds);
  state.counters["limit"] = share[0];
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

/// From the latents of one image to a batch of images.
void sizes(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) {
    for (int const batch : {1, 8, 32}) benchmark->Args({batch, 4, 64, 64, threads});
    for (int const side : {256, 512}) benchmark->Args({8, 3, side, side, threads});
  }
  settings(benchmark);
}

BENCHMARK(value_and_grad<float>)->Apply(sizes);
BENCHMARK(value_and_grad<add::half>)->Apply(latents);
BENCHMARK(value_and_grad<add::bfloat16>)->Apply(latents);
BENCHMARK(value_and_grad<double>)->Apply(latents);
BENCHMARK(value_and_grad<float, add::absolute>)->Apply(latents);
BENCHMARK(value_and_grad<float, add::pseudo_huber>)->Apply(latents);
BENCHMARK(value<float>)->Apply(latents);
BENCHMARK(from_teacher)->Apply(latents);

}  // namespace
