// SPDX-License-Identifier: MIT
/// The sequence itself and, as it needs only the concept, what every layer must do: derivatives,
/// null outputs, gradients that are added to, no reads or writes past the sizes, float, threads.
#include <addloss/heads/sequence.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <addloss/heads/group_norm.hpp>
#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/local_norm.hpp>
#include <addloss/heads/residual.hpp>
#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"

namespace {

using namespace addloss;
using testing::gradcheck;

/// y = W x + b for each token, written without care. It scribbles over all that it may use.
struct linear {
  std::int64_t in;
  std::int64_t out;

  [[nodiscard]] std::int64_t parameter_count() const { return in * out + out; }
  [[nodiscard]] static int parameters() { return 2; }
  [[nodiscard]] parameter_view parameter(int i) const {
    if (i == 0) return {"weight", 0, 2, {out, in, 1}};
    return {"bias", in * out, 1, {out, 1, 1}};
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    if (shape.channels != in) {
      detail::fail(function, "x", detail::text() << in << " channels",
                   detail::text() << shape.channels);
    }
    return {shape.batch, out, shape.length};
  }
  [[nodiscard]] static std::int64_t saved_size(feature_shape shape) { return shape.length + 1; }
  [[nodiscard]] std::int64_t workspace_size(feature_shape shape) const {
    return shape.batch * out + 3;
  }

  template <class T>
  void forward(cpu_context const& /*ctx*/, T const* w, feature_shape shape, T const* x, T* y,
               T* saved, T* workspace) const {
    for (std::int64_t i = 0; i < saved_size(shape); ++i) saved[i] = static_cast<T>(i + 1);
    apply(w, shape, x, y, true);
    scribble(shape, workspace);
  }
  template <class T>
  void backward(cpu_context const& /*ctx*/, T const* w, feature_shape shape, T const* x,
                T const* saved, T const* y_bar, T* x_bar, T* w_bar, T* workspace) const {
    check(shape, saved);
    if (x_bar != nullptr) transpose(w, shape, y_bar, x_bar);
    if (w_bar != nullptr) {
      add_weight(shape, x, y_bar, w_bar);
      add_bias(shape, y_bar, w_bar);
    }
    scribble(shape, workspace);
  }
  template <class T>
  void tangent(cpu_context const& /*ctx*/, T const* w, feature_shape shape, T const* /*x*/,
               T const* saved, T const* x_dot, T* y_dot, T* workspace) const {
    check(shape, saved);
    apply(w, shape, x_dot, y_dot, false);
    scribble(shape, workspace);
  }
  template <class T>
  void tangent_backward(cpu_context const& /*ctx*/, T const* w, feature_shape shape, T const* x,
                        T const* saved, T const* x_dot, T const* y_bar, T const* y_dot_bar,
                        T* x_bar, T* x_dot_bar, T* w_bar, T* workspace) const {
    check(shape, saved);
    if (x_bar != nullptr) transpose(w, shape, y_bar, x_bar);
    if (x_dot_bar != nullptr) transpose(w, shape, y_dot_bar, x_dot_bar);
    if (w_bar != nullptr) {
      add_weight(shape, x, y_bar, w_bar);
      add_weight(shape, x_dot, y_dot_bar, w_bar);
      add_bias(shape, y_bar, w_bar);
    }
    scribble(shape, workspace);
  }

