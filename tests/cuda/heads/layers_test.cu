// SPDX-License-Identifier: MIT
#include <addloss/cuda_heads.cuh>

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cuda/heads/compare.hpp"
#include "cuda/heads/device_layer.cuh"
#include "cuda/heads/layer_passes.hpp"

namespace {

using namespace addloss;

template <class T>
constexpr double layer_tolerance = std::is_same_v<T, double> ? 1e-12 : 2e-5;
/// A relative error of 2^-9 in each operand of a product.
constexpr double bfloat16_tolerance = 2e-2;

void check_near(layer_outputs const& got, layer_outputs const& expected, double allowed) {
  CHECK(difference(got.y, expected.y) <= allowed);
  CHECK(difference(got.x_bar, expected.x_bar) <= allowed);
  CHECK(difference(got.w_bar, expected.w_bar) <= allowed);
  CHECK(difference(got.first_x_bar, expected.first_x_bar) <= allowed);
  CHECK(difference(got.y_dot, expected.y_dot) <= allowed);
  CHECK(difference(got.second_x_bar, expected.second_x_bar) <= allowed);
  CHECK(difference(got.second_w_bar, expected.second_w_bar) <= allowed);
  for (std::size_t k = 0; k < expected.condition_bar.size(); ++k) {
    CHECK(difference(got.condition_bar[k], expected.condition_bar[k]) <= allowed);
    CHECK(difference(got.second_condition_bar[k], expected.second_condition_bar[k]) <= allowed);
  }
}

bool same_outputs(layer_outputs const& a, layer_outputs const& b) {
  return same_bits(a.y, b.y) && same_bits(a.x_bar, b.x_bar) && same_bits(a.w_bar, b.w_bar) &&
         same_bits(a.first_x_bar, b.first_x_bar) && same_bits(a.y_dot, b.y_dot) &&
         same_bits(a.second_x_bar, b.second_x_bar) && same_bits(a.second_w_bar, b.second_w_bar) &&
         a.condition_bar == b.condition_bar && a.second_condition_bar == b.second_condition_bar;
}

template <class Product = tiled_product<>>
auto heads_on(unsigned blocks, Product product = {}) {
  return cuda_heads{cuda_context{.blocks = blocks}, product};
}

/// In double, in float, and in double on few blocks.
template <class Double, class Float>
void check_layer(Double const& wide, Float const& narrow, layer_inputs const& in) {
  auto const expected = on_cpu(wide, in);
  auto const got = on_gpu<double>(wide, in, heads_on(0));
  check_near(got, expected, layer_tolerance<double>);
  CHECK(same_outputs(on_gpu<double>(wide, in, heads_on(2)), got));
  check_near(on_gpu<float>(narrow, in, heads_on(0)), expected, layer_tolerance<float>);
}
template <class Layer>
void check_layer(Layer const& layer, feature_shape shape) {
  CAPTURE(shape.batch, shape.channels, shape.length);
  check_layer(layer, layer, inputs_for(layer, shape));
}

struct convolution_case {
  std::int64_t in;
  std::int64_t out;
  int kernel;
  std::int64_t batch;
  std::int64_t length;
};

}  // namespace

TEST_CASE("a convolution on a GPU is that of the CPU") {
  for (auto const& c : std::vector<convolution_case>{{3, 5, 9, 2, 11},
                                                     {2, 3, 9, 1, 4},
                                                     {66, 4, 3, 3, 7},
                                                     {4, 67, 1, 2, 5},
                                                     {1, 1, 5, 2, 1}}) {
    CAPTURE(c.in, c.out, c.kernel, c.batch, c.length);
    conv1d<double> const wide{c.in, c.out, c.kernel, convolution_method::direct};
    conv1d<float> const narrow{c.in, c.out, c.kernel};
    auto in = inputs_for(wide, {c.batch, c.in, c.length});
    check_layer(wide, narrow, in);
  }
}

TEST_CASE("a convolution by Toom-Cook's method on a GPU is that of the CPU") {
  // Less than a window, which wraps around more than once; whole tiles; and one token more.
  for (auto const& c : std::vector<convolution_case>{
           {2, 3, 9, 2, 4}, {3, 5, 9, 2, 18}, {66, 3, 9, 1, 19}, {1, 2, 9, 3, 40}}) {
    CAPTURE(c.in, c.out, c.kernel, c.batch, c.length);
    conv1d<double> const direct{c.in, c.out, c.kernel, convolution_method::direct};
    auto const in = inputs_for(direct, {c.batch, c.in, c.length});
    auto const expected = on_cpu(direct, in);
    constexpr auto toom_cook = convolution_method::toom_cook;
    conv1d<double> const wide{c.in, c.out, c.kernel, toom_cook};
    auto const got = on_gpu<double>(wide, in, heads_on(0));
    check_near(got, expected, layer_tolerance<double>);
    CHECK(same_outputs(on_gpu<double>(wide, in, heads_on(2)), got));
    conv1d<float> const narrow{c.in, c.out, c.kernel, toom_cook};
    check_near(on_gpu<float>(narrow, in, heads_on(0)), expected, layer_tolerance<float>);
  }
}

TEST_CASE("products that round their operands convolve directly") {
  using layer = layer_on<cuda_heads<tiled_product<bfloat16>>, conv1d<float>>;
  using whole = layer_on<cuda_heads<tiled_product<>>, conv1d<float>>;
  conv1d<float> const automatic{32, 32, 9};
  conv1d<float> const direct{32, 32, 9, convolution_method::direct};
  feature_shape const shape{1, 32, 96};
  CHECK(layer::sizes(automatic, shape).saved == layer::sizes(direct, shape).saved);
  CHECK(whole::sizes(automatic, shape).saved == 2 * 40 * 32 * 32);
  CHECK(whole::sizes(direct, shape).saved == 2 * 9 * 32 * 32);
}

