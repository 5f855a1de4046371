// SPDX-License-Identifier: MIT
// The student's objective on a GPU, hinge of 5 heads plus distillation, in one call, beside the
// same two losses in a call each.
#include <addloss/losses/objective.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"
#include "cuda/losses/logits.cuh"

namespace {

namespace add = addloss;

constexpr std::int64_t heads = 5;
constexpr std::int64_t tokens = 257;

template <class T>
struct tensors {
  tensors(std::int64_t batch, std::int64_t size)
      : fake(heads, batch, tokens, 0), student(size), target(size, 0, 1), gradient(size) {}
  bench::device_side<T> fake;
  bench::device_numbers<T> student, target, gradient;
};

/// Arguments: B, elements of a sample, calls in a graph. separate: the time of two calls by that of
/// one, 1 or more is no worse.
template <class T>
void student(benchmark::State& state) {
  std::int64_t const batch = state.range(0);
  std::int64_t const row = state.range(1);
  std::int64_t const logits = heads * batch * tokens;
  std::int64_t const bytes = (3 * batch * row + 2 * logits) * static_cast<std::int64_t>(sizeof(T));
  std::vector<std::unique_ptr<tensors<T>>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(bytes); ++i) {
    sets.push_back(std::make_unique<tensors<T>>(batch, batch * row));
  }
  bench::device_schedule const schedule(batch);
  bench::device_numbers<double> const values(3);
  auto const value = [&](int i) { return add::view<add::device_space>(values.data() + i); };
  auto const view = [&](bench::device_numbers<T> const& of) {
    return add::view<add::device_space>(of.data(), batch, row);
  };
  add::add_practical<> const objective;
  auto const distilled = [&](tensors<T> const& set) {
    return objective.distillation(schedule.table(), view(set.student), view(set.target),
                                  schedule.timesteps());
  };
  auto const generator = [&](tensors<T> const& set) {
    return objective.adversarial.generator<T, add::device_space>(set.fake.logit_rows);
  };
  bench::device const gpu(add::workspace_bytes(generator(*sets[0]), distilled(*sets[0])));
  bench::take_device_turns(
      state, gpu.context().stream,
      {.graph = state.range(2),
       .sets = std::ssize(sets),
       .elements = batch * row + logits,
       .bytes = bytes,
       .launches = 2},
      [&](std::int64_t i) {
        auto const& set = *sets[static_cast<std::size_t>(i)];
        add::value_and_grad(
            gpu.context(), objective.student<T>(set.fake.logit_rows, distilled(set)), value(0),
            {.logits = {.fake = set.fake.gradient_rows}, .student = view(set.gradient)});
      },
      {.name = "separate", .call = [&](std::int64_t i) {
         auto const& set = *sets[static_cast<std::size_t>(i)];
         add::value_and_grad(gpu.context(), generator(set), value(1),
                             {.fake = set.fake.gradient_rows});
         add::value_and_grad(gpu.context(), distilled(set), value(2), view(set.gradient),
                             {.grad_scale = objective.lambda});
       }});
}

BENCHMARK(student<float>)->Apply(bench::latents);
BENCHMARK(student<float>)->Apply(bench::images);
BENCHMARK(student<add::half>)->Apply(bench::images);
BENCHMARK(student<add::bfloat16>)->Apply(bench::images);

}  // namespace