 private:
  template <class Visit>
  void each(feature_shape shape, Visit const& visit) const {
    for (std::int64_t b = 0; b < shape.batch; ++b) {
      for (std::int64_t o = 0; o < out; ++o) {
        for (std::int64_t l = 0; l < shape.length; ++l) {
          visit(o, (b * out + o) * shape.length + l, b * in * shape.length + l);
        }
      }
    }
  }
  template <class T>
  void apply(T const* w, feature_shape shape, T const* x, T* y, bool bias) const {
    each(shape, [&](std::int64_t o, std::int64_t n, std::int64_t m) {
      T sum = bias ? w[in * out + o] : T(0);
      for (std::int64_t i = 0; i < in; ++i) sum += w[o * in + i] * x[m + i * shape.length];
      y[n] = sum;
    });
  }
  template <class T>
  void transpose(T const* w, feature_shape shape, T const* y_bar, T* x_bar) const {
    for (std::int64_t n = 0; n < shape.size(); ++n) x_bar[n] = 0;
    each(shape, [&](std::int64_t o, std::int64_t n, std::int64_t m) {
      for (std::int64_t i = 0; i < in; ++i) x_bar[m + i * shape.length] += w[o * in + i] * y_bar[n];
    });
  }
  template <class T>
  void add_weight(feature_shape shape, T const* x, T const* y_bar, T* w_bar) const {
    each(shape, [&](std::int64_t o, std::int64_t n, std::int64_t m) {
      for (std::int64_t i = 0; i < in; ++i) w_bar[o * in + i] += y_bar[n] * x[m + i * shape.length];
    });
  }
  template <class T>
  void add_bias(feature_shape shape, T const* y_bar, T* w_bar) const {
    each(shape, [&](std::int64_t o, std::int64_t n, std::int64_t /*m*/) {
      w_bar[in * out + o] += y_bar[n];
    });
  }
  template <class T>
  static void check(feature_shape shape, T const* saved) {
    for (std::int64_t i = 0; i < saved_size(shape); ++i) {
      REQUIRE(saved[i] == static_cast<T>(i + 1));
    }
  }
  template <class T>
  void scribble(feature_shape shape, T* workspace) const {
    for (std::int64_t i = 0; i < workspace_size(shape); ++i) {
      workspace[i] = std::numeric_limits<T>::quiet_NaN();
    }
  }
};

using block = sequence<linear, local_norm, leaky_relu>;
static_assert(layer<linear, float> && layer<linear, double>);
static_assert(layer<block, float> && layer<block, double>);
static_assert(layer<residual<block>, float> && layer<residual<block>, double>);
static_assert(layer<sequence<leaky_relu>, float>);
static_assert(layer<sequence<block, residual<block>, linear>, double>);
static_assert(!layer<named<linear>, float>);
static_assert(std::same_as<decltype(sequence(named("a", linear{1, 1}), leaky_relu{})),
                           sequence<linear, leaky_relu>>);

template <class T>
using numbers = std::vector<T>;

/// Deterministic numbers in (-1, 1), at least 0.01 from 0, no two alike.
template <class T>
numbers<T> some(std::int64_t size, int seed) {
  numbers<T> x(static_cast<std::size_t>(size));
  for (std::size_t n = 0; n < x.size(); ++n) {
    double const s = std::sin(12.9898 * static_cast<double>(n + 1) + 4.1 * seed) * 43758.5453;
    double const u = 2 * (s - std::floor(s)) - 1;
    x[n] = static_cast<T>(u < 0 ? u - 0.01 : u + 0.01);
  }
  return x;
}

/// Memory a layer may write, NaN before that, between two words that must stay.
template <class T>
class guarded {
 public:
  explicit guarded(std::int64_t size)
      : memory_(static_cast<std::size_t>(size) + 2, std::numeric_limits<T>::quiet_NaN()) {
    memory_.front() = 77;
    memory_.back() = 77;
  }
  guarded(numbers<T> const& content) : guarded(static_cast<std::int64_t>(content.size())) {
    std::copy(content.begin(), content.end(), memory_.begin() + 1);
  }
  T* data() { return memory_.data() + 1; }
  /// What lies between the words.
  [[nodiscard]] numbers<T> content() const {
    REQUIRE(memory_.front() == 77);
    REQUIRE(memory_.back() == 77);
    return numbers<T>(memory_.begin() + 1, memory_.end() - 1);
  }

 private:
  numbers<T> memory_;
};

/// All four computations on inputs that depend on the shapes alone.
template <class T, class Layer>
struct example {
  Layer const& f;
  feature_shape shape;
  feature_shape y_shape = f.output_shape("test", shape);
  numbers<T> w = some<T>(f.parameter_count(), 1);
  numbers<T> x = some<T>(shape.size(), 2);
  numbers<T> x_dot = some<T>(shape.size(), 3);
  numbers<T> y_bar = some<T>(y_shape.size(), 4);
  numbers<T> y_dot_bar = some<T>(y_shape.size(), 5);
  cpu_context ctx{};
  numbers<T> saved{};

