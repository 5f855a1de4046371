// SPDX-License-Identifier: MIT
#include <addloss/reduce/destination.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>

#include "catch.hpp"

namespace {

using namespace addloss;
using addloss::detail::check_destination;
using addloss::detail::check_output;
using addloss::detail::loss_output;
using addloss::detail::loss_writer;

static_assert(std::constructible_from<destination<float>, float&>);
static_assert(std::constructible_from<destination<float>, tensor_view<float, 0>>);
static_assert(std::constructible_from<destination<float>, tensor_view<float, 1>>);
static_assert(std::constructible_from<destination<float>, std::vector<float>&>);
static_assert(std::constructible_from<destination<double>, sum_and_count<double>&>);
static_assert(
    std::constructible_from<destination<float, device_space>, tensor_view<float, 0, device_space>>);
static_assert(!std::constructible_from<destination<float>, float>);
static_assert(!std::constructible_from<destination<float>, float const&>);
static_assert(!std::constructible_from<destination<float>, double&>);
static_assert(!std::constructible_from<destination<float>, tensor_view<float, 2>>);
static_assert(!std::constructible_from<destination<float>, tensor_view<float const, 1>>);
static_assert(!std::constructible_from<destination<float>, tensor_view<float, 0, device_space>>);
static_assert(!std::constructible_from<destination<float>, std::vector<float>>);
static_assert(!std::constructible_from<destination<double>, sum_and_count<float>&>);
static_assert(!std::constructible_from<destination<double>, sum_and_count<double> const&>);
// The count is on the host, so a device's sum has none.
static_assert(!std::constructible_from<destination<double, device_space>, sum_and_count<double>&>);
static_assert(std::constructible_from<destination<double, device_space>, sum_and_count<double>*>);
static_assert(!std::constructible_from<destination<double>, sum_and_count<double>*>);

template <class T>
concept countable = requires { typename sum_and_count<T>; };
static_assert(countable<float> && countable<double> && !countable<half> && !countable<int>);

template <class Reduction>
std::string text_of(destination<double> const& out, std::int64_t count) {
  try {
    check_destination<Reduction>("f", "total", out, count);
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a destination is absent, a scalar, a tensor, or a sum and its count") {
  double scalar = 0;
  std::vector<double> samples(3);
  sum_and_count<double> totals;
  CHECK(destination<double>{}.absent());
  destination<double> const to_scalar = scalar;
  CHECK_FALSE(to_scalar.absent());
  CHECK(to_scalar.scalar == &scalar);
  CHECK(to_scalar.count == nullptr);
  destination<double> const to_view = tensor_view<double, 0>{&scalar, {}, {}};
  CHECK(to_view.scalar == &scalar);
  destination<double> const to_samples = samples;
  CHECK_FALSE(to_samples.absent());
  CHECK(to_samples.scalar == nullptr);
  CHECK(to_samples.samples.data == samples.data());
  CHECK(to_samples.samples.count == 3);
  destination<double> const to_totals = totals;
  CHECK_FALSE(to_totals.absent());
  CHECK(to_totals.scalar == &totals.sum);
  CHECK(to_totals.count == &totals.count);
  loss_output<double, host_space> output;
  CHECK(output.absent());
  output.total = scalar;
  CHECK_FALSE(output.absent());
  output = {};
  output.own = scalar;
  CHECK_FALSE(output.absent());
}

TEST_CASE("each reduction takes its own kind of destination") {
  double scalar = 0;
  std::vector<double> samples(3);
  sum_and_count<double> totals;
  CHECK(text_of<mean>({}, 3) == "no error");
  CHECK(text_of<per_sample>({}, 3) == "no error");
  CHECK(text_of<mean>(scalar, 3) == "no error");
  CHECK(text_of<sum>(scalar, 3) == "no error");
  CHECK(text_of<per_sample>(samples, 3) == "no error");
  CHECK(text_of<sum>(totals, 3) == "no error");

  std::string const scalar_wanted =
      "f: total (expected a scalar (the losses of single samples are per_sample), got [3])";
  CHECK(text_of<mean>(samples, 3) == scalar_wanted);
  CHECK(text_of<sum>(samples, 3) == scalar_wanted);
  CHECK(text_of<per_sample>(scalar, 3) ==
        "f: total (expected shape [3], one number a sample, got a scalar)");
  CHECK(text_of<per_sample>(totals, 3) ==
        "f: total (expected shape [3], one number a sample, got a scalar)");
  CHECK(text_of<mean>(totals, 3) ==
        "f: total (expected a scalar, got a sum_and_count, which the reduction sum writes)");
}

TEST_CASE("destinations that lead nowhere are refused") {
  std::string const null = "f: total (expected memory, got a null pointer)";
  CHECK(text_of<mean>(tensor_view<double, 0>{}, 3) == null);
  CHECK(text_of<sum>(tensor_view<double, 0>{}, 3) == null);
  CHECK(text_of<per_sample>(view(static_cast<double*>(nullptr), 3), 3) == null);
}

TEST_CASE("losses of samples have a place each") {
  std::vector<double> samples(6);
  CHECK(text_of<per_sample>(view(samples.data(), 2), 3) ==
        "f: total (expected shape [3], one number a sample, got [2])");
  CHECK(text_of<per_sample>(view(samples.data(), 0), 3) ==
        "f: total (expected a batch of at least one sample, got [0])");
  auto strided = view(samples.data(), 3);
  strided.strides[0] = 2;
  CHECK(text_of<per_sample>(strided, 3) == "no error");
  strided.strides[0] = 0;
  CHECK(text_of<per_sample>(strided, 3) ==
        "f: total (expected samples at least 1 elements apart, as they are written, got stride 0 "
        "on axis 0)");
}

TEST_CASE("a term goes to its own place, and weighted to the total") {
  double own = -9;
  double total = 100;
  std::int64_t bad = 5;
  loss_output<double, host_space> output{own, "value", total, 0.5, false};
  auto const first = check_output<mean>("f", output, 4, &bad);
  CHECK(first.factor == 0.25);
  first.write(8, 2);
  CHECK(own == 2);
  CHECK(total == 1);
  CHECK(bad == 2);
  // A second term adds to the total and to the count, not to its own place.
  output.adds = true;
  output.weight = 3;
  check_output<mean>("f", output, 4, &bad).write(8, 1);
  CHECK(own == 2);
  CHECK(total == 7);
  CHECK(bad == 3);
}

TEST_CASE("the losses of samples: the first share overwrites, later ones add") {
  double own[4] = {-9, -9, -9, -9};
  double total[2] = {100, 100};
  auto strided = view(own, 2);
  strided.strides[0] = 2;
  loss_output<double, host_space> output{strided, "value", view(total, 2), 0.5, false};
  auto const first = check_output<per_sample>("f", output, 2, nullptr);
  CHECK(first.factor == 1);
  first.write_sample(1, true, 4);
  first.write_sample(1, false, 6);
  CHECK(own[2] == 10);
  CHECK(total[1] == 5);
  first.write_sample(0, true, 1);
  CHECK(own[0] == 1);
  CHECK(total[0] == 0.5);
  CHECK(own[1] == -9);
  CHECK(own[3] == -9);
  // Another term: its own place begins anew, the total goes on.
  output.adds = true;
  auto const second = check_output<per_sample>("f", output, 2, nullptr);
  second.write_sample(1, true, 2);
  CHECK(own[2] == 2);
  CHECK(total[1] == 6);
  // The batch has no value of its own.
  second.write(77, 0);
  CHECK(own[2] == 2);
  CHECK(total[1] == 6);
}

TEST_CASE("a sum comes with the size of its batch") {
  sum_and_count<double> own{-1, -1};
  sum_and_count<double> total{-1, -1};
  check_output<sum>("f", loss_output<double, host_space>{own, "value", total, 2, false}, 7, nullptr)
      .write(10, 0);
  CHECK(own.sum == 10);
  CHECK(own.count == 7);
  CHECK(total.sum == 20);
  CHECK(total.count == 7);
}

TEST_CASE("both destinations are checked, each by its name") {
  std::vector<double> samples(3);
  double scalar = 0;
  auto const text = [](loss_output<double, host_space> const& output) -> std::string {
    try {
      check_output<mean>("f", output, 3, nullptr);
    } catch (error const& e) {
      return e.what();
    }
    return "no error";
  };
  std::string const wanted =
      " (expected a scalar (the losses of single samples are per_sample), got [3])";
  CHECK(text({samples, "penalty", scalar}) == "f: penalty" + wanted);
  CHECK(text({scalar, "penalty", samples}) == "f: total" + wanted);
}

TEST_CASE("a float keeps infinity and NaN of a loss") {
  float value = 0;
  loss_writer<float> writer;
  writer.scalar = &value;
  writer.write(1e300, 0);
  CHECK(std::isinf(value));
  writer.write(std::numeric_limits<double>::quiet_NaN(), 0);
  CHECK(std::isnan(value));
}

TEST_CASE("upstream gradients of samples, the loss scale and a term's weight multiply") {
  float const memory[] = {3, -1, 0.5F, -1};
  auto strided = view(memory, 2);
  strided.strides[0] = 2;
  auto const scale = detail::check_upstream<float, host_space>("f", strided, 4, 3, 2);
  CHECK(scale.at(0) == 36);
  CHECK(scale.at(1) == 6);
  auto const none = detail::check_upstream<float, host_space>("f", {}, 4, 3, 2);
  CHECK(none.at(1) == 12);
  std::string text;
  try {
    detail::check_upstream<float, host_space>("f", strided, 4, 1, 3);
  } catch (error const& e) {
    text = e.what();
  }
  CHECK(text == "f: upstream (expected shape [3], one number a sample, got [2])");
}
