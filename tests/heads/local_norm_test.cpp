// SPDX-License-Identifier: MIT
// The derivatives are compared with finite differences in sequence_test.cpp.
#include <addloss/heads/local_norm.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

using namespace addloss;

static_assert(layer<local_norm, float>);
static_assert(layer<local_norm, double>);
static_assert(!layer<int, double>);

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

template <class T>
numbers<T> forward(local_norm const& norm, feature_shape shape, numbers<T> const& w,
                   numbers<T> const& x) {
  numbers<T> y(x.size(), std::numeric_limits<T>::quiet_NaN());
  numbers<T> saved(static_cast<std::size_t>(norm.saved_size(shape)));
  norm.forward(cpu_context{}, w.data(), shape, x.data(), y.data(), saved.data(),
               static_cast<T*>(nullptr));
  return y;
}

/// The definition, in double, with a loop over the samples of the sample's own group.
template <class T>
numbers<double> oracle(local_norm const& norm, feature_shape shape, numbers<T> const& w,
                       numbers<T> const& x) {
  auto const [batch, channels, length] = shape;
  std::int64_t const groups = static_cast<std::int64_t>(
      std::ceil(static_cast<double>(batch) / static_cast<double>(norm.virtual_batch)));
  std::int64_t const samples = batch / groups;
  auto const at = [&, channel_count = channels, row = length](std::int64_t b, std::int64_t c,
                                                              std::int64_t l) {
    return static_cast<std::size_t>((b * channel_count + c) * row + l);
  };
  numbers<double> y(x.size());
  for (std::int64_t b = 0; b < batch; ++b) {
    std::int64_t const first = b - b % samples;
    for (std::int64_t c = 0; c < channels; ++c) {
      auto const count = static_cast<double>(samples * length);
      double mean = 0;
      double variance = 0;
      for (std::int64_t i = first; i < first + samples; ++i) {
        for (std::int64_t l = 0; l < length; ++l) {
          mean += static_cast<double>(x[at(i, c, l)]) / count;
        }
      }
      for (std::int64_t i = first; i < first + samples; ++i) {
        for (std::int64_t l = 0; l < length; ++l) {
          variance += std::pow(static_cast<double>(x[at(i, c, l)]) - mean, 2) / count;
        }
      }
      for (std::int64_t l = 0; l < length; ++l) {
        y[at(b, c, l)] = static_cast<double>(w[static_cast<std::size_t>(c)]) *
                             (static_cast<double>(x[at(b, c, l)]) - mean) /
                             std::sqrt(variance + norm.epsilon) +
                         static_cast<double>(w[static_cast<std::size_t>(channels + c)]);
      }
    }
  }
  return y;
}

template <class T>
double worst(numbers<T> const& got, numbers<double> const& expected) {
  double result = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    double const difference = std::abs(static_cast<double>(got[n]) - expected[n]);
    if (!(difference <= result)) result = difference;
  }
  return result;
}