  numbers<T> forward() {
    guarded<T> y(y_shape.size());
    guarded<T> save(f.saved_size(shape));
    guarded<T> work(f.workspace_size(shape));
    f.forward(ctx, w.data(), shape, x.data(), y.data(), save.data(), work.data());
    saved = save.content();
    static_cast<void>(work.content());
    return y.content();
  }
  struct gradients {
    numbers<T> x_bar, x_dot_bar, w_bar;
    bool operator==(gradients const&) const = default;
  };
  gradients backward(bool with_x = true, bool with_w = true) {
    guarded<T> x_bar(shape.size());
    guarded<T> w_bar(some<T>(f.parameter_count(), 6));
    guarded<T> work(f.workspace_size(shape));
    f.backward(ctx, w.data(), shape, x.data(), saved.data(), y_bar.data(),
               with_x ? x_bar.data() : nullptr, with_w ? w_bar.data() : nullptr, work.data());
    static_cast<void>(work.content());
    return {x_bar.content(), {}, w_bar.content()};
  }
  numbers<T> tangent() {
    guarded<T> y_dot(y_shape.size());
    guarded<T> work(f.workspace_size(shape));
    f.tangent(ctx, w.data(), shape, x.data(), saved.data(), x_dot.data(), y_dot.data(),
              work.data());
    static_cast<void>(work.content());
    return y_dot.content();
  }
  gradients tangent_backward(bool with_x = true, bool with_x_dot = true, bool with_w = true) {
    guarded<T> x_bar(shape.size());
    guarded<T> x_dot_bar(shape.size());
    guarded<T> w_bar(some<T>(f.parameter_count(), 6));
    guarded<T> work(f.workspace_size(shape));
    f.tangent_backward(ctx, w.data(), shape, x.data(), saved.data(), x_dot.data(), y_bar.data(),
                       y_dot_bar.data(), with_x ? x_bar.data() : nullptr,
                       with_x_dot ? x_dot_bar.data() : nullptr, with_w ? w_bar.data() : nullptr,
                       work.data());
    static_cast<void>(work.content());
    return {x_bar.content(), x_dot_bar.content(), w_bar.content()};
  }
};

double dot(numbers<double> const& a, numbers<double> const& b) {
  double sum = 0;
  for (std::size_t n = 0; n < a.size(); ++n) sum += a[n] * b[n];
  return sum;
}

/// What was added to w_bar.
numbers<double> added(numbers<double> const& w_bar) {
  auto result = some<double>(static_cast<std::int64_t>(w_bar.size()), 6);
  for (std::size_t n = 0; n < result.size(); ++n) result[n] = w_bar[n] - result[n];
  return result;
}

constexpr testing::gradcheck_options fine{.step = 1e-5, .tolerance = 1e-6, .floor = 1e-2};

template <class Layer>
void check_derivatives(Layer const& f, feature_shape shape) {
  example<double, Layer> e{f, shape};
  auto const y = e.forward();
  for (double const number : y) REQUIRE(std::isfinite(number));
  auto const first = e.backward();
  auto const y_dot = e.tangent();
  auto const second = e.tangent_backward();

  auto const value = [&](std::span<double const> /*moved*/) { return dot(e.y_bar, e.forward()); };
  auto const same = e.saved;
  CHECK(gradcheck(value, e.x, first.x_bar, fine).passed);
  CHECK(gradcheck(value, e.w, added(first.w_bar), fine).passed);

  // The tangent, element by element.
  auto const center = e.x;
  auto const at = [&](double t) {
    for (std::size_t n = 0; n < center.size(); ++n) e.x[n] = center[n] + t * e.x_dot[n];
    return e.forward();
  };
  auto const above = at(fine.step);
  auto const below = at(-fine.step);
  e.x = center;
  for (std::size_t n = 0; n < y.size(); ++n) {
    double const difference = (above[n] - below[n]) / (2 * fine.step);
    REQUIRE(std::abs(y_dot[n] - difference) < 1e-6 * std::fmax(1, std::abs(difference)));
  }

  auto const pair = [&](std::span<double const> /*moved*/) {
    double const plain = dot(e.y_bar, e.forward());
    return plain + dot(e.y_dot_bar, e.tangent());
  };
  CHECK(gradcheck(pair, e.x, second.x_bar, fine).passed);
  CHECK(gradcheck(pair, e.x_dot, second.x_dot_bar, fine).passed);
  CHECK(gradcheck(pair, e.w, added(second.w_bar), fine).passed);

  // Null outputs leave the others as they are; guarded memory shows what was not computed.
  e.forward();
  REQUIRE(e.saved == same);
  auto const is_blank = [](numbers<double> const& x) {
    for (double const number : x) {
      if (!std::isnan(number)) return false;
    }
    return true;
  };
  auto const untouched = some<double>(f.parameter_count(), 6);
  for (int mask = 0; mask < 8; ++mask) {
    bool const with_x = (mask & 1) != 0;
    bool const with_w = (mask & 2) != 0;
    bool const with_x_dot = (mask & 4) != 0;
    if (!with_x_dot) {
      auto const got = e.backward(with_x, with_w);
      REQUIRE((with_x ? got.x_bar == first.x_bar : is_blank(got.x_bar)));
      REQUIRE(got.w_bar == (with_w ? first.w_bar : untouched));
    }
    auto const got = e.tangent_backward(with_x, with_x_dot, with_w);
    REQUIRE((with_x ? got.x_bar == second.x_bar : is_blank(got.x_bar)));
    REQUIRE((with_x_dot ? got.x_dot_bar == second.x_dot_bar : is_blank(got.x_dot_bar)));
    REQUIRE(got.w_bar == (with_w ? second.w_bar : untouched));
  }
}

/// Largest difference, relative to the largest number.
double apart(numbers<float> const& got, numbers<double> const& expected) {
  REQUIRE(got.size() == expected.size());
  double difference = 0;
  double largest = 1;
  for (std::size_t n = 0; n < got.size(); ++n) {
    double const d = std::abs(static_cast<double>(got[n]) - expected[n]);
    if (!(d <= difference)) difference = d;
    largest = std::fmax(largest, std::abs(expected[n]));
  }
  return difference / largest;
}

template <class Layer>
void check_float(Layer const& f, feature_shape shape) {
  example<float, Layer> narrow{f, shape};
  example<double, Layer> wide{f, shape};
  auto const widen = [](numbers<float> const& x) { return numbers<double>(x.begin(), x.end()); };
  wide.w = widen(narrow.w);
  wide.x = widen(narrow.x);
  wide.x_dot = widen(narrow.x_dot);
  wide.y_bar = widen(narrow.y_bar);
  wide.y_dot_bar = widen(narrow.y_dot_bar);
  double const tolerance = 2e-5;
  CHECK(apart(narrow.forward(), wide.forward()) < tolerance);
  CHECK(apart(narrow.tangent(), wide.tangent()) < tolerance);
  auto const check = [&](auto const& got, auto const& expected) {
    CHECK(apart(got.x_bar, expected.x_bar) < tolerance);
    CHECK(apart(got.x_dot_bar, expected.x_dot_bar) < tolerance);
    CHECK(apart(got.w_bar, expected.w_bar) < tolerance);
  };
  check(narrow.backward(), wide.backward());
  check(narrow.tangent_backward(), wide.tangent_backward());
}

template <class T, class Layer>
void check_threads(Layer const& f, feature_shape shape) {
  REQUIRE(shape.size() >= 1 << 15);
  example<T, Layer> one{f, shape};
  example<T, Layer> two{f, shape};
  two.ctx.threads = 2;
  REQUIRE(one.forward() == two.forward());
  REQUIRE(one.saved == two.saved);
  REQUIRE(one.tangent() == two.tangent());
  REQUIRE(one.backward() == two.backward());
  REQUIRE(one.tangent_backward() == two.tangent_backward());
}

/// A StyleGAN-T head without its convolutions' kernels: every kind of layer, nested.
auto small_head(std::int64_t channels, std::int64_t virtual_batch) {
  auto const conv = [&] {
    return sequence(named("conv", linear{channels, channels}),
                    named("norm", local_norm{channels, virtual_batch}), leaky_relu{});
  };
  return sequence(named("first", conv()), named("second", residual{conv()}),
                  named("out", linear{channels, 2}));
}

}  // namespace

