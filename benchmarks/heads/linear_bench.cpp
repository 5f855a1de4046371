// SPDX-License-Identifier: MIT
// A linear map of 384 channels, beside multiply-adds in registers. It is a convolution of kernel 1,
// which has Eigen beside it.
#include <addloss/heads/linear.hpp>

#include "heads/layer_passes.hpp"
#include "limits.hpp"

namespace {

using bench::pass_kind;

template <pass_kind Which>
void linear(benchmark::State& state) {
  using layer = addloss::linear<float>;
  using tensors = bench::layer_tensors<layer, float>;
  constexpr addloss::feature_shape shape = tensors::shape;
  tensors data(state, layer{shape.channels, shape.channels});
  auto const [seconds, share] = bench::take_turns(
      state, [&] { data.ours(Which); }, limits::multiply_adds);
  // One product, or that of the weights and that of the inputs.
  double const operations = (Which == pass_kind::forward ? 2.0 : 4.0) *
                            static_cast<double>(shape.size() * shape.channels);
  bench::report_arithmetic(state, seconds, operations, operations, share[0], data.threads);
}

BENCHMARK(linear<pass_kind::forward>)->Apply(bench::one_and_two_threads);
BENCHMARK(linear<pass_kind::backward>)->Apply(bench::one_and_two_threads);

}  // namespace
