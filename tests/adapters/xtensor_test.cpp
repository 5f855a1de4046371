// SPDX-License-Identifier: MIT
#include <addloss/adapters/xtensor.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#if __has_include(<xtensor/containers/xtensor.hpp>)  // 0.26
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xfixed.hpp>
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/views/xstrided_view.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xfixed.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#endif

#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/testing/conformance.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::as_view;
using addloss::from_xtensor;
using addloss::tensor_like;
using addloss::tensor_view;
using addloss::view_of;
using addloss::testing::adapted;
using addloss::testing::check_view;

using tensor = xt::xtensor<float, 3>;
using columns = xt::xtensor<float, 3, xt::layout_type::column_major>;
using fixed = xt::xtensor_fixed<float, xt::xshape<2, 3, 4>>;

/// The type of an expression, which only its functions name.
template <class Expression>
std::remove_cvref_t<Expression> type_of(Expression&&);

using part = decltype(type_of(
    xt::view(std::declval<tensor&>(), xt::all(), xt::range(0, 2), xt::range(0, 3))));
using part_of_const = decltype(type_of(
    xt::view(std::declval<tensor const&>(), xt::all(), xt::range(0, 2), xt::range(0, 3))));
using without_axis = decltype(type_of(xt::view(std::declval<tensor&>(), 1)));
using scattered = decltype(type_of(xt::view(std::declval<tensor&>(), xt::keep(0, 2))));
using adaptor = decltype(type_of(
    xt::adapt(std::declval<std::vector<float>&>(), std::declval<std::array<std::size_t, 2>>())));
using adaptor_of_const =
    decltype(type_of(xt::adapt(std::declval<float const*>(), 6, xt::no_ownership(),
                               std::declval<std::array<std::size_t, 2>>())));
using strided = decltype(type_of(
    xt::strided_view(std::declval<tensor&>(), std::declval<xt::xstrided_slice_vector>())));

static_assert(adapted<tensor> && adapted<columns> && adapted<fixed> && adapted<adaptor>);
static_assert(adapted<part> && adapted<part_of_const> && adapted<without_axis>);
static_assert(adapted<adaptor_of_const> && adapted<xt::xtensor<std::int64_t, 1>>);
static_assert(adapted<xt::xtensor<addloss::half, 8>> && adapted<xt::xtensor<double, 0>>);

// Owning temporaries are refused; so are temporary views, see the header.
static_assert(!tensor_like<tensor> && !tensor_like<tensor const> && !tensor_like<part>);

// So is what has a rank only at run time, or beyond 8, and what has no memory of its own shape.
template <class Expression>
concept viewable = tensor_like<Expression&>;
template <class Expression>
concept viewable_with_rank = requires(Expression& expression) { from_xtensor<2>(expression); };
static_assert(!viewable<xt::xarray<float>> && viewable_with_rank<xt::xarray<float>>);
static_assert(!viewable<strided> && viewable_with_rank<strided>);
static_assert(!viewable<xt::xtensor<float, 9>>);
static_assert(!viewable<decltype(tensor() + tensor())>);
static_assert(!viewable_with_rank<decltype(tensor() + tensor())>);
static_assert(!viewable<scattered> && !viewable_with_rank<scattered>);
static_assert(!viewable_with_rank<std::vector<float>>);
template <class Expression>
concept viewable_temporary =
    requires(Expression&& expression) { from_xtensor<2>(static_cast<Expression&&>(expression)); };
static_assert(viewable_temporary<xt::xarray<float>&> && !viewable_temporary<xt::xarray<float>>);
static_assert(!viewable_temporary<xt::xarray<float> const>);

static_assert(std::same_as<view_of<tensor&>, tensor_view<float, 3>>);
static_assert(std::same_as<view_of<fixed&>, tensor_view<float, 3>>);
static_assert(std::same_as<view_of<without_axis&>, tensor_view<float, 2>>);
static_assert(std::same_as<view_of<xt::xtensor<addloss::half, 2>&>, tensor_view<addloss::half, 2>>);

// Const variables, and adaptors and views of const memory, are only read.
static_assert(std::same_as<view_of<tensor const&>, tensor_view<float const, 3>>);
static_assert(std::same_as<view_of<part_of_const&>, tensor_view<float const, 3>>);
static_assert(std::same_as<view_of<adaptor_of_const&>, tensor_view<float const, 2>>);
static_assert(std::same_as<decltype(from_xtensor<2>(std::declval<xt::xarray<float> const&>())),
                           tensor_view<float const, 2>>);

