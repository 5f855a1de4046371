// SPDX-License-Identifier: MIT
#include <addloss/heads/group_norm.hpp>

#include <cmath>
#include <cstdint>
#include <string>

#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/sequence.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/check_layer.hpp"

namespace {

using namespace addloss;
using layer_checks::numbers;
using layer_checks::passes;

static_assert(layer<group_norm, float>);
static_assert(layer<group_norm, double>);

/// A group's elements lie together: the definition is about consecutive numbers.
template <class T>
double worst(group_norm const& norm, feature_shape shape) {
  passes<T, group_norm> run(norm, shape, 1);
  auto const w = run.w.content();
  auto const x = run.x.content();
  auto const y = run.forward();
  auto const length = static_cast<std::size_t>(shape.length);
  auto const channels = static_cast<std::size_t>(shape.channels);
  std::size_t const size = channels / static_cast<std::size_t>(norm.groups) * length;
  double result = 0;
  for (std::size_t first = 0; first < x.size(); first += size) {
    double mean = 0;
    double variance = 0;
    for (std::size_t n = first; n < first + size; ++n) {
      mean += static_cast<double>(x[n]) / static_cast<double>(size);
    }
    for (std::size_t n = first; n < first + size; ++n) {
      variance += std::pow(static_cast<double>(x[n]) - mean, 2) / static_cast<double>(size);
    }
    for (std::size_t n = first; n < first + size; ++n) {
      std::size_t const c = n / length % channels;
      double const normal = static_cast<double>(w[c]) * (static_cast<double>(x[n]) - mean) /
                                std::sqrt(variance + norm.epsilon) +
                            static_cast<double>(w[channels + c]);
      double const expected = normal > 0 ? normal : norm.negative_slope * normal;
      double const difference = std::abs(static_cast<double>(y[n]) - expected);
      if (!(difference <= result)) result = difference;
    }
  }
  return result;
}

std::string refusal(group_norm const& norm, feature_shape shape) {
  return error_of([&] { static_cast<void>(norm.output_shape("head", shape)); });
}

struct norm_case {
  group_norm norm;
  feature_shape shape;
};

}  // namespace

TEST_CASE("group_norm equals its definition") {
  norm_case const cases[] = {
      {{6, 3}, {2, 6, 5}},    {{4, 1}, {3, 4, 9}},
      {{4, 4}, {1, 4, 17}},   {{4, 2}, {2, 4, 1}},
      {{1, 1}, {1, 1, 1}},    {{64}, {2, 64, 3}},
      {{4, 2}, {1, 4, 1100}}, {{6, 2, 1e-5, 0.2}, {2, 6, 197}},
  };
  for (auto const& [norm, shape] : cases) {
    CAPTURE(shape.length);
    REQUIRE(norm.output_shape("f", shape) == shape);
    CHECK(worst<double>(norm, shape) < 1e-13);
    CHECK(worst<float>(norm, shape) < 1e-6);
  }
}

TEST_CASE("group_norm says what it keeps") {
  layer_sizes const sizes = group_norm{12, 3}.sizes({5, 12, 7});
  CHECK(sizes.saved == 30);
  CHECK(sizes.saved_bar == 30);
  CHECK(sizes.saved_dot == 30);
  CHECK(sizes.workspace == 120);
}

TEST_CASE("group_norm is a layer") {
  norm_case const cases[] = {
      {{2, 1}, {2, 2, 5}},
      {{3, 3}, {2, 3, 3}},
      {{4, 2, 1e-5, 0.2}, {2, 4, 3}},
      {{2, 1, 0.3, -0.5}, {1, 2, 18}},
  };
  for (auto const& [norm, shape] : cases) {
    CAPTURE(norm.negative_slope);
    check_layer<double>(norm, shape);
    check_layer<float>(norm, shape);
  }
}

TEST_CASE("group_norm in float is near group_norm in double") {
  auto const check = [](group_norm const& norm, feature_shape shape) {
    CAPTURE(shape.length);
    check_float(norm, norm, shape);
  };
  check({6, 2, 1e-5, 0.2}, {3, 6, 197});
  check({4, 1}, {2, 4, 2000});
}

