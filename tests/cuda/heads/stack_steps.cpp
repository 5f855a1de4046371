// SPDX-License-Identifier: MIT
// The stack of the CPU, in a unit of its own: nvcc takes long over it.
#include "cuda/heads/stack_steps.hpp"

#include <cstddef>
#include <span>
#include <utility>

#include <addloss/cpu/executor.hpp>

using namespace addloss;

stack_inputs three_heads(weight_normalisation normalisation, bool conditions) {
  stack_inputs in;
  in.normalisation = normalisation;
  if (conditions) in.condition_sizes = {4, 2};
  in.heads = {{.channels = 3, .kernel = 3, .width = 2, .virtual_batch = 2},
              {.channels = 2,
               .kernel = 9,
               .combination = condition_combination::concatenation,
               .width = 3,
               .virtual_batch = 4},
              {.channels = 4, .kernel = 1, .width = 1}};
  for (auto& head : in.heads) {
    head.condition_sizes = in.condition_sizes;
    head.method = head.kernel == 9 ? convolution_method::toom_cook : convolution_method::direct;
  }
  in.shapes = {{4, 3, 5}, {4, 2, 7}, {4, 4, 2}};
  auto const stack = projected_heads<double>(in.heads, normalisation);
  in.w.resize(static_cast<std::size_t>(stack.parameter_count()));
  in.state.resize(static_cast<std::size_t>(stack.state_count()));
  stack.initialise(7, in.w, in.state);
  auto const more = some_numbers(stack.parameter_count(), 7);
  for (std::size_t i = 0; i < in.w.size(); ++i) in.w[i] += more[i] / 4;
  for (double& x : in.w) x = static_cast<double>(static_cast<float>(x));
  for (double& x : in.state) x = static_cast<double>(static_cast<float>(x));
  unsigned seed = 100;
  for (auto const& shape : in.shapes) {
    in.real.push_back(some_numbers(shape.size(), ++seed));
    in.fake.push_back(some_numbers(shape.size(), ++seed));
  }
  for (std::int64_t const size : in.condition_sizes) {
    in.real_conditions.push_back(some_numbers(4 * size, ++seed));
    in.fake_conditions.push_back(some_numbers(4 * size, ++seed));
  }
  return in;
}

stack_outputs on_cpu(stack_inputs const& in) {
  cpu_context const ctx;
  auto const stack = projected_heads<double>(in.heads, in.normalisation);
  std::size_t const heads = in.heads.size();
  stack_outputs out;
  out.state = in.state;
  stack.update_state(ctx, std::span(in.w), std::span(out.state));
  std::span<double const> const w(in.w);
  std::span<double const> const state(std::as_const(out.state));

  std::vector<rows<double const>> real_rows;
  std::vector<rows<double const>> fake_rows;
  std::vector<rows<double>> logit_rows;
  std::vector<rows<double>> gradient_rows;
  for (std::size_t k = 0; k < heads; ++k) {
    auto const [batch, channels, length] = in.shapes[k];
    real_rows.push_back(view(in.real[k].data(), batch, channels, length));
    fake_rows.push_back(view(in.fake[k].data(), batch, channels, length));
    out.logits.emplace_back(static_cast<std::size_t>(batch * length));
    logit_rows.push_back(view(out.logits[k].data(), batch, length));
    out.x_bar.emplace_back(in.fake[k].size());
    gradient_rows.push_back(view(out.x_bar[k].data(), batch, channels, length));
  }
  auto const conditions = [&](std::vector<numbers> const& values, std::vector<numbers>& gradients) {
    std::vector<condition<double>> result;
    gradients.clear();
    for (numbers const& of : values) gradients.push_back(first_gradients(of.size()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      result.push_back({in.condition_sizes[i], values[i].data(), gradients[i].data()});
    }
    return result;
  };
  auto const real_conditions = conditions(in.real_conditions, out.real_condition_bar);
  auto const fake_conditions = conditions(in.fake_conditions, out.fake_condition_bar);
  auto const generator_conditions = conditions(in.fake_conditions, out.generator_condition_bar);

  out.generator_statistics.resize(heads);
  out.statistics.resize(heads);
  out.real_penalties.resize(heads);
  out.fake_penalties.resize(heads);
  discriminator_options options = in.options;
  options.statistics = out.statistics;
  options.real_penalties = out.real_penalties;
  options.fake_penalties = out.fake_penalties;
  std::int64_t size = stack.discriminator_workspace(in.shapes, options, in.accumulate);
  std::int64_t const forward = stack.generator_workspace(in.shapes);
  if (forward > size) size = forward;
  numbers workspace(static_cast<std::size_t>(size));
  stack.logits(ctx, w, state, {real_rows, real_conditions}, logit_rows, std::span(workspace));
  out.generator =
      stack.generator_step(ctx, adversarial<>{}, w, state, {fake_rows, generator_conditions},
                           gradient_rows, workspace, {.statistics = out.generator_statistics});
  out.w_bar = first_gradients(in.w.size());
  out.discriminator = stack.discriminator_step(
      ctx, adversarial<>{}, w, state, {real_rows, real_conditions}, {fake_rows, fake_conditions},
      {.values = out.w_bar, .accumulate = in.accumulate}, workspace, options);
  return out;
}
