// SPDX-License-Identifier: MIT
#include <addloss/losses/heads.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;
using detail::store_mode;

static_assert(max_heads == 32);
static_assert(std::is_same_v<head_rows<float, host_space>, std::span<rows<float const> const>>);
static_assert(
    std::is_constructible_v<head_rows<float, host_space>, std::vector<rows<float const>>&>);
static_assert(
    !std::is_constructible_v<head_rows<float, host_space>, std::vector<rows<double const>>&>);

}  // namespace

TEST_CASE("1 to 32 heads") {
  CHECK(detail::check_heads("f", "fake", 1) == 1);
  CHECK(detail::check_heads("f", "fake", 32) == 32);
  CHECK(error_of([] { detail::check_heads("f", "fake", 0); }) ==
        "f: fake (expected 1 to 32 heads, got 0)");
  CHECK(error_of([] { detail::check_heads("f", "fake", 33); }) ==
        "f: fake (expected 1 to 32 heads, got 33)");
  // 2^32 + 1 heads are not one.
  CHECK(error_of([] { detail::check_heads("f", "fake", (std::size_t{1} << 32) + 1); }) ==
        "f: fake (expected 1 to 32 heads, got 4294967297)");
}

TEST_CASE("as many heads as another argument has") {
  CHECK(error_of([] { detail::check_same_heads("f", "real", 3, 3); }) == "no error");
  CHECK(error_of([] { detail::check_same_heads("f", "real", 2, 3); }) ==
        "f: real (expected 3 heads, got 2)");
  CHECK(error_of([] { detail::check_same_heads("f", "real", 4, 3); }) ==
        "f: real (expected 3 heads, got 4)");
}

TEST_CASE("every head has the batch of the first") {
  float memory[24] = {};
  auto const check = [&](rows<float const> const& batch) {
    return error_of([&] { detail::check_batch("f", detail::argument_name("fake", 5), batch, 2); });
  };
  CHECK(check(view(memory, 2, 3, 4)) == "no error");
  CHECK(check(view(memory, 3, 4)) == "f: fake[5] (expected 2 samples, got [3,4])");
  CHECK(check(view(memory, 1, 4)) == "f: fake[5] (expected 2 samples, got [1,4])");
  CHECK(check({}) == "f: fake[5] (expected a tensor, got none)");
  CHECK(check(view(memory, 0, 4)) ==
        "f: fake[5] (expected a batch of at least one sample, got [0,4])");
}

TEST_CASE("terms of an objective over different batches are refused") {
  CHECK(error_of([] { detail::check_same_batch("f", "logits", 4, 4); }) == "no error");
  CHECK(error_of([] { detail::check_same_batch("f", "logits", 3, 4); }) ==
        "f: logits (expected a batch of 4 samples, got 3)");
}

TEST_CASE("a gradient has the shape and order of its tensor, and rows of its own") {
  float memory[48] = {};
  rows<float const> const of(view(memory, 2, 3, 4));
  auto const check = [&](rows<float> const& gradient) {
    return error_of(
        [&] { detail::check_gradient("f", "gradient", gradient, "logits", of, false); });
  };
  CHECK(check(view(memory, 2, 3, 4)) == "no error");
  CHECK(check(view(memory, 2, 12)) ==
        "f: gradient (expected the shape of logits, [2,3,4], got [2,12])");
  CHECK(check(view(memory, 2, 4, 3)) ==
        "f: gradient (expected the shape of logits, [2,3,4], got [2,4,3])");
  CHECK(check({}) == "f: gradient (expected a tensor, got none)");
  auto other_order = view(memory, 2, 3, 4);
  other_order.strides[1] = 1;
  other_order.strides[2] = 3;
  CHECK(check(other_order) ==
        "f: gradient (expected the memory order of logits, stride 4 on axis 1, got stride 1)");
  auto overlapping = view(memory, 2, 3, 4);
  overlapping.strides[0] = 11;
  CHECK(check(overlapping) ==
        "f: gradient (expected samples at least 12 elements apart, as they are written, got stride "
        "11 on axis 0)");
  overlapping.strides[0] = 0;
  CHECK(check(overlapping).find("got stride 0 on axis 0") != std::string::npos);
  auto backwards = view(memory + 12, 2, 3, 4);
  backwards.strides[0] = -12;
  CHECK(check(backwards) == "no error");
}

TEST_CASE("a checked gradient knows its place and its mode") {
  float memory[48] = {};
  rows<float const> const of(view(memory, 2, 12));
  auto place = view(memory + 5, 2, 12);
  place.strides[0] = 20;
  auto const written = detail::check_gradient("f", "g", rows<float>(place), "x", of, false);
  CHECK(written.data == memory + 5);
  CHECK(written.row_stride == 20);
  CHECK(written.mode == store_mode::overwrite);
  CHECK(detail::check_gradient("f", "g", rows<float>(place), "x", of, true).mode ==
        store_mode::add);
}
