// SPDX-License-Identifier: MIT
#include <addloss/sampler/student_timesteps.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::random_key;
using addloss::student_timesteps;
using steps = std::vector<std::int64_t>;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

steps list(student_timesteps const& sampler) {
  steps result;
  for (std::int64_t i = 0; i < sampler.size(); ++i) result.push_back(sampler[i]);
  return result;
}

std::string from(steps const& timesteps) {
  return error_of([&] { (void)student_timesteps::from(timesteps); });
}

std::string weighted(std::vector<double> const& weights) {
  return error_of([&] { (void)student_timesteps::trailing(2).with_weights(weights); });
}

/// How many of `count` draws give each timestep of the set; empty if one gives another.
std::vector<int> histogram(student_timesteps const& sampler, int count) {
  random_key const key{.seed = 61, .step = 2};
  std::vector<int> seen(static_cast<std::size_t>(sampler.size()));
  for (std::uint32_t sample = 0; sample < static_cast<std::uint32_t>(count); ++sample) {
    std::int64_t const t = sampler.draw(key, sample);
    std::int64_t i = 0;
    while (i < sampler.size() && sampler[i] != t) ++i;
    if (i == sampler.size()) return {};
    ++seen[static_cast<std::size_t>(i)];
  }
  return seen;
}

/// Whether 100000 draws fit probabilities proportional to `weights`.
void check_distribution(student_timesteps const& sampler, std::vector<double> const& weights) {
  constexpr int count = 100000;
  double total = 0;
  for (double const weight : weights) total += weight;
  auto const seen = histogram(sampler, count);
  REQUIRE(seen.size() == weights.size());
  for (std::size_t i = 0; i < seen.size(); ++i) {
    double const p = weights[i] / total;
    CAPTURE(i, seen[i]);
    // Five standard deviations of a binomial count; none at all for p = 0 and 1.
    CHECK(std::abs(seen[i] - count * p) <= 5 * std::sqrt(count * p * (1 - p)));
  }
}

}  // namespace

TEST_CASE("trailing timesteps end at the last one") {
  CHECK(list(student_timesteps::trailing(4)) == steps{249, 499, 749, 999});
  CHECK(list(student_timesteps::trailing(1)) == steps{999});
  CHECK(list(student_timesteps::trailing(2)) == steps{499, 999});
  CHECK(list(student_timesteps::trailing(3)) == steps{332, 665, 999});
  CHECK(list(student_timesteps::trailing(4, 10)) == steps{1, 4, 6, 9});
  CHECK(list(student_timesteps::trailing(3, 3)) == steps{0, 1, 2});
  CHECK(student_timesteps::trailing(64).size() == 64);
  CHECK(student_timesteps::trailing(64)[63] == 999);
}

TEST_CASE("turbo timesteps are those of SDXL-Turbo") {
  CHECK(list(student_timesteps::turbo(4)) == steps{699, 799, 899, 999});
  CHECK(list(student_timesteps::turbo(1)) == steps{999});
  CHECK(list(student_timesteps::turbo(10)) ==
        steps{99, 199, 299, 399, 499, 599, 699, 799, 899, 999});
  CHECK(list(student_timesteps::turbo(2, 50)) == steps{44, 49});
}

TEST_CASE("a set of one's own") {
  CHECK(list(student_timesteps::from(steps{0})) == steps{0});
  CHECK(list(student_timesteps::from(steps{0, 7, 8, 5000})) == steps{0, 7, 8, 5000});
}

TEST_CASE("bad sets are refused") {
  CHECK(from({}) == "student_timesteps: timesteps (expected 1 to 64 of them, got 0)");
  CHECK(from(steps(65)) == "student_timesteps: timesteps (expected 1 to 64 of them, got 65)");
  CHECK(from({-1, 5}) == "student_timesteps: timesteps (expected numbers >= 0, got -1 at index 0)");
  CHECK(from({5, 5}) ==
        "student_timesteps: timesteps (expected strictly rising numbers, got 5 at index 1)");
  CHECK(from({249, 999, 499}) ==
        "student_timesteps: timesteps (expected strictly rising numbers, got 499 at index 2)");
  CHECK(from({0, -1}) ==
        "student_timesteps: timesteps (expected strictly rising numbers, got -1 at index 1)");
}

