// SPDX-License-Identifier: MIT
#include <addloss/heads/conv1d.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;
using testing::gradcheck;

static_assert(layer<conv1d<float>, float>);
static_assert(layer<conv1d<double>, double>);
static_assert(!layer<conv1d<float>, double>);
static_assert(!layer<int, float>);

template <class T>
using numbers = std::vector<T>;

/// Numbers of both signs below 1 in no order, so that long sums do not cancel.
template <class T>
numbers<T> some(std::int64_t size, unsigned seed) {
  numbers<T> x(static_cast<std::size_t>(size));
  std::minstd_rand random(seed);
  for (T& number : x) {
    number = static_cast<T>(2 * static_cast<double>(random()) / std::minstd_rand::max() - 1);
  }
  return x;
}

/// Memory of a layer: filled with NaN, so what is read before it is written shows.
template <class T>
numbers<T> blank(std::int64_t size) {
  return numbers<T>(static_cast<std::size_t>(size), std::numeric_limits<T>::quiet_NaN());
}

struct test_case {
  std::int64_t batch, in, out, length;
  int kernel;
  [[nodiscard]] feature_shape shape() const { return {batch, in, length}; }
  [[nodiscard]] feature_shape y_shape() const { return {batch, out, length}; }
};

constexpr test_case cases[] = {
    {1, 1, 1, 1, 1},   {1, 1, 1, 1, 9},   {2, 3, 2, 2, 9},     {3, 2, 5, 4, 9},    {2, 5, 3, 7, 3},
    {1, 8, 16, 48, 1}, {1, 7, 9, 49, 3},  {3, 13, 11, 37, 1},  {2, 17, 10, 53, 9}, {5, 3, 4, 1, 3},
    {70, 2, 3, 1, 1},  {1, 200, 5, 5, 1}, {2, 45, 19, 150, 9}, {4, 50, 65, 29, 3}, {0, 2, 3, 4, 3},
};

/// Everything the four computations read and, in double, what they should give.
template <class T>
struct example {
  test_case size;
  conv1d<T> layer;
  numbers<T> w, x, x_dot, y_bar, y_dot_bar, w_before;

  explicit example(test_case const& s)
      : size(s),
        layer{s.in, s.out, s.kernel},
        w(some<T>(layer.parameter_count(), 1)),
        x(some<T>(s.shape().size(), 2)),
        x_dot(some<T>(s.shape().size(), 3)),
        y_bar(some<T>(s.y_shape().size(), 4)),
        y_dot_bar(some<T>(s.y_shape().size(), 5)),
        w_before(some<T>(layer.parameter_count(), 6)) {}

  [[nodiscard]] numbers<T> workspace() const {
    return blank<T>(layer.workspace_size(size.shape()));
  }

  /// visit(index of w, of x, of y) for each product of the sum.
  template <class Visit>
  void each_product(Visit const& visit) const {
    auto const [batch, in, out, length, kernel] = size;
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t o = 0; o < out; ++o) {
        for (std::int64_t l = 0; l < length; ++l) {
          for (std::int64_t i = 0; i < in; ++i) {
            for (std::int64_t t = 0; t < kernel; ++t) {
              std::int64_t m = l + t - kernel / 2;
              while (m < 0) m += length;
              while (m >= length) m -= length;
              visit(static_cast<std::size_t>((o * in + i) * kernel + t),
                    static_cast<std::size_t>((b * in + i) * length + m),
                    static_cast<std::size_t>((b * out + o) * length + l));
            }
          }
        }
      }
    }
  }
  [[nodiscard]] numbers<double> y(numbers<T> const& of, bool bias) const {
    numbers<double> result(y_bar.size());
    for (std::size_t n = 0; bias && n < result.size(); ++n) result[n] = bias_at(n);
    each_product([&](auto k, auto m, auto n) { result[n] += double(w[k]) * double(of[m]); });
    return result;
  }
  [[nodiscard]] numbers<double> x_gradient(numbers<T> const& of) const {
    numbers<double> result(x.size());
    each_product([&](auto k, auto m, auto n) { result[m] += double(w[k]) * double(of[n]); });
    return result;
  }
  [[nodiscard]] numbers<double> w_gradient(bool both) const {
    numbers<double> result(w_before.begin(), w_before.end());
    each_product([&](auto k, auto m, auto n) {
      result[k] += double(y_bar[n]) * double(x[m]);
      if (both) result[k] += double(y_dot_bar[n]) * double(x_dot[m]);
    });
    for (std::size_t n = 0; n < y_bar.size(); ++n) {
      result[bias_index(n)] += static_cast<double>(y_bar[n]);
    }
    return result;
  }

 private:
  [[nodiscard]] std::size_t bias_index(std::size_t n) const {
    auto const channel = static_cast<std::int64_t>(n) / size.length % size.out;
    return static_cast<std::size_t>(layer.parameter(1).offset + channel);
  }
  [[nodiscard]] double bias_at(std::size_t n) const {
    return static_cast<double>(w[bias_index(n)]);
  }
};

