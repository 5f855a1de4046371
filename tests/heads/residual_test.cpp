// SPDX-License-Identifier: MIT
#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/residual.hpp>

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/check_layer.hpp"
#include "heads/gated.hpp"

namespace {

using namespace addloss;

static_assert(layer<residual<gated>, float>);
static_assert(layer<residual<gated>, double>);
static_assert(std::same_as<decltype(residual{gated{1, 1}}), residual<gated>>);

}  // namespace

TEST_CASE("residual of a known layer") {
  residual const skip{leaky_relu{}};
  double const x[] = {1, -1, 3, -5};
  double g[] = {1, 2, 3, 4};
  auto const start = std::to_array(g);
  double y[4];
  double x_bar[4];
  layer_pass<double> p;
  p.shape = {1, 2, 2};
  std::vector<double> workspace(static_cast<std::size_t>(skip.sizes(p.shape).workspace));
  p.x = x;
  p.y = y;
  p.y_bar = g;
  p.x_bar = x_bar;
  p.workspace = workspace.data();
  skip.forward(cpu_context{}, p);
  skip.backward(cpu_context{}, p);
  for (std::size_t i = 0; i < 4; ++i) {
    double const factor = (x[i] > 0 ? 2 : 1.2) / std::sqrt(2.0);
    CHECK(y[i] == Approx(factor * x[i]).epsilon(1e-15));
    CHECK(x_bar[i] == Approx(factor * start[i]).epsilon(1e-15));
    CHECK(g[i] == Approx(start[i] / std::sqrt(2.0)).epsilon(1e-15));
  }
}

TEST_CASE("residual is a layer") {
  auto const check = [](auto const& body, feature_shape shape) {
    residual const skip{body};
    check_layer<float>(skip, shape);
    check_layer<double>(skip, shape);
    check_float(skip, skip, shape);
    check_threads<float>(skip, {8, shape.channels, 8192 / shape.channels});
    check_threads<double>(skip, {8, shape.channels, 8192 / shape.channels});
  };
  check(leaky_relu{}, {2, 3, 5});
  check(gated{3, 3}, {2, 3, 5});
  check(gated{2, 2, 4}, {3, 2, 4});
  check(residual{gated{2, 2, 1}}, {3, 2, 4});
}

TEST_CASE("residual has the parameters and the conditions of its layer") {
  gated const body{3, 3, 2};
  residual const skip{body};
  feature_shape const shape{2, 3, 4};
  CHECK(skip.parameter_count() == 14);
  REQUIRE(skip.parameters() == 3);
  CHECK(std::string(skip.parameter(1).name) == "bias");
  CHECK(skip.parameter(1).offset == 9);
  CHECK(skip.output_shape("f", shape) == shape);
  REQUIRE(skip.condition_sizes().size() == 1);
  CHECK(skip.condition_sizes()[0] == 2);
  CHECK(residual{leaky_relu{}}.condition_sizes().empty());
  CHECK(skip.sizes(shape).saved == body.sizes(shape).saved);
}

TEST_CASE("residual refuses a layer that changes the shape") {
  auto const error = [](auto const& body) {
    return error_of([&] { (void)residual{body}.output_shape("head", {2, 3, 4}); });
  };
  CHECK(error(gated{3, 2}) ==
        "head: residual (expected an output of the shape [2, 3, 4], got [2, 2, 4])");
  CHECK(error(gated{5, 5}) == "head: x (expected 5 channels, got 3)");
}
