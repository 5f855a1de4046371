// SPDX-License-Identifier: MIT
#include <addloss/heads/initialise.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

using namespace addloss;

static_assert(initial_rule<fan_in_uniform> && initial_rule<standard_normal>);
static_assert(initial_rule<constant_value> && initial_rule<unit_vector>);
static_assert(!initial_rule<int>);

template <class T, class Rule>
std::vector<T> values(Rule rule, parameter_key key, std::size_t count) {
  std::vector<T> x(count, T{-9});
  initialise(rule, key, std::span(x));
  return x;
}

/// Largest distance between the distribution of x and its distribution function (Kolmogorov).
template <class Distribution>
double kolmogorov(std::vector<double> x, Distribution const& distribution) {
  std::sort(x.begin(), x.end());
  double worst = 0;
  auto const n = static_cast<double>(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const p = distribution(x[i]);
    worst = std::fmax(
        worst, std::fmax(p - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - p));
  }
  return worst;
}

/// Of numbers with mean 0, at a distance of 1.
double correlation(std::vector<double> const& a, std::vector<double> const& b, std::size_t shift) {
  double ab = 0;
  double aa = 0;
  for (std::size_t i = 0; i + shift < a.size(); ++i) {
    ab += a[i] * b[i + shift];
    aa += a[i] * a[i];
  }
  return ab / aa;
}

constexpr std::size_t many = 100'000;
/// P(sqrt(n) D > 1.95) = 0.001.
double const kolmogorov_bound = 1.95 / std::sqrt(static_cast<double>(many));
double const correlation_bound = 4 / std::sqrt(static_cast<double>(many));

}  // namespace

TEST_CASE("fan_in_uniform is uniform between its bounds") {
  auto const x = values<double>(fan_in_uniform{.fan_in = 16}, {.seed = 1, .index = 2}, many);
  CHECK(kolmogorov(x, [](double y) { return (y + 0.25) / 0.5; }) < kolmogorov_bound);
  CHECK(*std::min_element(x.begin(), x.end()) >= -0.25);
  CHECK(*std::max_element(x.begin(), x.end()) <= 0.25);
  CHECK(std::abs(correlation(x, x, 1)) < correlation_bound);
  CHECK(std::abs(correlation(x, x, 2)) < correlation_bound);
}

TEST_CASE("standard_normal is normal") {
  auto const x = values<double>(standard_normal{}, {.seed = 1, .index = 2}, many);
  CHECK(kolmogorov(x, [](double y) { return std::erfc(-y / std::numbers::sqrt2) / 2; }) <
        kolmogorov_bound);
  CHECK(std::abs(correlation(x, x, 1)) < correlation_bound);
  CHECK(std::abs(correlation(x, x, 16)) < correlation_bound);
}

TEMPLATE_TEST_CASE("a unit vector has norm 1", "", float, double) {
  for (std::size_t const count : {1U, 2U, 3U, 1000U}) {
    auto const x = values<TestType>(unit_vector{}, {.seed = 5}, count);
    double square = 0;
    for (TestType const n : x) square += static_cast<double>(n) * static_cast<double>(n);
    CHECK(square == Approx(1).epsilon(1e-6));
  }
}

TEST_CASE("directions of unit vectors are spread evenly") {
  double mean = 0;
  double square = 0;
  std::size_t const count = 4000;
  for (std::uint32_t i = 0; i < count; ++i) {
    double const x = values<double>(unit_vector{}, {.seed = 5, .index = i}, 4)[1];
    mean += x / count;
    square += x * x / count;
  }
  CHECK(std::abs(mean) < 4 * 0.5 / std::sqrt(count));
  CHECK(square == Approx(0.25).margin(0.02));
}

TEST_CASE("constant_value fills") {
  CHECK(values<float>(constant_value{1}, {}, 3) == std::vector<float>{1, 1, 1});
  CHECK(values<double>(constant_value{}, {}, 2) == std::vector<double>{0, 0});
}

TEST_CASE("first values are a function of seed, index and element alone") {
  auto const check = [](auto rule) {
    auto const x = values<double>(rule, {.seed = 7, .index = 3}, 200);
    CHECK(values<double>(rule, {.seed = 7, .index = 3}, 200) == x);
    auto const narrow = values<float>(rule, {.seed = 7, .index = 3}, 200);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(narrow[i] == static_cast<float>(x[i]));
    // A longer parameter begins with the same numbers.
    auto const longer = values<double>(rule, {.seed = 7, .index = 3}, 333);
    CHECK(std::equal(x.begin(), x.end(), longer.begin()));
    for (parameter_key const other : {parameter_key{7, 4}, {8, 3}, {7ULL + (1ULL << 32), 3}}) {
      auto const y = values<double>(rule, other, 200);
      CHECK(std::abs(correlation(x, y, 0)) < 0.35);
      CHECK(y != x);
    }
  };
  check(fan_in_uniform{.fan_in = 3});
  check(standard_normal{});
}

TEST_CASE("first values keep their bits between versions") {
  auto const uniform = values<double>(fan_in_uniform{.fan_in = 1}, {.seed = 1}, 3);
  philox_block const block = philox4x32_10(philox_block{{0, 0, 0, 0x696e6974U}}, std::uint64_t{1});
  auto const expected = [](std::uint32_t high, std::uint32_t low) {
    return 2 * (high * 0x1p-32 + (low >> 12) * 0x1p-52 + 0x1p-53) - 1;
  };
  CHECK(uniform[0] == expected(block.word[0], block.word[1]));
  CHECK(uniform[1] == expected(block.word[2], block.word[3]));
  // Of a constant the compiler would make the number itself, without fused multiply-adds.
  std::uint64_t const volatile seed = 1;
  CHECK(values<float>(standard_normal{}, {.seed = seed, .index = 9}, 70)[69] ==
        normal_at({.seed = seed, .stream = 0x696e6974U}, 9, 69));
}

TEST_CASE("initialise reports arguments that make no sense") {
  auto const error_of = [](auto const& call) -> std::string {
    try {
      call();
    } catch (error const& e) {
      return e.what();
    }
    return "no error";
  };
  std::vector<float> x(1);
  CHECK(error_of([&] { initialise(fan_in_uniform{.fan_in = 0}, {}, std::span(x)); }) ==
        "initialise: fan_in (expected at least 1, got 0)");
  CHECK(error_of([&] { initialise(unit_vector{}, {}, std::span<double>{}); }) ==
        "initialise: values (expected at least one, got none)");
  CHECK(error_of([&] { initialise(standard_normal{}, {}, std::span<double>{}); }) == "no error");
}
