// SPDX-License-Identifier: MIT
#include <addloss/core/error.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

static_assert(std::is_base_of_v<std::exception, addloss::error>);
static_assert(std::is_nothrow_copy_constructible_v<addloss::error>);

}  // namespace

TEST_CASE("the text of an error names function, argument, what was expected and what came") {
  using addloss::detail::text;
  CHECK(error_of([] { addloss::detail::fail("grad", "student", "a tensor", "none"); }) ==
        "grad: student (expected a tensor, got none)");
  CHECK(error_of([] {
          addloss::detail::fail("value", "target", text() << "at least " << 2,
                                text() << std::int64_t{-9223372036854775807} << " and " << 0.5);
        }) == "value: target (expected at least 2, got -9223372036854775807 and 0.5)");
}

TEST_CASE("an error is caught as std::exception and survives copies") {
  try {
    addloss::detail::raise(addloss::error("some text"));
  } catch (std::exception const& e) {
    CHECK(std::string(e.what()) == "some text");
  }
  addloss::error const first("one");
  addloss::error const second = first;  // NOLINT(performance-unnecessary-copy-initialization)
  CHECK(std::string(second.what()) == "one");
  CHECK(second.what() != first.what());
}

TEST_CASE("texts that are too long are cut, never overrun") {
  std::string const huge(5000, 'x');
  addloss::error const e(huge.c_str());
  CHECK(std::strlen(e.what()) == addloss::error::capacity - 1);
  addloss::detail::text text;
  for (int i = 0; i < 5000; ++i) text << "ab" << i;
  CHECK(std::strlen(text.c_str()) == addloss::error::capacity - 1);
  text << huge.c_str() << 1.5;
  CHECK(std::strlen(text.c_str()) == addloss::error::capacity - 1);
  CHECK(std::string(addloss::error(text.c_str()).what()) == text.c_str());
}

TEST_CASE("a percent sign in a text is only a percent sign") {
  CHECK(error_of([] { addloss::detail::fail("f%s", "a%n", "%d", "%"); }) ==
        "f%s: a%n (expected %d, got %)");
}
