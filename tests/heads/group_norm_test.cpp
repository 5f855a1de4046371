// SPDX-License-Identifier: MIT
// The derivatives are compared with finite differences in sequence_test.cpp.
#include <addloss/heads/group_norm.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

using namespace addloss;

static_assert(layer<group_norm, float>);
static_assert(layer<group_norm, double>);

template <class T>
using numbers = std::vector<T>;

template <class T>
numbers<T> some(std::int64_t size, int seed) {
  numbers<T> x(static_cast<std::size_t>(size));
  for (std::size_t n = 0; n < x.size(); ++n) {
    x[n] = static_cast<T>(std::sin(1.7 * static_cast<double>(n) + 0.9 * seed));
  }
  return x;
}

template <class Norm, class T>
numbers<T> forward(Norm const& norm, feature_shape shape, numbers<T> const& w,
                   numbers<T> const& x) {
  numbers<T> y(x.size(), std::numeric_limits<T>::quiet_NaN());
  numbers<T> saved(static_cast<std::size_t>(norm.saved_size(shape)));
  norm.forward(cpu_context{}, w.data(), shape, x.data(), y.data(), saved.data(),
               static_cast<T*>(nullptr));
  return y;
}

/// A group's elements lie together: the definition is about consecutive numbers.
template <class T>
double worst(group_norm const& norm, feature_shape shape) {
  auto const w = some<T>(norm.parameter_count(), 1);
  auto const x = some<T>(shape.size(), 2);
  auto const y = forward(norm, shape, w, x);
  auto const length = static_cast<std::size_t>(shape.length);
  auto const channels = static_cast<std::size_t>(shape.channels);
  std::size_t const size = channels / static_cast<std::size_t>(norm.groups) * length;
  double result = 0;
  for (std::size_t first = 0; first < x.size(); first += size) {
    double mean = 0;
    double variance = 0;
    for (std::size_t n = first; n < first + size; ++n) {
      mean += static_cast<double>(x[n]) / static_cast<double>(size);
    }
    for (std::size_t n = first; n < first + size; ++n) {
      variance += std::pow(static_cast<double>(x[n]) - mean, 2) / static_cast<double>(size);
    }
    for (std::size_t n = first; n < first + size; ++n) {
      std::size_t const c = n / length % channels;
      double const expected = static_cast<double>(w[c]) * (static_cast<double>(x[n]) - mean) /
                                  std::sqrt(variance + norm.epsilon) +
                              static_cast<double>(w[channels + c]);
      double const difference = std::abs(static_cast<double>(y[n]) - expected);
      if (!(difference <= result)) result = difference;
    }
  }
  return result;
}

std::string error_of(group_norm const& norm, feature_shape shape) {
  try {
    static_cast<void>(norm.output_shape("head", shape));
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("group_norm equals its definition") {
  struct {
    group_norm norm;
    feature_shape shape;
  } const cases[] = {
      {{6, 3}, {2, 6, 5}}, {{4, 1}, {3, 4, 9}}, {{4, 4}, {1, 4, 17}},
      {{4, 2}, {2, 4, 1}}, {{1, 1}, {1, 1, 1}}, {{64}, {2, 64, 3}},
  };
  for (auto const& [norm, shape] : cases) {
    REQUIRE(norm.output_shape("f", shape) == shape);
    CHECK(norm.saved_size(shape) == 2 * shape.batch * norm.groups);
    CHECK(worst<double>(norm, shape) < 1e-13);
    CHECK(worst<float>(norm, shape) < 1e-6);
  }
}

TEST_CASE("group_norm with a channel in each group is local_norm with a sample in each") {
  feature_shape const shape{3, 5, 11};
  auto const w = some<double>(10, 1);
  auto const x = some<double>(shape.size(), 2);
  CHECK(forward(group_norm{5, 5}, shape, w, x) == forward(local_norm{5, 1}, shape, w, x));
}

TEST_CASE("group_norm of a constant is the bias") {
  auto const w = some<float>(8, 1);
  auto const y = forward(group_norm{4, 2}, {2, 4, 7}, w, numbers<float>(56, 0.1F));
  for (std::size_t n = 0; n < y.size(); ++n) REQUIRE(y[n] == w[4 + n / 7 % 4]);
}

TEST_CASE("NaN in group_norm stays in its sample and group") {
  auto x = some<double>(2 * 4 * 6, 2);
  x[37] = std::nan("");
  auto const y = forward(group_norm{4, 2}, {2, 4, 6}, some<double>(8, 1), x);
  for (std::size_t n = 0; n < y.size(); ++n) REQUIRE(std::isnan(y[n]) == (n >= 36));
}

TEST_CASE("group_norm refuses what it cannot split") {
  CHECK(error_of({4, 2}, {2, 3, 5}) == "head: x (expected 4 channels, got 3)");
  CHECK(error_of({4, 3}, {2, 4, 5}) ==
        "head: groups (expected a divisor of the 4 channels, got 3)");
  CHECK(error_of({4, 0}, {2, 4, 5}) ==
        "head: groups (expected a divisor of the 4 channels, got 0)");
  CHECK(error_of({4, 2, -1}, {2, 4, 5}) == "head: epsilon (expected a positive number, got -1)");
  CHECK(error_of({4, 2}, {0, 4, 5}) == "no error");
}
