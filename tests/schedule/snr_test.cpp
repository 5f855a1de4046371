// SPDX-License-Identifier: MIT
#include <addloss/schedule/snr.hpp>

#include <cmath>
#include <limits>

#include "catch.hpp"

namespace {

using addloss::edm_sigma;
using addloss::log_signal_to_noise;
using addloss::noise_level;
using addloss::signal_to_noise;

constexpr double infinity = std::numeric_limits<double>::infinity();

static_assert(signal_to_noise({3, 2}) == 2.25 && edm_sigma({4, 3}) == 0.75);

}  // namespace

TEST_CASE("measures of a noise level") {
  for (noise_level const level : {noise_level{0.8, 0.6}, noise_level{0.068265, 0.997667},
                                  noise_level{1, 80}, noise_level{0.25, 0.75}}) {
    long double const ratio = static_cast<long double>(level.alpha) / level.sigma;
    CAPTURE(level.alpha, level.sigma);
    CHECK(signal_to_noise(level) == Approx(static_cast<double>(ratio * ratio)).epsilon(1e-14));
    CHECK(log_signal_to_noise(level) ==
          Approx(static_cast<double>(2 * std::log(ratio))).epsilon(1e-14));
    CHECK(edm_sigma(level) == Approx(static_cast<double>(1 / ratio)).epsilon(1e-14));
  }
  CHECK(log_signal_to_noise({0.5, 0.5}) == 0);
}

TEST_CASE("measures where there is no signal") {
  CHECK(signal_to_noise({0, 1}) == 0);
  CHECK(log_signal_to_noise({0, 1}) == -infinity);
  CHECK(edm_sigma({0, 1}) == infinity);
}

TEST_CASE("measures where there is no noise") {
  CHECK(signal_to_noise({1, 0}) == infinity);
  CHECK(log_signal_to_noise({1, 0}) == infinity);
  CHECK(edm_sigma({1, 0}) == 0);
}

TEST_CASE("log-SNR does not square its levels") {
  // alpha^2 would be 0 here.
  CHECK(log_signal_to_noise({1e-200, 1}) == Approx(-400 * std::log(10.0)).epsilon(1e-14));
}
