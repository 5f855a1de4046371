// SPDX-License-Identifier: MIT
#include <addloss/core/scalar.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

using addloss::bfloat16;
using addloss::half;

static_assert(addloss::storage_scalar<half> && addloss::storage_scalar<bfloat16>);
static_assert(addloss::storage_scalar<float> && addloss::storage_scalar<double>);
static_assert(!addloss::storage_scalar<int> && !addloss::storage_scalar<long double>);
static_assert(!addloss::storage_scalar<float const>);
static_assert(addloss::arithmetic_scalar<float> && !addloss::arithmetic_scalar<half>);
static_assert(std::same_as<addloss::arithmetic_t<half>, float>);
static_assert(std::same_as<addloss::arithmetic_t<bfloat16>, float>);
static_assert(std::same_as<addloss::arithmetic_t<double>, double>);
static_assert(sizeof(half) == 2 && sizeof(bfloat16) == 2);
static_assert(std::is_trivially_copyable_v<half> && std::is_trivially_copyable_v<bfloat16>);
// Usable in constant expressions.
static_assert(half(1.0F).bits == 0x3c00 && static_cast<float>(half(-2.0F)) == -2.0F);
static_assert(bfloat16(1.0F).bits == 0x3f80);

half half_of(unsigned bits) {
  half h;
  h.bits = static_cast<std::uint16_t>(bits);
  return h;
}

/// The number that half bits stand for, by the definition of the format.
double value_of_half(unsigned bits) {
  double const sign = (bits & 0x8000U) != 0 ? -1 : 1;
  auto const exponent = static_cast<int>((bits >> 10) & 0x1fU);
  double const mantissa = bits & 0x3ffU;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

/// The nearest half, found by search among all of them, ties to the even one.
unsigned nearest_half(float x) {
  unsigned const sign = std::signbit(x) ? 0x8000U : 0U;
  double const size = std::abs(static_cast<double>(x));
  unsigned low = 0;
  unsigned high = 0x7c00;
  while (high - low > 1) {
    unsigned const middle = (low + high) / 2;
    (value_of_half(middle) <= size ? low : high) = middle;
  }
  // The largest half rounds up as if one more exponent existed.
  double const above = high == 0x7c00 ? 65536.0 : value_of_half(high);
  double const to_low = size - value_of_half(low);
  double const to_high = above - size;
  if (to_low < to_high) return sign | low;
  if (to_high < to_low) return sign | high;
  return sign | ((low & 1U) == 0 ? low : high);
}

}  // namespace

TEST_CASE("all 65536 halves widen exactly and come back") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    auto const wide = static_cast<float>(half_of(bits));
    double const expected = value_of_half(bits);
    half const back(wide);
    bool good = false;
    if (std::isnan(expected)) {
      good = std::isnan(wide) && std::isnan(static_cast<float>(back)) &&
             (back.bits & 0x8000U) == (bits & 0x8000U);
    } else {
      good = static_cast<double>(wide) == expected &&
             std::signbit(wide) == std::signbit(expected) && back.bits == bits;
    }
    wrong += good ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats round to the nearest half, ties to even") {
  auto const check = [](float x) { return half(x).bits == nearest_half(x); };
  int wrong = 0;
  // Every half, the midpoint above it, and the floats next to both.
  for (unsigned bits = 0; bits < 0x7c00; ++bits) {
    double const low = value_of_half(bits);
    double const high = bits == 0x7bff ? 65536.0 : value_of_half(bits + 1);
    for (double const center : {low, (low + high) / 2}) {
      auto const x = static_cast<float>(center);
      for (float const near : {x, std::nextafter(x, 1e9F), std::nextafter(x, -1e9F)}) {
        wrong += check(near) ? 0 : 1;
        wrong += check(-near) ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
  // Floats with random bits, and random ones in the range of halves.
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    auto const any = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!std::isnan(any) && !check(any)) ++wrong;
    auto const bits =
        static_cast<std::uint32_t>(0x32000000U + random() % (0x48000000U - 0x32000000U));
    wrong += check(std::bit_cast<float>(bits)) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("named halves") {
  float const infinity = std::numeric_limits<float>::infinity();
  CHECK(half(65504.0F).bits == 0x7bff);
  CHECK(half(std::nextafter(65520.0F, 0.0F)).bits == 0x7bff);
  CHECK(half(65520.0F).bits == 0x7c00);
  CHECK(half(1e30F).bits == 0x7c00);
  CHECK(half(-1e30F).bits == 0xfc00);
  CHECK(half(infinity).bits == 0x7c00);
  CHECK(half(-infinity).bits == 0xfc00);
  CHECK(half(0.0F).bits == 0);
  CHECK(half(-0.0F).bits == 0x8000);
  CHECK(half(0x1p-24F).bits == 1);
  CHECK(half(0x1p-25F).bits == 0);                             // tie to even
  CHECK(half(std::nextafter(0x1p-25F, 1.0F)).bits == 1);
  CHECK(half(0x1.8p-24F).bits == 2);                           // tie to even
  CHECK(half(-0x1p-126F).bits == 0x8000);
  CHECK(half(std::numeric_limits<float>::denorm_min()).bits == 0);
  CHECK(half(0x1.ffcp-15F).bits == 0x400);                     // subnormal rounds up to normal
  CHECK(half(1.0F + 0x1p-11F).bits == 0x3c00);                 // tie to even
  CHECK(half(1.0F + 0x3p-11F).bits == 0x3c02);                 // tie to even
  CHECK(std::isnan(static_cast<float>(half(std::numeric_limits<float>::quiet_NaN()))));
  // A NaN whose payload lies in dropped bits alone must not become infinity.
  CHECK(std::isnan(static_cast<float>(half(std::bit_cast<float>(0x7f800001U)))));
}

TEST_CASE("all 65536 bfloat16 widen exactly and come back") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    bfloat16 b;
    b.bits = static_cast<std::uint16_t>(bits);
    auto const wide = static_cast<float>(b);
    bool good = std::bit_cast<std::uint32_t>(wide) == bits << 16;
    bfloat16 const back(wide);
    good = good && (std::isnan(wide) ? std::isnan(static_cast<float>(back)) : back.bits == bits);
    wrong += good ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats round to the nearest bfloat16, ties to even") {
  std::mt19937 random(2);
  int wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(random());
    if (i % 3 == 0) bits = (bits & 0xffff0000U) | 0x8000U;  // ties
    auto const x = std::bit_cast<float>(bits);
    if (std::isnan(x)) continue;
    std::uint32_t const low = bits >> 16;
    std::uint32_t const rest = bits & 0xffffU;
    bool const up = rest > 0x8000U || (rest == 0x8000U && (low & 1U) != 0);
    wrong += bfloat16(x).bits == low + (up ? 1U : 0U) ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);  // overflow
  CHECK(bfloat16(-std::numeric_limits<float>::max()).bits == 0xff80);
  CHECK(bfloat16(1.0F + 0x1p-8F).bits == 0x3f80);
  CHECK(bfloat16(1.0F + 0x3p-8F).bits == 0x3f82);
  CHECK(bfloat16(-0.0F).bits == 0x8000);
  for (std::uint32_t const nan : {0x7f800001U, 0x7fffffffU, 0xff80ffffU, 0xffffffffU}) {
    CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(nan)))));
  }
}
