// SPDX-License-Identifier: MIT
// The derivatives are compared with finite differences in sequence_test.cpp.
#include <addloss/heads/leaky_relu.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"

namespace {

using namespace addloss;

static_assert(layer<leaky_relu, float>);
static_assert(layer<leaky_relu, double>);

template <class T>
void check_values() {
  leaky_relu const relu{};
  auto const a = static_cast<T>(0.2);
  std::vector<T> const x = {-2, 0, -T(0), 3, T(1e-30), -T(INFINITY), T(INFINITY)};
  std::vector<T> const g = {1, 2, 3, 4, 5, 6, 7};
  feature_shape const shape{1, 1, 7};
  std::vector<T> y(7);
  std::vector<T> d(7);
  T* const none = nullptr;
  relu.forward(cpu_context{}, none, shape, x.data(), y.data(), none, none);
  CHECK(y == std::vector<T>{a * -2, 0, 0, 3, T(1e-30), -T(INFINITY), T(INFINITY)});
  std::vector<T> const expected = {a, a * 2, a * 3, 4, 5, a * 6, 7};
  relu.backward(cpu_context{}, none, shape, x.data(), none, g.data(), d.data(), none, none);
  CHECK(d == expected);
  d.assign(7, 0);
  relu.tangent(cpu_context{}, none, shape, x.data(), none, g.data(), d.data(), none);
  CHECK(d == expected);
  std::vector<T> x_dot_bar(7);
  relu.tangent_backward(cpu_context{}, none, shape, x.data(), none, x.data(), y.data(), g.data(),
                        d.data(), x_dot_bar.data(), none, none);
  CHECK(x_dot_bar == expected);
  CHECK(d[0] == a * y[0]);
  CHECK(d[3] == y[3]);
}

}  // namespace

TEST_CASE("leaky_relu at both sides of its kink and on it") {
  check_values<float>();
  check_values<double>();
}

TEST_CASE("leaky_relu of another slope") {
  double const x = -4;
  double y = 0;
  double* const none = nullptr;
  leaky_relu{.negative_slope = 0.5}.forward(cpu_context{}, none, {1, 1, 1}, &x, &y, none, none);
  CHECK(y == -2);
}

TEST_CASE("NaN in leaky_relu comes out of everything") {
  leaky_relu const relu{};
  float const x[] = {1, NAN, -1};
  float const g[] = {1, 1, 1};
  float out[5][3];
  float* const none = nullptr;
  feature_shape const shape{1, 3, 1};
  cpu_context const ctx{};
  relu.forward(ctx, none, shape, x, out[0], none, none);
  relu.backward(ctx, none, shape, x, none, g, out[1], none, none);
  relu.tangent(ctx, none, shape, x, none, g, out[2], none);
  relu.tangent_backward(ctx, none, shape, x, none, g, g, g, out[3], out[4], none, none);
  for (auto const& row : out) {
    CHECK(std::isfinite(row[0]));
    CHECK(std::isnan(row[1]));
    CHECK(std::isfinite(row[2]));
  }
}

TEST_CASE("leaky_relu has nothing but its slope") {
  leaky_relu const relu{};
  feature_shape const shape{2, 3, 4};
  CHECK(relu.parameter_count() == 0);
  CHECK(relu.parameters() == 0);
  CHECK(relu.output_shape("f", shape) == shape);
  CHECK(relu.saved_size(shape) == 0);
  CHECK(relu.workspace_size(shape) == 0);
}
