// SPDX-License-Identifier: MIT
// add_noise with noise generated on the fly and with stored noise, and the generator alone.
#include <addloss/noising/forward.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>
#include <addloss/schedule/discrete.hpp>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

/// Generated elements a second and core.
constexpr double target_of(int simd_bytes) {
  if (simd_bytes == 64) return 2.0e9;
  return simd_bytes == 32 ? 0.9e9 : 0.35e9;
}
constexpr double target = target_of(ADDLOSS_SIMD_BYTES);

constexpr std::int64_t latent = 4 * 64 * 64;
constexpr std::int64_t image = 3 * 512 * 512;

/// The inputs and outputs of a benchmark with arguments B, elements of a sample, threads.
struct tensors {
  explicit tensors(benchmark::State const& state)
      : samples(state.range(0)),
        size(samples * state.range(1)),
        threads(static_cast<int>(state.range(2))),
        x0(size),
        noise(size, 1),
        out(size),
        timesteps(static_cast<std::size_t>(samples), 500),
        alpha(timesteps.size(), schedule.at(500).alpha),
        sigma(timesteps.size(), schedule.at(500).sigma) {}

  auto view(bench::aligned_array<float>& array) const {
    return add::view(array.data(), samples, size / samples);
  }

  std::int64_t samples;
  std::int64_t size;
  int threads;
  add::discrete_schedule schedule = add::scaled_linear_schedule();
  bench::aligned_array<float> x0, noise, out;
  std::vector<std::int64_t> timesteps;
  std::vector<double> alpha, sigma;
};

/// `tensors_moved`: read or written by one call.
void report(benchmark::State& state, std::int64_t size, int threads, int tensors_moved,
            double seconds) {
  bench::report_speed(state, seconds, size, 4 * tensors_moved * size);
  state.counters["per_core"] = static_cast<double>(size) / threads / seconds;
}

void add_noise_generated(benchmark::State& state) {
  tensors data(state);
  add::cpu_context const ctx{.threads = data.threads};
  add::normal_noise const noise{{.seed = 42}};
  auto const ours = [&] {
    add::add_noise(ctx, data.schedule.table(), data.view(data.x0),
                   add::view(data.timesteps.data(), data.samples), noise, data.view(data.out));
  };
  // The standard library's generator takes long; once is enough to see it.
  if (data.threads == 1 && state.range(1) == latent) {
    auto const [seconds, share] = bench::take_turns(state, ours, [&] {
      peers::add_noise_of_std(data.x0.data(), data.alpha[0], data.sigma[0], data.out.data(),
                              data.size);
    });
    report(state, data.size, data.threads, 2, seconds);
    state.counters["std"] = share[0];
  } else {
    report(state, data.size, data.threads, 2, bench::take_turns(state, ours).seconds);
  }
  state.counters["per_core_at_least"] = target;
}

void add_noise_stored(benchmark::State& state) {
  tensors data(state);
  add::cpu_context const ctx{.threads = data.threads};
  auto const limit = [&](auto triad) {
    return [&, triad] {
      triad(data.out.data(), data.x0.data(), data.noise.data(), data.size, data.threads);
    };
  };
  bench::peer_calls peers;
  if (data.threads == 1) {
    auto const call = [&](auto* add_noise) {
      return bench::call_of(add_noise, data.x0.data(), data.noise.data(), data.alpha.data(),
                            data.sigma.data(), data.out.data(), data.samples, state.range(1));
    };
    peers = {call(peers::eigen.add_noise), call(peers::xtensor.add_noise)};
  }
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, peers, std::array{bench::numbers_of(data.out, data.size)},
      [&] {
        add::add_noise(ctx, data.schedule.table(), data.view(data.x0),
                       add::view(data.timesteps.data(), data.samples), data.view(data.noise),
                       data.view(data.out));
        return 0.0;
      },
      limit(limits::triad), limit(limits::streaming_triad));
  report(state, data.size, data.threads, 3, seconds);
  state.counters["triad"] = share[0];
  state.counters["limit"] = std::min(share[0], share[1]);
}

/// Into the first-level cache: what add_noise would reach if everything but the numbers were free.
void fill_normals(benchmark::State& state) {
  constexpr std::int64_t groups = 64;
  bench::aligned_array<float> out(groups * 64);
  auto const result = bench::take_turns(state, [&] {
    for (std::int64_t group = 0; group < groups; ++group) {
      add::detail::fill_normals({.seed = 42}, 0, group, out.data() + group * 64);
    }
  });
  report(state, groups * 64, 1, 1, result.seconds);
  state.counters["per_core_at_least"] = target;
}

void settings(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) {
    benchmark->Args({1, latent, threads});
    for (std::int64_t const row_size : {latent, image}) benchmark->Args({8, row_size, threads});
  }
  benchmark->ArgNames({"", "", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(fill_normals)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(add_noise_generated)->Apply(settings);
BENCHMARK(add_noise_stored)->Apply(settings);

}  // namespace
