// SPDX-License-Identifier: MIT
#include <addloss/testing/conformance.hpp>

#include <cstdint>
#include <span>
#include <vector>

#include <addloss/adapters/span.hpp>

#include "catch.hpp"

namespace user {

/// Two rows of three, each row followed by a gap of one.
struct padded {
  float memory[8] = {};
  [[nodiscard]] float const* at(std::int64_t i, std::int64_t j) const { return memory + 4 * i + j; }
};
struct forgets_the_gap : padded {};
struct other_rank_if_const : padded {};
struct not_a_tensor {};

}  // namespace user

template <>
struct addloss::tensor_traits<user::padded> {
  static tensor_view<float, 2> view(user::padded& t) { return {t.memory, {2, 3}, {4, 1}}; }
  static tensor_view<float const, 2> view(user::padded const& t) {
    return {t.memory, {2, 3}, {4, 1}};
  }
};
template <>
struct addloss::tensor_traits<user::forgets_the_gap> {
  static tensor_view<float const, 2> view(user::forgets_the_gap const& t) {
    return addloss::view(static_cast<float const*>(t.memory), 2, 3);
  }
};
template <>
struct addloss::tensor_traits<user::other_rank_if_const> {
  static tensor_view<float, 2> view(user::other_rank_if_const& t) {
    return {t.memory, {2, 3}, {4, 1}};
  }
  static tensor_view<float const, 1> view(user::other_rank_if_const const& t) {
    return {t.memory, {8}, {1}};
  }
};

namespace {

using addloss::testing::adapted;
using addloss::testing::check_view;

static_assert(adapted<user::padded> && adapted<user::forgets_the_gap>);
static_assert(adapted<std::vector<float>> && adapted<std::span<float>>);
static_assert(adapted<addloss::tensor_view<float, 3>> && adapted<float>);
static_assert(!adapted<user::other_rank_if_const> && !adapted<user::not_a_tensor>);

}  // namespace

TEST_CASE("a view that agrees with its tensor passes") {
  user::padded tensor;
  auto const result = check_view(tensor, [&](auto i, auto j) { return tensor.at(i, j); });
  CHECK(result.passed);
  CHECK(result.elements == 6);
  user::padded const& read = tensor;
  CHECK(check_view(read, [&](auto i, auto j) { return read.at(i, j); }));
}

TEST_CASE("the first element that lies elsewhere is named") {
  user::forgets_the_gap const tensor;
  auto const result = check_view(tensor, [&](auto i, auto j) { return tensor.at(i, j); });
  CHECK_FALSE(result.passed);
  CHECK(result.elements == 3);
  CHECK(result.index[0] == 1);
  CHECK(result.index[1] == 0);
}

TEST_CASE("a scalar has one element, an empty tensor none") {
  double scalar = 0;
  auto const one = check_view(scalar, [&] { return &scalar; });
  CHECK(one.passed);
  CHECK(one.elements == 1);
  std::vector<float> const empty;
  auto const none = check_view(empty, [&](auto) { return empty.data(); });
  CHECK(none.passed);
  CHECK(none.elements == 0);
}
