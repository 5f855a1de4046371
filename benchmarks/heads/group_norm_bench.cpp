// SPDX-License-Identifier: MIT
#include <addloss/heads/group_norm.hpp>

#include "heads/layer_passes.hpp"

namespace {

using bench::pass_kind;

template <class T, pass_kind Which>
void group_norm(benchmark::State& state) {
  bench::norm_pass<addloss::group_norm, T, Which>(state, {.samples = 1, .channels = 384 / 32});
}

BENCHMARK_TEMPLATE(group_norm, float, pass_kind::forward)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(group_norm, float, pass_kind::backward)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(group_norm, float, pass_kind::tangent)->Apply(bench::one_and_two_threads);
BENCHMARK_TEMPLATE(group_norm, float, pass_kind::tangent_backward)
    ->Apply(bench::one_and_two_threads);

}  // namespace
