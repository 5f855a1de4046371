// SPDX-License-Identifier: MIT
#include <addloss/heads/local_norm.hpp>

#include "heads/layer_passes.hpp"

namespace {

using bench::pass_kind;

template <class T, pass_kind Which>
void local_norm(benchmark::State& state) {
  bench::norm_pass<addloss::local_norm, T, Which>(state, {.samples = 8, .channels = 1});
}

BENCHMARK_TEMPLATE(local_norm, float, pass_kind::forward)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(local_norm, float, pass_kind::backward)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(local_norm, float, pass_kind::tangent)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(local_norm, float, pass_kind::tangent_backward)
    ->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(local_norm, double, pass_kind::forward)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(local_norm, double, pass_kind::tangent_backward)
    ->Apply(bench::one_and_two_threads);

}  // namespace
