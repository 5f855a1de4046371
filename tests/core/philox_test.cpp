// SPDX-License-Identifier: MIT
#include <addloss/core/philox.hpp>

#include <cstdint>
#include <random>
#include <type_traits>

#include "catch.hpp"

#if __has_include(<Random123/philox.h>)
#include <Random123/philox.h>
#define ADDLOSS_TEST_HAS_RANDOM123
#endif

namespace {

using addloss::philox4x32_10;
using addloss::philox_block;
using addloss::random_key;

constexpr bool equal(philox_block const& a, philox_block const& b) {
  return a.word[0] == b.word[0] && a.word[1] == b.word[1] && a.word[2] == b.word[2] &&
         a.word[3] == b.word[3];
}

/// One round as in the paper: multiply, exchange, xor with the key.
struct reference {
  std::uint32_t counter[4];
  std::uint32_t key[2];

  void round() {
    std::uint64_t const a = std::uint64_t{0xD2511F53} * counter[0];
    std::uint64_t const b = std::uint64_t{0xCD9E8D57} * counter[2];
    std::uint32_t const next[4] = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0],
                                   static_cast<std::uint32_t>(b & 0xffffffff),
                                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1],
                                   static_cast<std::uint32_t>(a & 0xffffffff)};
    for (int i = 0; i < 4; ++i) counter[i] = next[i];
  }
  philox_block ten_rounds() {
    for (int i = 0; i < 10; ++i) {
      if (i > 0) {
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
      }
      round();
    }
    return {{counter[0], counter[1], counter[2], counter[3]}};
  }
};

std::uint64_t join(std::uint32_t low, std::uint32_t high) {
  return std::uint64_t{high} << 32 | low;
}

static_assert(std::is_trivially_copyable_v<random_key>);
static_assert(equal(philox4x32_10(philox_block{{0, 0, 0, 0}}, 0),
                    {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));

}  // namespace

TEST_CASE("the published known answers of Philox4x32-10") {
  auto const check = [](philox_block const& counter, std::uint32_t key0, std::uint32_t key1,
                        philox_block const& expected) {
    auto const got = philox4x32_10(counter, join(key0, key1));
    for (int i = 0; i < 4; ++i) CHECK(got.word[i] == expected.word[i]);
  };
  check({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  std::uint32_t const ff = 0xffffffff;
  check({{ff, ff, ff, ff}}, ff, ff, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  // The digits of pi.
  check({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
        {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

TEST_CASE("Philox of many counters agrees with the paper's rounds") {
  std::mt19937 random(11);
  auto const word = [&] { return static_cast<std::uint32_t>(random()); };
  int different = 0;
  for (int i = 0; i < 20000; ++i) {
    philox_block const counter{{word(), word(), word(), word()}};
    std::uint32_t const key[2] = {word(), word()};
    reference expected{{counter.word[0], counter.word[1], counter.word[2], counter.word[3]},
                       {key[0], key[1]}};
    different += equal(philox4x32_10(counter, join(key[0], key[1])), expected.ten_rounds()) ? 0 : 1;
  }
  CHECK(different == 0);
}

#if defined(ADDLOSS_TEST_HAS_RANDOM123)
TEST_CASE("Philox of many counters agrees with Random123") {
  std::mt19937 random(12);
  auto const word = [&] { return static_cast<std::uint32_t>(random()); };
  int different = 0;
  for (int i = 0; i < 20000; ++i) {
    philox_block const counter{{word(), word(), word(), word()}};
    std::uint32_t const key[2] = {word(), word()};
    r123::Philox4x32::ctr_type const c = {
        {counter.word[0], counter.word[1], counter.word[2], counter.word[3]}};
    r123::Philox4x32::key_type const k = {{key[0], key[1]}};
    auto const expected = r123::Philox4x32{}(c, k);
    different += equal(philox4x32_10(counter, join(key[0], key[1])),
                       {{expected[0], expected[1], expected[2], expected[3]}})
                     ? 0
                     : 1;
  }
  CHECK(different == 0);
}
#endif

TEST_CASE("a counter is (element block, sample, step, stream) and the key is the seed") {
  random_key const key{
      .seed = 0x0123456789abcdef, .step = 0x11111111, .stream = 0x22222222, .first_sample = 40};
  CHECK(equal(
      philox4x32_10(key, 2, 0x33333333),
      reference{{0x33333333, 42, 0x11111111, 0x22222222}, {0x89abcdef, 0x01234567}}.ten_rounds()));
}

TEST_CASE("a sample's numbers do not depend on which rank holds it") {
  random_key const whole{.seed = 9, .step = 3, .stream = 1};
  random_key part = whole;
  part.first_sample = 5;
  CHECK(equal(philox4x32_10(whole, 7, 1), philox4x32_10(part, 2, 1)));
  CHECK_FALSE(equal(philox4x32_10(whole, 7, 1), philox4x32_10(part, 7, 1)));
}

TEST_CASE("every part of the address changes the numbers") {
  random_key const key{.seed = 9, .step = 3, .stream = 1};
  auto const here = philox4x32_10(key, 7, 1);
  CHECK(equal(here, philox4x32_10(key, 7, 1)));
  CHECK_FALSE(equal(here, philox4x32_10(key, 8, 1)));
  CHECK_FALSE(equal(here, philox4x32_10(key, 7, 2)));
  CHECK_FALSE(equal(here, philox4x32_10({.seed = 10, .step = 3, .stream = 1}, 7, 1)));
  std::uint64_t const high = std::uint64_t{1} << 32;
  CHECK_FALSE(equal(here, philox4x32_10({.seed = 9 + high, .step = 3, .stream = 1}, 7, 1)));
  CHECK_FALSE(equal(here, philox4x32_10({.seed = 9, .step = 4, .stream = 1}, 7, 1)));
  CHECK_FALSE(equal(here, philox4x32_10({.seed = 9, .step = 3, .stream = 2}, 7, 1)));
}