TEST_CASE("derivatives of local_norm") {
  check_derivatives(local_norm{3}, {1, 3, 5});
  check_derivatives(local_norm{2}, {4, 2, 1});
  check_derivatives(local_norm{3, 2}, {4, 3, 9});
  check_derivatives(local_norm{2, 4}, {6, 2, 4});
  check_derivatives(local_norm{2, 8, 0.3}, {2, 2, 8});
}

TEST_CASE("derivatives of group_norm") {
  check_derivatives(group_norm{6, 3}, {2, 6, 5});
  check_derivatives(group_norm{4, 1}, {2, 4, 1});
  check_derivatives(group_norm{4, 4}, {1, 4, 9});
}

TEST_CASE("derivatives of a normalised single element or constant") {
  // h = 0: only the terms of first order are left.
  check_derivatives(local_norm{2}, {1, 2, 1});
  local_norm const norm{1, 8, 1e-2};
  feature_shape const shape{2, 1, 4};
  example<double, local_norm> e{norm, shape};
  e.x.assign(8, 0.1);
  REQUIRE(e.forward() == numbers<double>(8, e.w[1]));
  auto const first = e.backward();
  auto const second = e.tangent_backward();
  auto const mean = [](numbers<double> const& x) {
    double sum = 0;
    for (double const number : x) sum += number;
    return sum / static_cast<double>(x.size());
  };
  for (std::size_t n = 0; n < 8; ++n) {
    double const factor = 10 * e.w[0];
    CHECK(first.x_bar[n] == Approx(factor * (e.y_bar[n] - mean(e.y_bar))).margin(1e-13));
    CHECK(second.x_bar[n] == Approx(first.x_bar[n]).margin(1e-13));
    CHECK(second.x_dot_bar[n] ==
          Approx(factor * (e.y_dot_bar[n] - mean(e.y_dot_bar))).margin(1e-13));
  }
}

