// SPDX-License-Identifier: MIT
#include <addloss/heads/projection.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "check_layer.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;
using numbers = std::vector<double>;

static_assert(layer<projection<float>, float>);
static_assert(!layer<projection<float>, double>);

constexpr auto sum = condition_combination::sum;
constexpr auto concatenation = condition_combination::concatenation;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A case with a name.
struct extents {
  char const* name;
  feature_shape shape;
  std::int64_t width;
  std::vector<std::int64_t> sizes;
  condition_combination combination = sum;

  template <class T>
  [[nodiscard]] projection<T> layer() const {
    projection<T> result{.channels = shape.channels, .width = width, .combination = combination};
    for (std::int64_t const size : sizes) result.condition_size[result.conditions++] = size;
    return result;
  }
};

std::vector<extents> const small = {
    {"no condition", {2, 5, 7}, 1, {}},
    {"no condition, concatenated", {2, 3, 4}, 1, {}, concatenation},
    {"no condition, all of size 1", {1, 1, 1}, 1, {}},
    {"one condition", {3, 4, 6}, 5, {3}},
    {"one condition, concatenated", {3, 4, 6}, 5, {3}, concatenation},
    {"two conditions", {2, 4, 6}, 5, {3, 2}},
    {"two conditions, concatenated", {2, 4, 6}, 5, {3, 2}, concatenation},
    {"four conditions", {2, 3, 4}, 2, {1, 3, 2, 4}},
    {"four conditions, concatenated", {2, 3, 4}, 2, {1, 3, 2, 4}, concatenation},
    {"B = 1", {1, 4, 6}, 3, {3, 2}},
    {"L = 1", {3, 4, 1}, 3, {2}},
    {"P = 1 with a condition", {2, 3, 4}, 1, {2}},
    {"C = 1", {2, 1, 4}, 3, {2}},
    {"conditions of one number", {2, 3, 4}, 2, {1, 1}},
    {"a whole register and one more", {2, 17, 33}, 2, {19}},
};

std::vector<extents> const large = {
    {"blocks of 256 tokens and channels", {2, 257, 300}, 3, {4}},
    {"blocks of 256 numbers of conditions", {5, 4, 6}, 7, {270, 513}},
    {"blocks of 256 numbers, concatenated", {5, 4, 6}, 7, {270, 513}, concatenation},
};

/// The formulas of the header with out stored and conditions copied, in double.
struct oracle {
  feature_shape shape;
  std::int64_t width;
  bool conditional;
  numbers weight, bias;
  /// One projection of a condition: parameters, their place, and the condition.
  struct term {
    std::int64_t weight_offset, bias_offset, size;
    numbers weight, bias, values;
  };
  std::vector<term> terms;
  numbers m;

  template <class T>
  oracle(extents const& c, layer_checks::passes<T, projection<T>>& run)
      : shape(c.shape), width(c.width), conditional(!c.sizes.empty()) {
    auto const l = c.layer<T>();
    auto const part = [&](int i) {
      parameter_view const view = l.parameter(i);
      auto const values = run.w.values().subspan(at(view.offset), at(view.size()));
      return numbers(values.begin(), values.end());
    };
    weight = part(0);
    bias = part(1);
    for (int i = 2; i < l.parameters(); i += 2) {
      term t{l.parameter(i).offset, l.parameter(i + 1).offset, 0, part(i), part(i + 1), {}};
      for (std::int64_t b = 0; b < shape.batch; ++b) {
        for (std::size_t k = 0; k < c.sizes.size(); ++k) {
          if (c.combination == sum && k != at(i / 2 - 1)) continue;
          auto const values =
              run.conditions[k].values().subspan(at(b * c.sizes[k]), at(c.sizes[k]));
          t.values.insert(t.values.end(), values.begin(), values.end());
        }
      }
      t.size = static_cast<std::int64_t>(t.values.size()) / shape.batch;
      terms.push_back(t);
    }
    m.assign(at(shape.batch * width), conditional ? 0.0 : 1.0);
    each([&](std::int64_t b, std::int64_t p) {
      for (term const& t : terms) {
        double product = 0;
        for (std::int64_t i = 0; i < t.size; ++i) {
          product += t.weight[at(p * t.size + i)] * t.values[at(b * t.size + i)];
        }
        m[at(b * width + p)] += product / std::sqrt(static_cast<double>(t.size)) + t.bias[at(p)];
      }
    });
  }

