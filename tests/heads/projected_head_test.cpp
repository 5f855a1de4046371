// SPDX-License-Identifier: MIT
// The numbers of a whole head are compared with reference cases (goldens/discriminator_head).
#include <addloss/heads/projected_head.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <addloss/heads/spectral_weights.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/check_layer.hpp"

namespace {

using namespace addloss;

using head_type = decltype(projected_head<float>({}));
static_assert(layer<head_type, float>);
static_assert(!layer<head_type, double>);
static_assert(!layer<int, float>);

/// A head small enough for finite differences of every number.
head_settings small(int kernel, convolution_method method,
                    std::vector<std::int64_t> condition_sizes = {},
                    condition_combination combination = condition_combination::sum) {
  return {.channels = 3,
          .kernel = kernel,
          .condition_sizes = std::move(condition_sizes),
          .combination = combination,
          .width = 2,
          .virtual_batch = 2,
          .method = method};
}

std::vector<std::string> names_of(auto const& head) {
  std::vector<std::string> names;
  for (int i = 0; i < head.parameters(); ++i) names.emplace_back(head.parameter(i).name);
  return names;
}

}  // namespace

TEST_CASE("parameters are named after the layers they belong to") {
  auto const head =
      projected_head<float>({.channels = 6, .kernel = 3, .condition_sizes = {5}, .width = 4});
  std::int64_t next = 0;
  for (int i = 0; i < head.parameters(); ++i) {
    CHECK(head.parameter(i).offset == next);
    next += head.parameter(i).size();
  }
  CHECK(next == head.parameter_count());
  CHECK(names_of(head) ==
        std::vector<std::string>{"first.conv.weight", "first.conv.bias", "first.norm.weight",
                                 "first.norm.bias", "residual.conv.weight", "residual.conv.bias",
                                 "residual.norm.weight", "residual.norm.bias", "classifier.weight",
                                 "classifier.bias", "classifier.condition0.weight",
                                 "classifier.condition0.bias"});
  CHECK(head.output_shape("test", {2, 6, 9}) == feature_shape{2, 1, 9});
}

TEST_CASE("a head reads the conditions of its settings") {
  head_settings settings{.channels = 6, .condition_sizes = {5, 7}, .width = 4};
  auto const sum = projected_head<float>(settings);
  REQUIRE(sum.condition_sizes().size() == 2);
  CHECK(sum.condition_sizes()[0] == 5);
  CHECK(sum.condition_sizes()[1] == 7);
  auto names = names_of(sum);
  CHECK(std::vector<std::string>(names.begin() + 10, names.end()) ==
        std::vector<std::string>{"classifier.condition0.weight", "classifier.condition0.bias",
                                 "classifier.condition1.weight", "classifier.condition1.bias"});
  settings.combination = condition_combination::concatenation;
  auto const one = projected_head<float>(settings);
  CHECK(one.condition_sizes().size() == 2);
  names = names_of(one);
  CHECK(std::vector<std::string>(names.begin() + 10, names.end()) ==
        std::vector<std::string>{"classifier.condition.weight", "classifier.condition.bias"});
  CHECK(one.parameter(10).extents[1] == 12);
}

TEST_CASE("a head without conditions has one logit channel, whatever the width") {
  auto const head = projected_head<double>({.channels = 6, .width = 64});
  CHECK(head.parameter(8).extents[0] == 1);
  CHECK(head.parameters() == 10);
  CHECK(head.condition_sizes().empty());
}

TEST_CASE("shapes that do not fit a head are refused") {
  auto const refuses = [](auto const& head, feature_shape shape) {
    feature_shape out;
    return error_of([&] { out = head.output_shape("discriminate", shape); })
        .starts_with("discriminate: ");
  };
  auto const head = projected_head<float>({.channels = 6});
  CHECK_FALSE(refuses(head, {8, 6, 4}));
  CHECK(refuses(head, {9, 6, 4}));  // two virtual batches do not divide 9
  CHECK(refuses(head, {8, 5, 4}));
  CHECK(refuses(projected_head<float>({.channels = 6, .kernel = 4}), {8, 6, 4}));
  CHECK(refuses(projected_head<float>({.channels = 6, .condition_sizes = {0}}), {8, 6, 4}));
  CHECK(error_of([&] {
          projected_head<float>({.channels = 6, .condition_sizes = std::vector<std::int64_t>(5)});
        }) == "projected_head: condition_sizes (expected at most 4, got 5)");
}

