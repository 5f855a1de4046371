// SPDX-License-Identifier: MIT
#include <addloss/heads/local_norm.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/sequence.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/check_layer.hpp"

namespace {

using namespace addloss;
using layer_checks::numbers;
using layer_checks::passes;
using layer_checks::same_bits;

static_assert(layer<local_norm, float>);
static_assert(layer<local_norm, double>);
static_assert(!layer<int, double>);

/// The definition, in double, with a loop over the samples of the sample's own group.
template <class T>
numbers<double> oracle(local_norm const& norm, feature_shape shape, numbers<T> const& w,
                       numbers<T> const& x) {
  auto const [batch, channels, length] = shape;
  std::int64_t const groups = static_cast<std::int64_t>(
      std::ceil(static_cast<double>(batch) / static_cast<double>(norm.virtual_batch)));
  std::int64_t const samples = batch / groups;
  auto const at = [&, channel_count = channels, row = length](std::int64_t b, std::int64_t c,
                                                              std::int64_t l) {
    return static_cast<std::size_t>((b * channel_count + c) * row + l);
  };
  numbers<double> y(x.size());
  for (std::int64_t b = 0; b < batch; ++b) {
    std::int64_t const first = b - b % samples;
    for (std::int64_t c = 0; c < channels; ++c) {
      auto const count = static_cast<double>(samples * length);
      double mean = 0;
      double variance = 0;
      for (std::int64_t i = first; i < first + samples; ++i) {
        for (std::int64_t l = 0; l < length; ++l) {
          mean += static_cast<double>(x[at(i, c, l)]) / count;
        }
      }
      for (std::int64_t i = first; i < first + samples; ++i) {
        for (std::int64_t l = 0; l < length; ++l) {
          variance += std::pow(static_cast<double>(x[at(i, c, l)]) - mean, 2) / count;
        }
      }
      for (std::int64_t l = 0; l < length; ++l) {
        double const n = static_cast<double>(w[static_cast<std::size_t>(c)]) *
                             (static_cast<double>(x[at(b, c, l)]) - mean) /
                             std::sqrt(variance + norm.epsilon) +
                         static_cast<double>(w[static_cast<std::size_t>(channels + c)]);
        y[at(b, c, l)] = n > 0 ? n : norm.negative_slope * n;
      }
    }
  }
  return y;
}

template <class T>
double worst(numbers<T> const& got, numbers<double> const& expected) {
  double result = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    double const difference = std::abs(static_cast<double>(got[n]) - expected[n]);
    if (!(difference <= result)) result = difference;
  }
  return result;
}

/// The largest error of y for the inputs of `run`.
template <class T>
double worst(local_norm const& norm, feature_shape shape, passes<T, local_norm>& run) {
  return worst(run.forward(), oracle(norm, shape, run.w.content(), run.x.content()));
}

std::string refusal(local_norm const& norm, feature_shape shape) {
  return error_of([&] { static_cast<void>(norm.output_shape("head", shape)); });
}

struct norm_case {
  local_norm norm;
  feature_shape shape;
  std::int64_t groups;
};

}  // namespace

TEST_CASE("local_norm equals its definition") {
  norm_case const cases[] = {
      {{3}, {1, 3, 5}, 1},         {{2}, {4, 2, 1}, 1},        {{3, 2}, {4, 3, 7}, 2},
      {{2, 4}, {6, 2, 19}, 2},     {{5}, {16, 5, 8}, 2},       {{1, 1}, {3, 1, 33}, 3},
      {{3, 8, 0.5}, {8, 3, 3}, 1}, {{1}, {1, 1, 1}, 1},        {{2, 8, 1e-5, 0.2}, {8, 2, 197}, 1},
      {{1}, {2, 1, 1024}, 1},      {{2}, {2, 2, 1025}, 1},     {{2, 8, 1e-5, -0.5}, {2, 2, 15}, 1},
      {{2}, {3, 2, 5000}, 1},      {{2, 3, 1}, {3, 2, 16}, 1}, {{2, 8, 1e-5, 0}, {4, 2, 2060}, 1},
  };
  for (auto const& [norm, shape, groups] : cases) {
    CAPTURE(shape.length);
    REQUIRE(norm.output_shape("f", shape) == shape);
    CHECK(norm.groups(shape) == groups);
    passes<double, local_norm> in_double(norm, shape, 1);
    CHECK(worst(norm, shape, in_double) < 1e-13);
    passes<float, local_norm> in_float(norm, shape, 1);
    CHECK(worst(norm, shape, in_float) < 1e-6);
  }
}

