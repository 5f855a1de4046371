// SPDX-License-Identifier: MIT
#include <addloss/core/normal.hpp>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

using addloss::random_key;
using pair = addloss::normal_pair<float>;

pair numbers_of(std::uint32_t radius, std::uint32_t angle) {
  return addloss::detail::box_muller<addloss::detail::scalar_bits>(radius, angle);
}

/// The error of both numbers against the formula in long double, in units of the radius.
double error_of(std::uint32_t radius_word, std::uint32_t angle_word) {
  long double const u = (static_cast<long double>(radius_word) + 0.5L) * 0x1p-32L;
  long double const radius = std::sqrt(-2 * std::log(u));
  long double const angle =
      6.283185307179586476925286766559L * static_cast<long double>(angle_word) * 0x1p-32L;
  pair const got = numbers_of(radius_word, angle_word);
  auto const cosine = std::abs(static_cast<long double>(got.cosine) - radius * std::cos(angle));
  auto const sine = std::abs(static_cast<long double>(got.sine) - radius * std::sin(angle));
  return static_cast<double>((cosine > sine ? cosine : sine) / radius);
}

/// What the header states.
constexpr double bound = 4e-7;

/// Keeps the largest error of many words; NaN counts as the largest.
struct worst_error {
  double error = 0;
  std::uint32_t radius = 0;
  std::uint32_t angle = 0;

  void check(std::uint32_t radius_word, std::uint32_t angle_word) {
    double const e = error_of(radius_word, angle_word);
    if (!(e <= error)) *this = {e, radius_word, angle_word};
  }
};

}  // namespace

TEST_CASE("Box-Muller agrees with exact arithmetic") {
  std::mt19937 random(3);
  auto const word = [&] { return static_cast<std::uint32_t>(random()); };
  worst_error worst;
  for (int i = 0; i < 300000; ++i) {
    worst.check(word(), word());
    // Small words: the far tail, where the logarithm is steep.
    worst.check(word() >> (i % 32), word());
    // Words near the largest: u near 1, a radius near 0.
    worst.check(~(word() >> (i % 32)), word());
  }
  CAPTURE(worst.radius, worst.angle);
  CHECK(worst.error <= bound);
}

TEST_CASE("the error of Box-Muller is relative where the radius is near 0") {
  std::mt19937 random(4);
  worst_error worst;
  // u is within 2^-13 of 1: a float of u would have at most 11 bits of 1 - u.
  for (std::uint32_t from_end = 0; from_end < 1U << 19; ++from_end) {
    worst.check(~from_end, static_cast<std::uint32_t>(random()));
  }
  CAPTURE(worst.radius, worst.angle);
  CHECK(worst.error <= bound);
  // The smallest radius, sqrt(-2 ln(1 - 2^-33)).
  CHECK(numbers_of(0xffffffffU, 0).cosine == Approx(0x1p-16).epsilon(1e-6));
}

TEST_CASE("Box-Muller on both sides of each power of two of u") {
  worst_error worst;
  for (int bit = 0; bit < 32; ++bit) {
    for (std::uint32_t part : {2U, 3U}) {  // 2^bit and 3/4 2^(bit + 1), where the exponent changes
      std::uint32_t const middle = bit == 0 ? part / 2 : part << (bit - 1);
      for (std::uint32_t i = 0; i < 600; ++i) worst.check(middle - 300 + i, 0x12345678U * i);
    }
  }
  CAPTURE(worst.radius, worst.angle);
  CHECK(worst.error <= bound);
}

TEST_CASE("Box-Muller at the ends of its words") {
  for (std::uint32_t const radius : {0U, 1U, 2U, 0x7fffffffU, 0x80000000U, 0xbfffffffU, 0xc0000000U,
                                     0xffff0000U, 0xfffffffeU, 0xffffffffU}) {
    for (std::uint32_t const angle :
         {0U, 1U, 0x1fffffffU, 0x20000000U, 0x3fffffffU, 0x40000000U, 0x60000000U, 0x80000000U,
          0xa0000000U, 0xc0000000U, 0xe0000000U, 0xffffffffU}) {
      CAPTURE(radius, angle);
      CHECK(error_of(radius, angle) <= bound);
    }
  }
  // The largest number there is.
  CHECK(numbers_of(0, 0).cosine == Approx(6.7637).margin(1e-3));
}

TEST_CASE("normal_at follows its layout") {
  random_key const key{.seed = 0x123456789abcdef0U, .step = 7, .stream = 2, .first_sample = 11};
  for (std::uint64_t element : {0U, 15U, 16U, 31U, 32U, 47U, 48U, 63U, 64U, 100U, 6413U}) {
    auto const block = static_cast<std::uint32_t>(element / 64 * 16 + element % 16);
    auto const words = addloss::philox4x32_10(key, 3, block);
    bool const second = element / 32 % 2 == 1;
    pair const both = numbers_of(words.word[second ? 2 : 0], words.word[second ? 3 : 1]);
    CAPTURE(element);
    CHECK(addloss::normal_at(key, 3, element) == (element / 16 % 2 == 1 ? both.sine : both.cosine));
  }
}

TEST_CASE("the first sample of a rank counts on from the ranks before") {
  random_key key{.seed = 5};
  random_key other = key;
  other.first_sample = 4;
  for (std::uint64_t i = 0; i < 100; ++i) {
    CHECK(addloss::normal_at(key, 6, i) == addloss::normal_at(other, 2, i));
  }
}

TEST_CASE("keys and samples that differ give other noise") {
  random_key const key{.seed = 5, .step = 1, .stream = 1};
  auto const count_equal = [&](random_key const& other, std::uint32_t sample) {
    int equal = 0;
    for (std::uint64_t i = 0; i < 256; ++i) {
      equal += addloss::normal_at(key, 0, i) == addloss::normal_at(other, sample, i) ? 1 : 0;
    }
    return equal;
  };
  CHECK(count_equal(key, 0) == 256);
  CHECK(count_equal(key, 1) <= 1);
  CHECK(count_equal({.seed = 6, .step = 1, .stream = 1}, 0) <= 1);
  CHECK(count_equal({.seed = 5 + (std::uint64_t{1} << 40), .step = 1, .stream = 1}, 0) <= 1);
  CHECK(count_equal({.seed = 5, .step = 2, .stream = 1}, 0) <= 1);
  CHECK(count_equal({.seed = 5, .step = 1, .stream = 2}, 0) <= 1);
}

TEST_CASE("the noise has the moments of a standard normal") {
  random_key const key{.seed = 42};
  constexpr int count = 400000;
  double moment[5] = {};
  double neighbours = 0;
  int beyond = 0;
  double previous = 0;
  for (int i = 0; i < count; ++i) {
    double const x = addloss::normal_at(key, 0, static_cast<std::uint64_t>(i));
    double power = 1;
    for (double& m : moment) {
      m += power / count;
      power *= x;
    }
    neighbours += x * previous / count;
    previous = x;
    beyond += std::abs(x) > 1.959964 ? 1 : 0;
  }
  // Five standard errors: sqrt(variance of x^k / count).
  double const unit = 5 / std::sqrt(double(count));
  CHECK(std::abs(moment[1]) < unit);
  CHECK(std::abs(moment[2] - 1) < unit * std::sqrt(2.0));
  CHECK(std::abs(moment[3]) < unit * std::sqrt(15.0));
  CHECK(std::abs(moment[4] - 3) < unit * std::sqrt(96.0));
  CHECK(std::abs(neighbours) < unit);
  CHECK(std::abs(beyond / double(count) - 0.05) < unit * std::sqrt(0.05 * 0.95));
}