TEST_CASE("a head has exact derivatives of first and second order") {
  auto const check = [](head_settings const& settings, feature_shape shape) {
    CAPTURE(settings.kernel, settings.condition_sizes);
    check_layer<double>(projected_head<double>(settings), shape);
    check_layer<float>(projected_head<float>(settings), shape);
  };
  using enum convolution_method;
  check(small(3, direct), {4, 3, 5});
  check(small(9, direct, {4}), {2, 3, 7});
  check(small(9, toom_cook), {2, 3, 7});
  check(small(9, toom_cook, {4, 2}), {4, 3, 5});
  check(small(3, direct, {4, 2}, condition_combination::concatenation), {4, 3, 5});
}

TEST_CASE("a head in float is near the head in double") {
  for (auto const method : {convolution_method::direct, convolution_method::toom_cook}) {
    for (auto const combination :
         {condition_combination::sum, condition_combination::concatenation}) {
      for (auto const& sizes : {std::vector<std::int64_t>{}, {4}, {4, 2}}) {
        auto const settings = small(9, method, sizes, combination);
        check_float(projected_head<float>(settings), projected_head<double>(settings), {4, 3, 11});
      }
    }
  }
}

TEST_CASE("a head gives the same bits on any number of threads") {
  // Wide enough for Toom-Cook's method, and for every layer to use several threads.
  head_settings const settings{.channels = 32, .condition_sizes = {24, 10}, .width = 16};
  feature_shape const shape{8, 32, 160};
  REQUIRE(conv1d<float>{.in_channels = 32, .out_channels = 32, .kernel = 9}.by_toom_cook(shape));
  check_threads<float>(projected_head<float>(settings), shape);
  check_threads<double>(projected_head<double>(settings), shape);
}

TEST_CASE("the convolutions of a head are normalised, all other parameters are not") {
  auto const head = projected_head<double>({.channels = 3, .kernel = 3});
  spectral_weights const spectral{head};
  REQUIRE(spectral.weights() == 3);
  CHECK(spectral.state_size() == (3 + 3) + (3 + 9) + (1 + 3));
  std::vector<double> w(static_cast<std::size_t>(head.parameter_count()));
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = 0.25 + 0.5 * static_cast<double>(i % 5);
  std::vector<double> state(static_cast<std::size_t>(spectral.state_size()), 0.5);
  cpu_context const ctx;
  std::vector<double> w_hat(w.size());
  std::vector<double> sigmas(3);
  auto const normalise = [&] {
    spectral.sigmas("test", ctx, w.data(), state.data(), sigmas.data());
    spectral.normalise(ctx, w.data(), sigmas.data(), w_hat.data());
  };
  spectral.update(ctx, w.data(), state.data());
  normalise();
  for (int i = 0; i < head.parameters(); ++i) {
    auto const part = head.parameter(i);
    for (std::int64_t n = part.offset; n < part.offset + part.size(); ++n) {
      auto const at = static_cast<std::size_t>(n);
      CHECK((w_hat[at] != w[at]) == (part.rank == 3));
    }
  }
  // With u, v of a rank-1 step taken often enough, sigma of the normalised weight is 1.
  for (int i = 0; i < 100; ++i) spectral.update(ctx, w.data(), state.data());
  normalise();
  auto const view = spectral.weight(1);
  spectral_norm const norm{view.rows, view.columns};
  CHECK(norm.sigma(ctx, w_hat.data() + head.parameter(view.parameter).offset, state.data() + view.u,
                   state.data() + view.v) == Approx(1).epsilon(1e-12));
}

TEST_CASE("a weight whose sigma is no number is refused by name") {
  auto const head = projected_head<double>({.channels = 3, .kernel = 3});
  spectral_weights const spectral{head};
  std::vector<double> const state(static_cast<std::size_t>(spectral.state_size()), 0.5);
  auto const error_with = [&](double number, std::int64_t count) {
    std::vector<double> w(static_cast<std::size_t>(head.parameter_count()), 0.5);
    auto const first = w.begin() + head.parameter(4).offset;
    std::fill(first, first + count, number);
    std::vector<double> sigmas(3);
    return error_of(
        [&] { spectral.sigmas("step", cpu_context{}, w.data(), state.data(), sigmas.data()); });
  };
  std::string const expected =
      "step: residual.conv.weight (expected a weight whose sigma is finite and not 0, got ";
  CHECK(error_with(0.5, 27) == "no error");
  CHECK(error_with(0, 27) == expected + "0)");
  CHECK(error_with(std::numeric_limits<double>::infinity(), 1) == expected + "inf)");
  CHECK(error_with(std::numeric_limits<double>::quiet_NaN(), 1).starts_with(expected));
  CHECK(error_with(1e-320, 27).starts_with(expected));  // 1 / sigma is infinite
}
