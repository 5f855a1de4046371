// SPDX-License-Identifier: MIT
// The hinge loss of K discriminator heads on a GPU, with gradients and statistics in one call.
#include <addloss/losses/adversarial.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"

namespace {

namespace add = addloss;

/// The logits of one side and their gradients.
template <class T>
struct side {
  using read_rows = add::rows<T const, add::device_space>;
  using written_rows = add::rows<T, add::device_space>;
  side(std::int64_t heads, std::int64_t samples, std::int64_t tokens) {
    for (std::int64_t k = 0; k < heads; ++k) {
      logits.push_back(std::make_unique<bench::device_numbers<T>>(samples * tokens));
      gradients.push_back(std::make_unique<bench::device_numbers<T>>(samples * tokens));
      logit_rows.emplace_back(add::view<add::device_space>(logits.back()->data(), samples, tokens));
      gradient_rows.emplace_back(
          add::view<add::device_space>(gradients.back()->data(), samples, tokens));
    }
  }
  std::vector<std::unique_ptr<bench::device_numbers<T>>> logits, gradients;
  std::vector<read_rows> logit_rows;
  std::vector<written_rows> gradient_rows;
};

template <class T>
struct logits_of_heads {
  logits_of_heads(std::int64_t heads, std::int64_t samples, std::int64_t tokens)
      : real(heads, samples, tokens), fake(heads, samples, tokens) {}
  side<T> real, fake;
};

/// Arguments: heads, B, tokens, calls in a graph.
template <class T, bool Generator, class Loss = add::hinge>
void adversarial(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const samples = state.range(1);
  std::int64_t const tokens = state.range(2);
  std::int64_t const head_bytes = samples * tokens * static_cast<std::int64_t>(sizeof(T));
  std::int64_t const bytes = 2 * (Generator ? 1 : 2) * heads * head_bytes;
  std::vector<std::unique_ptr<logits_of_heads<T>>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(bytes); ++i) {
    sets.push_back(std::make_unique<logits_of_heads<T>>(heads, samples, tokens));
  }
  auto const loss_of = [&](logits_of_heads<T> const& set) {
    add::adversarial<Loss> const loss;
    if constexpr (Generator) {
      return loss.template generator<T, add::device_space>(set.fake.logit_rows);
    } else {
      return loss.template discriminator<T, add::device_space>(set.real.logit_rows,
                                                               set.fake.logit_rows);
    }
  };
  bench::device const gpu(add::workspace_bytes(loss_of(*sets[0])));
  bench::device_numbers<double> const value(1);
  bench::device_copy_of<add::head_statistics> const statistics(
      std::vector<add::head_statistics>(static_cast<std::size_t>(heads)));
  bench::take_device_turns(
      state, gpu.context().stream, {.graph = state.range(3), .bytes = bytes},
      static_cast<std::int64_t>(sets.size()),
      [&](std::int64_t i) {
        auto const& set = *sets[static_cast<std::size_t>(i)];
        add::logit_gradients<T, add::device_space> gradients{.fake = set.fake.gradient_rows};
        if constexpr (!Generator) gradients.real = set.real.gradient_rows;
        add::value_and_grad(gpu.context(), loss_of(set), add::view<add::device_space>(value.data()),
                            gradients,
                            {.statistics = {statistics.data(), static_cast<std::size_t>(heads)}});
      },
      head_bytes,
      [&](std::int64_t i) {
        side<T> const& fake = sets[static_cast<std::size_t>(i)]->fake;
        bench::copy_on_device(gpu.context().stream, fake.gradients[0]->data(),
                              fake.logits[0]->data(), head_bytes);
      });
}

void names(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"heads", "", "", "graph"});
  bench::settings(benchmark);
}
/// What StyleGAN-T's heads see of a ViT: 16 x 16 patches and a class token.
void tokens(benchmark::internal::Benchmark* benchmark) {
  for (int const graph : {0, 1, 20}) benchmark->Args({5, 8, 257, graph});
  names(benchmark);
}
/// 64 MiB or more a head of either side.
void many(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({5, 512, 256 * 256, 0});
  names(benchmark);
}

BENCHMARK(adversarial<float, false>)->Apply(tokens);
BENCHMARK(adversarial<float, true>)->Apply(tokens);
BENCHMARK(adversarial<add::bfloat16, false>)->Apply(tokens);
BENCHMARK(adversarial<float, false>)->Apply(many);
BENCHMARK(adversarial<float, true>)->Apply(many);
BENCHMARK(adversarial<add::half, false>)->Apply(many);
BENCHMARK(adversarial<add::bfloat16, false>)->Apply(many);
BENCHMARK(adversarial<float, false, add::non_saturating>)->Apply(many);

}  // namespace
