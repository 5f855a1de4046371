// SPDX-License-Identifier: MIT
#include <addloss/core/tensor_view.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "catch.hpp"
#include "error_of.hpp"

namespace other {
struct binary16 {
  std::uint16_t bits;
};
}  // namespace other

template <>
struct addloss::stored_scalar<other::binary16> {
  using type = half;
};

namespace {

using addloss::device_space;
using addloss::host_space;
using addloss::tensor_view;

using mutable_view = tensor_view<float, 2>;
using const_view = tensor_view<float const, 2>;
using device_view = tensor_view<float, 2, device_space>;

static_assert(std::is_trivially_copyable_v<mutable_view>);
static_assert(std::is_convertible_v<mutable_view, const_view>);
static_assert(!std::is_convertible_v<const_view, mutable_view>);
static_assert(!std::is_convertible_v<device_view, mutable_view>);
static_assert(!std::is_convertible_v<mutable_view, tensor_view<float, 3>>);
static_assert(!std::is_convertible_v<mutable_view, tensor_view<double, 2>>);
static_assert(std::same_as<mutable_view::space, host_space>);
static_assert(mutable_view::rank == 2 && tensor_view<int, 0>::rank == 0);

constexpr std::int64_t max = std::numeric_limits<std::int64_t>::max();

/// What `theirs` holds after 2 was written to `ours`, the same memory. Not inlined, so that the
/// compiler has the types alone to tell whether they may be the same.
[[gnu::noinline]] std::uint16_t written_through(addloss::half* ours, other::binary16* theirs) {
  theirs->bits = 0;
  *ours = addloss::half(2);
  return theirs->bits;
}

}  // namespace

TEST_CASE("view is dense and row-major") {
  float numbers[24];
  auto const v = addloss::view(numbers, 2, 3, std::int64_t{4});
  static_assert(std::same_as<decltype(v), tensor_view<float, 3> const>);
  CHECK(v.data == numbers);
  CHECK(v.extents[0] == 2);
  CHECK(v.extents[1] == 3);
  CHECK(v.extents[2] == 4);
  CHECK(v.strides[0] == 12);
  CHECK(v.strides[1] == 4);
  CHECK(v.strides[2] == 1);
}

TEST_CASE("another library's half type is viewed as the one of the same bits") {
  other::binary16 numbers[2] = {{0x3c00}, {0}};
  auto const v = addloss::view(numbers, 2);
  static_assert(std::same_as<decltype(v), tensor_view<addloss::half, 1> const>);
  other::binary16 const* const read = numbers;
  static_assert(
      std::same_as<decltype(addloss::view(read, 2)), tensor_view<addloss::half const, 1>>);
  CHECK(written_through(v.data, numbers) == 0x4000);
  CHECK(addloss::view(read, 2).data->bits == 0x4000);
}

TEST_CASE("a view of rank 0 is one number") {
  double number = 1;
  auto const v = addloss::view(&number);
  static_assert(std::same_as<decltype(v), tensor_view<double, 0> const>);
  CHECK(v.data == &number);
}

TEST_CASE("the space is named first") {
  static_assert(std::same_as<decltype(addloss::view<device_space>(static_cast<float*>(nullptr), 2)),
                             tensor_view<float, 1, device_space>>);
  auto const v = addloss::view<device_space>(static_cast<float*>(nullptr), 2);
  CHECK(v.extents[0] == 2);
}

TEST_CASE("a view to write becomes a view to read") {
  float numbers[6];
  auto v = addloss::view(numbers, 2, 3);
  v.strides[0] = 7;
  const_view const read = v;
  CHECK(read.data == numbers);
  CHECK(read.extents[1] == 3);
  CHECK(read.strides[0] == 7);
}

TEST_CASE("sizes beyond 32 bits keep their strides") {
  auto const v = addloss::view(static_cast<float*>(nullptr), 2, std::int64_t{1} << 31, 8);
  CHECK(v.strides[0] == std::int64_t{1} << 34);
}

TEST_CASE("an extent of 0 is kept, whatever the others are") {
  auto const v = addloss::view(static_cast<float*>(nullptr), 0, 3);
  CHECK(v.extents[0] == 0);
  CHECK(v.strides[0] == 3);
  auto const huge = addloss::view(static_cast<float*>(nullptr), 0, max, max);
  CHECK(huge.extents[2] == max);
  CHECK(huge.strides[1] == max);
  CHECK(huge.strides[0] == 0);
  CHECK(addloss::view(static_cast<float*>(nullptr), max, max, 0).strides[1] == 0);
}

TEST_CASE("extents that no tensor has are refused") {
  auto const error_for = [](auto... extents) {
    return error_of([&] { addloss::view(static_cast<float*>(nullptr), extents...); });
  };
  std::string const expected = "view: extents (expected extents >= 0 whose product fits 63 bits, ";
  CHECK(error_for(2, -3) == expected + "got [2,-3])");
  CHECK(error_for(0, -1) == expected + "got [0,-1])");
  CHECK(error_for(2, max) == expected + "got [2,9223372036854775807])");
  CHECK(error_for(~std::uint64_t{0}) == expected + "got [-1])");
  CHECK(error_for(1, max) == "no error");
}

TEST_CASE("checked_product") {
  using addloss::detail::checked_product;
  std::int64_t const full[] = {max, 1, 1};
  CHECK(checked_product(full, 3) == max);
  std::int64_t const over[] = {max, 2};
  CHECK(checked_product(over, 2) == -1);
  std::int64_t const zero[] = {0, max, max, 0};
  CHECK(checked_product(zero, 3) == 0);
  CHECK(checked_product(zero + 1, 3) == 0);
  CHECK(checked_product(zero, 0) == 1);
  std::int64_t const negative[] = {0, -1};
  CHECK(checked_product(negative, 2) == -1);
}

TEST_CASE("dense strides begin at the contiguous axis") {
  using addloss::detail::storage_order;
  std::int64_t const extents[] = {2, 3, 4};
  std::int64_t strides[3] = {};
  addloss::detail::write_dense_strides(extents, 3, strides, storage_order::column_major);
  CHECK(strides[0] == 1);
  CHECK(strides[1] == 2);
  CHECK(strides[2] == 6);
}