TEST_CASE("derivatives of leaky_relu") {
  check_derivatives(leaky_relu{}, {2, 3, 5});
  check_derivatives(leaky_relu{-0.5}, {1, 1, 1});
}

TEST_CASE("derivatives of residual") {
  check_derivatives(residual{leaky_relu{}}, {2, 3, 5});
  check_derivatives(residual{linear{3, 3}}, {2, 3, 5});
  check_derivatives(residual{local_norm{3, 1}}, {2, 3, 5});
}

TEST_CASE("derivatives of sequence") {
  check_derivatives(sequence(leaky_relu{}), {2, 3, 5});
  check_derivatives(sequence(linear{3, 2}), {2, 3, 5});
  check_derivatives(sequence(linear{3, 5}, linear{5, 2}), {2, 3, 4});
  check_derivatives(sequence(linear{3, 5}, group_norm{5, 1}, leaky_relu{}, linear{5, 2}),
                    {2, 3, 4});
  check_derivatives(residual{sequence(linear{3, 3}, local_norm{3, 2}, leaky_relu{})}, {4, 3, 4});
  check_derivatives(small_head(3, 2), {4, 3, 4});
}

TEST_CASE("every layer in float is near double") {
  check_float(local_norm{3, 2}, {4, 3, 90});
  check_float(group_norm{6, 3}, {2, 6, 50});
  check_float(leaky_relu{}, {4, 3, 90});
  check_float(residual{sequence(linear{3, 3}, local_norm{3, 2}, leaky_relu{})}, {4, 3, 40});
  check_float(small_head(4, 2), {4, 4, 40});
}