  void each(auto const& body) const {
    for (std::int64_t b = 0; b < shape.batch; ++b) {
      for (std::int64_t p = 0; p < width; ++p) body(b, p);
    }
  }
  [[nodiscard]] double root() const { return std::sqrt(static_cast<double>(width)); }

  /// out[b,p,l], with or without bias.
  [[nodiscard]] double out(auto const& h, double bias_factor, std::int64_t b, std::int64_t p,
                           std::int64_t l) const {
    auto const [B, C, L] = shape;
    double result = bias_factor * bias[at(p)];
    for (std::int64_t c = 0; c < C; ++c) {
      result += weight[at(p * C + c)] * static_cast<double>(h[at((b * C + c) * L + l)]);
    }
    return result;
  }
  [[nodiscard]] numbers logits(auto const& h, double bias_factor) const {
    std::int64_t const L = shape.length;
    numbers y(at(shape.batch * L));
    each([&](std::int64_t b, std::int64_t p) {
      for (std::int64_t l = 0; l < L; ++l) {
        y[at(b * L + l)] += out(h, bias_factor, b, p, l) * m[at(b * width + p)] / root();
      }
    });
    return y;
  }

  struct gradients {
    numbers h, w;
    std::vector<numbers> terms;  ///< of their values
  };
  /// Of <y_bar, logits> + <y_dot_bar, logits_dot>; y_dot_bar of zeros for a backward pass.
  [[nodiscard]] gradients gradients_of(auto const& h, auto const& h_dot, auto const& y_bar,
                                       numbers const& y_dot_bar, std::size_t parameters) const {
    auto const [B, C, L] = shape;
    gradients g{numbers(at(shape.size())), numbers(parameters), {}};
    numbers m_bar(m.size());
    for (std::int64_t b = 0; b < B; ++b) {
      for (std::int64_t p = 0; p < width; ++p) {
        double const factor = m[at(b * width + p)] / root();
        for (std::int64_t l = 0; l < L; ++l) {
          auto const bar = static_cast<double>(y_bar[at(b * L + l)]);
          double const dot_bar = y_dot_bar[at(b * L + l)];
          m_bar[at(b * width + p)] +=
              (out(h, 1, b, p, l) * bar + out(h_dot, 0, b, p, l) * dot_bar) / root();
          g.w[at(width * C + p)] += factor * bar;
          for (std::int64_t c = 0; c < C; ++c) {
            std::size_t const n = at((b * C + c) * L + l);
            g.h[n] += weight[at(p * C + c)] * factor * bar;
            g.w[at(p * C + c)] += factor * (static_cast<double>(h[n]) * bar +
                                            static_cast<double>(h_dot[n]) * dot_bar);
          }
        }
      }
    }
    for (term const& t : terms) {
      double const scale = 1 / std::sqrt(static_cast<double>(t.size));
      numbers& values = g.terms.emplace_back(t.values.size());
      each([&](std::int64_t b, std::int64_t p) {
        double const bar = m_bar[at(b * width + p)];
        g.w[at(t.bias_offset + p)] += bar;
        for (std::int64_t i = 0; i < t.size; ++i) {
          g.w[at(t.weight_offset + p * t.size + i)] += bar * scale * t.values[at(b * t.size + i)];
          values[at(b * t.size + i)] += bar * scale * t.weight[at(p * t.size + i)];
        }
      });
    }
    return g;
  }
};

/// Relative to the largest number.
template <class T>
void check_near(char const* name, std::vector<T> const& got, numbers const& expected) {
  INFO(name);
  REQUIRE(got.size() == expected.size());
  double error = 0;
  double largest = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    double const difference = std::abs(static_cast<double>(got[n]) - expected[n]);
    if (!(difference <= error)) error = difference;  // NaN is kept
    largest = std::fmax(largest, std::abs(expected[n]));
  }
  CAPTURE(error, largest);
  CHECK(error <= (std::is_same_v<T, float> ? 2e-6 : 1e-14) * std::fmax(largest, 1));
}

/// The conditions of one projection one after the other, as the oracle has them.
template <class T>
numbers joined(std::vector<std::vector<T>> const& conditions, std::int64_t batch) {
  numbers result;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (auto const& c : conditions) {
      auto const size = static_cast<std::ptrdiff_t>(c.size()) / batch;
      result.insert(result.end(), c.begin() + b * size, c.begin() + (b + 1) * size);
    }
  }
  return result;
}

