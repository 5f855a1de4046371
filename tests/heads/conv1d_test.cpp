// SPDX-License-Identifier: MIT
#include <addloss/heads/conv1d.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/check_layer.hpp"

namespace {

using namespace addloss;
using layer_checks::guarded;
using layer_checks::numbers;
using layer_checks::pass_gradients;
using layer_checks::pass_results;
using layer_checks::passes;
using method = convolution_method;

static_assert(layer<conv1d<float>, float>);
static_assert(layer<conv1d<double>, double>);
static_assert(!layer<conv1d<float>, double>);
static_assert(!layer<int, float>);

/// Relative to the largest number of an output. Toom-Cook's method adds and subtracts more: on the
/// cases below, where direct sums reach 7.9e-7 and 2.8e-15, it reaches 5.2e-6 and 8.7e-15; four
/// times these.
template <class T>
double tolerance(method m) {
  bool const narrow = std::is_same_v<T, float>;
  if (m == method::direct) return narrow ? 2e-6 : 4e-15;
  return narrow ? 2e-5 : 3.5e-14;
}

struct test_case {
  std::int64_t batch, in, out, length;
  int kernel;
  [[nodiscard]] feature_shape shape() const { return {batch, in, length}; }
};

// Kernels longer than L, panels of channels and of tokens that are not full, sums that go over
// several blocks of 384, no sample at all.
constexpr test_case cases[] = {
    {1, 1, 1, 1, 1},    {3, 3, 2, 7, 1},     {1, 8, 16, 48, 1},   {3, 13, 11, 37, 1},
    {70, 2, 3, 1, 1},   {1, 450, 5, 5, 1},   {2, 49, 48, 200, 1}, {0, 2, 3, 4, 1},
    {5, 3, 4, 1, 3},    {2, 3, 3, 2, 3},     {2, 5, 3, 7, 3},     {1, 7, 9, 49, 3},
    {4, 50, 65, 29, 3}, {2, 150, 17, 16, 3}, {0, 2, 3, 4, 3},     {1, 1, 1, 1, 11},
    {3, 2, 5, 4, 11},   {1, 3, 2, 11, 11},   {2, 17, 16, 53, 11},
};
// The same for tiles of 18 tokens.
constexpr test_case nine_taps[] = {
    {1, 1, 1, 1, 9},      {3, 3, 2, 1, 9},     {2, 3, 2, 2, 9},     {3, 2, 5, 4, 9},
    {1, 3, 3, 8, 9},      {2, 2, 3, 9, 9},     {1, 2, 2, 17, 9},    {1, 2, 2, 18, 9},
    {3, 2, 1, 19, 9},     {2, 1, 3, 36, 9},    {1, 3, 3, 37, 9},    {1, 3, 2, 190, 9},
    {1, 2, 3, 191, 9},    {1, 3, 2, 192, 9},   {1, 2, 3, 193, 9},   {1, 3, 2, 194, 9},
    {1, 2, 3, 195, 9},    {1, 3, 2, 196, 9},   {3, 2, 3, 197, 9},   {1, 3, 2, 198, 9},
    {1, 2, 3, 199, 9},    {1, 3, 2, 200, 9},   {1, 2, 3, 201, 9},   {1, 3, 2, 202, 9},
    {1, 2, 3, 203, 9},    {1, 3, 2, 204, 9},   {1, 2, 3, 205, 9},   {1, 3, 2, 206, 9},
    {1, 2, 3, 207, 9},    {40, 3, 2, 5, 9},    {2, 16, 17, 30, 9},  {1, 17, 16, 53, 9},
    {2, 48, 49, 40, 9},   {1, 49, 48, 197, 9}, {3, 100, 3, 13, 9},  {1, 3, 100, 25, 9},
    {1, 100, 100, 29, 9}, {1, 450, 2, 3, 9},   {2, 45, 19, 150, 9}, {0, 2, 3, 4, 9},
};

/// The formulas of the header in double, on the numbers of a run.
template <class T>
class oracle {
 public:
  oracle(test_case const& size, passes<T, conv1d<T>> const& run)
      : size_(size), w_(widened(run.w.content())), w_start_(widened(run.w_start())) {
    auto const x = widened(run.x.content());
    auto const x_dot = widened(run.x_dot.content());
    auto const y_bar = widened(run.y_bar.content());
    auto const y_dot_bar = widened(run.y_dot_bar.content());
    results.y = y(x, true);
    results.y_dot = y(x_dot, false);
    results.of_y_bar = {x_gradient(y_bar), w_start_, {}};
    add_w_gradient(x, y_bar, true, results.of_y_bar.w_bar);
    results.second = results.of_y_bar;
    add_w_gradient(x_dot, y_dot_bar, false, results.second.w_bar);
    results.of_y_dot_bar = {x_gradient(y_dot_bar), w_start_, {}};
    add_w_gradient(x, y_dot_bar, true, results.of_y_dot_bar.w_bar);
  }

  pass_results<double> results{};

