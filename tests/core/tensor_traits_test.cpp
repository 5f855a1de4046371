// SPDX-License-Identifier: MIT
#include <addloss/core/tensor_traits.hpp>

#include <memory>

#include "catch.hpp"

namespace user {

/// An owning tensor type of a user.
struct tensor {
  std::unique_ptr<float[]> memory = std::make_unique<float[]>(6);
};
struct not_a_tensor {};
struct returns_pointer {};

}  // namespace user

template <>
struct addloss::tensor_traits<user::tensor> {
  static tensor_view<float, 2> view(user::tensor& t) { return addloss::view(t.memory.get(), 2, 3); }
  static tensor_view<float const, 2> view(user::tensor const& t) {
    return addloss::view(static_cast<float const*>(t.memory.get()), 2, 3);
  }
};
template <>
struct addloss::tensor_traits<user::returns_pointer> {
  static float* view(user::returns_pointer const&) { return nullptr; }
};

namespace {

using addloss::device_space;
using addloss::host_space;
using addloss::tensor_in;
using addloss::tensor_like;
using addloss::tensor_view;
using addloss::view_of;

static_assert(tensor_like<user::tensor&> && tensor_like<user::tensor const&>);
static_assert(!tensor_like<user::tensor> && !tensor_like<user::tensor const>);  // temporaries
static_assert(!tensor_like<user::not_a_tensor&> && !tensor_like<user::returns_pointer&>);
static_assert(!tensor_like<int&> && !tensor_like<float*&> && !tensor_like<void*>);

static_assert(tensor_like<tensor_view<float, 2>> && tensor_like<tensor_view<float, 2>&>);
static_assert(tensor_like<tensor_view<float, 2> const&>);
static_assert(tensor_like<tensor_view<float, 2, device_space>>);

static_assert(tensor_like<float&> && tensor_like<double const&>);
static_assert(!tensor_like<float> && !tensor_like<float&&>);

static_assert(std::same_as<view_of<user::tensor const&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<double&>, tensor_view<double, 0>>);
static_assert(std::same_as<view_of<double const&>, tensor_view<double const, 0>>);

static_assert(tensor_in<user::tensor&, float, host_space>);
static_assert(tensor_in<user::tensor&, float const, host_space>);
static_assert(tensor_in<user::tensor const&, float const, host_space>);
static_assert(!tensor_in<user::tensor const&, float, host_space>);
static_assert(!tensor_in<user::tensor&, double const, host_space>);
static_assert(!tensor_in<user::tensor&, float const, device_space>);
static_assert(!tensor_in<tensor_view<float, 1, device_space>, float const, host_space>);

}  // namespace

TEST_CASE("a user's tensor is viewed through its traits") {
  user::tensor t;
  auto const v = addloss::as_view(t);
  CHECK(v.data == t.memory.get());
  CHECK(v.extents[1] == 3);
  user::tensor const& constant = t;
  CHECK(addloss::as_view(constant).data == t.memory.get());
}

TEST_CASE("a scalar variable is a tensor of rank 0") {
  float number = 3;
  auto const v = addloss::as_view(number);
  *v.data = 4;
  CHECK(number == 4);
}

TEST_CASE("a view is viewed as itself") {
  float numbers[4];
  auto v = addloss::view(numbers, 2, 2);
  v.strides[0] = 9;
  CHECK(addloss::as_view(v).strides[0] == 9);
  CHECK(addloss::as_view(addloss::view(numbers, 4)).data == numbers);
}
