// SPDX-License-Identifier: MIT
// The convolution of a head against its limit, multiply-adds in registers, and against the same
// sums by Eigen's matrix product, all in turns on one thread.
#include <addloss/heads/conv1d.hpp>

#include <cstdint>

#if __has_include(<Eigen/Core>)
#define BENCH_EIGEN 1
#define EIGEN_DONT_PARALLELIZE  // it would take all threads
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 finds its own AVX-512 intrinsics uninitialised where Eigen uses them.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#endif

#include "turns.hpp"

namespace {

namespace add = addloss;
using bench::aligned_array;

/// Multiply-adds in registers, and nothing else, with this program's SIMD width.
constexpr int chains = 12;
constexpr std::int64_t peak_steps = 1 << 14;
template <class T>
[[gnu::noinline]] void multiply_add(T* to, T factor) {
  using pack = add::native_pack<T>;
  pack sum[chains];
  pack const scale(factor);
#pragma GCC unroll 12
  for (int i = 0; i < chains; ++i) sum[i] = pack(static_cast<T>(i));
  for (std::int64_t step = 0; step < peak_steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sum[i].lanes = sum[i].lanes * scale.lanes + scale.lanes;
  }
#pragma GCC unroll 12
  for (int i = 0; i < chains; ++i) {
    sum[i].store(to);
    benchmark::DoNotOptimize(*to);
  }
}

enum class kind { forward, inputs, weights };
using method = add::convolution_method;

/// The inputs and outputs of a benchmark with arguments kernel, threads.
template <class T, method Method>
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
        workspace(conv.sizes(shape).workspace),
        padded(channels * (length + conv.kernel - 1)) {
    ours(kind::forward);  // what the gradients need of it
  }

  /// Multiplications and additions of the direct form.
  [[nodiscard]] double operations() const {
    return 2.0 * static_cast<double>(batch * length * conv.weight_count());
  }
  /// Those of the matrix products that are done; the last tile of a sample is done as a whole.
  [[nodiscard]] double products() const {
    if (!conv.by_toom_cook(shape)) return operations();
    using toom_cook = add::detail::toom_cook<T>;
    constexpr std::int64_t tiles = (length + toom_cook::step - 1) / toom_cook::step;
    return 2.0 * toom_cook::points * static_cast<double>(batch * tiles * channels * channels);
  }

  void ours(kind which) {
    add::cpu_context const ctx{.threads = threads};
    add::layer_pass<T> pass{.shape = shape,
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

#if defined(BENCH_EIGEN)
  /// One product a sample with all taps as rows, on a padded copy (rows that overlap).
  void eigen_forward() {
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    int const taps = conv.kernel;
    std::int64_t const padded_length = length + taps - 1;
    Eigen::Map<matrix const> const weight(w.data(), channels, channels * taps);
    Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1> const> const bias(w.data() + conv.weight_count(),
                                                                     channels);
    for (std::int64_t b = 0; b < batch; ++b) {
      T const* const sample = x.data() + b * channels * length;
      Eigen::Map<matrix> result(y.data() + b * channels * length, channels, length);
      result.colwise() = bias;
      if (taps == 1) {
        result.noalias() += weight * Eigen::Map<matrix const>(sample, channels, length);
        continue;
      }
      for (std::int64_t i = 0; i < channels; ++i) {
        for (std::int64_t m = 0; m < padded_length; ++m) {
          std::int64_t const at = m - taps / 2;
          std::int64_t const wrapped = at < 0 ? at + length : at - (at < length ? 0 : length);
          padded.data()[i * padded_length + m] = sample[i * length + wrapped];
        }
      }
      using strided = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
      for (int t = 0; t < taps; ++t) {
        Eigen::Map<matrix const, 0, strided> const tap(w.data() + t, channels, channels,
                                                       strided(channels * taps, taps));
        result.noalias() +=
            tap * Eigen::Map<matrix const, 0, Eigen::OuterStride<>>(
                      padded.data() + t, channels, length, Eigen::OuterStride<>(padded_length));
      }
    }
  }
  void eigen_weights() {
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<matrix> weight(w_bar.data(), channels, channels);
    for (std::int64_t b = 0; b < batch; ++b) {
      Eigen::Map<matrix const> const sample(x.data() + b * channels * length, channels, length);
      weight.noalias() += sample * sample.transpose();
    }
  }
#endif

  add::conv1d<T> conv;
  add::feature_shape shape{batch, channels, length};
  int threads;
  aligned_array<T> w, w_bar, x, y, saved, workspace, padded;
};

/// GFLOPs: as if all had been done in direct form. peak: what the matrix products do, with all of the
/// time, as a share of the limit on one thread. eigen: Eigen's time by ours, above 1 ours is faster.
template <class T, kind Which, method Method>
void conv1d(benchmark::State& state) {
  tensors<T, Method> data(state);
  alignas(64) T sink[64 / sizeof(T)];
  T factor = T(0.5);
  benchmark::DoNotOptimize(factor);
  auto const ours = [&] { data.ours(Which); };
  auto const limit = [&] { multiply_add(sink, factor); };
  double const limit_operations = 2.0 * chains * peak_steps * add::native_pack<T>::width;
  auto const report = [&](auto const& result) {
    state.counters["GFLOPs"] = 1e-9 * data.operations() / result.seconds;
    double const limit_speed = limit_operations / (result.share[0] * result.seconds);
    state.counters["peak_GFLOPs"] = 1e-9 * limit_speed;
    state.counters["limit"] = data.products() / result.seconds / limit_speed / data.threads;
  };
#if defined(BENCH_EIGEN)
  if (data.threads == 1 &&
      (Which == kind::forward || (Which == kind::weights && data.conv.kernel == 1))) {
    auto const result = bench::take_turns(state, ours, limit, [&] {
      if constexpr (Which == kind::forward) data.eigen_forward();
      if constexpr (Which == kind::weights) data.eigen_weights();
    });
    report(result);
    state.counters["eigen_GFLOPs"] = 1e-9 * data.operations() / (result.share[1] * result.seconds);
    state.counters["eigen"] = result.share[1];
    return;
  }
#endif
  report(bench::take_turns(state, ours, limit));
}

void both_kernels(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgsProduct({{1, 9}, {1, 2}})->ArgNames({"kernel", "threads"});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}
void kernel_9(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgsProduct({{9}, {1, 2}})->ArgNames({"kernel", "threads"});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_TEMPLATE(conv1d, float, kind::forward, method::direct)->Apply(both_kernels);
BENCHMARK_TEMPLATE(conv1d, float, kind::inputs, method::direct)->Apply(both_kernels);
BENCHMARK_TEMPLATE(conv1d, float, kind::weights, method::direct)->Apply(both_kernels);
BENCHMARK_TEMPLATE(conv1d, float, kind::forward, method::toom_cook)->Apply(kernel_9);
BENCHMARK_TEMPLATE(conv1d, float, kind::inputs, method::toom_cook)->Apply(kernel_9);
BENCHMARK_TEMPLATE(conv1d, float, kind::weights, method::toom_cook)->Apply(kernel_9);
BENCHMARK_TEMPLATE(conv1d, double, kind::forward, method::direct)->Apply(both_kernels);

}  // namespace