TEST_CASE("bad counts of spaced timesteps are refused") {
  auto const trailing = [](std::int64_t n, std::int64_t timesteps) {
    return error_of([&] { (void)student_timesteps::trailing(n, timesteps); });
  };
  auto const turbo = [](std::int64_t n, std::int64_t timesteps) {
    return error_of([&] { (void)student_timesteps::turbo(n, timesteps); });
  };
  CHECK(trailing(0, 1000) == "student_timesteps::trailing: n (expected 1 to 64, got 0)");
  CHECK(trailing(65, 1000) == "student_timesteps::trailing: n (expected 1 to 64, got 65)");
  CHECK(trailing(4, 3) ==
        "student_timesteps::trailing: train_timesteps (expected at least n = 4, got 3)");
  CHECK(trailing(4, 4) == "no error");
  CHECK(turbo(0, 1000) == "student_timesteps::turbo: n (expected 1 to 64, got 0)");
  CHECK(turbo(2, 1) ==
        "student_timesteps::turbo: train_timesteps (expected at least n = 2, got 1)");
  // A tenth of the schedule apart: 11 do not fit.
  CHECK(
      turbo(11, 1000) ==
      "student_timesteps::turbo: n (expected 1 to 10, as steps lie a tenth of the schedule apart, "
      "got 11)");
}

TEST_CASE("draws are uniform over the set") {
  check_distribution(student_timesteps::trailing(1), {1});
  check_distribution(student_timesteps::trailing(4), {1, 1, 1, 1});
  check_distribution(student_timesteps::turbo(10), std::vector<double>(10, 1));
  check_distribution(student_timesteps::trailing(64), std::vector<double>(64, 1));
}

TEST_CASE("draws follow the weights") {
  auto const set = student_timesteps::trailing(4);
  for (std::vector<double> const& weights :
       {std::vector{0.7, 0.1, 0.1, 0.1}, std::vector{1.0, 2.0, 3.0, 4.0},
        std::vector{0.0, 1.0, 1.0, 0.0}, std::vector{0.0, 0.0, 0.0, 5.0},
        std::vector{5.0, 0.0, 0.0, 0.0}, std::vector{1e-300, 1e-300, 1e-300, 3e-300}}) {
    check_distribution(set.with_weights(weights), weights);
  }
  CHECK(list(set.with_weights(std::vector{0.7, 0.1, 0.1, 0.1})) == list(set));
  // New weights replace the old ones.
  check_distribution(set.with_weights(std::vector{0.0, 0.0, 0.0, 1.0})
                         .with_weights(std::vector{1.0, 1.0, 1.0, 1.0}),
                     {1, 1, 1, 1});
}

TEST_CASE("the probability of a timestep is its share of the weights") {
  auto const set = student_timesteps::trailing(4);
  for (std::int64_t i = 0; i < 4; ++i) CHECK(set.probability(i) == 0.25);
  auto const weighted_set = set.with_weights(std::vector{8.0, 0.0, 6.0, 2.0});
  CHECK(weighted_set.probability(0) == 0.5);
  CHECK(weighted_set.probability(1) == 0);
  CHECK(weighted_set.probability(2) == 0.375);
  CHECK(weighted_set.probability(3) == 0.125);
}

TEST_CASE("a draw is the first timestep whose cumulated weight is above u") {
  auto const set = student_timesteps::trailing(4).with_weights(std::vector{4.0, 2.0, 1.0, 1.0});
  random_key const key{.seed = 62, .step = 5, .stream = 1, .first_sample = 9};
  for (std::uint32_t sample = 0; sample < 1000; ++sample) {
    // The weights are powers of two: the top bits of the first word decide.
    std::uint32_t const eighth = addloss::philox4x32_10(key, sample, 0).word[0] >> 29;
    std::int64_t const expected = eighth < 4 ? 249 : eighth < 6 ? 499 : eighth < 7 ? 749 : 999;
    REQUIRE(set.draw(key, sample) == expected);
  }
}

TEST_CASE("bad weights are refused") {
  CHECK(weighted({1}) == "student_timesteps::with_weights: weights (expected 2 numbers, got 1)");
  CHECK(weighted({}) == "student_timesteps::with_weights: weights (expected 2 numbers, got 0)");
  CHECK(weighted({1, 1, 1}) ==
        "student_timesteps::with_weights: weights (expected 2 numbers, got 3)");
  CHECK(weighted({1, -0.5}) ==
        "student_timesteps::with_weights: weights (expected finite numbers >= 0, got -0.5)");
  CHECK(weighted({infinity, 1}) ==
        "student_timesteps::with_weights: weights (expected finite numbers >= 0, got inf)");
  CHECK(weighted({1, not_a_number}) ==
        "student_timesteps::with_weights: weights (expected finite numbers >= 0, got nan)");
  CHECK(weighted({0, 0}) ==
        "student_timesteps::with_weights: weights (expected one weight > 0, got none)");
  // Their sum is not finite, and would leave every draw to the last timestep.
  CHECK(weighted({1e308, 1e308}) ==
        "student_timesteps::with_weights: weights (expected numbers with a finite sum, got inf)");
}