TEST_CASE("local_norm says what it keeps") {
  layer_sizes const sizes = local_norm{5, 4}.sizes({8, 5, 7});
  CHECK(sizes.saved == 20);
  CHECK(sizes.saved_bar == 20);
  CHECK(sizes.saved_dot == 20);
  CHECK(sizes.workspace == 20);
}

TEST_CASE("local_norm is a layer") {
  norm_case const cases[] = {
      {{2}, {3, 2, 5}, 1},
      {{3, 2}, {4, 3, 3}, 2},
      {{1}, {2, 1, 1}, 1},
      {{2, 8, 1e-5, 0.2}, {2, 2, 7}, 1},
      {{2, 1, 0.3, -0.5}, {2, 2, 4}, 2},
      {{1, 8, 1e-5, 0}, {2, 1, 21}, 1},  // a whole register, and the rest
  };
  for (auto const& [norm, shape, groups] : cases) {
    CAPTURE(norm.negative_slope);
    check_layer<double>(norm, shape);
    check_layer<float>(norm, shape);
  }
}

TEST_CASE("local_norm in float is near local_norm in double") {
  auto const check = [](local_norm const& norm, feature_shape shape) {
    CAPTURE(shape.length);
    check_float(norm, norm, shape);
  };
  check({3, 4, 1e-5, 0.2}, {8, 3, 40});
  check({4, 8, 1e-5, 0.2}, {8, 4, 197});
  check({2}, {8, 2, 5000});
}

TEST_CASE("local_norm on several threads") {
  local_norm const norm{24, 4, 1e-5, 0.2};
  check_threads<float>(norm, {8, 24, 400});
  check_threads<double>(norm, {8, 24, 400});
}

TEST_CASE("local_norm adds long rows up in double") {
  feature_shape const shape{2, 1, 50000};
  local_norm const norm{1};
  passes<float, local_norm> run(norm, shape, 1);
  for (float& number : run.y_bar.values()) number = 0.1F;
  run.forward();
  auto const found = run.backward(run.y_bar);
  double const expected =
      100000 * static_cast<double>(0.1F) + static_cast<double>(run.w_start()[1]);
  CHECK(std::abs(static_cast<double>(found.w_bar[1]) - expected) < 1e-6 * expected);
}

TEST_CASE("local_norm names its parameters") {
  local_norm const norm{7};
  CHECK(norm.parameter_count() == 14);
  REQUIRE(norm.parameters() == 2);
  CHECK(std::string(norm.parameter(0).name) == "weight");
  CHECK(std::string(norm.parameter(1).name) == "bias");
  CHECK(norm.parameter(0).offset == 0);
  CHECK(norm.parameter(1).offset == 7);
  for (int i = 0; i < 2; ++i) {
    CHECK(norm.parameter(i).rank == 1);
    CHECK(norm.parameter(i).size() == 7);
  }
}

TEST_CASE("local_norm of a constant is the bias") {
  feature_shape const shape{3, 2, 21};
  auto const check = [&]<class T>(T constant) {
    local_norm const norm{2};
    passes<T, local_norm> run(norm, shape, 1);
    for (T& number : run.x.values()) number = constant;
    auto const y = run.forward();
    for (std::size_t n = 0; n < y.size(); ++n) REQUIRE(y[n] == run.w.values()[2 + n / 21 % 2]);
  };
  check(0.1);
  check(0.1F);
  check(-1e30F);
  check(1e5 / 3);
}

TEST_CASE("local_norm of a single element is the bias") {
  local_norm const norm{3};
  passes<double, local_norm> run(norm, {1, 3, 1}, 1);
  auto const w = run.w.content();
  CHECK(run.forward() == numbers<double>(w.begin() + 3, w.end()));
}

TEST_CASE("local_norm keeps its precision at a large mean") {
  feature_shape const shape{8, 1, 1000};
  local_norm const norm{1};
  passes<float, local_norm> run(norm, shape, 1);
  run.w.values()[0] = 1;
  run.w.values()[1] = 0;
  for (float& number : run.x.values()) number += 4096;
  // Up to the mean's own rounding to float.
  CHECK(worst(norm, shape, run) < 4096 * 1.5e-7);

  // A mean halfway between two neighbouring floats: the variance is not that around one of them.
  bool odd = false;
  for (float& number : run.x.values()) {
    number = odd ? 1e8F : 1e8F + 8;
    odd = !odd;
  }
  run.forward();
  CHECK(run.saved.values()[1] == Approx(0.25).epsilon(1e-6));
}

