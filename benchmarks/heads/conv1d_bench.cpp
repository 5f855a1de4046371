// SPDX-License-Identifier: MIT
// The convolution of a head beside its limit, multiply-adds in registers, and beside Eigen's matrix
// products.
#include <addloss/heads/conv1d.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;
using bench::aligned_array;

enum class kind { forward, inputs, weights };
using method = add::convolution_method;

/// The inputs and outputs of a benchmark with arguments kernel, threads.
template <method Method>
struct tensors {
  static constexpr std::int64_t batch = 8;
  static constexpr std::int64_t channels = 384;
  static constexpr std::int64_t length = 197;

  explicit tensors(benchmark::State const& state)
      : conv{channels, channels, static_cast<int>(state.range(0)), Method},
        threads(static_cast<int>(state.range(1))),
        w(conv.parameter_count()),
        w_bar(conv.parameter_count()),
        x(shape.size()),
        y(shape.size()),
        saved(conv.sizes(shape).saved),
        workspace(conv.sizes(shape).workspace) {
    ours(kind::forward);  // what the gradients need of it
  }

  /// Multiplications and additions of the direct form.
  [[nodiscard]] double operations() const {
    return 2.0 * static_cast<double>(batch * length * conv.weight_count());
  }
  /// Those of the matrix products that are done; the last tile of a sample is done as a whole.
  [[nodiscard]] double products() const {
    if (!conv.by_toom_cook(shape)) return operations();
    using toom_cook = add::detail::toom_cook<float>;
    constexpr std::int64_t tiles = (length + toom_cook::step - 1) / toom_cook::step;
    return 2.0 * toom_cook::points * static_cast<double>(batch * tiles * channels * channels);
  }

  void ours(kind which) {
    add::cpu_context const ctx{.threads = threads};
    add::layer_pass<float> pass{.shape = shape,
                                .w = w.data(),
                                .x = x.data(),
                                .saved = saved.data(),
                                .workspace = workspace.data()};
    switch (which) {
      case kind::forward: pass.y = y.data(); return conv.forward(ctx, pass);
      case kind::inputs: pass.x_bar = y.data(); break;
      case kind::weights: pass.w_bar = w_bar.data(); break;
    }
    pass.y_bar = x.data();
    conv.backward(ctx, pass);
  }

  /// Of the calls that have a peer.
  [[nodiscard]] std::vector<bench::written> outputs(kind which) {
    bool const weights = which == kind::weights;
    bench::written const result =
        bench::numbers_of(weights ? w_bar : y, weights ? conv.weight_count() : shape.size());
    return {{result.numbers, 2e-5}};
  }
  [[nodiscard]] bench::peer_calls peer_calls(kind which) {
    bench::peer_calls calls;
    peers::convolution const of{batch, channels, length, conv.kernel};
    if (threads > 1) return calls;
    if (which == kind::forward) {
      calls.eigen = bench::call_of(peers::eigen.convolve, of, x.data(), w.data(), y.data());
    } else if (which == kind::weights && conv.kernel == 1) {
      calls.eigen =
          bench::call_of(peers::eigen.convolution_weights, of, x.data(), x.data(), w_bar.data());
      calls.clear = [this] { std::fill_n(w_bar.data(), conv.weight_count(), 0.0F); };
    }
    return calls;
  }

  add::conv1d<float> conv;
  add::feature_shape shape{batch, channels, length};
  int threads;
  aligned_array<float> w, w_bar, x, y, saved, workspace;
};

template <kind Which, method Method>
void conv1d(benchmark::State& state) {
  tensors<Method> data(state);
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, data.peer_calls(Which), data.outputs(Which),
      [&] {
        data.ours(Which);
        return 0.0;
      },
      limits::multiply_adds);
  bench::report_arithmetic(state, seconds, data.operations(), data.products(), share[0],
                           data.threads);
}

void both_kernels(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgsProduct({{1, 9}, {1, 2}})->ArgNames({"kernel", "threads"});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}
void kernel_9(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgsProduct({{9}, {1, 2}})->ArgNames({"kernel", "threads"});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_TEMPLATE(conv1d, kind::forward, method::direct)->Apply(both_kernels);
BENCHMARK_TEMPLATE(conv1d, kind::inputs, method::direct)->Apply(both_kernels);
BENCHMARK_TEMPLATE(conv1d, kind::weights, method::direct)->Apply(both_kernels);
BENCHMARK_TEMPLATE(conv1d, kind::forward, method::toom_cook)->Apply(kernel_9);
BENCHMARK_TEMPLATE(conv1d, kind::inputs, method::toom_cook)->Apply(kernel_9);
BENCHMARK_TEMPLATE(conv1d, kind::weights, method::toom_cook)->Apply(kernel_9);

}  // namespace
