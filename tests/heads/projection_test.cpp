// SPDX-License-Identifier: MIT
#include <addloss/heads/projection.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <addloss/core/normal.hpp>
#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class T>
std::vector<T> normals(std::int64_t count, std::uint32_t stream) {
  std::vector<T> x(at(count));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<T>(normal_at({.seed = 3, .stream = stream}, 0, i));
  }
  return x;
}

template <class T, class U>
double distance(std::vector<T> const& a, std::vector<U> const& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double const d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= worst)) worst = d;
  }
  return worst;
}

/// A projection with memory for everything.
template <class T>
struct setup {
  feature_shape shape;
  projection<T> layer;
  std::vector<T> conditions[2];
  std::vector<T> gradients[2];
  std::vector<T> w;
  std::vector<T> h;
  std::vector<T> h_dot;
  std::vector<T> saved;
  std::vector<T> workspace;

  setup(feature_shape s, std::int64_t width, std::vector<std::int64_t> const& sizes) : shape(s) {
    layer.channels = s.channels;
    layer.width = width;
    layer.conditions = static_cast<int>(sizes.size());
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      conditions[k] = normals<T>(s.batch * sizes[k], 10 + static_cast<std::uint32_t>(k));
      gradients[k].assign(conditions[k].size(), 0);
      layer.given[k] = {sizes[k], conditions[k].data(), gradients[k].data()};
    }
    w = normals<T>(layer.parameter_count(), 1);
    h = normals<T>(s.size(), 2);
    h_dot = normals<T>(s.size(), 3);
    T const bad = std::numeric_limits<T>::quiet_NaN();
    saved.assign(at(layer.saved_size(s)), bad);
    workspace.assign(at(layer.workspace_size(s)), bad);
  }
  setup(setup const&) = delete;  // `layer` points into the members
  setup(setup&&) = delete;
  setup& operator=(setup const&) = delete;
  setup& operator=(setup&&) = delete;
  ~setup() = default;

  [[nodiscard]] std::int64_t logits() const { return shape.batch * shape.length; }

  std::vector<T> forward(int threads = 1) {
    std::vector<T> y(at(logits()), std::numeric_limits<T>::quiet_NaN());
    layer.forward(cpu_context{.threads = threads}, w.data(), shape, h.data(), y.data(),
                  saved.data(), workspace.data());
    return y;
  }
  std::vector<T> tangent(int threads = 1) {
    std::vector<T> y(at(logits()), std::numeric_limits<T>::quiet_NaN());
    layer.tangent(cpu_context{.threads = threads}, w.data(), shape, h.data(), saved.data(),
                  h_dot.data(), y.data(), workspace.data());
    return y;
  }

  /// The formulas of the header, out stored, in double: J applied to x, plus the bias.
  template <class X>
  [[nodiscard]] std::vector<double> oracle(X const& x, bool tangent) const {
    auto const [B, C, L] = shape;
    std::int64_t const P = layer.width;
    std::vector<double> y(at(logits()));
    for (std::int64_t b = 0; b < B; ++b) {
      std::vector<double> m(at(P), layer.conditions == 0 ? 1 : 0);
      for (std::int64_t p = 0; p < P; ++p) {
        for (int k = 0; k < layer.conditions; ++k) {
          auto const weight = layer.parameter(2 + 2 * k);
          auto const bias = layer.parameter(3 + 2 * k);
          std::int64_t const size = weight.extents[1];
          double sum = 0;
          for (std::int64_t i = 0; i < size; ++i) {
            sum += static_cast<double>(w[at(weight.offset + p * size + i)]) *
                   static_cast<double>(conditions[k][at(b * size + i)]);
          }
          m[at(p)] += sum / std::sqrt(static_cast<double>(size)) +
                      static_cast<double>(w[at(bias.offset + p)]);
        }
      }
      for (std::int64_t l = 0; l < L; ++l) {
        double logit = 0;
        for (std::int64_t p = 0; p < P; ++p) {
          double out = tangent ? 0.0 : static_cast<double>(w[at(layer.parameter(1).offset + p)]);
          for (std::int64_t c = 0; c < C; ++c) {
            out += static_cast<double>(w[at(p * C + c)]) *
                   static_cast<double>(x[at((b * C + c) * L + l)]);
          }
          logit += out * m[at(p)] / std::sqrt(static_cast<double>(P));
        }
        y[at(b * L + l)] = logit;
      }
    }
    return y;
  }
};

