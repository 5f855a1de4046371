// SPDX-License-Identifier: MIT
#include <addloss/core/number.hpp>

#include <limits>
#include <string>
#include <type_traits>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

static_assert(std::is_trivially_copyable_v<number>);
static_assert(std::is_convertible_v<double, number> && std::is_convertible_v<int, number>);
static_assert(std::is_convertible_v<number_at, number> && !std::is_convertible_v<double*, number>);
static_assert(number(2.5).get() == 2.5 && !number(0.0).in_memory() && !number(0.0).missing());

template <class Space>
std::string refusal(number const& weight) {
  return error_of([&] { detail::check_weight<Space>("f", "w", weight); });
}

}  // namespace

TEST_CASE("a number in memory is what the memory holds") {
  double memory = 1;
  number const setting = number_at{&memory};
  CHECK(setting.in_memory());
  CHECK_FALSE(setting.missing());
  CHECK(setting.get() == 1);
  memory = -0.25;
  CHECK(setting.get() == -0.25);
}

TEST_CASE("a number without an address is refused") {
  CHECK(number(number_at{}).missing());
  CHECK(error_of([] { detail::check_number("f", "w", number_at{}); }) ==
        "f: w (expected memory, got a null pointer)");
  CHECK(refusal<host_space>(number_at{}) == "f: w (expected memory, got a null pointer)");
  CHECK(refusal<device_space>(number_at{}) == "f: w (expected memory, got a null pointer)");
}

TEST_CASE("a weight below 0 is refused where it can be read") {
  double below = -1;
  double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refusal<host_space>(0) == "no error");
  CHECK(refusal<host_space>(below) == "f: w (expected a number >= 0, got -1)");
  CHECK(refusal<device_space>(below) == "f: w (expected a number >= 0, got -1)");
  CHECK(refusal<device_space>(nan) == "f: w (expected a number >= 0, got nan)");
  CHECK(refusal<host_space>(number_at{&below}) == "f: w (expected a number >= 0, got -1)");
  CHECK(refusal<host_space>(number_at{&nan}) == "f: w (expected a number >= 0, got nan)");
  CHECK(refusal<device_space>(number_at{&below}) == "no error");
}
