// SPDX-License-Identifier: MIT
// The derivatives are compared with finite differences in sequence_test.cpp.
#include <addloss/heads/residual.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <addloss/heads/local_norm.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

static_assert(layer<residual<leaky_relu>, float>);
static_assert(layer<residual<leaky_relu>, double>);
static_assert(layer<residual<local_norm>, float>);

/// Leaves out the last channel: the shapes do not agree.
struct shorter : leaky_relu {
  [[nodiscard]] static feature_shape output_shape(char const* /*function*/, feature_shape shape) {
    return {shape.batch, shape.channels - 1, shape.length};
  }
};

}  // namespace

TEST_CASE("residual of a known layer") {
  residual const skip{leaky_relu{}};
  feature_shape const shape{1, 2, 2};
  double const x[] = {1, -1, 3, -5};
  double y[4];
  std::vector<double> workspace(static_cast<std::size_t>(skip.workspace_size(shape)));
  double* const none = nullptr;
  skip.forward(cpu_context{}, none, shape, x, y, none, workspace.data());
  for (int i = 0; i < 4; ++i) {
    CHECK(y[i] == Approx((x[i] > 0 ? 2 : 1.2) * x[i] / std::sqrt(2.0)).epsilon(1e-15));
  }
  double const g[] = {1, 2, 3, 4};
  double x_bar[4];
  skip.backward(cpu_context{}, none, shape, x, none, g, x_bar, none, workspace.data());
  for (int i = 0; i < 4; ++i) {
    CHECK(x_bar[i] == Approx((x[i] > 0 ? 2 : 1.2) * g[i] / std::sqrt(2.0)).epsilon(1e-15));
  }
}

TEST_CASE("residual has the parameters of its layer") {
  residual const skip{local_norm{3}};
  local_norm const norm{3};
  feature_shape const shape{2, 3, 4};
  CHECK(skip.parameter_count() == 6);
  REQUIRE(skip.parameters() == 2);
  CHECK(std::string(skip.parameter(1).name) == "bias");
  CHECK(skip.parameter(1).offset == 3);
  CHECK(skip.output_shape("f", shape) == shape);
  CHECK(skip.saved_size(shape) == norm.saved_size(shape));
}

TEST_CASE("residual refuses a layer that changes the shape") {
  CHECK(error_of([] {
          static_cast<void>(residual{shorter{}}.output_shape("head", {2, 3, 4}));
        }) == "head: residual (expected an output of the shape [2, 3, 4], got [2, 2, 4])");
  CHECK(error_of([] {
          static_cast<void>(residual{local_norm{5}}.output_shape("head", {2, 3, 4}));
        }) == "head: x (expected 5 channels, got 3)");
}
