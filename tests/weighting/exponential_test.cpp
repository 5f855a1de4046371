// SPDX-License-Identifier: MIT
#include <addloss/weighting/exponential.hpp>

#include <addloss/schedule/discrete.hpp>

#include "catch.hpp"

namespace {

using addloss::exponential;

static_assert(exponential{}.at({0.25, 0.5}) == 0.25);

}  // namespace

TEST_CASE("the exponential weighting is alpha, not its square") {
  CHECK(exponential{}.at({0.8, 0.6}) == 0.8);
  // Stable Diffusion at the student's timesteps.
  auto const schedule = addloss::scaled_linear_schedule();
  CHECK(exponential{}.at(schedule.at(249)) == Approx(0.821847).margin(5.1e-7).epsilon(0));
  CHECK(exponential{}.at(schedule.at(999)) == Approx(0.068265).margin(5.1e-7).epsilon(0));
}

TEST_CASE("the exponential weighting over alpha is 1") {
  for (double const alpha : {1e-300, 0.3, 1.0}) {
    CHECK(exponential{}.over_alpha({alpha, 0.6}) == exponential{}.at({alpha, 0.6}) / alpha);
  }
}

TEST_CASE("the exponential weighting where there is no signal or no noise") {
  CHECK(exponential{}.at({0, 1}) == 0);
  CHECK(exponential{}.over_alpha({0, 1}) == 1);
  CHECK(exponential{}.at({1, 0}) == 1);
  CHECK(exponential{}.over_alpha({1, 0}) == 1);
}
