// SPDX-License-Identifier: MIT
#include <addloss/adapters/eigen_tensor.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <addloss/core/rows.hpp>
#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/testing/conformance.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::as_view;
using addloss::tensor_like;
using addloss::tensor_view;
using addloss::view_of;
using addloss::testing::adapted;
using addloss::testing::check_view;

template <class T, int Rank>
using row_major = Eigen::Tensor<T, Rank, Eigen::RowMajor>;
template <class T, int Rank>
using column_major = Eigen::Tensor<T, Rank>;
using fixed = Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3>, Eigen::RowMajor>;

static_assert(adapted<row_major<float, 4>> && adapted<column_major<double, 8>>);
static_assert(adapted<row_major<float, 0>> && adapted<fixed>);
static_assert(adapted<Eigen::TensorMap<row_major<float, 4>>>);
static_assert(adapted<Eigen::TensorMap<row_major<float const, 4>>>);
static_assert(adapted<Eigen::Tensor<float, 2, Eigen::RowMajor, int>>);

// Owning temporaries are refused; so are temporary maps, see the header.
static_assert(!tensor_like<row_major<float, 4>> && !tensor_like<row_major<float, 4> const>);
static_assert(!tensor_like<fixed> && !tensor_like<Eigen::TensorMap<row_major<float, 4>>>);

// So are ranks beyond 8, expressions, and references that may have no memory.
template <class Tensor>
concept viewable = tensor_like<Tensor&>;
static_assert(!viewable<row_major<float, 9>>);
static_assert(!viewable<Eigen::TensorMap<row_major<float, 9>>>);
static_assert(!viewable<decltype(row_major<float, 2>() + row_major<float, 2>())>);
static_assert(!viewable<Eigen::TensorRef<row_major<float, 2>>>);

static_assert(std::same_as<view_of<row_major<float, 4>&>, tensor_view<float, 4>>);
static_assert(std::same_as<view_of<column_major<double, 1>&>, tensor_view<double, 1>>);
static_assert(std::same_as<view_of<row_major<std::int64_t, 1>&>, tensor_view<std::int64_t, 1>>);
static_assert(std::same_as<view_of<row_major<float, 0>&>, tensor_view<float, 0>>);
static_assert(std::same_as<view_of<fixed&>, tensor_view<float, 2>>);

// Const variables, and maps of const memory, are only read.
static_assert(std::same_as<view_of<row_major<float, 4> const&>, tensor_view<float const, 4>>);
static_assert(std::same_as<view_of<fixed const&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<Eigen::TensorMap<row_major<float, 3>>&>, tensor_view<float, 3>>);
static_assert(std::same_as<view_of<Eigen::TensorMap<row_major<float, 3>> const&>,
                           tensor_view<float const, 3>>);
static_assert(std::same_as<view_of<Eigen::TensorMap<row_major<float, 3> const>&>,
                           tensor_view<float const, 3>>);
static_assert(std::same_as<view_of<Eigen::TensorMap<row_major<float const, 3>>&>,
                           tensor_view<float const, 3>>);

// Eigen's own half types are those of the library.
static_assert(adapted<row_major<Eigen::half, 4>> && adapted<row_major<Eigen::bfloat16, 4>>);
static_assert(std::same_as<view_of<row_major<Eigen::half, 4>&>, tensor_view<addloss::half, 4>>);

/// Compares shape and addresses of a tensor of rank 3 with those that Eigen gives.
void check_addresses(auto& tensor) {
  auto const v = as_view(tensor);
  static_assert(v.rank == 3);
  for (unsigned axis = 0; axis < 3; ++axis) CHECK(v.extents[axis] == tensor.dimension(axis));
  CHECK(check_view(tensor, [&](auto i, auto j, auto k) { return &tensor(i, j, k); }));
}

std::string check(auto& tensor) {
  addloss::rows<float const> const rows(tensor);
  return error_of([&] { addloss::detail::check_rows("value", "student", rows); });
}

}  // namespace

TEST_CASE("tensors of both layouts have their own strides") {
  row_major<float, 3> rows(2, 3, 4);
  column_major<double, 3> columns(2, 3, 4);
  Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3, 4>> small;
  Eigen::TensorMap<row_major<float, 3>> map(rows.data(), 4, 3, 2);
  check_addresses(rows);
  check_addresses(columns);
  check_addresses(small);
  check_addresses(map);
  CHECK(as_view(rows).strides[0] == 12);
  CHECK(as_view(rows).strides[2] == 1);
  CHECK(as_view(columns).strides[0] == 1);
  CHECK(as_view(columns).strides[2] == 6);
  row_major<float, 3> const& read = rows;
  CHECK(as_view(read).data == rows.data());
  as_view(map).data[3] = 7;
  CHECK(rows(0, 0, 3) == 7);
}

