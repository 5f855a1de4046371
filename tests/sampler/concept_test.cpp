// SPDX-License-Identifier: MIT
#include <addloss/sampler/concept.hpp>

#include <cmath>
#include <cstdint>
#include <string>

#include <addloss/sampler/logit_normal.hpp>
#include <addloss/sampler/mixture.hpp>
#include <addloss/sampler/shifted.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/sampler/uniform.hpp>

#include "catch.hpp"

namespace {

using addloss::random_key;
using addloss::timestep_sampler;
using addloss::detail::scaled_index;
using addloss::detail::uniform_at;

/// A sampler of a user: every sample at one continuous time.
struct fixed_time {
  using time_type = double;
  double time = 0.5;
  double draw(random_key const&, std::uint32_t) const { return time; }
};
struct no_time_type {
  double draw(random_key const&, std::uint32_t) const { return 0; }
};
struct other_type {
  using time_type = std::int64_t;
  double draw(random_key const&, std::uint32_t) const { return 0; }
};
/// A sampler has no state, so that the order of draws cannot matter.
struct with_state {
  using time_type = std::int64_t;
  std::int64_t next = 0;
  std::int64_t draw(random_key const&, std::uint32_t) { return next++; }
};
struct owns_memory : fixed_time {
  std::string name;
};

static_assert(timestep_sampler<fixed_time>);
static_assert(timestep_sampler<addloss::uniform_timesteps>);
static_assert(timestep_sampler<addloss::student_timesteps>);
static_assert(timestep_sampler<addloss::logit_normal_timesteps>);
static_assert(timestep_sampler<addloss::shifted_timesteps>);
static_assert(
    timestep_sampler<addloss::mixture<addloss::uniform_timesteps, addloss::shifted_timesteps>>);
static_assert(!timestep_sampler<no_time_type>);
static_assert(!timestep_sampler<other_type>);
static_assert(!timestep_sampler<with_state>);
static_assert(!timestep_sampler<owns_memory>);
static_assert(!timestep_sampler<int>);

static_assert(scaled_index(0, 10) == 0 && scaled_index(0.999, 10) == 9);
static_assert(scaled_index(1, 10) == 9);  // a formula of u may round up to 1

}  // namespace

TEST_CASE("uniform numbers are the 53 high bits of two words") {
  random_key const key{.seed = 3, .step = 4, .stream = 5, .first_sample = 6};
  for (std::uint32_t sample = 0; sample < 1000; ++sample) {
    auto const block = addloss::philox4x32_10(key, sample, 0);
    for (std::size_t pair = 0; pair < 2; ++pair) {
      long double const exact = static_cast<long double>(block.word[2 * pair]) * 0x1p-32L +
                                static_cast<long double>(block.word[2 * pair + 1]) * 0x1p-64L;
      auto const cut = static_cast<double>(std::floor(exact * 0x1p53L) * 0x1p-53L);
      REQUIRE(uniform_at(key, sample, pair) == cut);
    }
  }
}

TEST_CASE("uniform numbers have the moments of U[0, 1)") {
  random_key const key{.seed = 3};
  constexpr int count = 200000;
  double sum[2] = {};
  double squares = 0;
  double product = 0;
  int outside = 0;
  for (std::uint32_t sample = 0; sample < count; ++sample) {
    double const u = uniform_at(key, sample, 0);
    double const v = uniform_at(key, sample, 1);
    outside += u >= 0 && u < 1 && v >= 0 && v < 1 ? 0 : 1;
    sum[0] += u / count;
    sum[1] += v / count;
    squares += u * u / count;
    product += u * v / count;
  }
  CHECK(outside == 0);
  // Five standard errors: var u = 1/12, var u^2 = 4/45, var uv = 1/9 - 1/16.
  double const unit = 5 / std::sqrt(double(count));
  CHECK(std::abs(sum[0] - 0.5) < unit * std::sqrt(1 / 12.0));
  CHECK(std::abs(sum[1] - 0.5) < unit * std::sqrt(1 / 12.0));
  CHECK(std::abs(squares - 1 / 3.0) < unit * std::sqrt(4 / 45.0));
  CHECK(std::abs(product - 0.25) < unit * std::sqrt(1 / 9.0 - 1 / 16.0));
}

TEST_CASE("scaled_index cuts [0, 1) into equal pieces") {
  for (std::int64_t const count : {1, 2, 3, 1000}) {
    for (std::int64_t i = 0; i < count; ++i) {
      double const middle = (static_cast<double>(i) + 0.5) / static_cast<double>(count);
      REQUIRE(scaled_index(middle, count) == i);
    }
    CHECK(scaled_index(0, count) == 0);
    CHECK(scaled_index(1 - 0x1p-53, count) == count - 1);
    CHECK(scaled_index(1, count) == count - 1);
  }
}