/// Compares the view with the addresses that xtensor gives.
void check_addresses(auto& expression, std::int64_t elements) {
  auto const result = check_view(expression, [&](auto... i) { return &expression(i...); });
  CHECK(result.passed);
  CHECK(result.elements == elements);
}

std::string check(auto& expression) {
  addloss::rows<float const> const rows(expression);
  return error_of([&] { addloss::detail::check_rows("value", "student", rows); });
}

}  // namespace

TEST_CASE("tensors, views and adaptors have their own strides") {
  tensor rows({2, 3, 4});
  columns other({2, 3, 4});
  fixed small;
  part some = xt::view(rows, xt::all(), xt::range(1, 3), xt::range(0, 3));
  auto reversed = xt::view(rows, xt::all(), xt::all(), xt::range(3, xt::placeholders::_, -1));
  auto every_other = xt::view(rows, xt::range(0, 2), xt::all(), xt::range(1, 4, 2));
  without_axis one = xt::view(rows, 1);
  std::vector<float> memory(6);
  adaptor adapted_memory = xt::adapt(memory, std::array<std::size_t, 2>{2, 3});
  check_addresses(rows, 24);
  check_addresses(other, 24);
  check_addresses(small, 24);
  check_addresses(some, 12);
  check_addresses(reversed, 24);
  check_addresses(every_other, 12);
  check_addresses(adapted_memory, 6);
  CHECK(as_view(rows).strides[0] == 12);
  CHECK(as_view(rows).strides[2] == 1);
  CHECK(as_view(other).strides[2] == 6);
  CHECK(as_view(reversed).strides[2] == -1);
  CHECK(as_view(every_other).strides[2] == 2);
  CHECK(as_view(some).data == &rows(0, 1, 0));
  CHECK(as_view(one).data == &rows(1, 0, 0));
  CHECK(as_view(one).extents[1] == 4);
  as_view(adapted_memory).data[4] = 7;
  CHECK(adapted_memory(1, 1) == 7);
}

TEST_CASE("the rank of arrays and strided views is checked") {
  xt::xarray<float> array = xt::zeros<float>({2, 3, 4});
  auto const view = from_xtensor<3>(array);
  CHECK(view.data == array.data());
  CHECK(view.extents[1] == 3);
  CHECK(view.strides[0] == 12);
  auto part_of_array = xt::strided_view(array, {1, xt::ellipsis()});
  auto const part_view = from_xtensor<2>(part_of_array);
  CHECK(part_view.data == &array(1, 0, 0));
  CHECK(part_view.extents[1] == 4);
  CHECK(error_of([&] { from_xtensor<4>(array); }) ==
        "from_xtensor: tensor (expected rank 4, got rank 3)");
}

TEST_CASE("xtensors without elements give a view of none") {
  tensor none({0, 3, 4});
  CHECK(as_view(none).extents[0] == 0);
  CHECK(check(none) == "value: student (expected a batch of at least one sample, got [0,3,4])");
}

TEST_CASE("a column-major batch is refused, a batch of one image is not") {
  columns other({2, 3, 4});
  CHECK(check(other) ==
        "value: student (expected axes 1.. without gaps, got shape [2,3,4] with strides [1,2,6])");
  tensor one({1, 3, 1});
  CHECK(check(one) == "no error");
}

TEST_CASE("a loss gives the same bits through xtensors as through pointers") {
  xt::xtensor<float, 4> student({3, 2, 5, 7});
  xt::xarray<float> target = xt::zeros<float>({3, 2, 5, 7});
  for (std::size_t i = 0; i < student.size(); ++i) {
    student.data()[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
    target.data()[i] = static_cast<float>(std::sin(1 + 0.7 * static_cast<double>(i)));
  }
  xt::xtensor<double, 1> const times = {0.1, 0.9, 0.5};
  addloss::cpu_context const ctx;
  addloss::distillation<> const loss;
  addloss::rectified_flow const schedule;

  float plain_loss = 0;
  std::vector<float> plain(student.size());
  addloss::value_and_grad(
      ctx,
      loss(schedule, addloss::view(student.data(), 3, 2, 5, 7),
           addloss::view(target.data(), 3, 2, 5, 7), addloss::view(times.data(), 3)),
      plain_loss, addloss::view(plain.data(), 3, 2, 5, 7));

  xt::xtensor<float, 4> gradient({3, 2, 5, 7});
  xt::xtensor<float, 0> got;
  addloss::value_and_grad(ctx, loss(schedule, student, from_xtensor<4>(target), times), got,
                          gradient);
  CHECK(got() == plain_loss);
  CHECK(std::equal(plain.begin(), plain.end(), gradient.data()));
}
