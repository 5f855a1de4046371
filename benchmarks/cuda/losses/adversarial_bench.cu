// SPDX-License-Identifier: MIT
// The hinge loss of K discriminator heads on a GPU, with gradients and statistics in one call, and
// other losses.
#include <addloss/losses/adversarial.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"
#include "cuda/losses/logits.cuh"

namespace {

namespace add = addloss;

template <class T, bool Generator, class Loss = add::hinge>
void adversarial(benchmark::State& state) {
  bench::device_logits<T> const logits(state, Generator ? 1 : 2);
  auto const loss_of = [&](bench::device_pairs<T> const& set) {
    add::adversarial<Loss> const loss;
    if constexpr (Generator) {
      return loss.template generator<T, add::device_space>(set.second.logit_rows);
    } else {
      return loss.template discriminator<T, add::device_space>(set.first.logit_rows,
                                                               set.second.logit_rows);
    }
  };
  bench::device const gpu(add::workspace_bytes(loss_of(logits.set(0))));
  bench::device_numbers<double> const value(1);
  bench::device_copy_of<add::head_statistics> const statistics(
      std::vector<add::head_statistics>(logits.heads));
  bench::take_device_turns(state, gpu.context().stream, logits.what, [&](std::int64_t i) {
    bench::device_pairs<T> const& set = logits.set(i);
    add::logit_gradients<T, add::device_space> gradients{.fake = set.second.gradient_rows};
    if constexpr (!Generator) gradients.real = set.first.gradient_rows;
    add::value_and_grad(gpu.context(), loss_of(set), add::view<add::device_space>(value.data()),
                        gradients, {.statistics = {statistics.data(), logits.heads}});
  });
}

/// Other numbers of heads, small and large.
void heads(benchmark::internal::Benchmark* benchmark) {
  for (int const k : {1, 2, 4, 8}) {
    for (int const graph : {0, 20}) benchmark->Args({k, 8, 257, graph});
    benchmark->Args({k, 512, 256 * 256, 0});
  }
  bench::logit_settings(benchmark);
}

BENCHMARK(adversarial<float, false>)->Apply(bench::tokens);
BENCHMARK(adversarial<float, true>)->Apply(bench::tokens);
BENCHMARK(adversarial<add::bfloat16, false>)->Apply(bench::tokens);
BENCHMARK(adversarial<float, false>)->Apply(bench::many_tokens);
BENCHMARK(adversarial<float, true>)->Apply(bench::many_tokens);
BENCHMARK(adversarial<add::half, false>)->Apply(bench::many_tokens);
BENCHMARK(adversarial<add::bfloat16, false>)->Apply(bench::many_tokens);
BENCHMARK(adversarial<float, false, add::non_saturating>)->Apply(bench::many_tokens);
BENCHMARK(adversarial<float, false>)->Apply(heads);

}  // namespace