template <class T>
void check_against_oracle(extents const& c) {
  CAPTURE(c.name);
  auto const l = c.layer<T>();
  CHECK(l.output_shape("test", c.shape) == feature_shape{c.shape.batch, 1, c.shape.length});
  layer_checks::passes<T, projection<T>> run(l, c.shape, 1);
  oracle const expected(c, run);
  auto const h = run.x.content();
  auto const h_dot = run.x_dot.content();
  auto const y_bar = run.y_bar.content();
  auto const y_dot_bar = run.y_dot_bar.content();
  auto const r = layer_checks::run_all(run);
  check_near("y", r.y, expected.logits(h, 1));
  check_near("y_dot", r.y_dot, expected.logits(h_dot, 0));
  auto const check = [&](auto const& gradients, numbers const& second) {
    auto const got = run.added(gradients);
    auto const g = expected.gradients_of(h, h_dot, y_bar, second, at(l.parameter_count()));
    check_near("x_bar", got.x_bar, g.h);
    check_near("w_bar", got.w_bar, g.w);
    if (c.combination == concatenation && !c.sizes.empty()) {
      auto const all = joined(got.conditions, c.shape.batch);
      check_near("conditions", std::vector<T>(all.begin(), all.end()), g.terms[0]);
    } else {
      REQUIRE(got.conditions.size() == g.terms.size());
      for (std::size_t k = 0; k < g.terms.size(); ++k) {
        check_near("a condition", got.conditions[k], g.terms[k]);
      }
    }
  };
  check(r.of_y_bar, numbers(y_dot_bar.size()));
  check(r.second, numbers(y_dot_bar.begin(), y_dot_bar.end()));
}

/// Runs passes by hand: all memory of a layer, filled with ones.
template <class T>
struct by_hand {
  projection<T> layer;
  std::vector<T> w, h, y, y_bar, h_bar, w_bar, saved, workspace;
  std::vector<T> values[2], gradients[2];
  condition<T> conditions[2];
  layer_pass<T> pass;

  by_hand(projection<T> const& l, feature_shape shape)
      : layer(l),
        w(at(l.parameter_count()), 1),
        h(at(shape.size()), 1),
        y(at(shape.batch * shape.length)),
        y_bar(y.size(), 1),
        h_bar(h.size()),
        w_bar(w.size()),
        saved(at(l.sizes(shape).saved)),
        workspace(at(l.sizes(shape).workspace)) {
    auto const count = static_cast<std::size_t>(l.conditions);
    for (std::size_t k = 0; k < count; ++k) {
      values[k].assign(at(shape.batch * l.condition_size[k]), 1);
      gradients[k].assign(values[k].size(), 0);
      conditions[k] = {l.condition_size[k], values[k].data(), gradients[k].data()};
    }
    pass = {.shape = shape,
            .w = w.data(),
            .x = h.data(),
            .y = y.data(),
            .y_bar = y_bar.data(),
            .x_bar = h_bar.data(),
            .w_bar = w_bar.data(),
            .saved = saved.data(),
            .workspace = workspace.data(),
            .conditions = {conditions, count}};
  }
  by_hand(by_hand const&) = delete;  // `pass` points into the members
  by_hand(by_hand&&) = delete;
  by_hand& operator=(by_hand const&) = delete;
  by_hand& operator=(by_hand&&) = delete;
  ~by_hand() = default;

  void forward() { layer.forward({}, pass); }
};

}  // namespace

TEMPLATE_TEST_CASE("a projection equals its formulas", "", float, double) {
  for (auto const& c : small) check_against_oracle<TestType>(c);
  for (auto const& c : large) check_against_oracle<TestType>(c);
}

TEMPLATE_TEST_CASE("a projection keeps the contract of layers", "", float, double) {
  for (auto const& c : small) {
    CAPTURE(c.name);
    check_layer<TestType>(c.layer<TestType>(), c.shape);
  }
}

TEST_CASE("a projection in float equals the one in double") {
  for (auto const& cases : {small, large}) {
    for (auto const& c : cases) {
      CAPTURE(c.name);
      check_float(c.layer<float>(), c.layer<double>(), c.shape);
    }
  }
}

TEST_CASE("a projection has the same bits on any number of threads") {
  for (auto const combination : {sum, concatenation}) {
    extents const c{"threads", {3, 150, 300}, 64, {70, 300}, combination};
    check_threads<float>(c.layer<float>(), c.shape);
    check_threads<double>(c.layer<double>(), c.shape);
  }
}

TEST_CASE("without a condition logits are the classifier's output") {
  by_hand<double> run({.channels = 2}, {1, 2, 3});
  std::ranges::copy(numbers{2, -1, 0.5}, run.w.begin());
  std::ranges::copy(numbers{1, 2, 3, 10, 20, 30}, run.h.begin());
  run.forward();
  CHECK(run.y == numbers{-7.5, -15.5, -23.5});
}