TEST_CASE("local_norm keeps its precision where cotangents and tangents have large means") {
  feature_shape const shape{4, 1, 150};
  local_norm const norm{1};
  passes<float, local_norm> run(norm, shape, 1);
  passes<double, local_norm> expected(norm, shape, 1);
  auto const second_of = [](auto& passes_of) {
    for (auto& number : passes_of.x_dot.values()) number += 1000;
    for (auto& number : passes_of.y_dot_bar.values()) number += 1000;
    return layer_checks::run_all(passes_of).second;
  };
  auto const found = second_of(run);
  auto const right = second_of(expected);
  layer_checks::near(2e-4)("tangent_backward", "x_bar", found.x_bar, right.x_bar);
}

TEST_CASE("local_norm finds the mean again that the first element hides") {
  // All is far from the first element, from which the first sum is taken.
  feature_shape const shape{1, 1, 3000};
  local_norm const norm{1};
  passes<float, local_norm> run(norm, shape, 1);
  double mean = 0;
  for (float& number : run.x.values()) {
    number += 1;
    mean += static_cast<double>(number) / 3000;
  }
  run.x.values()[0] += 3e6F;
  mean += 1000;
  run.forward();
  CHECK(static_cast<double>(run.saved.values()[0]) == Approx(mean).epsilon(2e-7));
}

TEST_CASE("NaN and infinity in local_norm stay in their group and channel") {
  feature_shape const shape{4, 3, 6};
  for (double const slope : {1.0, 0.2}) {
    for (double const bad : {std::nan(""), double{INFINITY}}) {
      for (std::int64_t const batch : {2, 3}) {
        local_norm const norm{3, 2, 1e-5, slope};
        passes<double, local_norm> run(norm, shape, 1);
        run.x.values()[static_cast<std::size_t>((batch * 3 + 1) * 6 + 5)] = bad;
        auto const r = layer_checks::run_all(run);
        for (std::size_t n = 0; n < r.y.size(); ++n) {
          bool const touched = n >= 36 && n / 6 % 3 == 1;
          REQUIRE(std::isnan(r.y[n]) == touched);
          REQUIRE(std::isnan(r.y_dot[n]) == touched);
          REQUIRE(std::isnan(r.of_y_bar.x_bar[n]) == touched);
          REQUIRE(std::isnan(r.second.x_bar[n]) == touched);
        }
        for (std::size_t n = 0; n < 6; ++n) {
          bool const touched = n == 1 || (n == 4 && slope != 1);
          REQUIRE(std::isnan(r.of_y_bar.w_bar[n]) == touched);
          REQUIRE(std::isnan(r.second.w_bar[n]) == touched);
        }
      }
    }
  }
}

TEST_CASE("NaN in a cotangent or a tangent of local_norm is passed on") {
  feature_shape const shape{2, 2, 20};
  local_norm const norm{2, 8, 1e-5, 0.2};
  passes<float, local_norm> run(norm, shape, 1);
  auto const nan = std::numeric_limits<float>::quiet_NaN();
  run.forward();
  auto const is_touched = [](std::size_t n) { return n / 20 % 2 == 1; };
  run.y_bar.values()[25] = nan;
  auto const x_bar = run.backward(run.y_bar).x_bar;
  for (std::size_t n = 0; n < x_bar.size(); ++n) REQUIRE(std::isnan(x_bar[n]) == is_touched(n));
  run.x_dot.values()[37] = nan;
  auto const y_dot = run.tangent();
  for (std::size_t n = 0; n < y_dot.size(); ++n) REQUIRE(std::isnan(y_dot[n]) == is_touched(n));
}

TEST_CASE("A sum of squares that overflows in local_norm is NaN") {
  local_norm const norm{1};
  passes<float, local_norm> run(norm, {1, 1, 20}, 1);
  run.x.values()[3] = 1e25F;
  for (float const number : run.forward()) REQUIRE(std::isnan(number));
}

TEST_CASE("local_norm with the slope 1 knows no activation") {
  // The bias is all that an activation would add to the gradients: it decides the signs.
  feature_shape const shape{4, 3, 37};
  local_norm const norm{3, 2};
  passes<float, local_norm> run(norm, shape, 1);
  auto const expected = layer_checks::run_all(run);
  for (std::size_t c = 3; c < 6; ++c) {
    run.w.values()[c] = c == 4 ? std::numeric_limits<float>::quiet_NaN() : 100;
  }
  auto const found = layer_checks::run_all(run);
  CHECK(same_bits(found.y_dot, expected.y_dot));
  CHECK(same_bits(found.of_y_bar.x_bar, expected.of_y_bar.x_bar));
  CHECK(same_bits(found.of_y_bar.w_bar, expected.of_y_bar.w_bar));
  CHECK(same_bits(found.second.x_bar, expected.second.x_bar));
  CHECK(same_bits(found.second.w_bar, expected.second.w_bar));
}