/// A case with a name.
struct extents {
  char const* name;
  feature_shape shape;
  std::int64_t width;
  std::vector<std::int64_t> sizes;
};

std::vector<extents> const cases = {
    {"no condition", {2, 5, 7}, 1, {}},
    {"no condition, all of size 1", {1, 1, 1}, 1, {}},
    {"one condition", {3, 4, 6}, 5, {3}},
    {"two conditions", {2, 4, 6}, 5, {3, 2}},
    {"B = 1", {1, 4, 6}, 3, {3, 2}},
    {"L = 1", {3, 4, 1}, 3, {2}},
    {"P = 1 with a condition", {2, 3, 4}, 1, {2}},
    {"C = 1", {2, 1, 4}, 3, {2}},
    {"a condition of one number", {2, 3, 4}, 2, {1, 1}},
    {"a condition of many numbers", {2, 3, 4}, 2, {130}},
    {"blocks of 64 tokens and channels", {2, 65, 130}, 3, {4}},
};

template <class T>
double dot_of(std::vector<T> const& a, std::vector<double> const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

std::vector<double> doubles(auto const& x) { return {x.begin(), x.end()}; }

/// All gradients of one call of backward or tangent_backward.
template <class T>
struct gradients_of {
  std::vector<T> h;
  std::vector<T> h_dot;
  std::vector<T> w;
  std::vector<T> conditions[2];
};

template <class T>
gradients_of<T> backward(setup<T>& s, bool tangent, std::vector<T> const& y_bar,
                         std::vector<T> const& y_dot_bar, int threads = 1) {
  cpu_context const ctx{.threads = threads};
  T const bad = std::numeric_limits<T>::quiet_NaN();
  gradients_of<T> result{std::vector<T>(s.h.size(), bad),
                         std::vector<T>(s.h.size(), bad),
                         std::vector<T>(s.w.size()),
                         {}};
  for (auto& g : s.gradients) g.assign(g.size(), 0);
  if (tangent) {
    s.layer.tangent_backward(ctx, s.w.data(), s.shape, s.h.data(), s.saved.data(), s.h_dot.data(),
                             y_bar.data(), y_dot_bar.data(), result.h.data(), result.h_dot.data(),
                             result.w.data(), s.workspace.data());
  } else {
    s.layer.backward(ctx, s.w.data(), s.shape, s.h.data(), s.saved.data(), y_bar.data(),
                     result.h.data(), result.w.data(), s.workspace.data());
  }
  for (int k = 0; k < 2; ++k) result.conditions[k] = s.gradients[k];
  return result;
}

}  // namespace

TEMPLATE_TEST_CASE("a projection equals its formulas", "", float, double) {
  using T = TestType;
  for (auto const& c : cases) {
    CAPTURE(c.name);
    setup<T> s(c.shape, c.width, c.sizes);
    CHECK(s.layer.output_shape("test", c.shape) == feature_shape{c.shape.batch, 1, c.shape.length});
    double const tolerance = 400 * static_cast<double>(std::numeric_limits<T>::epsilon());
    CHECK(distance(s.forward(), s.oracle(s.h, false)) < tolerance);
    CHECK(distance(s.tangent(), s.oracle(s.h_dot, true)) < tolerance);
  }
}

TEST_CASE("gradients of a projection agree with finite differences") {
  for (auto const& c : cases) {
    if (c.shape.size() > 1000) continue;
    CAPTURE(c.name);
    setup<double> s(c.shape, c.width, c.sizes);
    s.forward();
    auto const y_bar = normals<double>(s.logits(), 5);
    auto const y_dot_bar = normals<double>(s.logits(), 6);
    for (bool const tangent : {false, true}) {
      CAPTURE(tangent);
      // <y_bar, y> (+ <y_dot_bar, y_dot>), whatever of the inputs is changed.
      auto const loss = [&](std::span<double const> /*x*/) {
        double const first = dot_of(y_bar, s.oracle(s.h, false));
        return tangent ? first + dot_of(y_dot_bar, s.oracle(s.h_dot, true)) : first;
      };
      auto const g = backward(s, tangent, y_bar, y_dot_bar);
      CHECK(testing::gradcheck(loss, s.h, g.h).passed);
      CHECK(testing::gradcheck(loss, s.w, g.w).passed);
      if (tangent) CHECK(testing::gradcheck(loss, s.h_dot, g.h_dot).passed);
      for (int k = 0; k < s.layer.conditions; ++k) {
        CHECK(testing::gradcheck(loss, s.conditions[k], g.conditions[k]).passed);
      }
    }
  }
}