/// Relative to the largest number that is expected, and to 1.
template <class T>
double error_of(numbers<T> const& got, numbers<double> const& expected) {
  REQUIRE(got.size() == expected.size());
  double error = 0;
  double largest = 1;
  for (std::size_t n = 0; n < got.size(); ++n) {
    double const difference = std::abs(static_cast<double>(got[n]) - expected[n]);
    error = difference <= error ? error : difference;  // NaN is kept
    largest = std::fmax(largest, std::abs(expected[n]));
  }
  return error / largest;
}

template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 2e-6 : 4e-15;

template <class T>
struct results {
  numbers<T> y, x_bar, w_bar, y_dot, both_x_bar, both_x_dot_bar, both_w_bar;
  bool operator==(results const&) const = default;
};

template <class T>
results<T> all_of(example<T> const& e, int threads) {
  cpu_context const ctx{.threads = threads};
  auto const shape = e.size.shape();
  results<T> r{blank<T>(e.size.y_shape().size()),
               blank<T>(shape.size()),
               e.w_before,
               blank<T>(e.size.y_shape().size()),
               blank<T>(shape.size()),
               blank<T>(shape.size()),
               e.w_before};
  T* const saved = nullptr;
  auto const w = e.w.data();
  auto const x = e.x.data();
  auto const x_dot = e.x_dot.data();
  e.layer.forward(ctx, w, shape, x, r.y.data(), saved, e.workspace().data());
  e.layer.backward(ctx, w, shape, x, saved, e.y_bar.data(), r.x_bar.data(), r.w_bar.data(),
                   e.workspace().data());
  e.layer.tangent(ctx, w, shape, x, saved, x_dot, r.y_dot.data(), e.workspace().data());
  e.layer.tangent_backward(ctx, w, shape, x, saved, x_dot, e.y_bar.data(), e.y_dot_bar.data(),
                           r.both_x_bar.data(), r.both_x_dot_bar.data(), r.both_w_bar.data(),
                           e.workspace().data());
  return r;
}

}  // namespace

TEMPLATE_TEST_CASE("conv1d is the sum that its formula says", "", float, double) {
  for (auto const& size : cases) {
    CAPTURE(size.batch, size.in, size.out, size.length, size.kernel);
    example<TestType> const e(size);
    auto const r = all_of(e, 1);
    CHECK(error_of(r.y, e.y(e.x, true)) <= tolerance<TestType>);
    CHECK(error_of(r.y_dot, e.y(e.x_dot, false)) <= tolerance<TestType>);
    CHECK(error_of(r.x_bar, e.x_gradient(e.y_bar)) <= tolerance<TestType>);
    CHECK(error_of(r.w_bar, e.w_gradient(false)) <= tolerance<TestType>);
    CHECK(r.both_x_bar == r.x_bar);
    CHECK(error_of(r.both_x_dot_bar, e.x_gradient(e.y_dot_bar)) <= tolerance<TestType>);
    CHECK(error_of(r.both_w_bar, e.w_gradient(true)) <= tolerance<TestType>);
  }
}

TEMPLATE_TEST_CASE("conv1d gives the same bits on any number of threads", "", float, double) {
  for (test_case const size :
       {test_case{8, 96, 70, 61, 1}, test_case{2, 45, 19, 150, 9}, test_case{1, 64, 64, 97, 3}}) {
    example<TestType> const e(size);
    auto const one = all_of(e, 1);
    for (int const threads : {2, 3, 7}) CHECK(all_of(e, threads) == one);
  }
}

TEMPLATE_TEST_CASE("conv1d computes a sample as it does alone", "", float, double) {
  example<TestType> const e({3, 20, 9, 31, 9});
  auto const all = all_of(e, 1).y;
  feature_shape const one{1, 20, 31};
  auto const size = static_cast<std::size_t>(9 * 31);
  for (std::size_t b = 0; b < 3; ++b) {
    auto y = blank<TestType>(9 * 31);
    e.layer.forward({}, e.w.data(), one, e.x.data() + b * 20 * 31, y.data(), nullptr,
                    e.workspace().data());
    CHECK(y == numbers<TestType>(all.data() + b * size, all.data() + (b + 1) * size));
  }
}

