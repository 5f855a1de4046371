// SPDX-License-Identifier: MIT
#include <addloss/adapters/eigen.hpp>

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/testing/conformance.hpp>
#include <addloss/weighting/uniform.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::as_view;
using addloss::host_space;
using addloss::tensor_in;
using addloss::tensor_like;
using addloss::tensor_view;
using addloss::view_of;
using addloss::testing::adapted;
using addloss::testing::check_view;
using Eigen::Dynamic;

template <class T, int Rows = Dynamic, int Columns = Dynamic>
using row_major = Eigen::Matrix<T, Rows, Columns, Eigen::RowMajor>;
using matrix = Eigen::MatrixXf;  // column-major
using any_strides = Eigen::Stride<Dynamic, Dynamic>;

// Every kind of memory that Eigen has.
static_assert(adapted<matrix> && adapted<row_major<double>> && adapted<row_major<float, 3, 4>>);
static_assert(adapted<Eigen::ArrayXXf> && adapted<Eigen::ArrayXd>);
static_assert(adapted<Eigen::Map<matrix>> && adapted<Eigen::Map<matrix const>>);
static_assert(adapted<Eigen::Map<Eigen::ArrayXXf, 0, any_strides>>);
static_assert(adapted<Eigen::Ref<matrix>> && adapted<Eigen::Ref<matrix const>>);
static_assert(adapted<Eigen::Ref<Eigen::ArrayXXf, 0, any_strides>>);
static_assert(adapted<Eigen::Block<matrix>> && adapted<Eigen::Block<matrix const>>);
static_assert(adapted<Eigen::Transpose<matrix>> && adapted<Eigen::Diagonal<matrix>>);
static_assert(adapted<Eigen::VectorBlock<Eigen::VectorXf>>);
static_assert(adapted<Eigen::Matrix<std::int64_t, Dynamic, 1>>);
static_assert(adapted<row_major<addloss::half>> && adapted<row_major<addloss::bfloat16>>);

// Owning temporaries are refused; so are temporary maps, see the header.
static_assert(!tensor_like<matrix> && !tensor_like<matrix const> && !tensor_like<Eigen::ArrayXf>);
static_assert(!tensor_like<Eigen::Map<matrix>> && !tensor_like<Eigen::Ref<matrix const>>);
static_assert(!tensor_like<Eigen::Block<matrix>>);

// What has no memory of its own shape is refused.
template <class Expression>
concept viewable = tensor_like<Expression&>;
static_assert(!viewable<decltype(matrix() + matrix())>);
static_assert(!viewable<decltype(matrix() * matrix())>);
static_assert(!viewable<decltype(matrix().cast<double>())>);
static_assert(!viewable<Eigen::DiagonalMatrix<float, 3>>);
static_assert(!viewable<Eigen::PermutationMatrix<3>>);
static_assert(addloss::eigen_dense<matrix>);
static_assert(addloss::eigen_dense<Eigen::VectorBlock<Eigen::VectorXf>>);
static_assert(!addloss::eigen_dense<float> && !addloss::eigen_dense<std::vector<float>>);
static_assert(!addloss::eigen_dense<float*> && !addloss::eigen_dense<tensor_view<float, 2>>);

// Rank: a vector has one axis, whichever way it lies.
static_assert(std::same_as<view_of<matrix&>, tensor_view<float, 2, host_space>>);
static_assert(std::same_as<view_of<row_major<double, 3, 4>&>, tensor_view<double, 2>>);
static_assert(std::same_as<view_of<Eigen::VectorXd&>, tensor_view<double, 1>>);
static_assert(std::same_as<view_of<Eigen::RowVector3f&>, tensor_view<float, 1>>);
static_assert(std::same_as<view_of<Eigen::ArrayXf&>, tensor_view<float, 1>>);
static_assert(
    std::same_as<view_of<Eigen::Matrix<std::int64_t, Dynamic, 1>&>, tensor_view<std::int64_t, 1>>);
