// SPDX-License-Identifier: MIT
// The last layer of a head, [8, 384, 197] -> [8, 1, 197] with a condition of 768 numbers, all four
// passes. The limit reads and writes the tensors [8, 384, 197] of a pass, and computes nothing.
// Eigen's products make the 64 channels that are projected, which ours never stores.
#include <addloss/heads/projection.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;
using bench::aligned_array;

enum class kind { forward, backward, tangent, tangent_backward };

constexpr add::feature_shape shape{8, 384, 197};

/// The inputs and outputs of a benchmark with the argument threads.
struct tensors {
  explicit tensors(benchmark::State const& state)
      : ctx{.threads = static_cast<int>(state.range(0))} {
    ours(kind::forward);
  }

  void ours(kind which) {
    add::condition<float> const conditions[] = {
        {projection.condition_size[0], condition.data(), nullptr}};
    add::layer_pass<float> const pass{.shape = shape,
                                      .w = w.data(),
                                      .x = x.data(),
                                      .y = logits.data(),
                                      .x_dot = x_dot.data(),
                                      .y_dot = logits.data(),
                                      .y_bar = y_bar.data(),
                                      .y_dot_bar = y_bar.data(),
                                      .x_bar = x_bar.data(),
                                      .w_bar = w_bar.data(),
                                      .saved = saved.data(),
                                      .workspace = workspace.data(),
                                      .conditions = conditions};
    switch (which) {
      case kind::forward: return projection.forward(ctx, pass);
      case kind::backward: return projection.backward(ctx, pass);
      case kind::tangent: return projection.tangent(ctx, pass);
      case kind::tangent_backward: return projection.tangent_backward(ctx, pass);
    }
  }

  void limit(kind which) {
    auto const read = [&](aligned_array<float>& a) {
      std::int64_t const half = shape.size() / 2;
      benchmark::DoNotOptimize(limits::read(a.data(), a.data() + half, half, ctx.threads));
    };
    switch (which) {
      case kind::forward: return read(x);
      case kind::tangent: return read(x_dot);
      case kind::tangent_backward: read(x_dot); [[fallthrough]];
      case kind::backward: limits::copy(x_bar.data(), x.data(), shape.size(), ctx.threads);
    }
  }
  /// On one thread.
  [[nodiscard]] bench::peer_calls peer_calls(kind which) {
    bench::peer_calls calls;
    if (ctx.threads > 1) return calls;
    auto const& eigen = peers::eigen;
    if (which == kind::forward) {
      calls.eigen = bench::call_of(eigen.project, sizes, x.data(), condition.data(), w.data(),
                                   saved_of_peer.data(), logits.data());
    }
    if (which == kind::backward && eigen.project != nullptr) {
      eigen.project(sizes, x.data(), condition.data(), w.data(), saved_of_peer.data(),
                    logits.data());
      calls.eigen =
          bench::call_of(eigen.project_backward, sizes, x.data(), condition.data(), w.data(),
                         saved_of_peer.data(), y_bar.data(), x_bar.data(), w_bar.data());
      calls.clear = [this] { std::fill_n(w_bar.data(), projection.parameter_count(), 0.0F); };
    }
    return calls;
  }
  [[nodiscard]] std::vector<bench::written> outputs(kind which) {
    constexpr double rounding = 1e-5;
    auto const of = [](aligned_array<float>& array, std::int64_t size) {
      return bench::written{bench::numbers_of(array, size).numbers, rounding};
    };
    if (which == kind::forward) return {of(logits, shape.batch * shape.length)};
    return {of(x_bar, shape.size()), of(w_bar, projection.parameter_count())};
  }

  /// Tensors [8, 384, 197] that a pass reads and writes.
  static std::int64_t traffic(kind which) {
    switch (which) {
      case kind::backward: return 2;  // x, x_bar
      case kind::tangent_backward: return 3;  // x, x_dot, x_bar
      default: return 1;  // x or x_dot
    }
  }

  add::cpu_context ctx;
  static constexpr peers::projection sizes{shape.batch, shape.channels, shape.length, 64, 768};
  add::projection<float> projection{.channels = shape.channels,
                                    .width = sizes.width,
                                    .conditions = 1,
                                    .condition_size = {sizes.condition_size}};
  aligned_array<float> w{projection.parameter_count()}, w_bar{projection.parameter_count()};
  aligned_array<float> saved{projection.sizes(shape).saved};
  aligned_array<float> workspace{projection.sizes(shape).workspace};
  aligned_array<float> condition{shape.batch * sizes.condition_size};
  aligned_array<float> saved_of_peer{shape.batch * sizes.width * (shape.length + 1)};
  aligned_array<float> x{shape.size()}, x_dot{shape.size(), 1}, x_bar{shape.size()};
  aligned_array<float> logits{shape.batch * shape.length}, y_bar{shape.batch * shape.length, 2};
};

template <kind Which>
void projection(benchmark::State& state) {
  tensors data(state);
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, data.peer_calls(Which), data.outputs(Which),
      [&] {
        data.ours(Which);
        return 0.0;
      },
      [&] { data.limit(Which); });
  bench::report_speed(state, seconds, shape.size(), 4 * tensors::traffic(Which) * shape.size());
  state.counters["limit"] = share[0];
}

void settings(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Arg(threads);
  benchmark->ArgName("threads")->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_TEMPLATE(projection, kind::forward)->Apply(settings);
BENCHMARK_TEMPLATE(projection, kind::backward)->Apply(settings);
BENCHMARK_TEMPLATE(projection, kind::tangent)->Apply(settings);
BENCHMARK_TEMPLATE(projection, kind::tangent_backward)->Apply(settings);

}  // namespace
