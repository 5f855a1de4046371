// SPDX-License-Identifier: MIT
// A skip connection around a leaky ReLU. No backward pass: it scales y_bar where it lies, so that
// calls one after the other would soon work on subnormal numbers.
#include <addloss/heads/residual.hpp>

#include <addloss/heads/leaky_relu.hpp>

#include "heads/layer_passes.hpp"

namespace {

using bench::pass_kind;
using layer = addloss::residual<addloss::leaky_relu>;

template <pass_kind Which>
void residual(benchmark::State& state) {
  bench::layer_tensors<layer, float> data(state, layer{});
  bench::time_pass<Which>(state, data);
}

BENCHMARK(residual<pass_kind::forward>)->Apply(bench::one_and_two_threads);
BENCHMARK(residual<pass_kind::tangent>)->Apply(bench::one_and_two_threads);

}  // namespace
