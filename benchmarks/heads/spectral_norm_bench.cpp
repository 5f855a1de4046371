// SPDX-License-Identifier: MIT
// Spectral normalisation of the weight of a head's convolution, [384, 384 * 9]: a power iteration
// with its sigma, and the division by it. The weight is read three times, for v, u and sigma; it is
// read and written once by the division. Eigen does the same with its products.
#include <addloss/heads/spectral_norm.hpp>

#include <array>
#include <cmath>
#include <cstdint>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr add::spectral_norm norm{.rows = 384, .columns = 384 * 9};
constexpr std::int64_t size = norm.rows * norm.columns;

/// u of unit length: an iteration then changes it little, and any two of the same weight agree.
struct tensors {
  tensors() {
    auto const root = static_cast<float>(1 / std::sqrt(static_cast<double>(norm.rows)));
    for (std::int64_t i = 0; i < norm.rows; ++i) u.data()[i] = root;
    for (int i = 0; i < 20; ++i) norm.update({}, W.data(), u.data(), v.data());
  }

  bench::aligned_array<float> W{size}, W_hat{size}, u{norm.rows}, v{norm.columns};
};

void update(benchmark::State& state) {
  tensors data;
  add::cpu_context const ctx{.threads = static_cast<int>(state.range(0))};
  bench::peer_calls peers;
  if (ctx.threads == 1) {
    peers.eigen = bench::call_of(peers::eigen.power_iteration, data.W.data(), data.u.data(),
                                 data.v.data(), norm.rows, norm.columns);
  }
  std::array const outputs{
      bench::written{{data.u.data(), static_cast<std::size_t>(norm.rows)}, 1e-4},
      bench::written{{data.v.data(), static_cast<std::size_t>(norm.columns)}, 1e-4}};
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, peers, outputs,
      [&] {
        norm.update(ctx, data.W.data(), data.u.data(), data.v.data());
        return norm.sigma(ctx, data.W.data(), data.u.data(), data.v.data());
      },
      [&] {
        for (int pass = 0; pass < 3; ++pass) {
          benchmark::DoNotOptimize(
              limits::read(data.W.data(), data.W.data() + size / 2, size / 2, ctx.threads));
        }
      });
  bench::report_speed(state, seconds, size, 3 * 4 * size);
  state.counters["limit"] = share[0];
}

void divide(benchmark::State& state) {
  tensors data;
  add::cpu_context const ctx{.threads = static_cast<int>(state.range(0))};
  auto const [seconds, share] = bench::take_turns(
      state, [&] { norm.divide(ctx, data.W.data(), 2.0, data.W_hat.data()); },
      [&] { limits::copy(data.W_hat.data(), data.W.data(), size, ctx.threads); });
  bench::report_speed(state, seconds, size, 2 * 4 * size);
  state.counters["limit"] = share[0];
}

void settings(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Arg(threads);
  benchmark->ArgName("threads")->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(update)->Apply(settings);
BENCHMARK(divide)->Apply(settings);

}  // namespace
