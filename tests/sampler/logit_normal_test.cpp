// SPDX-License-Identifier: MIT
#include <addloss/sampler/logit_normal.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"

namespace {

using addloss::logit_normal_timesteps;
using addloss::random_key;

/// P(t < k): the normal distribution function at the logit of k / T.
double below(logit_normal_timesteps const& sampler, std::int64_t k) {
  if (k == 0) return 0;
  if (k == sampler.timesteps) return 1;
  double const y = static_cast<double>(k) / static_cast<double>(sampler.timesteps);
  double const z = (std::log(y / (1 - y)) - sampler.mean) / sampler.stddev;
  return std::erfc(-z / std::sqrt(2.0)) / 2;
}

}  // namespace

TEST_CASE("logit-normal timesteps follow their formula") {
  random_key const key{.seed = 41, .step = 3, .stream = 1};
  for (logit_normal_timesteps const& sampler :
       {logit_normal_timesteps{}, logit_normal_timesteps{.mean = -0.5, .stddev = 2},
        logit_normal_timesteps{.mean = 0, .stddev = 1, .timesteps = 77}}) {
    int different = 0;
    for (std::uint32_t sample = 0; sample < 5000; ++sample) {
      auto const block = addloss::philox4x32_10(key, sample, 0);
      auto const number = [&](int i) {
        auto const bits = std::uint64_t{block.word[2 * i]} << 32 | block.word[2 * i + 1];
        return static_cast<long double>(bits >> 11) * 0x1p-53L;
      };
      long double const normal =
          std::sqrt(-2 * std::log(1 - number(0))) * std::cos(6.28318530717958647693L * number(1));
      long double const logit = sampler.mean + sampler.stddev * normal;
      auto const expected = static_cast<std::int64_t>(
          std::floor(static_cast<long double>(sampler.timesteps) / (1 + std::exp(-logit))));
      different += sampler.draw(key, sample) == expected ? 0 : 1;
    }
    CAPTURE(sampler.mean, sampler.stddev);
    CHECK(different == 0);
  }
}

TEST_CASE("logit-normal timesteps have the distribution of their name") {
  random_key const key{.seed = 42};
  constexpr int count = 200000;
  for (logit_normal_timesteps const& sampler :
       {logit_normal_timesteps{.timesteps = 20}, logit_normal_timesteps{-0.5, 2, 20},
        logit_normal_timesteps{0, 1, 20}}) {
    std::vector<int> seen(20);
    for (std::uint32_t sample = 0; sample < count; ++sample) {
      ++seen.at(static_cast<std::size_t>(sampler.draw(key, sample)));
    }
    double chi_square = 0;
    int cells = 0;
    // Cells that expect few draws are left out: there chi^2 has no meaning.
    for (std::int64_t t = 0; t < 20; ++t) {
      double const expected = count * (below(sampler, t + 1) - below(sampler, t));
      if (expected < 20) continue;
      double const excess = seen[static_cast<std::size_t>(t)] - expected;
      chi_square += excess * excess / expected;
      ++cells;
    }
    CAPTURE(sampler.mean, sampler.stddev, chi_square);
    CHECK(cells >= 18);
    // Five standard deviations above the mean of chi^2.
    CHECK(chi_square < cells + 5 * std::sqrt(2.0 * cells));
  }
}

TEST_CASE("the default teacher favours noise") {
  // The median of LADD's (1, 1) is T / (1 + 1/e).
  random_key const key{.seed = 43};
  constexpr int count = 100000;
  int above = 0;
  for (std::uint32_t sample = 0; sample < count; ++sample) {
    above += logit_normal_timesteps{}.draw(key, sample) > 731 ? 1 : 0;
  }
  double const share = 1 - below(logit_normal_timesteps{}, 732);
  CHECK(share == Approx(0.5).margin(0.01));
  CHECK(std::abs(above / double(count) - share) < 5 * 0.5 / std::sqrt(double(count)));
}

TEST_CASE("logit-normal timesteps without spread") {
  random_key const key{.seed = 44};
  for (std::uint32_t sample = 0; sample < 100; ++sample) {
    REQUIRE(logit_normal_timesteps{.mean = 1, .stddev = 0}.draw(key, sample) == 731);
    REQUIRE(logit_normal_timesteps{.mean = 0, .stddev = 0}.draw(key, sample) == 500);
  }
}

TEST_CASE("logit-normal timesteps of extreme means stay inside the schedule") {
  random_key const key{.seed = 45};
  for (std::uint32_t sample = 0; sample < 100; ++sample) {
    REQUIRE(logit_normal_timesteps{.mean = 100}.draw(key, sample) == 999);
    REQUIRE(logit_normal_timesteps{.mean = -1000}.draw(key, sample) == 0);
    REQUIRE(logit_normal_timesteps{.mean = 1, .stddev = 1, .timesteps = 1}.draw(key, sample) == 0);
  }
}
