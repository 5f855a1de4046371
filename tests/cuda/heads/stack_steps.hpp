// SPDX-License-Identifier: MIT
/// What the steps of a stack of heads read and give, as numbers in double.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <addloss/heads/head_stack.hpp>

#include "cuda/heads/layer_passes.hpp"

struct stack_inputs {
  std::vector<addloss::head_settings> heads{};
  addloss::weight_normalisation normalisation = addloss::weight_normalisation::spectral;
  std::vector<addloss::feature_shape> shapes{};
  std::vector<std::int64_t> condition_sizes{};
  addloss::discriminator_options options{};  ///< without memory
  bool accumulate = false;
  numbers w{};
  numbers state{};
  std::vector<numbers> real{};  ///< of each head
  std::vector<numbers> fake{};
  std::vector<numbers> real_conditions{};
  std::vector<numbers> fake_conditions{};
};

struct stack_outputs {
  numbers state{};  ///< after an update
  std::vector<numbers> logits{};  ///< of the reals
  addloss::generator_result generator{};
  std::vector<addloss::head_statistics> generator_statistics{};
  std::vector<numbers> x_bar{};
  std::vector<numbers> generator_condition_bar{};
  addloss::discriminator_result discriminator{};
  std::vector<addloss::head_statistics> statistics{};
  numbers real_penalties{};
  numbers fake_penalties{};
  numbers w_bar{};
  std::vector<numbers> real_condition_bar{};
  std::vector<numbers> fake_condition_bar{};
};

/// Three heads of different channels, tokens and kernels, for a batch of 4.
stack_inputs three_heads(addloss::weight_normalisation normalisation, bool conditions);
stack_outputs on_cpu(stack_inputs const& in);
