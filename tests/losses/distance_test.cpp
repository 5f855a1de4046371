// SPDX-License-Identifier: MIT
#include <addloss/losses/distance.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <addloss/core/simd.hpp>
#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"

namespace {

using addloss::absolute;
using addloss::pseudo_huber;
using addloss::squared;

struct no_derivative {
  double operator()(double d) const { return d; }
};
static_assert(addloss::distance<squared> && addloss::distance<absolute>);
static_assert(addloss::distance<pseudo_huber>);
static_assert(!addloss::distance<no_derivative> && !addloss::distance<double>);
static_assert(squared{}(3.0).value == 9 && squared{}(3.0).grad == 6);

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

template <class Distance>
void check_gradient(Distance const& distance) {
  for (double const d : {-3.0, -0.4, -0.01, 0.02, 0.7, 5.0}) {
    std::vector<double> x = {d};
    std::array<double, 1> const g = {distance(d).grad};
    auto const result = addloss::testing::gradcheck(
        [&](std::span<double const> at) { return distance(at[0]).value; }, x, g,
        {.step = 1e-6, .tolerance = 1e-6});
    CAPTURE(d, result.error);
    CHECK(result.passed);
  }
}

/// A register of numbers gives what each number gives.
template <class T, class Distance>
void check_packs(Distance const& distance) {
  using pack = addloss::native_pack<T>;
  for (T const d : {T(0), T(0.3), T(-2), T(1e10), std::numeric_limits<T>::infinity(),
                    -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
    auto const one = distance(d);
    auto const many = distance(pack(d));
    CAPTURE(d);
    CHECK((many.value.lanes[0] == one.value ||
           (std::isnan(many.value.lanes[0]) && std::isnan(one.value))));
    CHECK((many.grad.lanes[0] == one.grad ||
           (std::isnan(many.grad.lanes[0]) && std::isnan(one.grad))));
  }
}

}  // namespace

TEST_CASE("distances and their derivatives at named points") {
  CHECK(squared{}(-1.5).value == 2.25);
  CHECK(squared{}(-1.5).grad == -3);
  CHECK(absolute{}(-1.5).value == 1.5);
  CHECK(absolute{}(-1.5).grad == -1);
  CHECK(absolute{}(2.0).grad == 1);
  CHECK(absolute{}(0.0).value == 0);
  CHECK(absolute{}(0.0).grad == 0);
  CHECK(pseudo_huber{}(0.0).value == 0);
  CHECK(pseudo_huber{}(0.0).grad == 0);
  CHECK(pseudo_huber{.c = 3}(4.0).value == Approx(2).epsilon(1e-15));
  CHECK(pseudo_huber{.c = 3}(4.0).grad == Approx(0.8).epsilon(1e-15));
  CHECK(pseudo_huber{.c = 3}(-4.0).grad == Approx(-0.8).epsilon(1e-15));
}

TEST_CASE("pseudo_huber does not cancel at small differences") {
  // sqrt(d^2 + c^2) - c = d^2 / (2c) up to a relative (d / 2c)^2.
  CHECK(pseudo_huber{.c = 1}(1e-9).value == Approx(5e-19).epsilon(1e-12));
  CHECK(pseudo_huber{.c = 1}(1e-5F).value == Approx(5e-11).epsilon(1e-6));
}

TEST_CASE("derivatives of distances agree with finite differences") {
  check_gradient(squared{});
  check_gradient(absolute{});
  check_gradient(pseudo_huber{});
  check_gradient(pseudo_huber{.c = 2});
}

TEST_CASE("distances of NaN and infinity") {
  auto const check_nan = [](auto const& distance) {
    CHECK(std::isnan(distance(not_a_number).value));
    CHECK(std::isnan(distance(not_a_number).grad));
  };
  check_nan(squared{});
  check_nan(absolute{});
  check_nan(pseudo_huber{});
  CHECK(squared{}(-infinity).value == infinity);
  CHECK(squared{}(-infinity).grad == -infinity);
  CHECK(absolute{}(-infinity).value == infinity);
  CHECK(absolute{}(-infinity).grad == -1);
  CHECK(std::isnan(pseudo_huber{}(infinity).value));
  CHECK(std::isnan(pseudo_huber{}(infinity).grad));
}

TEST_CASE("distances of registers") {
  check_packs<float>(squared{});
  check_packs<double>(squared{});
  check_packs<float>(absolute{});
  check_packs<double>(absolute{});
  check_packs<float>(pseudo_huber{});
  check_packs<double>(pseudo_huber{});
}