TEST_CASE("conditions of a projection are added, or concatenated") {
  // One channel, P = 1: logits = m. All parameters are 1 but the biases.
  projection<double> l{.channels = 1, .conditions = 2, .condition_size = {1, 3}};
  by_hand<double> added(l, {1, 1, 1});
  l.combination = concatenation;
  by_hand<double> joined(l, {1, 1, 1});
  for (auto* run : {&added, &joined}) {
    run->values[0] = {5};
    std::ranges::copy(numbers{1, 2, 4}, run->values[1].begin());
    for (int i = 1; i < run->layer.parameters(); i += 2) {
      run->w[at(run->layer.parameter(i).offset)] = i - 1;  // 0, 2, 4
    }
    run->conditions[0].values = run->values[0].data();
    run->forward();
  }
  CHECK(added.y[0] == Approx(5 + 2 + 7 / std::sqrt(3) + 4));
  CHECK(joined.y[0] == Approx(12 / std::sqrt(4) + 2));
}

TEST_CASE("a concatenation of one condition is a projection of it, bit for bit") {
  extents c{"one", {3, 4, 6}, 5, {7}};
  auto const one = c.layer<float>();
  c.combination = concatenation;
  auto const joined = c.layer<float>();
  layer_checks::passes<float, projection<float>> first(one, c.shape, 1);
  layer_checks::passes<float, projection<float>> second(joined, c.shape, 1);
  layer_checks::each_output(layer_checks::run_all(first), layer_checks::run_all(second),
                            layer_checks::same);
}

TEST_CASE("a projection reads features only for gradients that are wanted") {
  by_hand<float> run({.channels = 3, .width = 2, .conditions = 1, .condition_size = {4}},
                     {2, 3, 5});
  run.forward();
  run.layer.backward({}, run.pass);
  auto const h_bar = run.h_bar;
  auto const condition_gradient = run.gradients[0];

  run.h_bar.assign(h_bar.size(), 0);
  run.pass.w_bar = nullptr;
  run.conditions[0].gradient = nullptr;
  run.pass.x = nullptr;
  run.pass.workspace = nullptr;
  run.layer.backward({}, run.pass);
  CHECK(run.h_bar == h_bar);
  run.pass.x_bar = nullptr;
  run.layer.backward({}, run.pass);

  // A condition's gradient without that of the parameters.
  run.pass.x = run.h.data();
  run.pass.workspace = run.workspace.data();
  run.gradients[0].assign(condition_gradient.size(), 0);
  run.conditions[0].gradient = run.gradients[0].data();
  run.layer.backward({}, run.pass);
  CHECK(run.gradients[0] == condition_gradient);
  for (float const x : condition_gradient) CHECK(x != 0);
}

TEST_CASE("one of two conditions may have no gradient") {
  for (auto const combination : {sum, concatenation}) {
    extents const c{"two", {2, 3, 5}, 2, {4, 3}, combination};
    by_hand<double> run(c.layer<double>(), c.shape);
    run.forward();
    run.layer.backward({}, run.pass);
    numbers const both[] = {run.gradients[0], run.gradients[1]};
    for (std::size_t const k : {0U, 1U}) {
      for (std::size_t const i : {0U, 1U}) {
        run.gradients[i].assign(both[i].size(), 0);
        run.conditions[i].gradient = i == k ? run.gradients[i].data() : nullptr;
      }
      run.layer.backward({}, run.pass);
      CHECK(run.gradients[k] == both[k]);
      CHECK(run.gradients[1 - k] == numbers(both[1 - k].size(), 0.0));
    }
  }
}

TEST_CASE("a projection of floats sums in double") {
  by_hand<float> run({.channels = 3}, {1, 3, 3});
  for (std::size_t l = 0; l < 3; ++l) {
    run.h[l] = 1e9F;
    run.h[3 + l] = 1;
    run.h[6 + l] = -1e9F;
  }
  run.w[3] = 0;
  run.forward();
  CHECK(run.y == std::vector<float>{1, 1, 1});
  for (std::size_t c = 0; c < 3; ++c) {
    run.h[3 * c] = 1e9F;
    run.h[3 * c + 1] = 1;
    run.h[3 * c + 2] = -1e9F;
  }
  run.layer.backward({}, run.pass);
  CHECK(run.w_bar == std::vector<float>{1, 1, 1, 3});
}

