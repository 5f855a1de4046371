// SPDX-License-Identifier: MIT
// The norm of a head, with its activation, against loops of the STREAM benchmark that read and
// write as many tensors of the same size, in turns.
#include <addloss/heads/local_norm.hpp>

#include <cstdint>

#include "limits.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;
using bench::aligned_array;

enum class kind { forward, backward, tangent, tangent_backward };

/// The inputs and outputs of a benchmark with the argument threads.
template <class T>
struct tensors {
  static constexpr add::feature_shape shape{8, 384, 197};

  explicit tensors(benchmark::State const& state)
      : threads(static_cast<int>(state.range(0))),
        w(norm.parameter_count()),
        w_bar(norm.parameter_count()),
        saved(norm.sizes(shape).saved),
        saved_bar(norm.sizes(shape).saved_bar),
        saved_dot(norm.sizes(shape).saved_dot),
        workspace(norm.sizes(shape).workspace),
        x(shape.size()),
        x_dot(shape.size()),
        y_bar(shape.size()),
        y_dot_bar(shape.size()),
        out(shape.size()) {
    ours(kind::forward);
    ours(kind::backward);
    ours(kind::tangent);
  }

  /// Tensors that a pass reads and writes.
  static std::int64_t traffic(kind which) {
    switch (which) {
      case kind::forward: return 2;  // x, y
      case kind::backward: return 3;  // x, y_bar, x_bar
      case kind::tangent: return 3;  // x, x_dot, y_dot
      default: return 5;  // x, x_dot, y_bar, y_dot_bar, x_bar
    }
  }

  void ours(kind which) {
    add::cpu_context const ctx{.threads = threads};
    add::layer_pass<T> const pass{.shape = shape,
                                  .w = w.data(),
                                  .x = x.data(),
                                  .y = out.data(),
                                  .x_dot = x_dot.data(),
                                  .y_dot = out.data(),
                                  .y_bar = y_bar.data(),
                                  .y_dot_bar = y_dot_bar.data(),
                                  .x_bar = out.data(),
                                  .w_bar = w_bar.data(),
                                  .saved = saved.data(),
                                  .saved_bar = saved_bar.data(),
                                  .saved_dot = saved_dot.data(),
                                  .workspace = workspace.data()};
    switch (which) {
      case kind::forward: return norm.forward(ctx, pass);
      case kind::backward: return norm.backward(ctx, pass);
      case kind::tangent: return norm.tangent(ctx, pass);
      case kind::tangent_backward: return norm.tangent_backward(ctx, pass);
    }
  }

  /// The same number of tensors, read and written by the simplest loops.
  void stream(kind which) {
    auto const size = shape.size() * static_cast<std::int64_t>(sizeof(T) / sizeof(float));
    if (which == kind::forward) return limits::copy(out.floats(), x.floats(), size, threads);
    if (which == kind::tangent_backward) {
      benchmark::DoNotOptimize(limits::read(y_bar.floats(), y_dot_bar.floats(), size, threads));
    }
    limits::triad(out.floats(), x.floats(), x_dot.floats(), size, threads);
  }

  add::local_norm norm{.channels = shape.channels, .negative_slope = 0.2};
  int threads;
  aligned_array<T> w, w_bar, saved, saved_bar, saved_dot, workspace;
  aligned_array<T> x, x_dot, y_bar, y_dot_bar, out;
};

/// stream: time of the simplest loops by ours, 1 is as fast.
template <class T, kind Which>
void local_norm(benchmark::State& state) {
  tensors<T> data(state);
  auto const result = bench::take_turns(
      state, [&] { data.ours(Which); }, [&] { data.stream(Which); });
  auto const bytes =
      static_cast<double>(tensors<T>::traffic(Which) * data.shape.size()) * sizeof(T);
  state.counters["GB/s"] = 1e-9 * bytes / result.seconds;
  state.counters["stream"] = result.share[0];
}

void settings(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Arg(threads);
  benchmark->ArgName("threads")->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_TEMPLATE(local_norm, float, kind::forward)->Apply(settings);
BENCHMARK_TEMPLATE(local_norm, float, kind::backward)->Apply(settings);
BENCHMARK_TEMPLATE(local_norm, float, kind::tangent)->Apply(settings);
BENCHMARK_TEMPLATE(local_norm, float, kind::tangent_backward)->Apply(settings);
BENCHMARK_TEMPLATE(local_norm, double, kind::forward)->Apply(settings);
BENCHMARK_TEMPLATE(local_norm, double, kind::tangent_backward)->Apply(settings);

}  // namespace
