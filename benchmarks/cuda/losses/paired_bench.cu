// SPDX-License-Identifier: MIT
// The relativistic loss and approximate R1 of K heads' pairs of logits on a GPU, with both
// gradients and, the first, statistics, in one call.
#include <addloss/losses/paired.hpp>

#include <cstdint>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"
#include "cuda/losses/logits.cuh"

namespace {

namespace add = addloss;

enum class form { relativistic, approximate_r1 };

template <class T, form Form>
void paired(benchmark::State& state) {
  bench::device_logits<T> const logits(state, 2);
  auto const loss_of = [&](bench::device_pairs<T> const& set) {
    auto const& [a, b] = set;
    if constexpr (Form == form::relativistic) {
      return add::paired<>{}.discriminator<T, add::device_space>(a.logit_rows, b.logit_rows);
    } else {
      return add::approximate_r1<>{}.on<T, add::device_space>(a.logit_rows, b.logit_rows);
    }
  };
  bench::device const gpu(add::workspace_bytes(loss_of(logits.set(0))));
  bench::device_numbers<double> const value(1);
  bench::device_copy_of<add::pair_statistics> const statistics(
      std::vector<add::pair_statistics>(logits.heads));
  bench::take_device_turns(state, gpu.context().stream, logits.what, [&](std::int64_t i) {
    bench::device_pairs<T> const& set = logits.set(i);
    add::pair_options<add::arithmetic_t<T>, add::device_space> options;
    if (Form == form::relativistic) options.statistics = {statistics.data(), logits.heads};
    add::value_and_grad(gpu.context(), loss_of(set), add::view<add::device_space>(value.data()),
                        {.first = set.first.gradient_rows, .second = set.second.gradient_rows},
                        options);
  });
}

using enum form;
BENCHMARK(paired<float, relativistic>)->Apply(bench::tokens);
BENCHMARK(paired<float, relativistic>)->Apply(bench::many_tokens);
BENCHMARK(paired<add::half, relativistic>)->Apply(bench::many_tokens);
BENCHMARK(paired<add::bfloat16, relativistic>)->Apply(bench::many_tokens);
BENCHMARK(paired<float, approximate_r1>)->Apply(bench::tokens);
BENCHMARK(paired<float, approximate_r1>)->Apply(bench::many_tokens);
BENCHMARK(paired<add::bfloat16, approximate_r1>)->Apply(bench::many_tokens);

}  // namespace