static_assert(std::same_as<view_of<row_major<addloss::half>&>, tensor_view<addloss::half, 2>>);

// Const variables, and maps of const memory, are only read.
static_assert(std::same_as<view_of<matrix const&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<Eigen::VectorXd const&>, tensor_view<double const, 1>>);
static_assert(std::same_as<view_of<Eigen::Map<matrix>&>, tensor_view<float, 2>>);
static_assert(std::same_as<view_of<Eigen::Map<matrix> const&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<Eigen::Map<matrix const>&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<Eigen::Ref<matrix>&>, tensor_view<float, 2>>);
static_assert(std::same_as<view_of<Eigen::Ref<matrix const>&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<Eigen::Block<matrix>&>, tensor_view<float, 2>>);
static_assert(std::same_as<view_of<Eigen::Block<matrix const>&>, tensor_view<float const, 2>>);
static_assert(std::same_as<view_of<Eigen::Transpose<matrix const>&>, tensor_view<float const, 2>>);
static_assert(tensor_in<matrix&, float const, host_space>);
static_assert(!tensor_in<matrix const&, float, host_space>);
static_assert(!tensor_in<matrix&, float, addloss::device_space>);

// Eigen's own half types are those of the library.
static_assert(adapted<row_major<Eigen::half>> && adapted<Eigen::Map<row_major<Eigen::bfloat16>>>);
static_assert(std::same_as<view_of<row_major<Eigen::half>&>, tensor_view<addloss::half, 2>>);
static_assert(std::same_as<view_of<Eigen::VectorX<Eigen::bfloat16> const&>,
                           tensor_view<addloss::bfloat16 const, 1>>);
static_assert(std::same_as<decltype(addloss::view(std::declval<Eigen::half*>(), 2, 3)),
                           tensor_view<addloss::half, 2>>);

/// Compares shape and addresses with those that Eigen gives.
void check_addresses(auto& tensor) {
  auto const v = as_view(tensor);
  static_assert(v.rank == 2);
  CHECK(v.extents[0] == tensor.rows());
  CHECK(v.extents[1] == tensor.cols());
  CHECK(check_view(tensor, [&](auto i, auto j) { return &tensor.coeffRef(i, j); }));
}

void check_vector_addresses(auto& vector) {
  auto const v = as_view(vector);
  static_assert(v.rank == 1);
  CHECK(v.extents[0] == vector.size());
  CHECK(check_view(vector, [&](auto i) { return &vector.coeffRef(i); }));
}

template <class View>
bool has_strides(View const& v, std::int64_t first, std::int64_t second) {
  return v.strides[0] == first && v.strides[1] == second;
}

/// A loss and its gradient.
template <class T>
struct result {
  T loss;
  std::vector<T> gradient;
  bool operator==(result const&) const = default;
};

constexpr std::int64_t batch = 5;
constexpr std::int64_t size = 37;

template <class T>
std::vector<T> numbers(double phase) {
  std::vector<T> out(static_cast<std::size_t>(batch * size));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<T>(std::sin(phase + 0.7 * static_cast<double>(i)));
  }
  return out;
}

double const times[batch] = {0.1, 0.9, 0.5, 0.25, 0.75};

/// What the losses give through plain pointers.
template <class T>
result<T> expected() {
  std::vector<T> const student = numbers<T>(0);
  std::vector<T> const target = numbers<T>(1);
  result<T> out{0, std::vector<T>(student.size())};
  addloss::value_and_grad(addloss::cpu_context{},
                          addloss::distillation<>{}(addloss::rectified_flow{},
                                                    addloss::view(student.data(), batch, size),
                                                    addloss::view(target.data(), batch, size),
                                                    addloss::view(times, batch)),
                          out.loss, addloss::view(out.gradient.data(), batch, size));
  return out;
}