TEST_CASE("every rank from 0 to 8") {
  row_major<float, 0> scalar;
  CHECK(as_view(scalar).data == scalar.data());
  row_major<float, 1> one(5);
  CHECK(as_view(one).extents[0] == 5);
  CHECK(as_view(one).strides[0] == 1);
  row_major<float, 8> eight(2, 1, 3, 1, 2, 1, 1, 2);
  auto const v = as_view(eight);
  CHECK(v.extents[2] == 3);
  CHECK(v.strides[0] == 12);
  CHECK(v.strides[2] == 4);
  CHECK(v.strides[7] == 1);
  column_major<float, 8> columns(2, 1, 3, 1, 2, 1, 1, 2);
  CHECK(as_view(columns).strides[0] == 1);
  CHECK(as_view(columns).strides[7] == 12);
}

TEST_CASE("tensors without elements give a view of none") {
  row_major<float, 2> never_sized;
  row_major<float, 3> no_samples(0, 3, 4);
  row_major<float, 3> no_elements(2, 0, 4);
  CHECK(as_view(never_sized).extents[0] == 0);
  CHECK(check(no_samples) ==
        "value: student (expected a batch of at least one sample, got [0,3,4])");
  CHECK(check(no_elements) ==
        "value: student (expected samples of at least one element, got [2,0,4])");
}

TEST_CASE("a column-major batch is refused") {
  column_major<float, 4> columns(2, 3, 4, 5);
  row_major<float, 4> rows(2, 3, 4, 5);
  CHECK(check(columns) ==
        "value: student (expected axes 1.. without gaps, got shape [2,3,4,5] with strides "
        "[1,2,6,24])");
  CHECK(check(rows) == "no error");
}

TEST_CASE("a map of extents that no memory has is refused") {
  using map = Eigen::TensorMap<row_major<float, 3>>;
  std::int64_t const huge = std::int64_t{1} << 62;
  map const none(nullptr, 0, huge, 4);
  CHECK(as_view(none).extents[0] == 0);
  map const impossible(nullptr, huge, 4, 1);
  CHECK(error_of([&] { as_view(impossible); }) ==
        "view: Eigen::Tensor (expected extents >= 0 whose product fits 63 bits, got "
        "[4611686018427387904,4,1])");
}

TEMPLATE_TEST_CASE("a loss gives the same bits through tensors as through pointers", "", float,
                   double) {
  using T = TestType;
  using tensor = row_major<T, 4>;
  tensor student(3, 2, 5, 7);
  tensor target(3, 2, 5, 7);
  for (Eigen::Index i = 0; i < student.size(); ++i) {
    student.data()[i] = static_cast<T>(std::sin(0.7 * static_cast<double>(i)));
    target.data()[i] = static_cast<T>(std::sin(1 + 0.7 * static_cast<double>(i)));
  }
  row_major<double, 1> times(3);
  times.setValues({0.1, 0.9, 0.5});
  addloss::cpu_context const ctx;
  addloss::distillation<> const loss;
  addloss::rectified_flow const schedule;

  T plain_loss = 0;
  std::vector<T> plain(static_cast<std::size_t>(student.size()));
  addloss::value_and_grad(
      ctx,
      loss(schedule, addloss::view(student.data(), 3, 2, 5, 7),
           addloss::view(target.data(), 3, 2, 5, 7), addloss::view(times.data(), 3)),
      plain_loss, addloss::view(plain.data(), 3, 2, 5, 7));

  SECTION("tensors, and the loss in a tensor of rank 0") {
    tensor gradient(3, 2, 5, 7);
    row_major<T, 0> got;
    addloss::value_and_grad(ctx, loss(schedule, student, target, times), got, gradient);
    CHECK(got() == plain_loss);
    CHECK(std::equal(plain.begin(), plain.end(), gradient.data()));
  }
  SECTION("maps") {
    std::vector<T> memory(plain.size());
    Eigen::TensorMap<tensor const> const student_map(student.data(), 3, 2, 5, 7);
    Eigen::TensorMap<tensor> target_map(target.data(), 3, 2, 5, 7);
    Eigen::TensorMap<tensor> gradient(memory.data(), 3, 2, 5, 7);
    T got = 0;
    addloss::value_and_grad(ctx, loss(schedule, student_map, target_map, times), got, gradient);
    CHECK(got == plain_loss);
    CHECK(memory == plain);
  }
}
