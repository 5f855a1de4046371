// SPDX-License-Identifier: MIT
// The steps that train a discriminator of K heads, in one call each.
#include "head_steps.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "limits.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;
using bench::head_case, bench::head_steps, bench::step;
using method = add::convolution_method;
using normalisation = add::weight_normalisation;

/// A step takes long enough to be timed by itself, in turns with multiply-adds in registers. Above
/// one head, K steps of one head each take turns too.
void measure(benchmark::State& state, head_case const& settings, step which) {
  head_steps all(settings);
  std::optional<head_steps> single;
  if (settings.heads > 1) {
    head_case one = settings;
    one.heads = 1;
    single.emplace(one);
  }
  auto const seconds = [](int calls, auto const& call) {
    using clock = std::chrono::steady_clock;
    auto const start = clock::now();
    for (int i = 0; i < calls; ++i) call();
    return std::chrono::duration<double>(clock::now() - start).count();
  };
  all.run(which);
  constexpr int limit_calls = 20;
  std::vector<double> times;
  std::vector<double> separate;
  std::vector<double> limit;
  for (auto _ : state) {
    times.push_back(seconds(1, [&] { all.run(which); }));
    state.SetIterationTime(times.back());
    limit.push_back(seconds(limit_calls, limits::multiply_adds) / limit_calls / times.back());
    if (single) {
      separate.push_back(seconds(settings.heads, [&] { single->run(which); }) / times.back());
    }
  }
  double const median = bench::median(times);
  state.counters["median_ms"] = 1e3 * median;
  state.counters["per_head_ms"] = 1e3 * median / settings.heads;
  if (single) state.counters["separate"] = bench::median(separate);
  bench::report_arithmetic(state, median, all.direct_operations(which), all.done_operations(which),
                           bench::median(limit), settings.threads);
  state.counters["us_per_token"] = 1e6 * median / static_cast<double>(settings.heads) /
                                   static_cast<double>(settings.batch * settings.length);
  state.counters["workspace_MB"] = 1e-6 * static_cast<double>(all.workspace_bytes(which));
}

template <step Which, method Method, normalisation Norm = normalisation::none>
void heads(benchmark::State& state) {
  measure(state,
          {.heads = static_cast<int>(state.range(0)),
           .threads = static_cast<int>(state.range(1)),
           .method = Method,
           .normalisation = Norm},
          Which);
}

/// One head on one thread.
template <step Which, method Method>
void sizes(benchmark::State& state) {
  measure(state, {.batch = state.range(0), .length = state.range(1), .method = Method}, Which);
}

// The number of calls is fixed, as one may take longer than the benchmarks' usual time.
void repeat(benchmark::internal::Benchmark* benchmark, int calls) {
  benchmark->Iterations(calls)->UseManualTime()->Unit(benchmark::kMillisecond);
}
void one_head(benchmark::internal::Benchmark* benchmark) {
  repeat(benchmark->ArgNames({"heads", "threads"})->ArgsProduct({{1}, {1, 2}}), 5);
}
void five_heads(benchmark::internal::Benchmark* benchmark) {
  repeat(benchmark->ArgNames({"heads", "threads"})->ArgsProduct({{5}, {1, 2}}), 3);
}
void batches_and_lengths(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"batch", "tokens"});
  for (int const batch : {4, 8, 16}) benchmark->Args({batch, 197});
  for (int const length : {64, 128, 256, 512}) benchmark->Args({8, length});
  repeat(benchmark, 3);
}

BENCHMARK_TEMPLATE(heads, step::discriminator, method::direct)->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::discriminator, method::toom_cook)->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::discriminator, method::toom_cook)->Apply(five_heads);
BENCHMARK_TEMPLATE(heads, step::discriminator, method::toom_cook, normalisation::spectral)
    ->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::real_side, method::toom_cook)->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::generator, method::direct)->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::generator, method::toom_cook)->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::generator, method::toom_cook)->Apply(five_heads);
BENCHMARK_TEMPLATE(heads, step::logits, method::direct)->Apply(one_head);
BENCHMARK_TEMPLATE(heads, step::logits, method::toom_cook)->Apply(one_head);
BENCHMARK_TEMPLATE(sizes, step::discriminator, method::toom_cook)->Apply(batches_and_lengths);

}  // namespace
