// SPDX-License-Identifier: MIT
#include <addloss/adapters/span.hpp>

#include <cstdint>

#include <addloss/core/rows.hpp>
#include <addloss/testing/conformance.hpp>

#include "catch.hpp"

namespace {

using addloss::as_view;
using addloss::host_space;
using addloss::tensor_in;
using addloss::tensor_like;
using addloss::tensor_view;
using addloss::view_of;

static_assert(tensor_like<std::vector<float>&>);
static_assert(tensor_like<std::vector<float> const&>);
static_assert(tensor_like<std::array<double, 3>&>);
static_assert(tensor_like<std::span<float>&>);
static_assert(tensor_like<std::span<float> const&>);
static_assert(tensor_like<std::span<std::int64_t const, 4>&>);
static_assert(tensor_like<std::vector<addloss::half>&>);
// Owning temporaries are refused; so are temporary spans, see the header.
static_assert(!tensor_like<std::vector<float>>);
static_assert(!tensor_like<std::vector<float>&&>);
static_assert(!tensor_like<std::vector<float> const>);
static_assert(!tensor_like<std::array<float, 3>>);
static_assert(!tensor_like<std::span<float>>);
static_assert(!tensor_like<std::vector<bool>&>);

static_assert(std::same_as<view_of<std::vector<float>&>, tensor_view<float, 1, host_space>>);
static_assert(std::same_as<view_of<std::vector<float> const&>, tensor_view<float const, 1>>);
static_assert(std::same_as<view_of<std::array<float, 2>&>, tensor_view<float, 1>>);
static_assert(std::same_as<view_of<std::array<float, 2> const&>, tensor_view<float const, 1>>);
static_assert(std::same_as<view_of<std::array<float const, 2>&>, tensor_view<float const, 1>>);
// A const span of mutable elements can be written through, as std::span itself.
static_assert(std::same_as<view_of<std::span<float> const&>, tensor_view<float, 1>>);
static_assert(std::same_as<view_of<std::span<float const>&>, tensor_view<float const, 1>>);
static_assert(std::same_as<view_of<std::span<float, 7>&>, tensor_view<float, 1>>);

static_assert(tensor_in<std::vector<float>&, float const, host_space>);
static_assert(tensor_in<std::vector<float>&, float, host_space>);
static_assert(!tensor_in<std::vector<float> const&, float, host_space>);
static_assert(!tensor_in<std::vector<float>&, double const, host_space>);
static_assert(!tensor_in<std::vector<float>&, float const, addloss::device_space>);

template <class Container>
void check_elements(Container& container) {
  static_assert(addloss::testing::adapted<Container>);
  auto const result =
      addloss::testing::check_view(container, [&](std::int64_t i) { return container.data() + i; });
  CHECK(result.passed);
  CHECK(result.elements == static_cast<std::int64_t>(container.size()));
  CHECK(as_view(container).strides[0] == 1);
}

}  // namespace

TEST_CASE("spans, vectors and arrays are dense host tensors of rank 1") {
  std::vector<float> vector = {1, 2, 3};
  std::vector<float> const constant = vector;
  std::array<double, 4> array = {1, 2, 3, 4};
  std::span<float> span(vector);
  std::span<float, 2> fixed(vector.data(), 2);
  std::span<float const> read(vector);
  check_elements(vector);
  check_elements(constant);
  check_elements(array);
  check_elements(span);
  check_elements(fixed);
  check_elements(read);
  as_view(span).data[1] = 7;
  CHECK(vector[1] == 7);
}

TEST_CASE("empty containers give a view of no elements") {
  std::vector<float> empty;
  std::array<float, 0> none{};
  CHECK(as_view(empty).extents[0] == 0);
  CHECK(as_view(none).extents[0] == 0);
  std::vector<float> const& read = empty;
  addloss::rows<float const> const rows(read);
  CHECK(rows.count == 0);
  CHECK_FALSE(rows.absent());
}

TEST_CASE("a vector becomes rows of one element") {
  std::vector<std::int64_t> timesteps = {5, 6, 7};
  addloss::rows<std::int64_t const> const rows(timesteps);
  CHECK(rows.count == 3);
  CHECK(rows.row_size == 1);
  CHECK(rows.row_stride == 1);
  CHECK(rows.contiguous());
}
