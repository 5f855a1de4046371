// SPDX-License-Identifier: MIT
#include <addloss/sampler/mixture.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include <addloss/sampler/logit_normal.hpp>
#include <addloss/sampler/uniform.hpp>

#include "catch.hpp"

namespace {

using addloss::logit_normal_timesteps;
using addloss::mixture;
using addloss::random_key;
using addloss::timestep_sampler;
using addloss::uniform_timesteps;

/// A user's sampler of continuous times.
struct continuous {
  using time_type = double;
  double draw(random_key const& key, std::uint32_t sample) const {
    return addloss::detail::uniform_at(key, sample, 0);
  }
};

template <class First, class Second>
concept mixable = requires { typename mixture<First, Second>; };

static_assert(mixable<uniform_timesteps, logit_normal_timesteps>);
static_assert(mixable<continuous, continuous>);
static_assert(!mixable<uniform_timesteps, continuous>);  // two types of time
static_assert(!mixable<uniform_timesteps, int>);
static_assert(timestep_sampler<mixture<uniform_timesteps, uniform_timesteps>>);

/// chi^2 of 200000 draws against the probability of each timestep 0 .. n-1.
double chi_square(timestep_sampler auto const& sampler, std::vector<double> const& probability) {
  random_key const key{.seed = 51, .step = 1};
  constexpr int count = 200000;
  std::vector<int> seen(probability.size());
  for (std::uint32_t sample = 0; sample < count; ++sample) {
    ++seen.at(static_cast<std::size_t>(sampler.draw(key, sample)));
  }
  double result = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    double const excess = seen[i] - count * probability[i];
    result += excess * excess / (count * probability[i]);
  }
  return result;
}

/// Mean + five standard deviations of chi^2.
double limit(int cells) { return cells - 1 + 5 * std::sqrt(2.0 * (cells - 1)); }

/// `parts` probabilities, each spread over 4 timesteps: part i is uniform on 4 i .. 4 i + 3.
std::vector<double> in_fours(std::vector<double> const& parts) {
  std::vector<double> result;
  for (double const p : parts) result.insert(result.end(), 4, p / 4);
  return result;
}

constexpr uniform_timesteps a{0, 3};
constexpr uniform_timesteps b{4, 7};
constexpr uniform_timesteps c{8, 11};
constexpr uniform_timesteps d{12, 15};

}  // namespace

TEST_CASE("a mixture draws from its parts in their shares") {
  using two = mixture<uniform_timesteps, uniform_timesteps>;
  CHECK(chi_square(two{a, b, 0.5}, in_fours({0.5, 0.5})) < limit(8));
  CHECK(chi_square(two{a, b, 0.2}, in_fours({0.2, 0.8})) < limit(8));
  CHECK(chi_square(two{a, b, 0.97}, in_fours({0.97, 0.03})) < limit(8));
  // The test can tell: a share that is off by 0.02 is far outside.
  CHECK(chi_square(two{a, b, 0.52}, in_fours({0.5, 0.5})) > 5 * limit(8));
}

TEST_CASE("a mixture of share 0 or 1 is one of its parts") {
  random_key const key{.seed = 52};
  mixture<uniform_timesteps, logit_normal_timesteps> const first{{}, {}, 1};
  mixture<uniform_timesteps, logit_normal_timesteps> const second{{}, {}, 0};
  for (std::uint32_t sample = 0; sample < 2000; ++sample) {
    REQUIRE(first.draw(key, sample) == uniform_timesteps{}.draw(key, sample));
    REQUIRE(second.draw(key, sample) == logit_normal_timesteps{}.draw(key, sample));
  }
}

TEST_CASE("a mixture of mixtures chooses anew at each level") {
  using two = mixture<uniform_timesteps, uniform_timesteps>;
  two const ab{a, b, 0.5};
  two const cd{c, d, 0.25};
  using left = mixture<two, uniform_timesteps>;
  CHECK(chi_square(left{ab, c, 0.5}, in_fours({0.25, 0.25, 0.5})) < limit(12));
  using right = mixture<uniform_timesteps, two>;
  CHECK(chi_square(right{a, {b, c, 0.5}, 0.4}, in_fours({0.4, 0.3, 0.3})) < limit(12));
  using both = mixture<two, two>;
  CHECK(chi_square(both{ab, cd, 0.5}, in_fours({0.25, 0.25, 0.125, 0.375})) < limit(16));
  using deep = mixture<uniform_timesteps, right>;
  CHECK(chi_square(deep{a, {b, {c, d, 0.5}, 0.5}, 0.5}, in_fours({0.5, 0.25, 0.125, 0.125})) <
        limit(16));
}
