// SPDX-License-Identifier: MIT
#include <addloss/schedule/karras.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::karras;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

std::string sigma(karras const& schedule, std::int64_t i, std::int64_t n) {
  return error_of([&] { (void)schedule.sigma(i, n); });
}

std::string check(double time) {
  return error_of([&] { karras{}.check("f", 3, time); });
}

}  // namespace

TEST_CASE("the sigmas of Karras et al.") {
  for (karras const& schedule :
       {karras{}, karras{.sigma_min = 0.03, .sigma_max = 14.6, .rho = 3}, karras{.rho = 1}}) {
    for (std::int64_t const n : {2, 5, 18}) {
      for (std::int64_t i = 0; i < n; ++i) {
        long double const low = schedule.sigma_min;
        long double const high = schedule.sigma_max;
        long double const rho = schedule.rho;
        long double const first = std::pow(high, 1 / rho);
        long double const last = std::pow(low, 1 / rho);
        auto const share = static_cast<long double>(i) / static_cast<long double>(n - 1);
        auto const expected =
            static_cast<double>(std::pow((1 - share) * first + share * last, rho));
        CAPTURE(schedule.rho, n, i);
        // At rho = 1 the last sigma is a difference of numbers 4e4 times as large.
        CHECK(schedule.sigma(i, n) == Approx(expected).epsilon(1e-11));
      }
    }
  }
}

TEST_CASE("Karras sigmas begin with the largest") {
  karras const schedule;
  CHECK(schedule.sigma(0, 10) == Approx(80).epsilon(1e-13));
  CHECK(schedule.sigma(9, 10) == Approx(0.002).epsilon(1e-13));
  for (std::int64_t i = 1; i < 10; ++i) CHECK(schedule.sigma(i, 10) < schedule.sigma(i - 1, 10));
  CHECK(schedule.sigma(0, 1) == 80);
}

TEST_CASE("Karras sigmas of an empty range") {
  karras const schedule{.sigma_min = 2, .sigma_max = 2};
  CHECK(schedule.sigma(0, 3) == Approx(2).epsilon(1e-14));
  CHECK(schedule.sigma(2, 3) == Approx(2).epsilon(1e-14));
}

TEST_CASE("the time of the EDM schedule is its sigma, the signal is whole") {
  static_assert(karras{}.at(3).alpha == 1 && karras{}.at(3).sigma == 3);
  CHECK(karras{}.at(0).alpha == 1);
  CHECK(karras{}.at(0).sigma == 0);
  CHECK(karras{}.at(1e6).sigma == 1e6);  // beyond sigma_max is no error
}

TEST_CASE("bad settings of Karras sigmas are refused") {
  CHECK(sigma({.sigma_min = 0}, 0, 2) ==
        "karras::sigma: sigma_min (expected 0 < sigma_min <= 80, got 0)");
  CHECK(sigma({.sigma_min = -1}, 0, 2) ==
        "karras::sigma: sigma_min (expected 0 < sigma_min <= 80, got -1)");
  CHECK(sigma({.sigma_min = 3, .sigma_max = 2}, 0, 2) ==
        "karras::sigma: sigma_min (expected 0 < sigma_min <= 2, got 3)");
  CHECK(sigma({.sigma_min = not_a_number}, 0, 2) ==
        "karras::sigma: sigma_min (expected 0 < sigma_min <= 80, got nan)");
  CHECK(sigma({.sigma_max = infinity}, 1, 2) ==
        "karras::sigma: sigma_max (expected a finite number, got inf)");
  CHECK(sigma({.rho = 0}, 0, 2) == "karras::sigma: rho (expected a finite number > 0, got 0)");
  CHECK(sigma({.rho = not_a_number}, 0, 2) ==
        "karras::sigma: rho (expected a finite number > 0, got nan)");
  CHECK(sigma({.rho = infinity}, 0, 2) ==
        "karras::sigma: rho (expected a finite number > 0, got inf)");
  CHECK(sigma({}, 0, 0) == "karras::sigma: n (expected at least 1, got 0)");
  CHECK(sigma({}, 2, 2) == "karras::sigma: i (expected 0 to 1, got 2)");
  CHECK(sigma({}, -1, 2) == "karras::sigma: i (expected 0 to 1, got -1)");
}

TEST_CASE("a sigma that is no noise level is refused") {
  CHECK(check(0) == "no error");
  CHECK(check(80) == "no error");
  CHECK(check(-1) == "f: timesteps[3] (expected a finite sigma >= 0, got -1)");
  CHECK(check(infinity) == "f: timesteps[3] (expected a finite sigma >= 0, got inf)");
  CHECK(check(not_a_number) == "f: timesteps[3] (expected a finite sigma >= 0, got nan)");
}
