// SPDX-License-Identifier: MIT
/// What the passes of a layer read and give, as numbers in double, the tokens last as on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include <addloss/heads/group_norm.hpp>
#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/linear.hpp>
#include <addloss/heads/local_norm.hpp>
#include <addloss/heads/projected_head.hpp>

using numbers = std::vector<double>;

struct layer_inputs {
  addloss::feature_shape shape{};
  addloss::feature_shape y_shape{};
  numbers w{};
  numbers x{};
  numbers x_dot{};
  numbers y_bar{};
  numbers y_dot_bar{};
  std::vector<std::int64_t> condition_sizes{};
  std::vector<numbers> conditions{};
  bool parameter_gradients = true;
  bool feature_gradients = true;
};

struct layer_outputs {
  numbers y{};
  numbers x_bar{};
  numbers w_bar{};
  std::vector<numbers> condition_bar{};
  numbers first_x_bar{};  ///< of y_dot_bar, in a pass that a tangent_backward follows
  numbers y_dot{};
  numbers second_x_bar{};
  numbers second_w_bar{};
  std::vector<numbers> second_condition_bar{};
};

/// What gradients are added to.
inline numbers first_gradients(std::size_t count) {
  numbers result(count);
  for (std::size_t i = 0; i < count; ++i) result[i] = 0.25 * static_cast<double>(i % 5) - 0.5;
  return result;
}

/// Numbers that float holds.
inline numbers some_numbers(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  numbers result(static_cast<std::size_t>(count));
  for (double& x : result) x = static_cast<double>(normal(random));
  return result;
}

template <class Layer>
layer_inputs inputs_for(Layer const& layer, addloss::feature_shape shape, unsigned seed = 1) {
  layer_inputs in;
  in.shape = shape;
  in.y_shape = layer.output_shape("test", shape);
  in.w = some_numbers(layer.parameter_count(), seed);
  in.x = some_numbers(shape.size(), seed + 1);
  in.x_dot = some_numbers(shape.size(), seed + 2);
  in.y_bar = some_numbers(in.y_shape.size(), seed + 3);
  in.y_dot_bar = some_numbers(in.y_shape.size(), seed + 4);
  for (std::int64_t const size : addloss::detail::condition_sizes_of(layer)) {
    in.condition_sizes.push_back(size);
    in.conditions.push_back(some_numbers(shape.batch * size, seed += 7));
  }
  return in;
}

using head_layer = decltype(addloss::projected_head<double>(addloss::head_settings{}));

layer_outputs on_cpu(addloss::conv1d<double> const& layer, layer_inputs const& in);
layer_outputs on_cpu(addloss::linear<double> const& layer, layer_inputs const& in);
layer_outputs on_cpu(addloss::local_norm const& layer, layer_inputs const& in);
layer_outputs on_cpu(addloss::group_norm const& layer, layer_inputs const& in);
layer_outputs on_cpu(addloss::leaky_relu const& layer, layer_inputs const& in);
layer_outputs on_cpu(addloss::projection<double> const& layer, layer_inputs const& in);
layer_outputs on_cpu(head_layer const& layer, layer_inputs const& in);