 private:
  static numbers<double> widened(numbers<T> const& x) {
    return numbers<double>(x.begin(), x.end());
  }

  /// visit(index of w, of x, of y) for each product of the sum.
  template <class Visit>
  void each_product(Visit const& visit) const {
    auto const [batch, in, out, length, kernel] = size_;
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t o = 0; o < out; ++o) {
        for (std::int64_t i = 0; i < in; ++i) {
          for (std::int64_t t = 0; t < kernel; ++t) {
            std::int64_t m = (t - kernel / 2) % length;
            if (m < 0) m += length;
            for (std::int64_t l = 0; l < length; ++l) {
              visit(static_cast<std::size_t>((o * in + i) * kernel + t),
                    static_cast<std::size_t>((b * in + i) * length + m),
                    static_cast<std::size_t>((b * out + o) * length + l));
              if (++m == length) m = 0;
            }
          }
        }
      }
    }
  }
  /// visit(index of the bias in w, of y)
  template <class Visit>
  void each_bias(Visit const& visit) const {
    auto const weights = size_.out * size_.in * size_.kernel;
    for (std::int64_t n = 0; n < size_.batch * size_.out * size_.length; ++n) {
      visit(static_cast<std::size_t>(weights + n / size_.length % size_.out),
            static_cast<std::size_t>(n));
    }
  }
  [[nodiscard]] numbers<double> y(numbers<double> const& x, bool bias) const {
    numbers<double> y(static_cast<std::size_t>(size_.batch * size_.out * size_.length));
    if (bias) each_bias([&](auto k, auto n) { y[n] = w_[k]; });
    each_product([&](auto k, auto m, auto n) { y[n] += w_[k] * x[m]; });
    return y;
  }
  [[nodiscard]] numbers<double> x_gradient(numbers<double> const& y_bar) const {
    numbers<double> x_bar(static_cast<std::size_t>(size_.shape().size()));
    each_product([&](auto k, auto m, auto n) { x_bar[m] += w_[k] * y_bar[n]; });
    return x_bar;
  }
  void add_w_gradient(numbers<double> const& x, numbers<double> const& y_bar, bool bias,
                      numbers<double>& w_bar) const {
    each_product([&](auto k, auto m, auto n) { w_bar[k] += y_bar[n] * x[m]; });
    if (bias) each_bias([&](auto k, auto n) { w_bar[k] += y_bar[n]; });
  }

  test_case size_;
  numbers<double> w_;
  numbers<double> w_start_;
};

template <class T>
void check_formulas(test_case const& size, method m) {
  CAPTURE(size.batch, size.in, size.out, size.length, size.kernel, static_cast<int>(m));
  conv1d<T> const conv{size.in, size.out, size.kernel, m};
  passes<T, conv1d<T>> run(conv, size.shape(), 1);
  each_output(run_all(run), oracle<T>(size, run).results, layer_checks::near(tolerance<T>(m)));
}

}  // namespace

TEMPLATE_TEST_CASE("conv1d is the sum that its formula says", "", float, double) {
  for (auto const& size : cases) check_formulas<TestType>(size, method::direct);
  for (auto const& size : nine_taps) {
    check_formulas<TestType>(size, method::direct);
    check_formulas<TestType>(size, method::toom_cook);
  }
}

TEST_CASE("conv1d is a layer") {
  auto const check = [](test_case const& size, method m) {
    check_layer<float>(conv1d<float>{size.in, size.out, size.kernel, m}, size.shape());
    check_layer<double>(conv1d<double>{size.in, size.out, size.kernel, m}, size.shape());
  };
  check({2, 3, 2, 5, 1}, method::direct);
  check({2, 3, 2, 5, 3}, method::direct);
  check({2, 2, 3, 4, 9}, method::direct);
  check({0, 2, 3, 4, 9}, method::direct);
  check({2, 2, 3, 4, 9}, method::toom_cook);
  check({1, 2, 1, 14, 9}, method::toom_cook);
  check({0, 2, 3, 4, 9}, method::toom_cook);
}

TEMPLATE_TEST_CASE("conv1d gives the same bits on any number of threads", "", float, double) {
  auto const check = [](test_case const& size, method m) {
    CAPTURE(size.in, size.out, size.length, size.kernel, static_cast<int>(m));
    check_threads<TestType>(conv1d<TestType>{size.in, size.out, size.kernel, m}, size.shape());
  };
  check({8, 96, 70, 61, 1}, method::direct);
  check({1, 64, 64, 97, 3}, method::direct);
  check({2, 45, 19, 150, 9}, method::direct);
  check({2, 45, 19, 150, 9}, method::toom_cook);
  check({5, 20, 100, 49, 9}, method::toom_cook);
  check({1, 450, 40, 13, 9}, method::toom_cook);
}