TEST_CASE("group_norm on several threads") {
  group_norm const norm{24, 4, 1e-5, 0.2};
  check_threads<float>(norm, {8, 24, 400});
  check_threads<double>(norm, {8, 24, 400});
}

TEST_CASE("group_norm with a channel in each group is local_norm with a sample in each") {
  feature_shape const shape{3, 5, 11};
  group_norm const by_channel{5, 5, 1e-5, 0.2};
  local_norm const by_sample{5, 1, 1e-5, 0.2};
  passes<double, group_norm> run(by_channel, shape, 1);
  passes<double, local_norm> other(by_sample, shape, 1);
  layer_checks::each_output(layer_checks::run_all(run), layer_checks::run_all(other),
                            layer_checks::same);
}

TEST_CASE("group_norm with a slope is group_norm, then leaky_relu") {
  feature_shape const shape{2, 6, 37};
  sequence const apart(group_norm{6, 2}, leaky_relu{0.2});
  group_norm const fused{6, 2, 1e-5, 0.2};
  passes<double, group_norm> run(fused, shape, 1);
  passes<double, decltype(apart)> parts(apart, shape, 1);
  layer_checks::each_output(layer_checks::run_all(run), layer_checks::run_all(parts),
                            layer_checks::near(1e-14));
}

TEST_CASE("group_norm of a constant is the bias") {
  group_norm const norm{4, 2};
  passes<float, group_norm> run(norm, {2, 4, 7}, 1);
  for (float& number : run.x.values()) number = 0.1F;
  auto const y = run.forward();
  for (std::size_t n = 0; n < y.size(); ++n) REQUIRE(y[n] == run.w.values()[4 + n / 7 % 4]);
}

TEST_CASE("NaN in group_norm stays in its sample and group") {
  group_norm const norm{4, 2, 1e-5, 0.2};
  passes<double, group_norm> run(norm, {2, 4, 6}, 1);
  run.x.values()[37] = std::nan("");
  auto const r = layer_checks::run_all(run);
  for (std::size_t n = 0; n < r.y.size(); ++n) {
    REQUIRE(std::isnan(r.y[n]) == (n >= 36));
    REQUIRE(std::isnan(r.y_dot[n]) == (n >= 36));
    REQUIRE(std::isnan(r.of_y_bar.x_bar[n]) == (n >= 36));
    REQUIRE(std::isnan(r.second.x_bar[n]) == (n >= 36));
  }
}

TEST_CASE("group_norm of nothing does nothing") {
  group_norm const norm{4, 2};
  for (feature_shape const shape : {feature_shape{0, 4, 5}, feature_shape{2, 4, 0}}) {
    passes<float, group_norm> run(norm, shape, 1);
    auto const r = layer_checks::run_all(run);
    CHECK(r.y.empty());
    CHECK(r.of_y_bar.w_bar == run.w_start());
    CHECK(r.second.w_bar == run.w_start());
  }
}

TEST_CASE("group_norm refuses what it cannot split") {
  CHECK(refusal({4, 2}, {2, 3, 5}) == "head: x (expected 4 channels, got 3)");
  CHECK(refusal({4, 3}, {2, 4, 5}) == "head: groups (expected a divisor of the 4 channels, got 3)");
  CHECK(refusal({4, 0}, {2, 4, 5}) == "head: groups (expected a divisor of the 4 channels, got 0)");
  CHECK(refusal({0, 1}, {2, 0, 5}) == "head: groups (expected a divisor of the 0 channels, got 1)");
  CHECK(refusal({4, 2, -1}, {2, 4, 5}) == "head: epsilon (expected a positive number, got -1)");
  CHECK(refusal({4, 2, 1e-5, NAN}, {2, 4, 5}).starts_with("head: negative_slope"));
  CHECK(refusal({4, 2}, {0, 4, 5}) == "no error");
}
