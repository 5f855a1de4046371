// SPDX-License-Identifier: MIT
// Matrix products of the sizes of layers, beside multiply-adds in registers, on one thread.
#include <addloss/heads/matrix_product.hpp>

#include <array>
#include <cstdint>

#include "limits.hpp"
#include "peers.hpp"
#include "turns.hpp"

namespace {

using peers::layout;

/// C [m, n] = A [m, k] B [k, n]
template <layout OfA, layout OfB>
void matrix_product(benchmark::State& state) {
  std::int64_t const m = state.range(0);
  std::int64_t const n = state.range(1);
  std::int64_t const k = state.range(2);
  bench::aligned_array<float> a(m * k);
  bench::aligned_array<float> b(k * n);
  bench::aligned_array<float> c(m * n);
  bench::peer_calls const calls{.eigen = bench::call_of(peers::eigen.matrix_product, OfA, a.data(),
                                                        OfB, b.data(), c.data(), m, n, k)};
  auto const [seconds, share] = bench::take_turns_with_peers(
      state, calls, std::array{bench::numbers_of(c, m * n)},
      [&] {
        using addloss::transposed;
        using addloss::view;
        auto const left =
            OfA == layout::plain ? view(a.data(), m, k) : transposed(view(a.data(), k, m));
        auto const right =
            OfB == layout::plain ? view(b.data(), k, n) : transposed(view(b.data(), n, k));
        addloss::matrix_product({}, left, right, view(c.data(), m, n));
        return 0.0;
      },
      limits::multiply_adds);
  double const operations = 2.0 * static_cast<double>(m * n * k);
  bench::report_arithmetic(state, seconds, operations, operations, share[0]);
}

/// Linear layers: of 128 to 256 channels on 392 tokens, of 98 to 49 tokens on 1024 channels.
void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({392, 256, 128})->Args({49, 1024, 98})->ArgNames({"m", "n", "k"});
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK_TEMPLATE(matrix_product, layout::plain, layout::plain)->Apply(sizes);
BENCHMARK_TEMPLATE(matrix_product, layout::plain, layout::transposed)->Apply(sizes);
BENCHMARK_TEMPLATE(matrix_product, layout::transposed, layout::plain)->Apply(sizes);

}  // namespace