/// The same through tensors of Eigen.
template <class T, class Student, class Target, class Gradient>
void evaluate(Student const& student, Target const& target, T& loss, Gradient& gradient) {
  Eigen::VectorXd const timesteps = Eigen::Map<Eigen::VectorXd const>(times, batch);
  addloss::value_and_grad(
      addloss::cpu_context{},
      addloss::distillation<>{}(addloss::rectified_flow{}, student, target, timesteps), loss,
      gradient);
}

}  // namespace

TEST_CASE("a matrix has two axes, row-major or column-major") {
  matrix columns = matrix::Random(3, 5);
  row_major<double> rows = row_major<double>::Random(3, 5);
  Eigen::ArrayXXd array = Eigen::ArrayXXd::Random(2, 4);
  row_major<float, 3, 5> fixed = row_major<float, 3, 5>::Random();
  row_major<float, Dynamic, 5> half_fixed = row_major<float, Dynamic, 5>::Random(2, 5);
  check_addresses(columns);
  check_addresses(rows);
  check_addresses(array);
  check_addresses(fixed);
  check_addresses(half_fixed);
  CHECK(has_strides(as_view(columns), 1, 3));
  CHECK(has_strides(as_view(rows), 5, 1));
  CHECK(has_strides(as_view(fixed), 5, 1));
  matrix const& read = columns;
  CHECK(as_view(read).data == columns.data());
  CHECK(has_strides(as_view(read), 1, 3));
  as_view(rows).data[1] = 7;
  CHECK(rows(0, 1) == 7);
}

TEST_CASE("a vector has one axis") {
  Eigen::VectorXf column = Eigen::VectorXf::Random(4);
  Eigen::RowVectorXd row = Eigen::RowVectorXd::Random(6);
  Eigen::Array3f array = Eigen::Array3f::Random();
  Eigen::Matrix<float, 1, 1> one;
  check_vector_addresses(column);
  check_vector_addresses(row);
  check_vector_addresses(array);
  check_vector_addresses(one);
  // Sizes that are 1 at run time only leave a matrix.
  matrix single = matrix::Random(4, 1);
  check_addresses(single);
}

TEST_CASE("maps keep their inner and outer strides") {
  std::array<float, 64> memory{};
  Eigen::Map<matrix> dense(memory.data(), 3, 4);
  Eigen::Map<matrix, 0, Eigen::OuterStride<>> outer(memory.data(), 3, 4, Eigen::OuterStride<>(7));
  Eigen::Map<matrix, 0, any_strides> both(memory.data(), 3, 4, any_strides(15, 2));
  Eigen::Map<row_major<float>, 0, any_strides> rows(memory.data(), 3, 4, any_strides(15, 2));
  Eigen::Map<Eigen::ArrayXXf, 0, Eigen::OuterStride<9>> fixed(memory.data(), 3, 4);
  Eigen::Map<Eigen::VectorXf, 0, Eigen::InnerStride<>> vector(memory.data(), 5,
                                                              Eigen::InnerStride<>(3));
  check_addresses(dense);
  check_addresses(outer);
  check_addresses(both);
  check_addresses(rows);
  check_addresses(fixed);
  check_vector_addresses(vector);
  CHECK(has_strides(as_view(outer), 1, 7));
  CHECK(has_strides(as_view(both), 2, 15));
  CHECK(has_strides(as_view(rows), 15, 2));
  CHECK(has_strides(as_view(fixed), 1, 9));
  CHECK(as_view(vector).strides[0] == 3);
}

