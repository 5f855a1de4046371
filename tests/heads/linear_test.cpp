// SPDX-License-Identifier: MIT
#include <addloss/heads/linear.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "check_layer.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

static_assert(layer<linear<float>, float>);
static_assert(!layer<linear<float>, double>);

/// Sizes of one register and of one more, of one and of several samples.
feature_shape const shapes[] = {{2, 3, 5}, {1, 1, 1}, {3, 4, 1}, {1, 2, 17}};

}  // namespace

TEMPLATE_TEST_CASE("a linear layer multiplies each token by its weight", "", float, double) {
  using T = TestType;
  linear<T> const l{.in_channels = 2, .out_channels = 3};
  feature_shape const shape{2, 2, 2};
  CHECK(l.output_shape("test", shape) == feature_shape{2, 3, 2});
  std::vector<T> const w = {1, 2, 3, 4, 5, 6, 10, 20, 30};  // rows (1, 2), (3, 4), (5, 6)
  std::vector<T> const x = {1, 0, 0, 1, 1, 2, 1, -1};
  std::vector<T> y(12);
  std::vector<T> workspace(static_cast<std::size_t>(l.sizes(shape).workspace));
  l.forward({}, layer_pass<T>{.shape = shape,
                              .w = w.data(),
                              .x = x.data(),
                              .y = y.data(),
                              .workspace = workspace.data()});
  CHECK(y == std::vector<T>{11, 12, 23, 24, 35, 36, 13, 10, 27, 22, 41, 34});
}

TEMPLATE_TEST_CASE("a linear layer keeps the contract of layers", "", float, double) {
  for (feature_shape const shape : shapes) {
    for (std::int64_t const out : {1, 4}) {
      check_layer<TestType>(linear<TestType>{.in_channels = shape.channels, .out_channels = out},
                            shape);
    }
  }
}

TEST_CASE("a linear layer in float equals the one in double") {
  check_float(linear<float>{.in_channels = 40, .out_channels = 30},
              linear<double>{.in_channels = 40, .out_channels = 30}, {3, 40, 50});
}

TEST_CASE("a linear layer has the same bits on any number of threads") {
  check_threads<float>(linear<float>{.in_channels = 70, .out_channels = 50}, {4, 70, 250});
}

TEST_CASE("a linear layer carries NaN to the token that has it") {
  linear<float> const l{.in_channels = 2, .out_channels = 2};
  feature_shape const shape{1, 2, 3};
  std::vector<float> const w = {0, 0, 0, 0, 1, 1};
  std::vector<float> x(6, 1);
  x[4] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> y(6);
  std::vector<float> workspace(static_cast<std::size_t>(l.sizes(shape).workspace));
  l.forward({}, layer_pass<float>{.shape = shape,
                                  .w = w.data(),
                                  .x = x.data(),
                                  .y = y.data(),
                                  .workspace = workspace.data()});
  for (std::size_t n = 0; n < y.size(); ++n) CHECK(std::isnan(y[n]) == (n % 3 == 1));
}

TEST_CASE("the weight of a linear layer has rank 2") {
  linear<double> const l{.in_channels = 5, .out_channels = 3};
  REQUIRE(l.parameters() == 2);
  CHECK(l.parameter_count() == 18);
  parameter_view const weight = l.parameter(0);
  CHECK(weight.name == std::string("weight"));
  CHECK(weight.rank == 2);
  CHECK(weight.extents[0] == 3);
  CHECK(weight.extents[1] == 5);
  CHECK(weight.size() == 15);
  parameter_view const bias = l.parameter(1);
  CHECK(bias.name == std::string("bias"));
  CHECK(bias.offset == 15);
  CHECK(bias.size() == 3);
}

TEST_CASE("a linear layer reports shapes that do not fit") {
  auto const check = [](linear<float> l, feature_shape shape) {
    return error_of([&] { static_cast<void>(l.output_shape("head", shape)); });
  };
  CHECK(check({.in_channels = 3}, {1, 3, 1}) == "no error");
  CHECK(check({.in_channels = 3}, {1, 4, 1}) == "head: channels (expected 3, got 4)");
  CHECK(check({.in_channels = 0}, {1, 0, 1}) == "head: in_channels (expected at least 1, got 0)");
  CHECK(check({.in_channels = 3, .out_channels = 0}, {1, 3, 1}) ==
        "head: out_channels (expected at least 1, got 0)");
  CHECK(check({.in_channels = 3}, {1, 3, 0}) == "head: length (expected at least 1, got 0)");
}
