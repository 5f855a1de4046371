// SPDX-License-Identifier: MIT
#include <addloss/sampler/shifted.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include <addloss/sampler/uniform.hpp>

#include "catch.hpp"

namespace {

using addloss::random_key;
using addloss::shifted_timesteps;

/// P(t < k): s u / (1 + (s - 1) u) < y solved for u, y = k / T.
double below(shifted_timesteps const& sampler, std::int64_t k) {
  double const y = static_cast<double>(k) / static_cast<double>(sampler.timesteps);
  return y / (sampler.shift - (sampler.shift - 1) * y);
}

}  // namespace

TEST_CASE("shifted timesteps follow their formula") {
  random_key const key{.seed = 31, .step = 3, .stream = 1};
  for (double const shift : {0.2, 1.0, 3.0, 12.0}) {
    shifted_timesteps const sampler{.shift = shift, .timesteps = 1000};
    int different = 0;
    for (std::uint32_t sample = 0; sample < 5000; ++sample) {
      auto const block = addloss::philox4x32_10(key, sample, 0);
      long double const u = static_cast<long double>(block.word[0]) * 0x1p-32L +
                            static_cast<long double>(block.word[1]) * 0x1p-64L;
      long double const moved = shift * u / (1 + (shift - 1) * u);
      auto const expected = static_cast<std::int64_t>(std::floor(1000 * moved));
      different += sampler.draw(key, sample) == expected ? 0 : 1;
    }
    CAPTURE(shift);
    CHECK(different == 0);
  }
}

TEST_CASE("shifted timesteps have the distribution of their formula") {
  random_key const key{.seed = 32};
  constexpr int count = 200000;
  for (double const shift : {0.2, 3.0, 12.0}) {
    shifted_timesteps const sampler{.shift = shift, .timesteps = 100};
    std::vector<int> seen(100);
    for (std::uint32_t sample = 0; sample < count; ++sample) {
      ++seen.at(static_cast<std::size_t>(sampler.draw(key, sample)));
    }
    double chi_square = 0;
    for (std::int64_t t = 0; t < 100; ++t) {
      double const expected = count * (below(sampler, t + 1) - below(sampler, t));
      double const excess = seen[static_cast<std::size_t>(t)] - expected;
      chi_square += excess * excess / expected;
    }
    CAPTURE(shift);
    // Mean 99, variance 2 * 99; five standard deviations.
    CHECK(std::abs(chi_square - 99) < 5 * std::sqrt(2 * 99.0));
  }
}

TEST_CASE("a shift of 1 is uniform") {
  random_key const key{.seed = 33};
  for (std::uint32_t sample = 0; sample < 1000; ++sample) {
    REQUIRE(shifted_timesteps{.shift = 1}.draw(key, sample) ==
            addloss::uniform_timesteps{}.draw(key, sample));
  }
}

TEST_CASE("shifts at their extremes stay inside the schedule") {
  random_key const key{.seed = 34};
  for (std::uint32_t sample = 0; sample < 1000; ++sample) {
    REQUIRE(shifted_timesteps{.shift = 1e18}.draw(key, sample) == 999);
    REQUIRE(shifted_timesteps{.shift = 1e-18}.draw(key, sample) == 0);
    REQUIRE(shifted_timesteps{.shift = 3, .timesteps = 1}.draw(key, sample) == 0);
  }
}
