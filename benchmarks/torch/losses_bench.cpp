// SPDX-License-Identifier: MIT
// Losses on LibTorch's tensors, forward and backward, beside the same loss of LibTorch's own
// operations, once both gave the same. Both on one thread.
#include <addloss/torch/losses.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <addloss/schedule/discrete.hpp>

#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr double target_times = 5;

using tensors = std::vector<at::Tensor>;

/// The loss, then its gradients.
tensors with_gradients(at::Tensor const& loss, tensors const& inputs) {
  tensors result = torch::autograd::grad({loss}, inputs);
  result.insert(result.begin(), loss.detach());
  return result;
}

bool same(tensors const& some, tensors const& others) {
  return std::equal(some.begin(), some.end(), others.begin(), others.end(),
                    [](at::Tensor const& a, at::Tensor const& b) {
                      return at::allclose(a.to(at::kDouble), b.to(at::kDouble), 1e-5, 1e-9);
                    });
}

void report(benchmark::State& state, auto const& ours, auto const& eager) {
  at::set_num_threads(1);
  if (!same(ours(), eager())) return state.SkipWithError("eager gives other results");
  auto const [seconds, share] = bench::take_turns(state, ours, eager);
  state.counters["eager"] = share[0];
  state.counters["eager_at_least"] = target_times;
}

/// Latents [8, 4, s, s].
void distillation(benchmark::State& state) {
  std::int64_t const side = state.range(0);
  auto const student = at::randn({8, 4, side, side}).requires_grad_();
  auto const target = at::randn({8, 4, side, side});
  auto const t = at::randint(0, 1000, {8}, at::kLong);
  add::discrete_schedule const stable_diffusion = add::scaled_linear_schedule();
  auto const schedule = stable_diffusion.table();
  std::vector<float> alphas;
  for (std::int64_t i = 0; i < 1000; ++i) {
    alphas.push_back(static_cast<float>(schedule.at(i).alpha));
  }
  auto const weights = at::tensor(alphas);
  report(
      state,
      [&] {
        auto const loss = add::torch_loss::distil(add::distillation<>{}, schedule, student, target,
                                                  t, {.threads = 1});
        return with_gradients(loss, {student});
      },
      [&] {
        auto const squares = (student - target).square().mean({1, 2, 3});
        auto const loss = (weights.index_select(0, t) * squares).mean();
        return with_gradients(loss, {student});
      });
}
BENCHMARK(distillation)
    ->ArgName("side")
    ->Arg(32)
    ->Arg(64)
    ->Arg(128)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

/// The hinge loss of 5 heads of 257 tokens.
void hinge_discriminator(benchmark::State& state) {
  tensors all;
  for (int i = 0; i < 10; ++i) all.push_back(at::randn({8, 257}).requires_grad_());
  at::TensorList const real(all.data(), 5);
  at::TensorList const fake(all.data() + 5, 5);
  report(
      state,
      [&] {
        auto const loss =
            add::torch_loss::discriminator(add::adversarial<>{}, real, fake, {.threads = 1});
        return with_gradients(loss, all);
      },
      [&] {
        at::Tensor loss = at::zeros({});
        for (std::size_t k = 0; k < 5; ++k) {
          loss = loss + at::relu(1 - real[k]).mean() + at::relu(1 + fake[k]).mean();
        }
        return with_gradients(loss, all);
      });
}
BENCHMARK(hinge_discriminator)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