std::string error_of(local_norm const& norm, feature_shape shape) {
  try {
    static_cast<void>(norm.output_shape("head", shape));
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("local_norm equals its definition") {
  struct {
    local_norm norm;
    feature_shape shape;
    std::int64_t groups;
  } const cases[] = {
      {{3}, {1, 3, 5}, 1},         {{2}, {4, 2, 1}, 1},  {{3, 2}, {4, 3, 7}, 2},
      {{2, 4}, {6, 2, 19}, 2},     {{5}, {16, 5, 8}, 2}, {{1, 1}, {3, 1, 33}, 3},
      {{3, 8, 0.5}, {8, 3, 3}, 1}, {{1}, {1, 1, 1}, 1},
  };
  for (auto const& [norm, shape, groups] : cases) {
    REQUIRE(norm.output_shape("f", shape) == shape);
    CHECK(norm.groups(shape) == groups);
    CHECK(norm.saved_size(shape) == 2 * groups * shape.channels);
    auto const w = some<double>(norm.parameter_count(), 1);
    auto const x = some<double>(shape.size(), 2);
    CHECK(worst(forward(norm, shape, w, x), oracle(norm, shape, w, x)) < 1e-13);
    auto const w_float = some<float>(norm.parameter_count(), 1);
    auto const x_float = some<float>(shape.size(), 2);
    CHECK(worst(forward(norm, shape, w_float, x_float), oracle(norm, shape, w_float, x_float)) <
          1e-6);
  }
}

TEST_CASE("local_norm names its parameters") {
  local_norm const norm{7};
  CHECK(norm.parameter_count() == 14);
  REQUIRE(norm.parameters() == 2);
  CHECK(std::string(norm.parameter(0).name) == "weight");
  CHECK(std::string(norm.parameter(1).name) == "bias");
  CHECK(norm.parameter(0).offset == 0);
  CHECK(norm.parameter(1).offset == 7);
  for (int i = 0; i < 2; ++i) {
    CHECK(norm.parameter(i).rank == 1);
    CHECK(norm.parameter(i).size() == 7);
  }
}

TEST_CASE("local_norm of a constant is the bias") {
  feature_shape const shape{3, 2, 7};
  local_norm const norm{2};
  auto const check = [&]<class T>(T constant) {
    auto const w = some<T>(4, 1);
    auto const y = forward(norm, shape, w, numbers<T>(42, constant));
    for (std::size_t n = 0; n < y.size(); ++n) REQUIRE(y[n] == w[2 + n / 7 % 2]);
  };
  check(0.1);
  check(0.1F);
  check(-1e30F);
  check(1e5 / 3);
}

TEST_CASE("local_norm of a single element is the bias") {
  auto const w = some<double>(6, 1);
  auto const y = forward(local_norm{3}, {1, 3, 1}, w, some<double>(3, 2));
  CHECK(y == numbers<double>(w.begin() + 3, w.end()));
}

TEST_CASE("local_norm keeps its precision at a large mean") {
  feature_shape const shape{8, 1, 1000};
  local_norm const norm{1};
  numbers<float> const w = {1, 0};
  auto x = some<float>(shape.size(), 2);
  for (float& number : x) number += 4096;
  // Up to the mean's own rounding to float.
  CHECK(worst(forward(norm, shape, w, x), oracle(norm, shape, w, x)) < 4096 * 1.5e-7);
}

TEST_CASE("NaN and infinity in local_norm stay in their group and channel") {
  feature_shape const shape{4, 3, 6};
  local_norm const norm{3, 2};
  auto const w = some<double>(6, 1);
  auto const g = some<double>(shape.size(), 4);
  for (double const bad : {std::nan(""), double{INFINITY}}) {
    for (std::int64_t const batch : {2, 3}) {
      auto x = some<double>(shape.size(), 2);
      x[static_cast<std::size_t>((batch * 3 + 1) * 6 + 5)] = bad;
      numbers<double> y(x.size());
      numbers<double> x_bar(x.size());
      numbers<double> w_bar(6);
      numbers<double> saved(static_cast<std::size_t>(norm.saved_size(shape)));
      norm.forward(cpu_context{}, w.data(), shape, x.data(), y.data(), saved.data(),
                   static_cast<double*>(nullptr));
      norm.backward(cpu_context{}, w.data(), shape, x.data(), saved.data(), g.data(), x_bar.data(),
                    w_bar.data(), static_cast<double*>(nullptr));
      for (std::size_t n = 0; n < x.size(); ++n) {
        bool const touched = n >= 36 && n / 6 % 3 == 1;
        REQUIRE(std::isnan(y[n]) == touched);
        REQUIRE(std::isnan(x_bar[n]) == touched);
      }
      for (std::size_t n = 0; n < 6; ++n) REQUIRE(std::isnan(w_bar[n]) == (n == 1));
    }
  }
}

TEST_CASE("local_norm of nothing does nothing") {
  for (feature_shape const shape : {feature_shape{0, 2, 5}, feature_shape{2, 2, 0}}) {
    local_norm const norm{2};
    REQUIRE(norm.output_shape("f", shape) == shape);
    CHECK(forward(norm, shape, some<float>(4, 1), {}).empty());
  }
  CHECK(local_norm{2}.saved_size({0, 2, 5}) == 0);
}

TEST_CASE("local_norm refuses what it cannot split") {
  CHECK(error_of({3}, {2, 4, 5}) == "head: x (expected 3 channels, got 4)");
  CHECK(error_of({3}, {9, 3, 5}) ==
        "head: x (expected a batch that its 2 groups of at most 8 samples divide, got a batch of "
        "9)");
  CHECK(error_of({3, 4}, {10, 3, 5}) ==
        "head: x (expected a batch that its 3 groups of at most 4 samples divide, got a batch of "
        "10)");
  CHECK(error_of({3, 0}, {2, 3, 5}) == "head: virtual_batch (expected at least 1, got 0)");
  CHECK(error_of({3, 8, 0}, {2, 3, 5}) == "head: epsilon (expected a positive number, got 0)");
  CHECK(error_of({3, 8, NAN}, {2, 3, 5}).starts_with("head: epsilon"));
  CHECK(error_of({3, 8, INFINITY}, {2, 3, 5}).starts_with("head: epsilon"));
  CHECK(error_of({3}, {12, 3, 5}) == "no error");
}