TEST_CASE("a projection gives the parameters' gradient of R1") {
  // R = |grad_h sum(logits)|^2 and grad_w R by one tangent pass and one tangent_backward pass.
  setup<double> s({2, 4, 5}, 3, {3, 2});
  std::vector<double> const ones(at(s.logits()), 1);
  std::vector<double> const zeros(at(s.logits()), 0);
  auto const h_gradient = [&] {
    s.forward();
    return backward(s, false, ones, {}).h;
  };
  auto const penalty = [&](std::span<double const> /*x*/) {
    auto const g = h_gradient();
    return dot_of(g, g);
  };
  s.h_dot = h_gradient();
  auto const g = backward(s, true, zeros, std::vector<double>(at(s.logits()), 2));
  CHECK(testing::gradcheck(penalty, s.w, g.w).passed);
  for (double const x : g.h) CHECK(x == 0);  // R does not depend on h
}

TEST_CASE("float gradients of a projection equal those in double") {
  for (auto const& c : cases) {
    CAPTURE(c.name);
    setup<float> narrow(c.shape, c.width, c.sizes);
    setup<double> wide(c.shape, c.width, c.sizes);
    narrow.forward();
    wide.forward();
    auto const y_bar = normals<float>(narrow.logits(), 5);
    auto const y_dot_bar = normals<float>(narrow.logits(), 6);
    auto const g = backward(narrow, true, y_bar, y_dot_bar);
    auto const expected = backward(wide, true, doubles(y_bar), doubles(y_dot_bar));
    CHECK(distance(g.h, expected.h) < 1e-5);
    CHECK(distance(g.h_dot, expected.h_dot) < 1e-5);
    CHECK(distance(g.w, expected.w) < 1e-4);
    for (int k = 0; k < 2; ++k) CHECK(distance(g.conditions[k], expected.conditions[k]) < 1e-4);
  }
}

TEST_CASE("without a condition logits are the classifier's output") {
  setup<double> s({1, 2, 3}, 1, {});
  s.w = {2, -1, 0.5};
  s.h = {1, 2, 3, 10, 20, 30};
  CHECK(s.forward() == std::vector<double>{-7.5, -15.5, -23.5});
}

TEST_CASE("gradients of parameters and conditions are added to, outputs may be null") {
  setup<double> s({2, 3, 4}, 2, {3, 2});
  s.forward();
  auto const y_bar = normals<double>(s.logits(), 5);
  auto const g = backward(s, true, y_bar, y_bar);

  auto added = std::vector<double>(s.w.size(), 100);
  for (auto& x : s.gradients) x.assign(x.size(), 100);
  cpu_context const ctx;
  s.layer.tangent_backward(ctx, s.w.data(), s.shape, s.h.data(), s.saved.data(), s.h_dot.data(),
                           y_bar.data(), y_bar.data(), nullptr, nullptr, added.data(),
                           s.workspace.data());
  for (double& x : added) x -= 100;
  CHECK(distance(added, g.w) < 1e-12);
  for (int k = 0; k < 2; ++k) {
    for (double& x : s.gradients[k]) x -= 100;
    CHECK(distance(s.gradients[k], g.conditions[k]) < 1e-12);
  }

  // Conditions only; one of them only; nothing but h.
  for (auto& x : s.gradients) x.assign(x.size(), 0);
  s.layer.given[1].gradient = nullptr;
  s.layer.tangent_backward(ctx, s.w.data(), s.shape, s.h.data(), s.saved.data(), s.h_dot.data(),
                           y_bar.data(), y_bar.data(), nullptr, nullptr, nullptr,
                           s.workspace.data());
  CHECK(s.gradients[0] == g.conditions[0]);
  CHECK(s.gradients[1] == std::vector<double>(s.gradients[1].size(), 0));
  s.layer.given[0].gradient = nullptr;
  std::vector<double> h_bar(s.h.size());
  s.layer.backward(ctx, s.w.data(), s.shape, s.h.data(), s.saved.data(), y_bar.data(), h_bar.data(),
                   nullptr, s.workspace.data());
  CHECK(h_bar == g.h);
}