TEMPLATE_TEST_CASE("conv1d computes a sample as it does alone", "", float, double) {
  for (method const m : {method::direct, method::toom_cook}) {
    CAPTURE(static_cast<int>(m));
    conv1d<TestType> const conv{20, 9, 9, m};
    passes<TestType, conv1d<TestType>> all(conv, {3, 20, 31}, 1);
    auto const y = all.forward();
    auto const x_bar = all.backward(all.y_bar).x_bar;
    auto const sample = [](numbers<TestType> const& of, std::size_t b) {
      auto const size = static_cast<std::ptrdiff_t>(of.size() / 3);
      auto const first = of.begin() + static_cast<std::ptrdiff_t>(b) * size;
      return numbers<TestType>(first, first + size);
    };
    for (std::size_t b = 0; b < 3; ++b) {
      passes<TestType, conv1d<TestType>> one(conv, {1, 20, 31}, 1);
      one.x = guarded<TestType>(sample(all.x.content(), b));
      one.y_bar = guarded<TestType>(sample(all.y_bar.content(), b));
      CHECK(one.forward() == sample(y, b));
      CHECK(one.backward(one.y_bar).x_bar == sample(x_bar, b));
    }
  }
}

TEMPLATE_TEST_CASE("conv1d lets NaN and infinity reach what depends on them", "", float, double) {
  using T = TestType;
  for (method const m : {method::direct, method::toom_cook}) {
    for (T const bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
      CAPTURE(static_cast<int>(m), bad);
      conv1d<T> const conv{3, 2, 9, m};
      passes<T, conv1d<T>> run(conv, {3, 3, 40}, 1);
      run.x.values()[(1 * 3 + 1) * 40 + 17] = bad;  // sample 1, channel 1, token 17
      auto const y = run.forward();
      for (std::size_t n = 0; n < y.size(); ++n) {
        CAPTURE(n);
        std::size_t const token = n % 40;
        bool const depends = n / 80 == 1 && token >= 13 && token <= 21;
        // Toom-Cook's method spreads it over the tiles of 18 tokens, and makes infinity NaN.
        bool const may = m == method::toom_cook ? n / 80 == 1 && token < 36 : depends;
        if (depends) CHECK(!std::isfinite(y[n]));
        if (!may) CHECK(std::isfinite(y[n]));
      }
      // All weights of that input channel, and none of another.
      auto const w_bar = run.backward(run.y_bar).w_bar;
      for (std::size_t n = 0; n < w_bar.size(); ++n) {
        CAPTURE(n);
        CHECK(std::isfinite(w_bar[n]) == (n >= 2 * 3 * 9 || n / 9 % 3 != 1));
      }
    }
  }
}

TEST_CASE("conv1d takes Toom-Cook's method where it is faster") {
  feature_shape const shape{8, 384, 197};
  conv1d<float> const large{384, 384, 9};
  CHECK(large.by_toom_cook(shape));
  CHECK_FALSE(conv1d<float>{384, 384, 9, method::direct}.by_toom_cook(shape));
  CHECK_FALSE(conv1d<float>{384, 384, 1}.by_toom_cook(shape));
  CHECK_FALSE(conv1d<float>{384, 384, 11}.by_toom_cook(shape));
  CHECK_FALSE(conv1d<float>{3, 3, 9}.by_toom_cook({8, 3, 197}));
  CHECK(conv1d<float>{3, 3, 9, method::toom_cook}.by_toom_cook({8, 3, 197}));
  auto const sizes = conv1d<float>{384, 384, 9, method::direct}.sizes(shape);
  CHECK((sizes.saved == 0 && sizes.saved_bar == 0 && sizes.saved_dot == 0));
}

TEST_CASE("conv1d in float is near double in a head's convolution") {
  // Measured, of the largest number: direct 9.3e-7; Toom-Cook y 4.4e-6, x_bar 3.7e-6, y_dot 4.6e-6,
  // w_bar 5.3e-6 (sums of 11 tiles of 8 samples, then again of two terms).
  for (method const m : {method::direct, method::toom_cook}) {
    CAPTURE(static_cast<int>(m));
    check_float(conv1d<float>{48, 48, 9, m}, conv1d<double>{48, 48, 9, method::direct},
                {8, 48, 197}, m == method::direct ? 4e-6 : 3.4e-5);
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
  CHECK(message({2, 3, 3, method::toom_cook}, {1, 2, 5}) ==
        "forward: kernel (expected 9 for Toom-Cook's method, got 3)");
  CHECK(message({2, 3, 9, method::toom_cook}, {1, 2, 5}) == "no error");
  CHECK(message({0, 3, 1}, {1, 0, 5}) == "forward: in_channels (expected at least 1, got 0)");
  CHECK(message({2, 0, 1}, {1, 2, 5}) == "forward: out_channels (expected at least 1, got 0)");
  CHECK(message({2, 3, 1}, {-1, 2, 5}) == "forward: batch (expected at least 0, got -1)");
  CHECK(message({2, 3, 1}, {1, 4, 5}) == "forward: channels (expected 2, got 4)");
  CHECK(message({2, 3, 1}, {1, 2, 0}) == "forward: length (expected at least 1, got 0)");
}
