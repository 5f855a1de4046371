// SPDX-License-Identifier: MIT
/// The passes of a norm of a head, with its activation, beside loops of the STREAM benchmark that
/// read and write as many tensors of the same size, and beside Eigen, for the benchmarks.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <vector>

#include <addloss/heads/layer.hpp>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace bench {

enum class pass_kind { forward, backward, tangent, tangent_backward };

/// What is normalised together, of all tokens.
struct norm_box {
  std::int64_t samples, channels;
};

/// The inputs and outputs of a benchmark with the argument threads.
template <class Norm, class T>
struct norm_tensors {
  static constexpr addloss::feature_shape shape{8, 384, 197};

  explicit norm_tensors(benchmark::State const& state)
      : threads(static_cast<int>(state.range(0))),
        w(norm.parameter_count()),
        w_bar(norm.parameter_count()),
        saved(norm.sizes(shape).saved),
        saved_bar(norm.sizes(shape).saved_bar),
        saved_dot(norm.sizes(shape).saved_dot),
        workspace(norm.sizes(shape).workspace),
        x(shape.size()),
        x_dot(shape.size()),
        y_bar(shape.size(), 1),
        y_dot_bar(shape.size()),
        out(shape.size()),
        saved_of_peer(norm.sizes(shape).saved) {
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
      case pass_kind::forward: return norm.forward(ctx, pass);
      case pass_kind::backward: return norm.backward(ctx, pass);
      case pass_kind::tangent: return norm.tangent(ctx, pass);
      case pass_kind::tangent_backward: return norm.tangent_backward(ctx, pass);
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

  /// On one thread, of the first two passes; `box`: how many samples and channels are normalised
  /// together.
  [[nodiscard]] peer_calls calls_of_peer(pass_kind which, norm_box box) {
    peer_calls calls;
    if constexpr (std::same_as<T, float>) {
      auto const& eigen = peers::eigen;
      if (threads > 1 || eigen.normalise == nullptr) return calls;
      peers::norm const of{shape.batch,  shape.channels, shape.length,       box.samples,
                           box.channels, norm.epsilon,   norm.negative_slope};
      calls.eigen =
          call_of(eigen.normalise, of, x.data(), w.data(), saved_of_peer.data(), out.data());
      if (which == pass_kind::backward) {
        calls.eigen();
        calls.eigen = call_of(eigen.normalise_backward, of, x.data(), w.data(),
                              saved_of_peer.data(), y_bar.data(), out.data(), w_bar.data());
        calls.clear = [this] { std::fill_n(w_bar.data(), norm.parameter_count(), 0.0F); };
      }
    }
    return calls;
  }
  [[nodiscard]] std::vector<written> outputs(pass_kind which) {
    constexpr double rounding = 1e-5;
    std::vector<written> result;
    if constexpr (std::same_as<T, float>) {
      result.push_back({numbers_of(out, shape.size()).numbers, rounding});
      if (which == pass_kind::backward) {
        result.push_back({numbers_of(w_bar, norm.parameter_count()).numbers, rounding});
      }
    }
    return result;
  }

  Norm norm{.channels = shape.channels, .negative_slope = 0.2};
  int threads;
  aligned_array<T> w, w_bar, saved, saved_bar, saved_dot, workspace;
  aligned_array<T> x, x_dot, y_bar, y_dot_bar, out;
  aligned_array<T> saved_of_peer;
};

/// limit: time of the simplest loops by ours, 1 is as fast.
template <class Norm, class T, pass_kind Which>
void norm_pass(benchmark::State& state, norm_box box) {
  using tensors = norm_tensors<Norm, T>;
  tensors data(state);
  constexpr bool has_peer = Which == pass_kind::forward || Which == pass_kind::backward;
  auto const result = take_turns_with_peers(
      state, has_peer ? data.calls_of_peer(Which, box) : peer_calls{}, data.outputs(Which),
      [&] {
        data.ours(Which);
        return 0.0;
      },
      [&] { data.stream(Which); });
  std::int64_t const size = tensors::shape.size();
  report_speed(state, result.seconds, size,
               tensors::traffic(Which) * size * static_cast<std::int64_t>(sizeof(T)));
  state.counters["limit"] = result.share[0];
}

inline void norm_settings(benchmark::internal::Benchmark* benchmark) {
  for (int const threads : {1, 2}) benchmark->Arg(threads);
  benchmark->ArgName("threads")->UseManualTime()->Unit(benchmark::kMicrosecond);
}

}  // namespace bench
