// SPDX-License-Identifier: MIT
#include <addloss/weighting/sds.hpp>

#include <limits>

#include "catch.hpp"

namespace {

using addloss::basic_sds;
using addloss::noise_level;
using addloss::sds;
using addloss::unit;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr noise_level levels[] = {{0.8, 0.6}, {0.068265, 0.997667}, {0.25, 0.75}, {1, 80}};

/// A user's w(t) = sigma^3.
struct sigma_cubed {
  static constexpr double over_sigma(noise_level level) { return level.sigma * level.sigma; }
};

double as_double(long double x) { return static_cast<double>(x); }

/// c, c / alpha and the gradient's factor 2 c sigma / alpha, which must be w(t).
template <class W>
void check_formula(basic_sds<W> const& weighting, auto const& w) {
  for (noise_level const level : levels) {
    long double const alpha = level.alpha;
    long double const sigma = level.sigma;
    CAPTURE(level.alpha, level.sigma);
    CHECK(weighting.at(level) == Approx(as_double(alpha * w(sigma) / (2 * sigma))).epsilon(1e-14));
    CHECK(weighting.over_alpha(level) == Approx(weighting.at(level) / level.alpha).epsilon(1e-14));
    CHECK(2 * weighting.over_alpha(level) * level.sigma ==
          Approx(as_double(w(sigma))).epsilon(1e-14));
  }
}

static_assert(sds{}.at({0.5, 0.5}) == 0.125 && sds{}.over_alpha({0.5, 0.5}) == 0.25);

}  // namespace

TEST_CASE("the SDS weighting with DreamFusion's w(t) = sigma^2") {
  check_formula(sds{}, [](long double sigma) { return sigma * sigma; });
}

TEST_CASE("the SDS weighting with w(t) = 1") {
  check_formula(basic_sds<unit>{}, [](long double) { return 1.0L; });
}

TEST_CASE("the SDS weighting with a w(t) of one's own") {
  check_formula(basic_sds<sigma_cubed>{}, [](long double s) { return s * s * s; });
}

TEST_CASE("the SDS weighting where there is no signal") {
  CHECK(sds{}.at({0, 1}) == 0);
  CHECK(sds{}.over_alpha({0, 1}) == 0.5);
  CHECK(basic_sds<unit>{}.at({0, 1}) == 0);
  CHECK(basic_sds<unit>{}.over_alpha({0, 1}) == 0.5);
}

TEST_CASE("the SDS weighting where there is no noise") {
  CHECK(sds{}.at({1, 0}) == 0);
  CHECK(sds{}.over_alpha({1, 0}) == 0);
  CHECK(basic_sds<unit>{}.at({1, 0}) == infinity);
  CHECK(basic_sds<unit>{}.over_alpha({1, 0}) == infinity);
}