TEST_CASE("a convolution on a GPU with operands in bfloat16") {
  for (int const kernel : {1, 3, 9}) {
    conv1d<double> const wide{3, 5, kernel};
    auto const in = inputs_for(wide, {2, 3, 6});
    check_near(
        on_gpu<float>(conv1d<float>{3, 5, kernel}, in, heads_on(0, tiled_product<bfloat16>{})),
        on_cpu(wide, in), bfloat16_tolerance);
  }
}

TEST_CASE("gradients that are not wanted are not computed on a GPU") {
  for (int const kernel : {1, 3, 9}) {
    conv1d<double> const layer{
        2, 3, kernel, kernel == 9 ? convolution_method::toom_cook : convolution_method::automatic};
    auto in = inputs_for(layer, {2, 2, 5});
    in.parameter_gradients = false;
    check_near(on_gpu<double>(layer, in, heads_on(0)), on_cpu(layer, in), layer_tolerance<double>);
    in.parameter_gradients = true;
    in.feature_gradients = false;
    check_near(on_gpu<double>(layer, in, heads_on(0)), on_cpu(layer, in), layer_tolerance<double>);
  }
}

TEST_CASE("a linear layer on a GPU") {
  linear<double> const wide{3, 4};
  check_layer(wide, linear<float>{3, 4}, inputs_for(wide, {2, 3, 5}));
}

TEST_CASE("norms on a GPU") {
  for (double const slope : {1.0, 0.2}) {
    check_layer(local_norm{.channels = 11, .virtual_batch = 2, .negative_slope = slope},
                {4, 11, 5});
    check_layer(local_norm{.channels = 2, .negative_slope = slope}, {1, 2, 70});
    check_layer(group_norm{.channels = 22, .groups = 2, .negative_slope = slope}, {2, 22, 5});
    check_layer(group_norm{.channels = 3, .groups = 3, .negative_slope = slope}, {2, 3, 66});
  }
}

TEST_CASE("a leaky ReLU on a GPU") { check_layer(leaky_relu{}, {2, 3, 5}); }

TEST_CASE("a projection on a GPU") {
  auto const check = [](auto settings) {
    auto const of = [&]<class T>(projection<T> layer) {
      layer.channels = 35;
      layer.width = settings.width;
      layer.conditions = settings.conditions;
      layer.condition_size[0] = 33;
      layer.condition_size[1] = 2;
      layer.combination = settings.combination;
      return layer;
    };
    auto const wide = of(projection<double>{});
    check_layer(wide, of(projection<float>{}), inputs_for(wide, {3, 35, 6}));
  };
  check(projection<double>{.width = 1, .conditions = 0});
  check(projection<double>{.width = 3, .conditions = 1});
  check(projection<double>{.width = 2, .conditions = 2});
  check(projection<double>{
      .width = 2, .conditions = 2, .combination = condition_combination::concatenation});
}

TEST_CASE("NaN goes through layers on a GPU as it does on the CPU") {
  auto const same_nans = [](numbers const& a, numbers const& b) {
    bool same = a.size() == b.size();
    for (std::size_t i = 0; same && i < a.size(); ++i) same = std::isnan(a[i]) == std::isnan(b[i]);
    return same;
  };
  auto const check = [&](auto const& layer, feature_shape shape) {
    auto in = inputs_for(layer, shape);
    in.x[4] = std::numeric_limits<double>::quiet_NaN();
    auto const expected = on_cpu(layer, in);
    auto const got = on_gpu<double>(layer, in, heads_on(0));
    CHECK(same_nans(got.y, expected.y));
    CHECK(same_nans(got.x_bar, expected.x_bar));
    CHECK(same_nans(got.w_bar, expected.w_bar));
    CHECK(same_nans(got.y_dot, expected.y_dot));
    CHECK(same_nans(got.second_x_bar, expected.second_x_bar));
    CHECK(same_nans(got.second_w_bar, expected.second_w_bar));
  };
  check(conv1d<double>{2, 3, 3}, {2, 2, 13});
  check(local_norm{.channels = 3, .virtual_batch = 1, .negative_slope = 0.2}, {2, 3, 4});
  check(local_norm{.channels = 3, .virtual_batch = 1}, {2, 3, 4});
  check(group_norm{.channels = 4, .groups = 2, .negative_slope = 0.2}, {2, 4, 3});
  check(leaky_relu{}, {1, 2, 3});
  check(linear<double>{2, 3}, {2, 2, 3});
  check(projection<double>{.channels = 2}, {2, 2, 3});
}

TEST_CASE("a norm on a GPU: a constant, a large mean, and sums that overflow") {
  local_norm const layer{.channels = 1};
  auto in = inputs_for(layer, {2, 1, 40});
  for (double& x : in.x) x = 1e6;
  for (double const n : on_gpu<float>(layer, in, heads_on(0)).y) {
    REQUIRE(n == static_cast<double>(static_cast<float>(in.w[1])));
  }
  auto shifted = inputs_for(layer, {2, 1, 40});
  for (double& x : shifted.x) x = static_cast<double>(static_cast<float>(x + 1e4));
  CHECK(difference(on_gpu<float>(layer, shifted, heads_on(0)).y, on_cpu(layer, shifted).y) < 1e-3);
  in.x[3] = 1e200;
  for (double const n : on_gpu<double>(layer, in, heads_on(0)).y) REQUIRE(std::isnan(n));
}