TEST_CASE("local_norm with a slope is local_norm, then leaky_relu") {
  feature_shape const shape{4, 3, 37};
  sequence const apart(local_norm{3, 2}, leaky_relu{0.2});
  local_norm const fused{3, 2, 1e-5, 0.2};
  passes<double, local_norm> run(fused, shape, 1);
  passes<double, decltype(apart)> parts(apart, shape, 1);
  layer_checks::each_output(layer_checks::run_all(run), layer_checks::run_all(parts),
                            layer_checks::near(1e-14));
  passes<float, local_norm> run_float(fused, shape, 1);
  passes<float, decltype(apart)> parts_float(apart, shape, 1);
  layer_checks::each_output(layer_checks::run_all(run_float), layer_checks::run_all(parts_float),
                            layer_checks::near(1e-6));
}

TEST_CASE("At its kink local_norm takes the slope, and where n is NaN the derivative is") {
  feature_shape const shape{1, 1, 19};
  local_norm const norm{1, 8, 1e-5, 0.25};
  passes<double, local_norm> run(norm, shape, 1);
  for (double& number : run.x.values()) number = 3;
  auto const outputs_for = [&](double bias) {
    run.w.values()[1] = bias;
    return layer_checks::run_all(run);
  };
  auto const above = outputs_for(1);
  auto const at = outputs_for(0);
  auto const below = outputs_for(-1);
  for (std::size_t n = 0; n < 19; ++n) {
    REQUIRE(at.y[n] == 0);
    REQUIRE(at.y_dot[n] == below.y_dot[n]);
    REQUIRE(at.y_dot[n] == 0.25 * above.y_dot[n]);
    REQUIRE(at.of_y_bar.x_bar[n] == Approx(0.25 * above.of_y_bar.x_bar[n]));
  }
  CHECK(at.of_y_bar.w_bar == below.of_y_bar.w_bar);

  auto const nowhere = outputs_for(std::nan(""));
  for (std::size_t n = 0; n < 19; ++n) {
    REQUIRE(std::isnan(nowhere.y[n]));
    REQUIRE(std::isnan(nowhere.y_dot[n]));
    REQUIRE(std::isnan(nowhere.of_y_bar.x_bar[n]));
    REQUIRE(std::isnan(nowhere.second.x_bar[n]));
  }
}

TEST_CASE("local_norm of nothing does nothing") {
  for (feature_shape const shape : {feature_shape{0, 2, 5}, feature_shape{2, 2, 0}}) {
    local_norm const norm{2, 8, 1e-5, 0.2};
    REQUIRE(norm.output_shape("f", shape) == shape);
    passes<float, local_norm> run(norm, shape, 1);
    auto const r = layer_checks::run_all(run);
    CHECK(r.y.empty());
    CHECK(r.of_y_bar.w_bar == run.w_start());
    CHECK(r.second.w_bar == run.w_start());
  }
  CHECK(local_norm{2}.sizes({0, 2, 5}).saved == 0);
}

TEST_CASE("local_norm refuses what it cannot split") {
  CHECK(refusal({3}, {2, 4, 5}) == "head: x (expected 3 channels, got 4)");
  CHECK(refusal({3}, {9, 3, 5}) ==
        "head: x (expected a batch that its 2 groups of at most 8 samples divide, got a batch of "
        "9)");
  CHECK(refusal({3, 4}, {10, 3, 5}) ==
        "head: x (expected a batch that its 3 groups of at most 4 samples divide, got a batch of "
        "10)");
  CHECK(refusal({3, 0}, {2, 3, 5}) == "head: virtual_batch (expected at least 1, got 0)");
  CHECK(refusal({3, 8, 0}, {2, 3, 5}) == "head: epsilon (expected a positive number, got 0)");
  CHECK(refusal({3, 8, NAN}, {2, 3, 5}).starts_with("head: epsilon"));
  CHECK(refusal({3, 8, INFINITY}, {2, 3, 5}).starts_with("head: epsilon"));
  CHECK(refusal({3, 8, 1e-5, INFINITY}, {2, 3, 5}) ==
        "head: negative_slope (expected a finite number, got inf)");
  CHECK(refusal({3, 8, 1e-5, NAN}, {2, 3, 5}).starts_with("head: negative_slope"));
  CHECK(refusal({3, 8, 1e-5, -1}, {2, 3, 5}) == "no error");
  CHECK(refusal({3}, {12, 3, 5}) == "no error");
}
