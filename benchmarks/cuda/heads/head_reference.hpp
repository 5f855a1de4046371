// SPDX-License-Identifier: MIT
/// The settings and inputs of head_steps.cu, and its step on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <addloss/heads/head_stack.hpp>

namespace bench {

using namespace addloss;

struct settings {
  int heads = 5;
  std::int64_t batch = 32;
  std::int64_t channels = 384;
  std::int64_t length = 257;
  std::int64_t condition = 768;
  weight_normalisation normalisation = weight_normalisation::none;
  convolution_method method = convolution_method::automatic;
};

inline std::vector<addloss::head_settings> heads_of(settings const& s) {
  return {static_cast<std::size_t>(s.heads),
          {.channels = s.channels, .condition_sizes = {s.condition}, .method = s.method}};
}
inline std::vector<addloss::feature_shape> shapes_of(settings const& s) {
  return {static_cast<std::size_t>(s.heads), {s.batch, s.channels, s.length}};
}

/// Inputs of both sides, drawn as on the CPU.
template <class T>
struct host_step {
  decltype(projected_heads<T>({})) stack;
  std::vector<T> parameters, state, real, fake, condition;

  explicit host_step(settings const& s)
      : stack(projected_heads<T>(heads_of(s), s.normalisation)),
        parameters(static_cast<std::size_t>(stack.parameter_count())),
        state(static_cast<std::size_t>(stack.state_count())),
        real(static_cast<std::size_t>(s.heads * s.batch * s.channels * s.length)),
        fake(real.size()),
        condition(static_cast<std::size_t>(s.batch * s.condition)) {
    stack.initialise(1, parameters, state);
    initialise(standard_normal{}, {.seed = 2, .index = 0}, std::span(real));
    initialise(standard_normal{}, {.seed = 2, .index = 1}, std::span(fake));
    initialise(standard_normal{}, {.seed = 2, .index = 2}, std::span(condition));
  }
};

template <class Space, class T>
std::vector<rows<T, Space>> maps(settings const& s, T* data) {
  std::vector<rows<T, Space>> result;
  for (int k = 0; k < s.heads; ++k) {
    result.emplace_back(
        view<Space>(data + k * s.batch * s.channels * s.length, s.batch, s.channels, s.length));
  }
  return result;
}

inline addloss::discriminator_options options_of(double gamma) {
  return {.real_penalty = r1{.gamma = gamma}};
}

struct expected_step {
  discriminator_result result;
  std::vector<double> gradients;
};

/// On the CPU, in double, from the numbers that float holds.
expected_step on_cpu(settings const& s, host_step<float> const& narrow, double gamma);

}  // namespace bench
