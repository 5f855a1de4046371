// SPDX-License-Identifier: MIT
// A unit of its own: nvcc cannot compile the CPU's code.
#include "cuda/add_step.hpp"

#include <random>

#include <addloss/cpu/executor.hpp>
#include <addloss/schedule/discrete.hpp>

namespace {

using host_step = add_step<addloss::host_space>;

}  // namespace

step_memory make_step(step_shape const& shape) {
  step_memory memory;
  host_step const sizes(shape, pointers_to(memory));
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  memory.inputs.resize(sizes.input_count);
  for (float& x : memory.inputs) x = normal(random);
  memory.outputs.resize(sizes.output_count);
  memory.weights.resize(shape.samples);
  memory.settings.resize(host_step::settings);
  memory.t.resize(shape.samples);
  memory.key.resize(1);
  memory.values.resize(host_step::places + shape.features.size());
  memory.health.resize(shape.tokens.size());
  memory.non_finite.resize(2);
  change_step(memory, 0);
  return memory;
}

void change_step(step_memory& memory, unsigned index) {
  std::mt19937 random(index);
  std::uniform_int_distribution<std::int64_t> time(0, 999);
  std::uniform_real_distribution<float> weight(-2, 2);
  for (std::int64_t& t : memory.t) t = time(random);
  for (float& w : memory.weights) w = weight(random);
  memory.settings = {2.5 + index % 7, 0.25 + index % 5, 1.0 + index % 3};
  memory.key[0] = {.seed = 0x1234567890, .step = index, .stream = 3, .first_sample = 11};
}

void run_on_cpu(step_shape const& shape, step_memory& memory) {
  static auto const schedule = addloss::scaled_linear_schedule();
  host_step(shape, pointers_to(memory)).run(addloss::cpu_context{}, schedule.table());
}
