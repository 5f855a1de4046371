// SPDX-License-Identifier: MIT
/// The passes of a layer whose output has the shape of its input, on [8, 384, 197], for the
/// benchmarks: beside loops of the STREAM benchmark that read and write as many tensors, and of a
/// norm beside Eigen.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

#include <addloss/heads/layer.hpp>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace bench {

enum class pass_kind { forward, backward, tangent, tangent_backward };

/// The inputs and outputs of a benchmark with the argument threads.
template <class Layer, class T>
struct layer_tensors {
  static constexpr addloss::feature_shape shape{8, 384, 197};

  layer_tensors(benchmark::State const& state, Layer const& of)
      : layer(of),
        threads(static_cast<int>(state.range(0))),
        w(layer.parameter_count()),
        w_bar(layer.parameter_count()),
        saved(layer.sizes(shape).saved),
        saved_bar(layer.sizes(shape).saved_bar),
        saved_dot(layer.sizes(shape).saved_dot),
        workspace(layer.sizes(shape).workspace),
        x(shape.size()),
        x_dot(shape.size()),
        y_bar(shape.size(), 1),
        y_dot_bar(shape.size()),
        out(shape.size()) {
    ours(pass_kind::forward);
    ours(pass_kind::backward);
    ours(pass_kind::tangent);
  }

  /// Tensors that a pass reads and writes.
  static std::int64_t traffic(pass_kind which) {
    switch (which) {
      case pass_kind::forward: return 2;  // x, y
      case pass_kind::backward: return 3;  // x, y_bar, x_bar
      case pass_kind::tangent: return 3;  // x, x_dot, y_dot
      default: return 5;  // x, x_dot, y_bar, y_dot_bar, x_bar
    }
  }

  void ours(pass_kind which) {
    addloss::cpu_context const ctx{.threads = threads};
    addloss::layer_pass<T> const pass{.shape = shape,
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
      case pass_kind::forward: return layer.forward(ctx, pass);
      case pass_kind::backward: return layer.backward(ctx, pass);
      case pass_kind::tangent: return layer.tangent(ctx, pass);
      case pass_kind::tangent_backward: return layer.tangent_backward(ctx, pass);
    }
  }

  /// The same number of tensors, read and written by the simplest loops.
  void stream(pass_kind which) {
    auto const size = shape.size() * static_cast<std::int64_t>(sizeof(T) / sizeof(float));
    if (which == pass_kind::forward) return limits::copy(out.floats(), x.floats(), size, threads);
    if (which == pass_kind::tangent_backward) {
      benchmark::DoNotOptimize(limits::read(y_bar.floats(), y_dot_bar.floats(), size, threads));
    }
    limits::triad(out.floats(), x.floats(), x_dot.floats(), size, threads);
  }

  Layer layer;
  int threads;
  aligned_array<T> w, w_bar, saved, saved_bar, saved_dot, workspace;
  aligned_array<T> x, x_dot, y_bar, y_dot_bar, out;
};

/// limit: time of the simplest loops by ours, 1 is as fast.
template <pass_kind Which, class Layer, class T>
void time_pass(benchmark::State& state, layer_tensors<Layer, T>& data, peer_calls const& peers = {},
               std::span<written const> outputs = {}) {
  auto const result = take_turns_with_peers(
      state, peers, outputs,
      [&] {
        data.ours(Which);
        return 0.0;
      },
      [&] { data.stream(Which); });
  std::int64_t const size = data.shape.size();
  report_speed(state, result.seconds, size,
               data.traffic(Which) * size * static_cast<std::int64_t>(sizeof(T)));
  state.counters["limit"] = result.share[0];
}

/// What a norm takes together, of all tokens.
struct norm_box {
  std::int64_t samples, channels;
};

template <class Norm, class T, pass_kind Which>
void norm_pass(benchmark::State& state, norm_box box) {
  using tensors = layer_tensors<Norm, T>;
  constexpr addloss::feature_shape shape = tensors::shape;
  Norm const norm{.channels = shape.channels, .negative_slope = 0.2};
  tensors data(state, norm);
  constexpr bool backward = Which == pass_kind::backward;
  if constexpr (std::same_as<T, float> && (Which == pass_kind::forward || backward)) {
    aligned_array<float> saved(norm.sizes(shape).saved);
    peers::norm const of{shape.batch,  shape.channels, shape.length,       box.samples,
                         box.channels, norm.epsilon,   norm.negative_slope};
    peer_calls calls;
    if (data.threads == 1) {
      calls.eigen = call_of(peers::eigen.normalise, of, data.x.data(), data.w.data(), saved.data(),
                            data.out.data());
    }
    std::vector<written> outputs{{numbers_of(data.out, shape.size()).numbers, 1e-5}};
    if (backward && calls.eigen) {
      calls.eigen();  // what the gradient needs of it
      calls.eigen = call_of(peers::eigen.normalise_backward, of, data.x.data(), data.w.data(),
                            saved.data(), data.y_bar.data(), data.out.data(), data.w_bar.data());
      calls.clear = [&] { std::fill_n(data.w_bar.data(), norm.parameter_count(), 0.0F); };
      outputs.push_back({numbers_of(data.w_bar, norm.parameter_count()).numbers, 1e-5});
    }
    time_pass<Which>(state, data, calls, outputs);
  } else {
    time_pass<Which>(state, data);
  }
}

inline void one_and_two_threads(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Arg(threads);
  benchmark->ArgName("threads")->UseManualTime()->Unit(benchmark::kMicrosecond);
}

}  // namespace bench
