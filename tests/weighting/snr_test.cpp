// SPDX-License-Identifier: MIT
#include <addloss/weighting/snr.hpp>

#include <cmath>
#include <limits>

#include "catch.hpp"

namespace {

using addloss::min_snr;
using addloss::noise_level;
using addloss::snr;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

static_assert(snr{}.at({3, 2}) == 2.25 && snr{}.over_alpha({3, 2}) == 0.75);
static_assert(min_snr{}.at({3, 2}) == 2.25 && min_snr{.gamma = 2}.at({3, 2}) == 2);

double as_double(long double x) { return static_cast<double>(x); }

/// From almost no noise, ratio 1e4, to almost no signal.
constexpr noise_level levels[] = {
    {0.99995, 0.01}, {0.95, 0.3122498999}, {0.9128709292, 0.4082482905},
    {0.8, 0.6},      {0.068265, 0.997667}, {1, 80},
    {1e-8, 1}};

}  // namespace

TEST_CASE("the SNR weighting") {
  for (noise_level const level : levels) {
    long double const alpha = level.alpha;
    long double const sigma = level.sigma;
    CAPTURE(level.alpha, level.sigma);
    CHECK(snr{}.at(level) == Approx(as_double(alpha * alpha / (sigma * sigma))).epsilon(1e-14));
    CHECK(snr{}.over_alpha(level) == Approx(as_double(alpha / (sigma * sigma))).epsilon(1e-14));
    CHECK(snr{}.over_alpha(level) == Approx(snr{}.at(level) / level.alpha).epsilon(1e-14));
  }
}

TEST_CASE("the SNR weighting where there is no signal or no noise") {
  CHECK(snr{}.at({0, 1}) == 0);
  CHECK(snr{}.over_alpha({0, 1}) == 0);
  CHECK(snr{}.at({1, 0}) == infinity);
  CHECK(snr{}.over_alpha({1, 0}) == infinity);
}

TEST_CASE("the min-SNR weighting") {
  for (double const gamma : {0.5, 5.0, 20.0}) {
    for (noise_level const level : levels) {
      long double const ratio = static_cast<long double>(level.alpha) * level.alpha /
                                (static_cast<long double>(level.sigma) * level.sigma);
      long double const expected = ratio < gamma ? ratio : static_cast<long double>(gamma);
      CAPTURE(gamma, level.alpha, level.sigma);
      CHECK(min_snr{gamma}.at(level) == Approx(as_double(expected)).epsilon(1e-14));
      CHECK(min_snr{gamma}.over_alpha(level) ==
            Approx(as_double(expected / level.alpha)).epsilon(1e-14));
    }
  }
  CHECK(min_snr{}.gamma == 5);
}

TEST_CASE("the min-SNR weighting at the limit itself") {
  CHECK(min_snr{.gamma = 4}.at({1, 0.5}) == 4);
  CHECK(min_snr{.gamma = 4}.over_alpha({1, 0.5}) == 4);
}

TEST_CASE("the min-SNR weighting where there is no signal or no noise") {
  CHECK(min_snr{}.at({0, 1}) == 0);
  CHECK(min_snr{}.over_alpha({0, 1}) == 0);
  CHECK(min_snr{}.at({1, 0}) == 5);
  CHECK(min_snr{}.over_alpha({1, 0}) == 5);
}

TEST_CASE("weightings by SNR do not hide NaN") {
  CHECK(std::isnan(snr{}.at({not_a_number, 0.5})));
  CHECK(std::isnan(min_snr{}.at({not_a_number, 0.5})));
  CHECK(std::isnan(min_snr{}.at({0.5, not_a_number})));
  CHECK(std::isnan(min_snr{}.over_alpha({0.5, not_a_number})));
}