TEST_CASE("conv1d does not compute an output that is null") {
  example<double> const e({2, 5, 3, 7, 3});
  auto const all = all_of(e, 1);
  auto const shape = e.size.shape();
  for (int mask = 0; mask < 8; ++mask) {
    auto x_bar = blank<double>(shape.size());
    auto x_dot_bar = blank<double>(shape.size());
    auto w_bar = e.w_before;
    e.layer.tangent_backward({}, e.w.data(), shape, e.x.data(), nullptr, e.x_dot.data(),
                             e.y_bar.data(), e.y_dot_bar.data(), mask & 1 ? x_bar.data() : nullptr,
                             mask & 2 ? x_dot_bar.data() : nullptr,
                             mask & 4 ? w_bar.data() : nullptr, e.workspace().data());
    if (mask & 1) CHECK(x_bar == all.both_x_bar);
    if (mask & 2) CHECK(x_dot_bar == all.both_x_dot_bar);
    if (mask & 4) CHECK(w_bar == all.both_w_bar);
  }
  auto x_bar = blank<double>(shape.size());
  auto w_bar = e.w_before;
  e.layer.backward({}, e.w.data(), shape, e.x.data(), nullptr, e.y_bar.data(), x_bar.data(),
                   nullptr, e.workspace().data());
  e.layer.backward({}, e.w.data(), shape, e.x.data(), nullptr, e.y_bar.data(), nullptr,
                   w_bar.data(), e.workspace().data());
  CHECK(x_bar == all.x_bar);
  CHECK(w_bar == all.w_bar);
}

TEST_CASE("conv1d writes no memory but its outputs and its workspace") {
  example<float> const e({2, 13, 9, 29, 3});
  constexpr float guard = 123.5F;
  auto const around = [&](std::int64_t size) {
    return numbers<float>(static_cast<std::size_t>(size) + 16, guard);
  };
  auto const intact = [&](numbers<float> const& memory) {
    bool result = true;
    for (std::size_t n = 0; n < 8; ++n) {
      result &= memory[n] == guard && memory[memory.size() - 1 - n] == guard;
    }
    return result;
  };
  auto const shape = e.size.shape();
  auto workspace = around(e.layer.workspace_size(shape));
  auto y = around(e.size.y_shape().size());
  auto x_bar = around(shape.size());
  auto w_bar = around(e.layer.parameter_count());
  e.layer.forward({}, e.w.data(), shape, e.x.data(), y.data() + 8, nullptr, workspace.data() + 8);
  e.layer.backward({}, e.w.data(), shape, e.x.data(), nullptr, e.y_bar.data(), x_bar.data() + 8,
                   w_bar.data() + 8, workspace.data() + 8);
  CHECK(intact(y));
  CHECK(intact(x_bar));
  CHECK(intact(w_bar));
  CHECK(intact(workspace));
}

TEST_CASE("conv1d lets NaN and infinity reach what depends on them and nothing else") {
  example<float> e({1, 3, 2, 40, 3});
  e.x[40 + 7] = std::numeric_limits<float>::quiet_NaN();
  auto const y = all_of(e, 1).y;
  for (std::size_t n = 0; n < y.size(); ++n) {
    CHECK(std::isnan(y[n]) == (n % 40 >= 6 && n % 40 <= 8));
  }
}

TEST_CASE("conv1d's gradients pass finite differences") {
  // f(x, w) = sum_n c_n y_n^2 / 2, so y_bar_n = c_n y_n.
  for (test_case const size : {test_case{2, 3, 2, 5, 3}, test_case{2, 2, 3, 4, 9}}) {
    example<double> e(size);
    auto const shape = size.shape();
    auto const y_at = [&](double const* x, double const* w) {
      auto y = blank<double>(size.y_shape().size());
      e.layer.forward({}, w, shape, x, y.data(), nullptr, e.workspace().data());
      return y;
    };
    auto const value = [&](double const* x, double const* w) {
      auto const y = y_at(x, w);
      double f = 0;
      for (std::size_t n = 0; n < y.size(); ++n) f += e.y_bar[n] * y[n] * y[n] / 2;
      return f;
    };
    auto y_bar = y_at(e.x.data(), e.w.data());
    for (std::size_t n = 0; n < y_bar.size(); ++n) y_bar[n] *= e.y_bar[n];
    auto x_bar = blank<double>(shape.size());
    numbers<double> w_bar(e.w.size());
    e.layer.backward({}, e.w.data(), shape, e.x.data(), nullptr, y_bar.data(), x_bar.data(),
                     w_bar.data(), e.workspace().data());
    auto x = e.x;
    auto w = e.w;
    CHECK(
        gradcheck([&](std::span<double const> at) { return value(at.data(), w.data()); }, x, x_bar)
            .passed);
    CHECK(
        gradcheck([&](std::span<double const> at) { return value(x.data(), at.data()); }, w, w_bar)
            .passed);
  }
}

