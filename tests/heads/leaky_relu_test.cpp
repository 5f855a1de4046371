// SPDX-License-Identifier: MIT
#include <addloss/heads/leaky_relu.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "heads/check_layer.hpp"

namespace {

using namespace addloss;

/// What each pass writes, of x and, as any other input, g.
template <class T>
struct results {
  std::vector<T> y, x_bar, y_dot, second_x_bar;

  results(leaky_relu const& relu, std::vector<T> const& x, std::vector<T> g)
      : y(x.size()), x_bar(x.size()), y_dot(x.size()), second_x_bar(x.size()) {
    cpu_context const ctx{};
    layer_pass<T> p;
    p.shape = {1, 1, static_cast<std::int64_t>(x.size())};
    p.x = x.data();
    p.x_dot = g.data();
    p.y_bar = g.data();
    p.y_dot_bar = g.data();
    p.y = y.data();
    p.x_bar = x_bar.data();
    p.y_dot = y_dot.data();
    relu.forward(ctx, p);
    relu.backward(ctx, p);
    relu.tangent(ctx, p);
    p.x_bar = second_x_bar.data();
    relu.tangent_backward(ctx, p);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("leaky_relu at both sides of its kink and on it", "", float, double) {
  using T = TestType;
  auto const a = static_cast<T>(0.2);
  results<T> const r(leaky_relu{}, {-2, 0, -T(0), 3, T(1e-30), -T(INFINITY), T(INFINITY)},
                     {1, 2, 3, 4, 5, 6, 7});
  CHECK(r.y == std::vector<T>{a * -2, 0, 0, 3, T(1e-30), -T(INFINITY), T(INFINITY)});
  std::vector<T> const expected = {a, a * 2, a * 3, 4, 5, a * 6, 7};
  CHECK(r.x_bar == expected);
  CHECK(r.y_dot == expected);
  CHECK(r.second_x_bar == expected);
}

TEST_CASE("leaky_relu of another slope") {
  CHECK(results<double>({.negative_slope = 0.5}, {-4}, {1}).y[0] == -2);
  CHECK(results<double>({.negative_slope = -1}, {-4}, {3}).x_bar[0] == -3);
}

TEMPLATE_TEST_CASE("NaN in leaky_relu comes out of everything", "", float, double) {
  results<TestType> const r(leaky_relu{}, {1, NAN, -1}, {1, 1, 1});
  for (auto const& row : {r.y, r.x_bar, r.y_dot, r.second_x_bar}) {
    CHECK(std::isfinite(row[0]));
    CHECK(std::isnan(row[1]));
    CHECK(std::isfinite(row[2]));
  }
}

TEST_CASE("leaky_relu is a layer") {
  for (leaky_relu const relu : {leaky_relu{}, leaky_relu{-0.5}, leaky_relu{0}}) {
    CAPTURE(relu.negative_slope);
    for (feature_shape const shape : {feature_shape{2, 3, 5}, {1, 1, 1}, {0, 3, 5}}) {
      check_layer<float>(relu, shape);
      check_layer<double>(relu, shape);
    }
    check_float(relu, relu, {2, 3, 50});
    check_threads<float>(relu, {6, 64, 131});
    check_threads<double>(relu, {6, 64, 131});
  }
}

TEST_CASE("leaky_relu has nothing but its slope") {
  leaky_relu const relu{};
  feature_shape const shape{2, 3, 4};
  CHECK(relu.parameter_count() == 0);
  CHECK(relu.parameters() == 0);
  CHECK(relu.output_shape("f", shape) == shape);
  auto const [saved, saved_bar, saved_dot, workspace] = relu.sizes(shape);
  CHECK((saved == 0 && saved_bar == 0 && saved_dot == 0 && workspace == 0));
}