TEST_CASE("every layer gives the same bits on two threads") {
  feature_shape const shape{6, 64, 131};
  auto const check = [&](auto const& f) {
    check_threads<float>(f, shape);
    check_threads<double>(f, shape);
  };
  check(local_norm{64, 2});
  check(group_norm{64, 4});
  check(leaky_relu{});
  check(residual{leaky_relu{}});
  check(sequence(local_norm{64, 3}, residual{sequence(group_norm{64, 8}, leaky_relu{})}));
}

TEST_CASE("a sequence is its layers, one after the other") {
  linear const first{3, 4};
  linear const second{4, 2};
  sequence const both(first, leaky_relu{}, second);
  feature_shape const shape{2, 3, 5};
  example<double, std::decay_t<decltype(both)>> whole{both, shape};
  REQUIRE(whole.y_shape == feature_shape{2, 2, 5});
  auto const y = whole.forward();

  example<double, linear> a{first, shape};
  a.w.assign(whole.w.begin(), whole.w.begin() + 16);
  a.x = whole.x;
  example<double, leaky_relu> relu{both.get<1>(), {2, 4, 5}};
  relu.x = a.forward();
  example<double, linear> b{second, {2, 4, 5}};
  b.w.assign(whole.w.begin() + 16, whole.w.end());
  b.x = relu.forward();
  CHECK(y == b.forward());
}

TEST_CASE("a sequence names its parameters") {
  auto const head = small_head(3, 2);
  char const* const names[] = {
      "first.conv.weight",  "first.conv.bias",  "first.norm.weight",  "first.norm.bias",
      "second.conv.weight", "second.conv.bias", "second.norm.weight", "second.norm.bias",
      "out.weight",         "out.bias",
  };
  auto const copy = head;
  REQUIRE(copy.parameters() == 10);
  std::int64_t offset = 0;
  for (int i = 0; i < 10; ++i) {
    auto const part = copy.parameter(i);
    CHECK(std::string(part.name) == names[i]);
    CHECK(part.offset == offset);
    offset += part.size();
  }
  CHECK(offset == copy.parameter_count());
  CHECK(copy.parameter(8).rank == 2);
  // Without names: positions.
  sequence const plain(leaky_relu{}, linear{2, 3}, named("b", local_norm{3}));
  CHECK(std::string(plain.parameter(0).name) == "1.weight");
  CHECK(std::string(plain.parameter(2).name) == "b.weight");
  CHECK(plain.parameter(2).offset == 9);
}

TEST_CASE("a name lives in the sequence, not where it came from") {
  std::string name = "conv";
  sequence const s(named(name.c_str(), linear{1, 1}));
  name = "gone";
  CHECK(std::string(s.parameter(0).name) == "conv.weight");
}

TEST_CASE("a sequence refuses what its layers refuse, and names that are too long") {
  auto const error_of = [](auto const& call) -> std::string {
    try {
      call();
    } catch (error const& e) {
      return e.what();
    }
    return "no error";
  };
  sequence const s(linear{3, 4}, local_norm{5});
  CHECK(error_of([&] {
          static_cast<void>(s.output_shape("head", {1, 2, 1}));
        }) == "head: x (expected 3 channels, got 2)");
  CHECK(error_of([&] {
          static_cast<void>(s.output_shape("head", {1, 3, 1}));
        }) == "head: x (expected 5 channels, got 4)");
  // ".weight" and ".bias" and two zeros: 14 characters.
  std::string const longest(505, 'x');
  std::string const too_long(506, 'x');
  CHECK(error_of([&] { sequence(named(longest.c_str(), local_norm{1}), leaky_relu{}); }) ==
        "no error");
  CHECK(error_of([&] { sequence(named(too_long.c_str(), local_norm{1}), leaky_relu{}); })
            .starts_with("sequence: name (expected at most 1024 characters for the names of all "
                         "parameters, got 1026 up to xxx"));
}
