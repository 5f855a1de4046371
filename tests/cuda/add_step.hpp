// SPDX-License-Identifier: MIT
/// One step of ADD, written once for the memory of the host and of a GPU: noising, the student's
/// objective and the discriminator's. What changes from step to step is read from memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <addloss/core/context.hpp>
#include <addloss/core/number.hpp>
#include <addloss/core/philox.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/objective.hpp>
#include <addloss/noising/forward.hpp>

struct step_shape {
  std::size_t samples;
  std::size_t size;  ///< elements of an image
  std::vector<std::size_t> tokens;  ///< logits of each head
  std::vector<std::size_t> features;  ///< elements of each head's features
};

/// All that a step reads and writes.
struct step_memory {
  std::vector<float> inputs;
  std::vector<float> outputs;
  std::vector<float> weights;  ///< of the samples
  std::vector<double> settings;  ///< as in add_step
  std::vector<std::int64_t> t;
  std::vector<addloss::random_key> key;
  std::vector<double> values;  ///< as in add_step, then the penalty of each head
  std::vector<addloss::head_statistics> health;
  std::vector<std::int64_t> non_finite;
};

/// Where it lies.
struct step_pointers {
  float* inputs;
  float* outputs;
  float const* weights;
  double const* settings;
  std::int64_t const* t;
  addloss::random_key const* key;
  double* values;
  addloss::head_statistics* health;
  std::int64_t* non_finite;
};

/// `Memory`: a step_memory, or arrays of the same names on a GPU.
template <class Memory>
step_pointers pointers_to(Memory& memory) {
  return {memory.inputs.data(),   memory.outputs.data(), memory.weights.data(),
          memory.settings.data(), memory.t.data(),       memory.key.data(),
          memory.values.data(),   memory.health.data(),  memory.non_finite.data()};
}

/// Makes inputs of a step, and room for what it writes.
step_memory make_step(step_shape const& shape);
/// Other timesteps, weights, settings and noise: those of step `index`.
void change_step(step_memory& memory, unsigned index);
void run_on_cpu(step_shape const& shape, step_memory& memory);

/// The views of a step in memory of `Space`.
template <class Space>
struct add_step {
  using images = addloss::tensor_view<float, 2, Space>;
  using read_heads = std::vector<addloss::rows<float const, Space>>;
  using written_heads = std::vector<addloss::rows<float, Space>>;
  enum setting { lambda, gamma, grad_scale, settings };
  enum place { total_g, adversarial, distilled, total_d, hinge, penalty, places };
  /// Elements [first, first + count) of the outputs.
  struct tensor {
    std::size_t first;
    std::size_t count;
  };

  std::size_t input_count = 0;
  std::size_t output_count = 0;
  std::vector<tensor> outputs;

  images real;
  images student;
  images conditional;
  images unconditional;
  images noised;
  images student_gradient;
  read_heads real_logits;
  read_heads fake_logits;
  read_heads features;
  written_heads generator_gradient;
  written_heads real_gradient;
  written_heads fake_gradient;
  written_heads cotangents;
  addloss::tensor_view<float const, 1, Space> weights;
  addloss::tensor_view<std::int64_t const, 1, Space> t;
  addloss::add_practical<> objective;
  addloss::number scale = 1;
  addloss::random_key const* key;
  double* values;
  std::span<addloss::head_statistics> health;
  std::int64_t* non_finite;

  add_step(step_shape const& shape, step_pointers const& memory) {
    auto const samples = shape.samples;
    auto const at_16_bytes = [](std::size_t count) { return (count + 3) / 4 * 4; };
    auto const input = [&](std::size_t size) {
      auto const first = input_count;
      input_count += at_16_bytes(samples * size);
      return addloss::view<Space>(memory.inputs + first, samples, size);
    };
    auto const output = [&](std::size_t size) {
      outputs.push_back({output_count, samples * size});
      output_count += at_16_bytes(samples * size);
      return addloss::view<Space>(memory.outputs + outputs.back().first, samples, size);
    };
    for (images* const image : {&real, &student, &conditional, &unconditional}) {
      *image = input(shape.size);
    }
    for (images* const image : {&noised, &student_gradient}) *image = output(shape.size);
    for (std::size_t const tokens : shape.tokens) {
      real_logits.emplace_back(input(tokens));
      fake_logits.emplace_back(input(tokens));
      generator_gradient.emplace_back(output(tokens));
      real_gradient.emplace_back(output(tokens));
      fake_gradient.emplace_back(output(tokens));
    }
    for (std::size_t const size : shape.features) {
      features.emplace_back(input(size));
      cotangents.emplace_back(output(size));
    }
    weights = addloss::view<Space>(memory.weights, samples);
    t = addloss::view<Space>(memory.t, samples);
    objective = {.lambda = addloss::number_at{memory.settings + lambda},
                 .penalty = {.gamma = addloss::number_at{memory.settings + gamma}}};
    scale = addloss::number_at{memory.settings + grad_scale};
    key = memory.key;
    values = memory.values;
    health = {memory.health, shape.tokens.size()};
    non_finite = memory.non_finite;
  }

  [[nodiscard]] auto student_loss(auto const& schedule) const {
    addloss::teacher_predictions<float, Space> const teacher{.noise = addloss::normal_noise_at{key},
                                                             .conditional = conditional,
                                                             .unconditional = unconditional,
                                                             .guidance_scale = 7.5};
    return objective.student<float>(
        fake_logits, objective.distillation.from_teacher(addloss::v_prediction{}, schedule, student,
                                                         teacher, t));
  }
  [[nodiscard]] auto discriminator_loss() const {
    return objective.discriminator<float, Space>(real_logits, fake_logits, features);
  }

  void run(addloss::has_executor auto const& ctx, auto const& schedule) const {
    using namespace addloss;
    auto const scalar = [&](place which) { return view<Space>(values + which); };
    add_noise(ctx, schedule, real, t, normal_noise_at{key}, noised);
    value_and_grad(ctx, student_loss(schedule),
                   student_values<double, Space>{.total = scalar(total_g),
                                                 .adversarial = scalar(adversarial),
                                                 .distillation = scalar(distilled)},
                   {.logits = {.fake = generator_gradient}, .student = student_gradient},
                   {.upstream = weights, .grad_scale = scale, .non_finite = non_finite});
    value_and_grad(
        ctx, discriminator_loss(),
        discriminator_values<double, Space>{
            .total = scalar(total_d), .adversarial = scalar(hinge), .penalty = scalar(penalty)},
        {.logits = {.real = real_gradient, .fake = fake_gradient},
         .cotangents = {.features = cotangents}},
        {.grad_scale = scale,
         .non_finite = non_finite + 1,
         .statistics = health,
         .penalties = {values + places, features.size()}});
  }
};
