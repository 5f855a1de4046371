// SPDX-License-Identifier: MIT
// The hinge discriminator loss of K heads, real and fake, with its gradients and statistics: all in
// one call. The limit copies the logits to where the gradients go, and computes nothing.
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/evaluate.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>

#include "limits.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t batch = 8;
constexpr double target_us = 2;  // 5 heads of 257 tokens

/// The logits of one side and their gradients.
struct side {
  side(std::int64_t heads, std::int64_t tokens) {
    for (std::int64_t k = 0; k < heads; ++k) {
      logits.emplace_back(batch * tokens);
      gradients.emplace_back(batch * tokens);
      logit_rows.emplace_back(add::view(logits.back().data(), batch, tokens));
      gradient_rows.emplace_back(add::view(gradients.back().data(), batch, tokens));
    }
  }
  void copy(std::int64_t size) {
    for (std::size_t k = 0; k < logits.size(); ++k) {
      limits::copy(gradients[k].data(), logits[k].data(), size);
    }
  }

  std::vector<bench::aligned_array<float>> logits, gradients;
  std::vector<add::rows<float const>> logit_rows;
  std::vector<add::rows<float>> gradient_rows;
};

void hinge_discriminator(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const tokens = state.range(1);
  side real(heads, tokens);
  side fake(heads, tokens);
  std::vector<add::head_statistics> statistics(static_cast<std::size_t>(heads));
  double value = 0;
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(
            add::cpu_context{},
            add::adversarial<>{}.discriminator<float>(real.logit_rows, fake.logit_rows), value,
            {.real = real.gradient_rows, .fake = fake.gradient_rows}, {.statistics = statistics});
      },
      [&] {
        real.copy(batch * tokens);
        fake.copy(batch * tokens);
      });
  state.counters["elements/s"] = static_cast<double>(2 * heads * batch * tokens) / seconds;
  state.counters["limit"] = share[0];
  if (heads == 5 && tokens == 257) state.counters["target_us"] = target_us;
}

BENCHMARK(hinge_discriminator)
    ->ArgNames({"heads", "tokens"})
    ->ArgsProduct({benchmark::CreateDenseRange(1, 8, 1), {257}})
    ->ArgsProduct({{1, 5}, {1025}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
