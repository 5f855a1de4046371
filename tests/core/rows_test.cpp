// SPDX-License-Identifier: MIT
#include <addloss/core/rows.hpp>

#include <cstdint>
#include <limits>
#include <string>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::device_space;
using addloss::rows;
using addloss::tensor_view;
using addloss::view;

static_assert(std::is_trivially_copyable_v<rows<float const>>);
static_assert(std::constructible_from<rows<float const>, tensor_view<float, 3>>);
static_assert(std::constructible_from<rows<float const>, tensor_view<float const, 3>>);
static_assert(std::constructible_from<rows<float const>, rows<float>>);
static_assert(!std::constructible_from<rows<float>, rows<float const>>);
static_assert(!std::constructible_from<rows<float>, tensor_view<float const, 3>>);
static_assert(!std::constructible_from<rows<float const>, tensor_view<float const, 0>>);
static_assert(!std::constructible_from<rows<float const>, tensor_view<double, 2>>);
static_assert(!std::constructible_from<rows<float const>, tensor_view<float, 2, device_space>>);
static_assert(!std::constructible_from<rows<float const>, float*>);

std::string check(rows<float const> const& batch) {
  return error_of([&] { addloss::detail::check_rows("f", "x", batch); });
}

std::string check_same(rows<float const> const& batch, rows<float const> const& model) {
  return error_of([&] { addloss::detail::check_same_rows("f", "x", batch, "student", model); });
}

float memory[64];
constexpr std::int64_t big = std::int64_t{1} << 31;

template <int Rank>
tensor_view<float, Rank> strided(std::int64_t const (&extents)[static_cast<unsigned>(Rank)],
                                 std::int64_t const (&strides)[static_cast<unsigned>(Rank)]) {
  tensor_view<float, Rank> v;
  v.data = memory;
  for (int axis = 0; axis < Rank; ++axis) {
    v.extents[axis] = extents[axis];
    v.strides[axis] = strides[axis];
  }
  return v;
}

}  // namespace

TEST_CASE("rows of a dense tensor") {
  rows<float> const r(view(memory, 2, 3, 4));
  CHECK(r.data == memory);
  CHECK(r.count == 2);
  CHECK(r.row_size == 12);
  CHECK(r.row_stride == 12);
  CHECK(r.contiguous());
  CHECK_FALSE(r.absent());
  CHECK(check(r) == "no error");
  CHECK(check(view(memory, 5)) == "no error");
  rows<float const> const read(r);
  CHECK(read.shape.rank == 3);
  CHECK(read.shape.strides[1] == 4);
  CHECK(read.row_stride == 12);
}

TEST_CASE("rows that were never given are absent") {
  CHECK(rows<float>{}.absent());
  CHECK(check({}) == "f: x (expected a tensor, got none)");
}

TEST_CASE("the batch axis may have any stride") {
  CHECK(check(strided<2>({2, 3}, {10, 1})) == "no error");
  CHECK(check(strided<2>({2, 3}, {-10, 1})) == "no error");
  CHECK_FALSE(rows<float>(strided<2>({2, 3}, {10, 1})).contiguous());
  CHECK(rows<float>(strided<2>({1, 3}, {10, 1})).contiguous());
}

TEST_CASE("the inner axes may lie in any order without gaps") {
  CHECK(check(strided<4>({2, 3, 2, 2}, {12, 4, 2, 1})) == "no error");
  CHECK(check(strided<4>({2, 3, 2, 2}, {12, 1, 6, 3})) == "no error");
  CHECK(check(strided<4>({2, 3, 1, 2}, {12, 1, 999, 3})) == "no error");  // extent 1: no stride
  CHECK(check(strided<3>({2, 1, 1}, {1, 77, 0})) == "no error");
  CHECK(check(strided<4>({2, 3, 2, 2}, {12, 4, 2, 2})) ==
        "f: x (expected axes 1.. without gaps, got shape [2,3,2,2] with strides [12,4,2,2])");
  CHECK(check(strided<2>({2, 3}, {6, 2})) ==
        "f: x (expected axes 1.. without gaps, got shape [2,3] with strides [6,2])");
  CHECK(check(strided<2>({2, 3}, {6, 0})) ==
        "f: x (expected axes 1.. without gaps, got shape [2,3] with strides [6,0])");
  CHECK(check(strided<2>({2, 3}, {6, -1})) ==
        "f: x (expected axes 1.. without gaps, got shape [2,3] with strides [6,-1])");
}

