// SPDX-License-Identifier: MIT
// Matrix products of the sizes that layers have, against Eigen's, in turns on one thread.
#include <addloss/heads/matrix_product.hpp>

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

enum class layout { plain, transposed };

/// C [m, n] = A [m, k] B [k, n]. GFLOPs; eigen: Eigen's time by ours, above 1 ours is faster.
template <layout OfA, layout OfB>
void matrix_product(benchmark::State& state) {
  std::int64_t const m = state.range(0);
  std::int64_t const n = state.range(1);
  std::int64_t const k = state.range(2);
  bench::aligned_array<float> a(m * k);
  bench::aligned_array<float> b(k * n);
  bench::aligned_array<float> c(m * n);
  auto const report = [&](auto const& result) {
    state.counters["GFLOPs"] = 2e-9 * static_cast<double>(m * n * k) / result.seconds;
  };
  auto const ours = [&] {
    using addloss::transposed;
    using addloss::view;
    auto const left =
        OfA == layout::plain ? view(a.data(), m, k) : transposed(view(a.data(), k, m));
    auto const right =
        OfB == layout::plain ? view(b.data(), k, n) : transposed(view(b.data(), n, k));
    addloss::matrix_product({}, left, right, view(c.data(), m, n));
  };
#if defined(BENCH_EIGEN)
  auto const eigen = [&] {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    auto const of = [](auto& x, std::int64_t rows, std::int64_t columns) {
      return Eigen::Map<matrix>(x.data(), rows, columns);
    };
    auto result = of(c, m, n);
    if constexpr (OfA == layout::transposed) {
      result.noalias() = of(a, k, m).transpose() * of(b, k, n);
    } else if constexpr (OfB == layout::transposed) {
      result.noalias() = of(a, m, k) * of(b, n, k).transpose();
    } else {
      result.noalias() = of(a, m, k) * of(b, k, n);
    }
  };
  auto const result = bench::take_turns(state, ours, eigen);
  state.counters["eigen"] = result.share[0];
  report(result);
#else
  report(bench::take_turns(state, ours));
#endif
}

/// A linear layer of 128 to 256 channels on 392 tokens, and one of 98 to 49 tokens on 1024 channels.
void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({392, 256, 128})->Args({49, 1024, 98})->ArgNames({"m", "n", "k"});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_TEMPLATE(matrix_product, layout::plain, layout::plain)->Apply(sizes);
BENCHMARK_TEMPLATE(matrix_product, layout::plain, layout::transposed)->Apply(sizes);
BENCHMARK_TEMPLATE(matrix_product, layout::transposed, layout::plain)->Apply(sizes);

}  // namespace
