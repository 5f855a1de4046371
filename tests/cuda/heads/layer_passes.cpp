// SPDX-License-Identifier: MIT
// The layers of the CPU, in a unit of their own: nvcc takes long over them.
#include "cuda/heads/layer_passes.hpp"

namespace {

using namespace addloss;

template <class Layer>
layer_outputs run(Layer const& layer, layer_inputs const& in) {
  cpu_context const ctx;
  layer_sizes const sizes = layer.sizes(in.shape);
  auto const memory = [](std::int64_t size) { return numbers(static_cast<std::size_t>(size)); };
  numbers saved = memory(sizes.saved);
  numbers saved_bar = memory(sizes.saved_bar + 1);
  numbers saved_dot = memory(sizes.saved_dot);
  numbers workspace = memory(sizes.workspace);
  numbers y_bar = in.y_bar;
  numbers y_dot_bar = in.y_dot_bar;
  std::vector<condition<double>> conditions;
  auto const condition_gradients = [&](std::vector<numbers>& to) {
    conditions.clear();
    to.resize(in.conditions.size());
    for (std::size_t k = 0; k < in.conditions.size(); ++k) {
      to[k] = first_gradients(in.conditions[k].size());
      conditions.push_back({in.condition_sizes[k], in.conditions[k].data(), to[k].data()});
    }
  };
  layer_outputs out;
  layer_pass<double> p;
  p.shape = in.shape;
  p.w = in.w.data();
  p.x = in.x.data();
  p.saved = saved.data();
  p.workspace = workspace.data();
  out.y = memory(in.y_shape.size());
  p.y = out.y.data();
  condition_gradients(out.condition_bar);
  p.conditions = conditions;
  layer.forward(ctx, p);

  out.x_bar = memory(in.shape.size());
  out.w_bar = first_gradients(in.w.size());
  p.y_bar = y_bar.data();
  p.x_bar = in.feature_gradients ? out.x_bar.data() : nullptr;
  p.w_bar = in.parameter_gradients ? out.w_bar.data() : nullptr;
  layer.backward(ctx, p);

  layer.forward(ctx, p);
  out.first_x_bar = memory(in.shape.size());
  p.y_bar = y_dot_bar.data();
  p.x_bar = out.first_x_bar.data();
  p.w_bar = nullptr;
  p.saved_bar = saved_bar.data();
  p.saved_dot = saved_dot.data();
  for (auto& given : conditions) given.gradient = nullptr;
  layer.backward(ctx, p);

  out.y_dot = memory(in.y_shape.size());
  p.x_dot = in.x_dot.data();
  p.y_dot = out.y_dot.data();
  layer.tangent(ctx, p);

  y_bar = in.y_bar;
  out.second_x_bar = memory(in.shape.size());
  out.second_w_bar = first_gradients(in.w.size());
  p.y_bar = y_bar.data();
  p.y_dot_bar = y_dot_bar.data();
  p.x_bar = in.feature_gradients ? out.second_x_bar.data() : nullptr;
  p.w_bar = in.parameter_gradients ? out.second_w_bar.data() : nullptr;
  condition_gradients(out.second_condition_bar);
  p.conditions = conditions;
  layer.tangent_backward(ctx, p);
  return out;
}

}  // namespace

layer_outputs on_cpu(conv1d<double> const& layer, layer_inputs const& in) { return run(layer, in); }
layer_outputs on_cpu(linear<double> const& layer, layer_inputs const& in) { return run(layer, in); }
layer_outputs on_cpu(local_norm const& layer, layer_inputs const& in) { return run(layer, in); }
layer_outputs on_cpu(group_norm const& layer, layer_inputs const& in) { return run(layer, in); }
layer_outputs on_cpu(leaky_relu const& layer, layer_inputs const& in) { return run(layer, in); }
layer_outputs on_cpu(projection<double> const& layer, layer_inputs const& in) {
  return run(layer, in);
}
layer_outputs on_cpu(head_layer const& layer, layer_inputs const& in) { return run(layer, in); }
