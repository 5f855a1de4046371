// SPDX-License-Identifier: MIT
#include <addloss/testing/gradcheck.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::testing::gradcheck;
using addloss::testing::value_function;

double cubic(std::span<double const> x) {
  double total = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    total += static_cast<double>(i + 1) * x[i] * x[i] * x[i];
  return total;
}

std::vector<double> cubic_gradient(std::span<double const> x) {
  std::vector<double> g(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) g[i] = 3 * static_cast<double>(i + 1) * x[i] * x[i];
  return g;
}

static_assert(value_function<double (&)(std::span<double const>)>);
static_assert(!value_function<double (&)(int)>);
static_assert(!value_function<std::string (&)(std::span<double const>)>);

}  // namespace

TEST_CASE("gradcheck passes a right gradient and leaves x as it was") {
  std::vector<double> x = {0.3, -1.7, 0.1, 2.5};
  auto const before = x;
  auto const result = gradcheck(cubic, x, cubic_gradient(x));
  CHECK(result.passed);
  CHECK(static_cast<bool>(result));
  CHECK(result.error < 1e-8);
  CHECK(std::memcmp(x.data(), before.data(), x.size() * sizeof(double)) == 0);
}

TEST_CASE("gradcheck finds a planted wrong gradient") {
  std::vector<double> x = {0.3, -1.7, 0.1, 2.5};
  for (std::size_t planted = 0; planted < x.size(); ++planted) {
    for (double const change : {1.001, -1.0, 0.0, 2.0}) {
      auto g = cubic_gradient(x);
      double const right = g[planted];
      g[planted] *= change;
      auto const result = gradcheck(cubic, x, g);
      CAPTURE(planted, change);
      CHECK_FALSE(result.passed);
      CHECK(result.index == planted);
      CHECK(result.gradient == g[planted]);
      CHECK(result.difference == Approx(right).epsilon(1e-7));
      CHECK(result.error ==
            Approx(std::abs(change - 1) / std::max(std::abs(change), 1.0)).epsilon(1e-4));
    }
  }
}

TEST_CASE("gradcheck reports the worst of several errors") {
  std::vector<double> x = {1, 1, 1};
  auto g = cubic_gradient(x);
  g[0] *= 1.01;
  g[2] *= 1.5;
  CHECK(gradcheck(cubic, x, g).index == 2);
}

TEST_CASE("gradcheck never passes NaN or infinity") {
  std::vector<double> x = {1, 1};
  auto g = cubic_gradient(x);
  for (double const bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    auto broken = g;
    broken[1] = bad;
    auto const result = gradcheck(cubic, x, broken, {.tolerance = 1e300});
    CHECK_FALSE(result.passed);
    CHECK(result.index == 1);
    CHECK(result.error == std::numeric_limits<double>::infinity());
    CHECK_FALSE(gradcheck([&](std::span<double const>) { return bad; }, x, g).passed);
  }
}

TEST_CASE("gradcheck compares tiny derivatives with the floor") {
  std::vector<double> x = {2};
  auto const zero = [](std::span<double const>) { return 0.0; };
  std::vector<double> const g = {1e-12};
  CHECK(gradcheck(zero, x, g).passed);
  CHECK_FALSE(gradcheck(zero, x, g, {.floor = 1e-13}).passed);
}

TEST_CASE("gradcheck of no variables passes") {
  std::vector<double> x;
  CHECK(gradcheck(cubic, x, std::vector<double>{}).passed);
}

TEST_CASE("gradcheck refuses what it cannot use") {
  std::vector<double> x = {1, 2};
  std::vector<double> const g = {1};
  std::vector<double> const two = {1, 2};
  CHECK(error_of([&] { gradcheck(cubic, x, g); }) ==
        "gradcheck: gradient (expected 2 elements, as x has, got 1)");
  CHECK(error_of([&] { gradcheck(cubic, x, two, {.step = 0}); }) ==
        "gradcheck: options.step (expected a positive number, got 0)");
  CHECK(error_of([&] { gradcheck(cubic, x, two, {.floor = -1}); }) ==
        "gradcheck: options.floor (expected a positive number, got -1)");
}
