// SPDX-License-Identifier: MIT
// A unit of its own: nvcc cannot compile the CPU's code.
#include "cuda/add_step.hpp"

#include <random>

#include <addloss/cpu/executor.hpp>
#include <addloss/schedule/discrete.hpp>

namespace {

struct host_memory {
  float* inputs;
  float* outputs;
  float const* weights;
  std::int64_t const* t;
  addloss::random_key const* key;
  double* values;
  addloss::head_statistics* health;
  std::int64_t* non_finite;

  explicit host_memory(step_memory& m)
      : inputs(m.inputs.data()),
        outputs(m.outputs.data()),
        weights(m.weights.data()),
        t(m.t.data()),
        key(m.key.data()),
        values(m.values.data()),
        health(m.health.data()),
        non_finite(m.non_finite.data()) {}
};

using host_step = add_step<addloss::host_space>;

}  // namespace

step_memory make_step(step_shape const& shape) {
  step_memory memory;
  host_step const sizes(shape, host_memory(memory));
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  memory.inputs.resize(sizes.input_count);
  for (float& x : memory.inputs) x = normal(random);
  memory.outputs.resize(sizes.output_count);
  memory.weights.resize(shape.samples + 1);
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
  memory.key[0] = {.seed = 0x1234567890, .step = index, .stream = 3, .first_sample = 11};
}

void run_on_cpu(step_shape const& shape, step_memory& memory) {
  static auto const schedule = addloss::scaled_linear_schedule();
  host_step(shape, host_memory(memory)).run(addloss::cpu_context{}, schedule.table());
}