TEST_CASE("blocks, references and transposes keep the strides of what they are part of") {
  matrix columns = matrix::Random(6, 8);
  row_major<float> rows = row_major<float>::Random(6, 8);
  auto block = columns.block(1, 2, 3, 4);
  auto some_rows = rows.middleRows(2, 3);
  auto fixed_block = rows.block<2, 3>(1, 4);
  auto one_row = columns.row(2);
  auto one_column = columns.col(3);
  auto part = rows.row(1).segment(2, 4);
  auto transposed = columns.transpose();
  auto diagonal = columns.diagonal();
  Eigen::Ref<matrix> whole(columns);
  Eigen::Ref<matrix> of_block(block);
  Eigen::Ref<Eigen::VectorXf, 0, Eigen::InnerStride<>> of_row(one_row);
  check_addresses(block);
  check_addresses(some_rows);
  check_addresses(fixed_block);
  check_addresses(whole);
  check_addresses(of_block);
  check_vector_addresses(one_row);
  check_vector_addresses(one_column);
  check_vector_addresses(part);
  check_vector_addresses(of_row);
  check_vector_addresses(diagonal);
  CHECK(has_strides(as_view(block), 1, 6));
  CHECK(has_strides(as_view(of_block), 1, 6));
  CHECK(has_strides(as_view(some_rows), 8, 1));
  CHECK(as_view(one_row).strides[0] == 6);
  CHECK(as_view(diagonal).strides[0] == 7);
  auto const v = as_view(transposed);
  CHECK(v.data == columns.data());
  CHECK(v.extents[0] == 8);
  CHECK(v.extents[1] == 6);
  CHECK(has_strides(v, 6, 1));
  // A reference to const that had to copy is a view of its copy.
  Eigen::Ref<matrix const> const copied(rows);
  CHECK(as_view(copied).data == copied.data());
  CHECK(as_view(copied).data != rows.data());
}

TEST_CASE("matrices without elements give a view of none") {
  matrix none;
  row_major<float> no_rows(0, 3);
  row_major<float> no_columns(3, 0);
  Eigen::VectorXf no_elements(0);
  Eigen::Matrix<float, 0, 2> fixed;
  CHECK(as_view(none).extents[0] == 0);
  CHECK(as_view(none).extents[1] == 0);
  CHECK(as_view(no_rows).extents[0] == 0);
  CHECK(as_view(no_rows).extents[1] == 3);
  CHECK(as_view(no_columns).extents[0] == 3);
  CHECK(as_view(no_columns).extents[1] == 0);
  CHECK(as_view(no_elements).extents[0] == 0);
  CHECK(as_view(fixed).extents[1] == 2);
  auto const check = [](auto& tensor) {
    addloss::rows<float const> const rows(tensor);
    return error_of([&] { addloss::detail::check_rows("f", "x", rows); });
  };
  CHECK(check(no_rows) == "f: x (expected a batch of at least one sample, got [0,3])");
  CHECK(check(no_columns) == "f: x (expected samples of at least one element, got [3,0])");
}

TEST_CASE("a column-major batch is refused, its transpose is not") {
  matrix columns = matrix::Random(2, 3);
  auto const check = [](auto& tensor) {
    addloss::rows<float const> const rows(tensor);
    return error_of([&] { addloss::detail::check_rows("value", "student", rows); });
  };
  CHECK(check(columns) ==
        "value: student (expected axes 1.. without gaps, got shape [2,3] with strides [1,2])");
  auto samples = columns.transpose();
  CHECK(check(samples) == "no error");
  row_major<float> rows = columns;
  CHECK(check(rows) == "no error");
  // Through the verb, before anything is written.
  double const t = 0.5;
  matrix gradient = matrix::Constant(2, 3, 7);
  double loss = 7;
  CHECK(error_of([&] {
          addloss::value_and_grad(addloss::cpu_context{},
                                  addloss::distillation<>{}(addloss::rectified_flow{}, columns,
                                                            columns, addloss::view(&t, 1)),
                                  loss, gradient);
        }) ==
        "value_and_grad: student (expected axes 1.. without gaps, got shape [2,3] with strides "
        "[1,2])");
  CHECK(loss == 7);
  CHECK(gradient == matrix::Constant(2, 3, 7));
}