TEST_CASE("conv1d's second derivatives pass finite differences") {
  // f = sum_n c_n y_n^2 / 2 + d_n y_n y_dot_n, y_dot = (dy/dx) x_dot.
  for (test_case const size : {test_case{2, 3, 2, 5, 3}, test_case{2, 2, 3, 4, 9}}) {
    example<double> e(size);
    auto const shape = size.shape();
    auto const outputs = [&](double const* x, double const* x_dot, double const* w, auto& y,
                             auto& y_dot) {
      e.layer.forward({}, w, shape, x, y.data(), nullptr, e.workspace().data());
      e.layer.tangent({}, w, shape, x, nullptr, x_dot, y_dot.data(), e.workspace().data());
    };
    auto const value = [&](double const* x, double const* x_dot, double const* w) {
      auto y = blank<double>(size.y_shape().size());
      auto y_dot = y;
      outputs(x, x_dot, w, y, y_dot);
      double f = 0;
      for (std::size_t n = 0; n < y.size(); ++n) {
        f += e.y_bar[n] * y[n] * y[n] / 2 + e.y_dot_bar[n] * y[n] * y_dot[n];
      }
      return f;
    };
    auto y = blank<double>(size.y_shape().size());
    auto y_dot = y;
    outputs(e.x.data(), e.x_dot.data(), e.w.data(), y, y_dot);
    auto y_bar = y;
    auto y_dot_bar = y;
    for (std::size_t n = 0; n < y.size(); ++n) {
      y_bar[n] = e.y_bar[n] * y[n] + e.y_dot_bar[n] * y_dot[n];
      y_dot_bar[n] = e.y_dot_bar[n] * y[n];
    }
    auto x_bar = blank<double>(shape.size());
    auto x_dot_bar = x_bar;
    numbers<double> w_bar(e.w.size());
    e.layer.tangent_backward({}, e.w.data(), shape, e.x.data(), nullptr, e.x_dot.data(),
                             y_bar.data(), y_dot_bar.data(), x_bar.data(), x_dot_bar.data(),
                             w_bar.data(), e.workspace().data());
    auto x = e.x;
    auto x_dot = e.x_dot;
    auto w = e.w;
    using point = std::span<double const>;
    CHECK(gradcheck([&](point at) { return value(at.data(), x_dot.data(), w.data()); }, x, x_bar)
              .passed);
    CHECK(
        gradcheck([&](point at) { return value(x.data(), at.data(), w.data()); }, x_dot, x_dot_bar)
            .passed);
    CHECK(gradcheck([&](point at) { return value(x.data(), x_dot.data(), at.data()); }, w, w_bar)
              .passed);
  }
}

TEST_CASE("conv1d names its parameters") {
  conv1d<float> const c{6, 4, 9};
  CHECK(c.parameter_count() == 4 * 6 * 9 + 4);
  REQUIRE(c.parameters() == 2);
  CHECK(std::string(c.parameter(0).name) == "weight");
  CHECK(c.parameter(0).offset == 0);
  CHECK(c.parameter(0).rank == 3);
  CHECK(c.parameter(0).size() == 4 * 6 * 9);
  CHECK(std::string(c.parameter(1).name) == "bias");
  CHECK(c.parameter(1).offset == 4 * 6 * 9);
  CHECK(c.parameter(1).rank == 1);
  CHECK(c.parameter(1).size() == 4);
  CHECK(c.saved_size({2, 6, 5}) == 0);
  CHECK(c.output_shape("f", {2, 6, 5}) == feature_shape{2, 4, 5});
  CHECK(c.output_shape("f", {0, 6, 5}) == feature_shape{0, 4, 5});
}

TEST_CASE("conv1d refuses shapes that do not fit") {
  auto const message = [](conv1d<float> const& c, feature_shape shape) {
    return error_of([&] { (void)c.output_shape("forward", shape); });
  };
  CHECK(message({2, 3, 4}, {1, 2, 5}) ==
        "forward: kernel (expected an odd number of at least 1, got 4)");
  CHECK(message({2, 3, -1}, {1, 2, 5}) ==
        "forward: kernel (expected an odd number of at least 1, got -1)");
  CHECK(message({0, 3, 1}, {1, 0, 5}) == "forward: in_channels (expected at least 1, got 0)");
  CHECK(message({2, 0, 1}, {1, 2, 5}) == "forward: out_channels (expected at least 1, got 0)");
  CHECK(message({2, 3, 1}, {-1, 2, 5}) == "forward: batch (expected at least 0, got -1)");
  CHECK(message({2, 3, 1}, {1, 4, 5}) == "forward: channels (expected 2, got 4)");
  CHECK(message({2, 3, 1}, {1, 2, 0}) == "forward: length (expected at least 1, got 0)");
}
