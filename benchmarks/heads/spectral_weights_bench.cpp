// SPDX-License-Identifier: MIT
// What spectral normalisation adds to a step of a head of 384 channels: a power iteration, sigmas
// and the division of all weights. The limit reads them three times and copies the parameters.
#include <addloss/heads/spectral_weights.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <addloss/heads/initialise.hpp>
#include <addloss/heads/projected_head.hpp>

#include "limits.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

void normalise(benchmark::State& state) {
  add::cpu_context const ctx{.threads = static_cast<int>(state.range(0))};
  add::spectral_weights const weights{add::projected_head<float>({.channels = 384})};
  std::int64_t const size = weights.layer.parameter_count();
  bench::aligned_array<float> w(size), w_hat(size), uv(weights.state_size());
  for (auto const& [numbers, count] : {std::pair{&w, size}, std::pair{&uv, weights.state_size()}}) {
    add::initialise(add::standard_normal{}, {.seed = 1, .index = 0},
                    std::span(numbers->data(), static_cast<std::size_t>(count)));
  }
  std::vector<double> sigma(static_cast<std::size_t>(weights.sigma_numbers()));
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        weights.update(ctx, w.data(), uv.data());
        weights.sigmas("bench", ctx, w.data(), uv.data(), sigma.data());
        weights.normalise(ctx, w.data(), sigma.data(), w_hat.data());
      },
      [&] {
        for (int pass = 0; pass < 3; ++pass) {
          benchmark::DoNotOptimize(
              limits::read(w.data(), w.data() + size / 2, size / 2, ctx.threads));
        }
        limits::copy(w_hat.data(), w.data(), size, ctx.threads);
      });
  bench::report_speed(state, seconds, size, 5 * 4 * size);
  state.counters["limit"] = share[0];
}

BENCHMARK(normalise)->ArgName("threads")->Arg(1)->Arg(2)->UseManualTime()->Unit(
    benchmark::kMicrosecond);

}  // namespace
