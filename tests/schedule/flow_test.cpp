// SPDX-License-Identifier: MIT
#include <addloss/schedule/flow.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <string>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::rectified_flow;
using addloss::trigflow;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

std::string check(auto const& schedule, double t) {
  return error_of([&] { schedule.check("f", 2, t); });
}

static_assert(rectified_flow{}.at(0.25).alpha == 0.75 && rectified_flow{}.at(0.25).sigma == 0.25);

}  // namespace

TEST_CASE("rectified flow without a shift is the straight line") {
  for (double const t : {0.0, 0.1, 0.3, 0.5, 0.9, 1.0}) {
    CHECK(rectified_flow{}.at(t).alpha == 1 - t);
    CHECK(rectified_flow{}.at(t).sigma == t);
  }
}

TEST_CASE("rectified flow with a shift") {
  for (double const shift : {0.1, 0.5, 3.0, 12.0}) {
    rectified_flow const schedule{shift};
    for (double const t : {1e-12, 0.1, 0.25, 0.5, 0.75, 0.999, 1 - 1e-12}) {
      long double const time = t;
      long double const s = shift;
      long double const shifted = s * time / (1 + (s - 1) * time);
      // 1 - t' brought to one fraction, as 1 - t' itself loses digits near t = 1.
      long double const rest = (1 - time) / (1 + (s - 1) * time);
      CAPTURE(shift, t);
      CHECK(schedule.at(t).sigma == Approx(static_cast<double>(shifted)).epsilon(1e-14));
      CHECK(schedule.at(t).alpha == Approx(static_cast<double>(rest)).epsilon(1e-14));
      CHECK(schedule.at(t).alpha + schedule.at(t).sigma == Approx(1).epsilon(1e-15));
    }
  }
  CHECK(rectified_flow{3}.at(0.5).sigma == 0.75);  // more noise than at 0.5 itself
}

TEST_CASE("the ends of rectified flow are exact for every shift") {
  for (int i = 1; i < 1000; ++i) {
    rectified_flow const schedule{i / 37.0};
    CAPTURE(schedule.shift);
    REQUIRE(schedule.at(0).alpha == 1);
    REQUIRE(schedule.at(0).sigma == 0);
    REQUIRE(schedule.at(1).alpha == 0);
    REQUIRE(schedule.at(1).sigma == 1);
  }
}

TEST_CASE("trigflow") {
  for (double const t : {0.0, 0.1, 0.7, 1.5}) {
    CHECK(trigflow{}.at(t).alpha == Approx(std::cos(t)).epsilon(1e-15));
    CHECK(trigflow{}.at(t).sigma == Approx(std::sin(t)).epsilon(1e-15));
  }
  double const quarter = std::numbers::pi / 4;
  CHECK(trigflow{}.at(quarter).alpha == Approx(std::sqrt(0.5)).epsilon(1e-15));
  CHECK(trigflow{}.at(0).alpha == 1);
  CHECK(trigflow{}.at(0).sigma == 0);
  CHECK(trigflow{}.at(2 * quarter).sigma == 1);
  CHECK(trigflow{}.at(2 * quarter).alpha == 0);
}

TEST_CASE("a time outside rectified flow is refused") {
  rectified_flow const schedule;
  CHECK(check(schedule, 0) == "no error");
  CHECK(check(schedule, 1) == "no error");
  CHECK(check(schedule, -0.5) == "f: timesteps[2] (expected 0 to 1, got -0.5)");
  CHECK(check(schedule, 1.5) == "f: timesteps[2] (expected 0 to 1, got 1.5)");
  CHECK(check(schedule, 999) == "f: timesteps[2] (expected 0 to 1, got 999)");
  CHECK(check(schedule, not_a_number) == "f: timesteps[2] (expected 0 to 1, got nan)");
}

TEST_CASE("a time outside trigflow is refused") {
  CHECK(check(trigflow{}, 0) == "no error");
  CHECK(check(trigflow{}, std::numbers::pi / 2) == "no error");
  CHECK(check(trigflow{}, 2) == "f: timesteps[2] (expected 0 to 1.5707963267948966, got 2)");
  CHECK(check(trigflow{}, -1) == "f: timesteps[2] (expected 0 to 1.5707963267948966, got -1)");
  CHECK(check(trigflow{}, not_a_number) ==
        "f: timesteps[2] (expected 0 to 1.5707963267948966, got nan)");
}

TEST_CASE("a shift that is not finite and above 0 is refused") {
  CHECK(check(rectified_flow{0}, 0.5) == "f: shift (expected a finite number > 0, got 0)");
  CHECK(check(rectified_flow{-3}, 0.5) == "f: shift (expected a finite number > 0, got -3)");
  CHECK(check(rectified_flow{infinity}, 0.5) == "f: shift (expected a finite number > 0, got inf)");
  CHECK(check(rectified_flow{not_a_number}, 0.5) ==
        "f: shift (expected a finite number > 0, got nan)");
}