TEST_CASE("empty and impossible sizes are refused") {
  CHECK(check(view(memory, 0, 3)) == "f: x (expected a batch of at least one sample, got [0,3])");
  CHECK(check(strided<2>({-1, 3}, {3, 1})) ==
        "f: x (expected a batch of at least one sample, got [-1,3])");
  CHECK(check(view(memory, 2, 0)) == "f: x (expected samples of at least one element, got [2,0])");
  CHECK(check(view(static_cast<float*>(nullptr), 2, 3)) ==
        "f: x (expected memory, got a null pointer)");
  CHECK(check(strided<4>({big, big, big, 1}, {1, 1, 1, 1})) ==
        "f: x (expected a size that fits 63 bits, got [2147483648,2147483648,2147483648,1])");
  // As a constant g++ 12 -O2 -march=skylake-avx512 stores {big, big, big, 0} as four times big.
  std::int64_t const volatile none = 0;
  CHECK(
      check(strided<4>({big, big, big, none}, {1, 1, 1, 1})) ==
      "f: x (expected samples of at least one element, got [2147483648,2147483648,2147483648,0])");
  CHECK(check(strided<2>({2, -3}, {1, 1})) ==
        "f: x (expected a size that fits 63 bits, got [2,-3])");
}

TEST_CASE("huge sizes that do fit are accepted") {
  auto const v = view(memory, 2, big, big / 2);
  rows<float> const r(v);
  CHECK(r.row_size == big * (big / 2));
  CHECK(check(r) == "no error");
}

TEST_CASE("samples beyond 63 bits are refused, and what is not a sample apart") {
  std::int64_t const max = std::numeric_limits<std::int64_t>::max();
  CHECK(check(strided<2>({2, 3}, {max - 3, 1})) == "no error");
  CHECK(check(strided<2>({2, 3}, {max - 2, 1})) ==
        "f: x (expected samples whose offsets fit 63 bits, got 2 at stride 9223372036854775805)");
  CHECK(check(strided<2>({3, 3}, {max / 2 + 1, 1})).find("offsets") != std::string::npos);
  CHECK(check(strided<2>({3, 3}, {-max, 1})).find("offsets") != std::string::npos);
  CHECK(check(strided<2>({1, 3}, {max, 1})) == "no error");  // one sample: no stride
  auto const distinct = [](std::int64_t stride) {
    rows<float> const batch(strided<2>({2, 3}, {stride, 1}));
    return error_of([&] { addloss::detail::check_distinct_rows("f", "x", batch); }) == "no error";
  };
  CHECK(distinct(3));
  CHECK(distinct(-3));
  CHECK(distinct(std::numeric_limits<std::int64_t>::min()));
  CHECK_FALSE(distinct(2));
  CHECK_FALSE(distinct(-2));
  CHECK_FALSE(distinct(0));
}

TEST_CASE("tensors that are combined agree in shape and order") {
  rows<float const> const model(view(memory, 2, 3, 4));
  CHECK(check_same(view(memory, 2, 3, 4), model) == "no error");
  CHECK(check_same(strided<3>({2, 3, 4}, {20, 4, 1}), model) == "no error");
  CHECK(check_same(view(memory, 2, 4, 3), model) ==
        "f: x (expected the shape of student, [2,3,4], got [2,4,3])");
  CHECK(check_same(view(memory, 2, 12), model) ==
        "f: x (expected the shape of student, [2,3,4], got [2,12])");
  CHECK(check_same(view(memory, 3, 3, 4), model) ==
        "f: x (expected the shape of student, [2,3,4], got [3,3,4])");
  CHECK(check_same(strided<3>({2, 3, 4}, {12, 1, 3}), model) ==
        "f: x (expected the memory order of student, stride 4 on axis 1, got stride 1)");
  CHECK(check_same({}, model) == "f: x (expected a tensor, got none)");
}

TEST_CASE("one number a sample") {
  auto const check_one = [](rows<float const> const& batch) {
    return error_of([&] { addloss::detail::check_per_sample("f", "upstream", batch, 3); });
  };
  CHECK(check_one(view(memory, 3)) == "no error");
  CHECK(check_one(strided<1>({3}, {5})) == "no error");
  CHECK(check_one(view(memory, 2)) ==
        "f: upstream (expected shape [3], one number a sample, got [2])");
  CHECK(check_one(view(memory, 3, 1)) ==
        "f: upstream (expected shape [3], one number a sample, got [3,1])");
}