TEST_CASE("a projection has the same bits on any number of threads") {
  setup<float> s({3, 150, 200}, 64, {70, 300});
  auto const y_bar = normals<float>(s.logits(), 5);
  auto const y_dot_bar = normals<float>(s.logits(), 6);
  auto const results = [&](int threads) {
    auto all = s.forward(threads);
    auto const y_dot = s.tangent(threads);
    auto const g = backward(s, true, y_bar, y_dot_bar, threads);
    for (auto const& x : {y_dot, g.h, g.h_dot, g.w, g.conditions[0], g.conditions[1]}) {
      all.insert(all.end(), x.begin(), x.end());
    }
    return all;
  };
  auto const one = results(1);
  for (int const threads : {2, 3, 7}) CHECK(results(threads) == one);
}

TEST_CASE("NaN in h or in a condition reaches the logits") {
  setup<float> s({2, 3, 4}, 2, {3});
  s.h[5] = std::nanf("");  // b = 0, l = 1
  auto y = s.forward();
  for (std::size_t i = 0; i < y.size(); ++i) CHECK(std::isnan(y[i]) == (i == 1));
  s.h[5] = 0;
  s.conditions[0][4] = std::nanf("");  // b = 1
  y = s.forward();
  for (std::size_t i = 0; i < y.size(); ++i) CHECK(std::isnan(y[i]) == (i >= 4));
}

TEST_CASE("the parameters of a projection are named and cover the buffer") {
  setup<double> s({1, 5, 1}, 4, {3, 2});
  REQUIRE(s.layer.parameters() == 6);
  std::int64_t offset = 0;
  std::vector<std::string> names;
  for (int i = 0; i < 6; ++i) {
    CHECK(s.layer.parameter(i).offset == offset);
    offset += s.layer.parameter(i).size();
    names.emplace_back(s.layer.parameter(i).name);
  }
  CHECK(offset == s.layer.parameter_count());
  CHECK(names == std::vector<std::string>{"weight", "bias", "condition0.weight", "condition0.bias",
                                          "condition1.weight", "condition1.bias"});
}

TEST_CASE("a projection reports shapes that do not fit") {
  float const value = 0;
  auto const check = [](projection<float> layer, feature_shape shape) {
    return error_of([&] { static_cast<void>(layer.output_shape("head", shape)); });
  };
  CHECK(check({.channels = 3}, {1, 3, 1}) == "no error");
  CHECK(check({.channels = 3}, {1, 4, 1}) ==
        "head: shape (expected [B, 3, L] with B and L at least 1, got [1, 4, 1])");
  CHECK(check({.channels = 3}, {0, 3, 1}).find("head: shape") == 0);
  CHECK(check({.channels = 3}, {1, 3, 0}).find("head: shape") == 0);
  CHECK(check({.channels = 0}, {1, 0, 1}).find("head: channels") == 0);
  CHECK(check({.channels = 3, .width = 2}, {1, 3, 1}) ==
        "head: width (expected 1 without conditions, got 2)");
  CHECK(check({.channels = 3, .width = 0}, {1, 3, 1}).find("head: width") == 0);
  CHECK(check({.channels = 3, .conditions = 5}, {1, 3, 1}).find("head: conditions") == 0);
  CHECK(check({.channels = 3, .conditions = -1}, {1, 3, 1}).find("head: conditions") == 0);
  CHECK(check({.channels = 3, .conditions = 1}, {1, 3, 1}) ==
        "head: given[0] (expected values of size 1 or more, got null)");
  CHECK(check({.channels = 3, .conditions = 1, .given = {{0, &value}}}, {1, 3, 1}) ==
        "head: given[0] (expected values of size 1 or more, got 0)");
}
