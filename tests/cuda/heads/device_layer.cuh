// SPDX-License-Identifier: MIT
/// The passes of a layer on a GPU, in the arithmetic of `T`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include <addloss/cuda_heads.cuh>

#include "cuda/device_memory.cuh"
#include "cuda/heads/layer_passes.hpp"

template <class To>
std::vector<To> in_type(numbers const& from) {
  std::vector<To> result;
  for (double const x : from) result.push_back(static_cast<To>(x));
  return result;
}
template <class T>
numbers as_doubles(std::vector<T> const& from) {
  numbers result;
  for (T const x : from) result.push_back(static_cast<double>(x));
  return result;
}

/// [B, C, L] as [B, L, C], and back with the extents exchanged.
inline numbers turned(numbers const& x, std::int64_t batch, std::int64_t rows,
                      std::int64_t columns) {
  numbers result(x.size());
  std::size_t from = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        result[static_cast<std::size_t>((b * columns + j) * rows + i)] = x[from++];
      }
    }
  }
  return result;
}

/// Memory full of NaN, with a number behind it that must stay.
template <class T>
class blank_memory {
 public:
  explicit blank_memory(std::int64_t size) : memory_(contents(size)) {}
  [[nodiscard]] T* data() const { return memory_.data(); }
  [[nodiscard]] bool intact() const { return memory_.read().back() == T(768); }

 private:
  static std::vector<T> contents(std::int64_t size) {
    std::vector<T> result(static_cast<std::size_t>(size), std::numeric_limits<T>::quiet_NaN());
    result.push_back(T(768));
    return result;
  }
  device_array<T> memory_;
};

template <class T, class Layer, class Product>
layer_outputs on_gpu(Layer const& layer, layer_inputs const& in,
                     addloss::cuda_heads<Product> const& ctx) {
  using namespace addloss;
  using on = layer_on<cuda_heads<Product>, Layer>;
  feature_shape const shape = in.shape;
  feature_shape const y_shape = in.y_shape;
  auto const features = [](numbers const& x, feature_shape of) {
    return in_type<T>(turned(x, of.batch, of.channels, of.length));
  };
  auto const read = [](device_array<T> const& x, feature_shape of) {
    return turned(as_doubles(x.read()), of.batch, of.length, of.channels);
  };
  auto const blank = [](feature_shape of) {
    return std::vector<T>(static_cast<std::size_t>(of.size()), std::numeric_limits<T>::quiet_NaN());
  };
  layer_sizes const sizes = on::sizes(layer, shape);
  blank_memory<T> const saved(sizes.saved);
  blank_memory<T> const saved_bar(sizes.saved_bar);
  blank_memory<T> const saved_dot(sizes.saved_dot);
  blank_memory<T> const workspace(sizes.workspace);
  device_array<T> const w(in_type<T>(in.w));
  device_array<T> w_bar(in_type<T>(first_gradients(in.w.size())));
  device_array<T> const x(features(in.x, shape));
  device_array<T> const x_dot(features(in.x_dot, shape));
  device_array<T> y_bar(features(in.y_bar, y_shape));
  device_array<T> const y_dot_bar(features(in.y_dot_bar, y_shape));
  device_array<T> y(blank(y_shape));
  device_array<T> x_bar(blank(shape));
  std::vector<std::unique_ptr<device_array<T>>> values;
  std::vector<std::unique_ptr<device_array<T>>> gradients;
  std::vector<condition<T>> conditions;
  for (std::size_t k = 0; k < in.conditions.size(); ++k) {
    std::size_t const size = in.conditions[k].size();
    values.push_back(std::make_unique<device_array<T>>(in_type<T>(in.conditions[k])));
    gradients.push_back(std::make_unique<device_array<T>>(in_type<T>(first_gradients(size))));
    conditions.push_back({in.condition_sizes[k], values[k]->data(), gradients[k]->data()});
  }
  layer_outputs out;
  layer_pass<T> p;
  p.shape = shape;
  p.w = w.data();
  p.x = x.data();
  p.y = y.data();
  p.saved = saved.data();
  p.workspace = workspace.data();
  p.conditions = conditions;
  on::forward(layer, ctx, p);
  out.y = read(y, y_shape);

  p.y_bar = y_bar.data();
  p.x_bar = in.feature_gradients ? x_bar.data() : nullptr;
  p.w_bar = in.parameter_gradients ? w_bar.data() : nullptr;
  on::backward(layer, ctx, p);
  out.x_bar = in.feature_gradients ? read(x_bar, shape) : numbers(in.x.size());
  out.w_bar = as_doubles(w_bar.read());
  for (auto const& gradient : gradients) out.condition_bar.push_back(as_doubles(gradient->read()));

  on::forward(layer, ctx, p);
  x_bar.write(blank(shape));
  p.y_bar = y_dot_bar.data();
  p.x_bar = x_bar.data();
  p.w_bar = nullptr;
  p.saved_bar = saved_bar.data();
  p.saved_dot = saved_dot.data();
  for (auto& given : conditions) given.gradient = nullptr;
  on::backward(layer, ctx, p);
  out.first_x_bar = read(x_bar, shape);

  y.write(blank(y_shape));
  p.x_dot = x_dot.data();
  p.y_dot = y.data();
  on::tangent(layer, ctx, p);
  out.y_dot = read(y, y_shape);

  y_bar.write(features(in.y_bar, y_shape));
  x_bar.write(blank(shape));
  w_bar.write(in_type<T>(first_gradients(in.w.size())));
  p.y_bar = y_bar.data();
  p.y_dot_bar = y_dot_bar.data();
  p.x_bar = in.feature_gradients ? x_bar.data() : nullptr;
  p.w_bar = in.parameter_gradients ? w_bar.data() : nullptr;
  for (std::size_t k = 0; k < gradients.size(); ++k) {
    gradients[k]->write(in_type<T>(first_gradients(in.conditions[k].size())));
    conditions[k].gradient = gradients[k]->data();
  }
  on::tangent_backward(layer, ctx, p);
  out.second_x_bar = in.feature_gradients ? read(x_bar, shape) : numbers(in.x.size());
  out.second_w_bar = as_doubles(w_bar.read());
  for (auto const& gradient : gradients) {
    out.second_condition_bar.push_back(as_doubles(gradient->read()));
  }
  if (!saved.intact() || !saved_bar.intact() || !saved_dot.intact() || !workspace.intact()) {
    out.y.clear();  // it wrote beyond its memory
  }
  return out;
}