TEMPLATE_TEST_CASE("a loss gives the same bits through matrices as through pointers", "", float,
                   double) {
  using T = TestType;
  using rows = row_major<T>;
  std::vector<T> const student_memory = numbers<T>(0);
  std::vector<T> const target_memory = numbers<T>(1);
  Eigen::Map<rows const> const student_map(student_memory.data(), batch, size);
  Eigen::Map<rows const> const target_map(target_memory.data(), batch, size);
  result<T> const plain = expected<T>();
  result<T> got{0, std::vector<T>(plain.gradient.size())};
  Eigen::Map<rows> gradient_map(got.gradient.data(), batch, size);

  SECTION("matrices") {
    rows const student = student_map;
    Eigen::Array<T, Dynamic, Dynamic, Eigen::RowMajor> const target = target_map;
    rows gradient(batch, size);
    evaluate(student, target, got.loss, gradient);
    gradient_map = gradient;
    CHECK(got == plain);
  }
  SECTION("maps") {
    evaluate(student_map, target_map, got.loss, gradient_map);
    CHECK(got == plain);
  }
  SECTION("references in a function's signature") {
    auto const call = [&got](Eigen::Ref<rows const> const& student,
                             Eigen::Ref<rows const> const& target, Eigen::Ref<rows> gradient) {
      evaluate(student, target, got.loss, gradient);
    };
    call(student_map, target_map, gradient_map);
    CHECK(got == plain);
  }
  SECTION("transposes of column-major matrices, one sample a column") {
    Eigen::Matrix<T, Dynamic, Dynamic> columns = student_map.transpose();
    Eigen::Matrix<T, Dynamic, Dynamic> gradient_columns(size, batch);
    auto const student = columns.transpose();
    auto gradient = gradient_columns.transpose();
    evaluate(student, target_map, got.loss, gradient);
    gradient_map = gradient;
    CHECK(got == plain);
  }
  SECTION("rows of a larger matrix, with gaps between the samples that stay as they are") {
    rows large = rows::Constant(batch, size + 3, 9);
    auto gradient = large.leftCols(size);
    evaluate(student_map, target_map, got.loss, gradient);
    gradient_map = gradient;
    CHECK(got == plain);
    CHECK(large.rightCols(3) == rows::Constant(batch, 3, 9));
  }
}

TEST_CASE("losses of single samples are written into a vector") {
  std::vector<double> const memory = numbers<double>(0);
  std::vector<double> const other = numbers<double>(1);
  Eigen::Map<row_major<double> const> const x(memory.data(), batch, size);
  Eigen::Map<row_major<double> const> const y(other.data(), batch, size);
  Eigen::Map<Eigen::VectorXd const> const t(times, batch);
  Eigen::VectorXd losses(batch);
  std::vector<double> plain(batch);
  auto const loss = addloss::distillation<>{}(addloss::rectified_flow{}, x, y, t);
  addloss::value<addloss::per_sample>(addloss::cpu_context{}, loss, losses);
  addloss::value<addloss::per_sample>(addloss::cpu_context{}, loss,
                                      addloss::view(plain.data(), batch));
  CHECK(losses == Eigen::Map<Eigen::VectorXd>(plain.data(), batch));
  CHECK(losses.minCoeff() > 0);
}

TEMPLATE_TEST_CASE("matrices of half types are losses' operands, and hold what is written", "",
                   addloss::half, addloss::bfloat16, Eigen::half, Eigen::bfloat16) {
  row_major<TestType> student(2, 3);
  student.fill(TestType(1.5F));
  row_major<TestType> const target = row_major<float>::Constant(2, 3, 0.5F).cast<TestType>();
  row_major<TestType> gradient(2, 3);
  double const t[2] = {0.5, 0.5};
  float loss = 0;
  addloss::value_and_grad(addloss::cpu_context{},
                          addloss::distillation<addloss::uniform>{}(
                              addloss::rectified_flow{}, student, target, addloss::view(t, 2)),
                          loss, gradient);
  CHECK(loss == 1);
  row_major<float> const widened = gradient.template cast<float>();
  CHECK(widened(1, 2) == Approx(1.0 / 3).epsilon(4e-3));
}
