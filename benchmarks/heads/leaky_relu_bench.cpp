// SPDX-License-Identifier: MIT
#include <addloss/heads/leaky_relu.hpp>

#include "heads/layer_passes.hpp"

namespace {

using bench::pass_kind;

template <pass_kind Which>
void leaky_relu(benchmark::State& state) {
  bench::layer_tensors<addloss::leaky_relu, float> data(state, {});
  bench::time_pass<Which>(state, data);
}

BENCHMARK(leaky_relu<pass_kind::forward>)->Apply(bench::one_and_two_threads);
BENCHMARK(leaky_relu<pass_kind::backward>)->Apply(bench::one_and_two_threads);

}  // namespace