TEST_CASE("NaN in h or in a condition reaches the logits") {
  by_hand<float> run({.channels = 3, .width = 2, .conditions = 1, .condition_size = {3}},
                     {2, 3, 4});
  run.h[5] = std::nanf("");  // b = 0, l = 1
  run.w.assign(run.w.size(), 0);
  run.forward();
  for (std::size_t i = 0; i < run.y.size(); ++i) CHECK(std::isnan(run.y[i]) == (i == 1));
  run.layer.backward({}, run.pass);
  CHECK(std::isnan(run.gradients[0][0]));
  CHECK_FALSE(std::isnan(run.gradients[0][3]));
  run.h[5] = 0;
  run.values[0][4] = std::nanf("");  // b = 1
  run.forward();
  for (std::size_t i = 0; i < run.y.size(); ++i) CHECK(std::isnan(run.y[i]) == (i >= 4));
  run.layer.backward({}, run.pass);
  for (std::size_t i = 0; i < run.h_bar.size(); ++i) CHECK(std::isnan(run.h_bar[i]) == (i >= 12));
}

TEST_CASE("the parameters of a projection are named and cover the buffer") {
  auto const names = [](projection<double> const& l) {
    std::int64_t offset = 0;
    std::vector<std::string> result;
    for (int i = 0; i < l.parameters(); ++i) {
      CHECK(l.parameter(i).offset == offset);
      offset += l.parameter(i).size();
      result.emplace_back(l.parameter(i).name);
    }
    CHECK(offset == l.parameter_count());
    return result;
  };
  using texts = std::vector<std::string>;
  projection<double> l{.channels = 5, .width = 4, .conditions = 2, .condition_size = {3, 2}};
  CHECK(names(l) == texts{"weight", "bias", "condition0.weight", "condition0.bias",
                          "condition1.weight", "condition1.bias"});
  CHECK(l.parameter(0).rank == 3);
  CHECK(l.parameter(4).rank == 2);
  CHECK(l.parameter(4).extents[0] == 4);
  CHECK(l.parameter(4).extents[1] == 2);
  CHECK(std::ranges::equal(l.condition_sizes(), std::vector<std::int64_t>{3, 2}));

  l.combination = concatenation;
  CHECK(names(l) == texts{"weight", "bias", "condition.weight", "condition.bias"});
  CHECK(l.parameter(2).rank == 2);
  CHECK(l.parameter(2).extents[0] == 4);
  CHECK(l.parameter(2).extents[1] == 5);
  CHECK(std::ranges::equal(l.condition_sizes(), std::vector<std::int64_t>{3, 2}));

  CHECK(names({.channels = 5}) == texts{"weight", "bias"});
  CHECK(names({.channels = 5, .combination = concatenation}) == texts{"weight", "bias"});
  CHECK(projection<double>{.channels = 5}.condition_sizes().empty());
  // Within bounds before output_shape has refused it.
  CHECK(projection<double>{.conditions = 5}.condition_sizes().size() == 4);
  CHECK(projection<double>{.conditions = 5}.parameters() == 10);
  CHECK(projection<double>{.conditions = -1}.parameters() == 2);
}

TEST_CASE("a projection reports shapes that do not fit") {
  auto const check = [](projection<float> const& layer, feature_shape shape) {
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
  CHECK(check({.channels = 3, .conditions = 5}, {1, 3, 1}) ==
        "head: conditions (expected 0 to 4, got 5)");
  CHECK(check({.channels = 3, .conditions = -1}, {1, 3, 1}).find("head: conditions") == 0);
  CHECK(check({.channels = 3, .conditions = 2, .condition_size = {1}}, {1, 3, 1}) ==
        "head: condition_size[1] (expected at least 1, got 0)");
}

TEST_CASE("conditions that a layer does not read are reported") {
  float const value = 0;
  std::vector<std::int64_t> const sizes = {3, 768};
  auto const check = [&](std::vector<condition<float>> const& given) {
    return error_of([&] {
      detail::check_conditions("head", std::span(sizes), std::span<condition<float> const>(given));
    });
  };
  CHECK(check({{3, &value}, {768, &value}}) == "no error");
  CHECK(check({{3, &value}}) == "head: conditions (expected 2, got 1)");
  CHECK(check({{3, &value}, {768, &value}, {1, &value}}) == "head: conditions (expected 2, got 3)");
  CHECK(check({{3, &value}, {512, &value}}) ==
        "head: conditions[1] (expected 768 numbers a sample, got 512)");
  CHECK(check({{3, nullptr}, {768, &value}}) == "head: conditions[0] (expected values, got null)");
}
