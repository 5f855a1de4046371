// SPDX-License-Identifier: MIT
#include <addloss/sampler/uniform.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"

namespace {

using addloss::random_key;
using addloss::uniform_timesteps;

static_assert(uniform_timesteps{7, 7}.draw(random_key{}, 0) == 7);

}  // namespace

TEST_CASE("uniform timesteps are lo + floor(u count)") {
  random_key const key{.seed = 21, .step = 3, .stream = 1};
  uniform_timesteps const sampler{20, 980};
  for (std::uint32_t sample = 0; sample < 2000; ++sample) {
    auto const block = addloss::philox4x32_10(key, sample, 0);
    std::uint64_t const bits = std::uint64_t{block.word[0]} << 32 | block.word[1];
    // floor(bits 961 / 2^64), in two halves.
    std::uint64_t const expected = ((bits >> 32) * 961 + ((bits & 0xffffffff) * 961 >> 32)) >> 32;
    REQUIRE(sampler.draw(key, sample) == 20 + static_cast<std::int64_t>(expected));
  }
}

TEST_CASE("uniform timesteps are 0 to 999 by default, each as often") {
  random_key const key{.seed = 22};
  constexpr int count = 500000;
  constexpr double expected = count / 1000.0;
  std::vector<int> seen(1000);
  for (std::uint32_t sample = 0; sample < count; ++sample) {
    ++seen.at(static_cast<std::size_t>(uniform_timesteps{}.draw(key, sample)));
  }
  double chi_square = 0;
  for (int const n : seen) chi_square += (n - expected) * (n - expected) / expected;
  // Mean 999, variance 2 * 999; five standard deviations. Far below would be as suspect.
  CHECK(std::abs(chi_square - 999) < 5 * std::sqrt(2 * 999.0));
}

TEST_CASE("uniform timesteps reach both ends of their range") {
  random_key const key{.seed = 23};
  bool seen[3] = {};
  for (std::uint32_t sample = 0; sample < 100; ++sample) {
    std::int64_t const t = uniform_timesteps{-1, 1}.draw(key, sample);
    REQUIRE(t >= -1);
    REQUIRE(t <= 1);
    seen[t + 1] = true;
    REQUIRE(uniform_timesteps{5, 5}.draw(key, sample) == 5);
  }
  CHECK(seen[0]);
  CHECK(seen[1]);
  CHECK(seen[2]);
}

TEST_CASE("DreamFusion leaves out the first and the last 2 percent") {
  auto const usual = uniform_timesteps::dreamfusion();
  CHECK(usual.lo == 20);
  CHECK(usual.hi == 980);
  CHECK(uniform_timesteps::dreamfusion(100).lo == 2);
  CHECK(uniform_timesteps::dreamfusion(100).hi == 98);
}

TEST_CASE("DreamFusion's range ends within every schedule") {
  for (std::int64_t timesteps = 1; timesteps < 2000; ++timesteps) {
    auto const range = uniform_timesteps::dreamfusion(timesteps);
    CAPTURE(timesteps, range.lo, range.hi);
    REQUIRE(range.lo >= 0);
    REQUIRE(range.hi >= range.lo);
    REQUIRE(range.hi < timesteps);
    REQUIRE(100 * range.hi <= 98 * timesteps);
    REQUIRE(100 * (range.hi + 1) > 98 * timesteps);
  }
}
