// SPDX-License-Identifier: MIT
// The student's objective, hinge of 5 heads plus distillation, in one call, against the same two
// losses in a call each.
#include <addloss/losses/objective.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cpu/executor.hpp>
#include <addloss/schedule/discrete.hpp>

#include "losses/logits.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t heads = 5;
constexpr std::int64_t tokens = 257;

/// separate: the time of two calls by that of one, 1 or more is no worse.
void student(benchmark::State& state) {
  std::int64_t const batch = state.range(0);
  std::int64_t const size = batch * 4 * 64 * 64;
  add::cpu_context const ctx{.threads = static_cast<int>(state.range(1))};
  add::discrete_schedule const schedule = add::scaled_linear_schedule();
  bench::side fake(heads, batch, tokens, 0);
  bench::aligned_array<float> image(size), target(size, 1), gradient(size);
  std::vector<std::int64_t> timesteps(static_cast<std::size_t>(batch), 500);
  auto const view = [&](bench::aligned_array<float>& array) {
    return add::view(array.data(), batch, 4, 64, 64);
  };
  add::add_practical<> const objective;
  auto const distilled = objective.distillation(schedule.table(), view(image), view(target),
                                                add::view(timesteps.data(), batch));
  double total = 0;
  double terms[2];
  auto const [seconds, share] = bench::take_turns(
      state,
      [&] {
        add::value_and_grad(ctx, objective.student<float>(fake.logit_rows, distilled), total,
                            {.logits = {.fake = fake.gradient_rows}, .student = view(gradient)});
      },
      [&] {
        add::value_and_grad(ctx, objective.adversarial.generator<float>(fake.logit_rows), terms[0],
                            {.fake = fake.gradient_rows});
        add::value_and_grad(ctx, distilled, terms[1], view(gradient));
        total = terms[0] + 2.5 * terms[1];
        benchmark::DoNotOptimize(total);
      });
  bench::report_speed(state, seconds, size + heads * batch * tokens,
                      4 * (3 * size + 2 * heads * batch * tokens));
  state.counters["separate"] = share[0];
}

BENCHMARK(student)
    ->ArgNames({"", "threads"})
    ->ArgsProduct({{8}, {1, 2}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
