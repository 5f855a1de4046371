// SPDX-License-Identifier: MIT
// Workspace, allocations, threads, errors, first values and names. Values: head_stack_test.cpp.
#include <addloss/heads/head_stack.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "count_allocations.hpp"
#include "error_of.hpp"
#include "heads/gated.hpp"
#include "heads/stack_case.hpp"

namespace {

using namespace addloss;
using namespace stack_tests;

double const not_a_number = std::numeric_limits<double>::quiet_NaN();
double const infinity = std::numeric_limits<double>::infinity();

/// All arguments of the calls of a stack, to be spoilt one by one, and all that they write.
struct calls {
  using head_type = decltype(projected_head<double>({}));

  stack_case<double, head_type> c = three_in_double();
  discriminator_options options{.fake_penalty = r1{}};
  bool accumulate = false;
  head_inputs<double> real = c.real.in();
  head_inputs<double> fake = c.fake.in();
  std::vector<rows<double>> x_bar = c.fake.gradients();
  std::vector<numbers<double>> logits{};
  std::vector<rows<double>> logit_rows{};
  std::span<double> workspace{};
  std::vector<head_statistics> health{};
  numbers<double> real_penalties = numbers<double>(3);
  numbers<double> fake_penalties = numbers<double>(3);

  calls() {
    for (int k = 0; k < 3; ++k) {
      auto const shape = c.stack.output_shape(k, three_shapes[at(k)]);
      logits.emplace_back(at(shape.size()));
      logit_rows.push_back(view(logits.back().data(), shape.batch, shape.length));
    }
    health.resize(3);
    options.statistics = health;
    options.real_penalties = real_penalties;
    options.fake_penalties = fake_penalties;
  }
  calls(calls const&) = delete;
  calls(calls&&) = delete;
  calls& operator=(calls const&) = delete;
  calls& operator=(calls&&) = delete;
  ~calls() = default;

  void call_logits() {
    c.stack.logits(c.ctx, std::as_const(c.w), std::as_const(c.state), real, logit_rows, workspace);
  }
  void call_generator() {
    c.stack.generator_step(c.ctx, adversarial<>{}, std::as_const(c.w), std::as_const(c.state), fake,
                           x_bar, workspace, {.statistics = options.statistics});
  }
  void call_discriminator() {
    c.stack.discriminator_step(c.ctx, adversarial<>{}, std::as_const(c.w), std::as_const(c.state),
                               real, fake, {.values = c.w_bar, .accumulate = accumulate}, workspace,
                               options);
  }
  void call_update() { c.stack.update_state(c.ctx, std::as_const(c.w), c.state); }

  /// Everything that any call writes.
  [[nodiscard]] numbers<double> outputs() const {
    numbers<double> all;
    auto const add = [&](numbers<double> const& x) { all.insert(all.end(), x.begin(), x.end()); };
    for (auto const* of : {&c.real, &c.fake}) {
      for (auto const& x : of->x_bar) add(x);
      for (auto const& x : of->c_bar) add(x);
    }
    for (auto const& x : logits) add(x);
    add(c.w_bar);
    add(c.state);
    all.insert(all.end(), workspace.begin(), workspace.end());
    add(real_penalties);
    add(fake_penalties);
    for (auto const& head : health) add({head.real.mean, head.fake.mean});
    return all;
  }
};

/// A layer that says it has more convolutions than a stack takes.
struct many : gated {
  [[nodiscard]] int parameters() const { return 17; }
  [[nodiscard]] parameter_view parameter(int i) const { return {"weight", i, 3, {1, 1, 1}}; }
};

using call = void (calls::*)();
constexpr call logits = &calls::call_logits;
constexpr call generator = &calls::call_generator;
constexpr call discriminator = &calls::call_discriminator;
constexpr call update = &calls::call_update;

std::int64_t promised(calls const& a, call which) {
  if (which == logits) return a.c.stack.logits_workspace(three_shapes);
  if (which == generator) return a.c.stack.generator_workspace(three_shapes);
  return a.c.stack.discriminator_workspace(three_shapes, a.options, a.accumulate);
}

/// The error of a call with one argument spoilt, which must have written nothing.
std::string error_with(call which, std::function<void(calls&)> const& spoil) {
  calls a;
  numbers<double> workspace(at(promised(a, discriminator)));
  a.workspace = workspace;
  spoil(a);
  auto const before = a.outputs();
  std::string result = error_of([&] { (a.*which)(); });
  if (result != "no error" && !layer_checks::same_bits(a.outputs(), before)) {
    return "written to in spite of: " + result;
  }
  return result;
}

}  // namespace

TEST_CASE("the promised workspace is enough, and one number less is refused") {
  auto const check = [](call which, std::string const& name, int mask) {
    CAPTURE(name, mask);
    auto const prepare = [&](calls& a) {
      a.options.real_penalty = (mask & 1) != 0 ? std::optional(r1{}) : std::nullopt;
      a.options.fake_penalty = (mask & 2) != 0 ? std::optional(r1{}) : std::nullopt;
      a.accumulate = (mask & 4) != 0;
    };
    calls a;
    prepare(a);
    std::int64_t const size = promised(a, which);
    layer_checks::guarded<double> exact(size);
    a.workspace = exact.values().subspan(1);
    auto const before = a.outputs();
    CHECK(error_of([&] { (a.*which)(); }) ==
          "head_stack::" + name + ": workspace (expected at least " + std::to_string(size) +
              " numbers, got " + std::to_string(size - 1) + ")");
    CHECK(layer_checks::same_bits(a.outputs(), before));
    a.workspace = exact.values();
    (a.*which)();
    CHECK(exact.intact());
    a.workspace = {};
    for (double const x : a.outputs()) CHECK(std::isfinite(x));
    // What lies in the workspace before has no influence, nor has its size.
    calls b;
    prepare(b);
    numbers<double> larger(at(size + 100), 1e300);
    b.workspace = larger;
    (b.*which)();
    b.workspace = {};
    CHECK(layer_checks::same_bits(a.outputs(), b.outputs()));
  };
  check(logits, "logits", 3);
  check(generator, "generator_step", 3);
  for (int mask = 0; mask < 8; ++mask) check(discriminator, "discriminator_step", mask);
}

TEST_CASE("penalties and accumulation need memory only where they are asked for") {
  auto const c = three_in_double();
  auto const size = [&](discriminator_options const& options, bool accumulate) {
    return c.stack.discriminator_workspace(three_shapes, options, accumulate);
  };
  discriminator_options const none{.real_penalty = std::nullopt};
  CHECK(size(none, false) < size({}, false));
  CHECK(size({}, false) < size({.fake_penalty = r1{}}, false));
  CHECK(size({}, false) < size({}, true));
  CHECK(error_of([&] { (void)c.stack.logits_workspace({}); }) ==
        "head_stack: shapes (expected 3 heads, got 0)");
}

TEST_CASE("no call allocates") {
  calls a;
  numbers<double> workspace(at(promised(a, discriminator)));
  a.workspace = workspace;
  std::int64_t const before = allocations;
  a.call_update();
  a.call_logits();
  a.call_generator();
  a.call_discriminator();
  std::int64_t const after = allocations;
  CHECK(after == before);
  // The counter itself counts.
  ::operator delete(::operator new(8));
  CHECK(allocations == after + 1);
}

TEMPLATE_TEST_CASE("a stack gives the same bits on any number of threads", "", float, double) {
  using T = TestType;
  std::vector<head_settings> const settings = {
      {.channels = 32, .condition_sizes = {24}, .width = 16},
      {.channels = 24, .kernel = 5, .condition_sizes = {24}, .width = 16}};
  std::vector<feature_shape> const shapes = {{8, 32, 160}, {8, 24, 200}};
  auto const run = [&](int threads) {
    stack_case c(projected_heads<T>(settings), shapes, {24});
    c.ctx.threads = threads;
    numbers<T> all;
    auto const add = [&](numbers<T> const& x) { all.insert(all.end(), x.begin(), x.end()); };
    c.stack.update_state(c.ctx, std::as_const(c.w), c.state);
    add(c.state);
    for (auto const& x : c.logits(c.real)) add(x);
    auto const g = c.generator(adversarial<>{});
    discriminator_options options{.fake_penalty = r1{}};
    numbers<double> penalties(2);
    options.real_penalties = penalties;
    auto const d = c.discriminator(adversarial<>{}, options);
    add(c.w_bar);
    for (auto const* of : {&c.real, &c.fake}) {
      for (auto const& x : of->x_bar) add(x);
      for (auto const& x : of->c_bar) add(x);
    }
    numbers<double> values = {g.loss,    d.total,      d.adversarial,
                              d.penalty, penalties[0], penalties[1]};
    return std::pair(all, values);
  };
  auto const one = run(1);
  for (T const x : one.first) REQUIRE(std::isfinite(x));
  for (int const threads : {2, 3}) {
    CAPTURE(threads);
    auto const several = run(threads);
    CHECK(layer_checks::same_bits(several.first, one.first));
    CHECK(layer_checks::same_bits(several.second, one.second));
  }
}

TEST_CASE("arguments that make no sense are refused before anything is written") {
  using std::string;
  string const gen = "head_stack::generator_step: ";
  string const dis = "head_stack::discriminator_step: ";
  string const log = "head_stack::logits: ";
  CHECK(error_with(update, [](calls&) {}) == "no error");
  CHECK(error_with(logits, [](calls&) {}) == "no error");
  CHECK(error_with(generator, [](calls&) {}) == "no error");
  CHECK(error_with(discriminator, [](calls&) {}) == "no error");

  // Heads.
  CHECK(error_with(logits, [](calls& a) { a.real.features = a.real.features.first(2); }) ==
        log + "features (expected 3 heads, got 2)");
  CHECK(error_with(generator, [](calls& a) { a.fake.features = {}; }) ==
        gen + "features (expected 3 heads, got 0)");
  CHECK(error_with(discriminator, [](calls& a) { a.real.features = a.real.features.first(1); }) ==
        dis + "real.features (expected 3 heads, got 1)");
  CHECK(error_with(discriminator, [](calls& a) { a.fake.features = a.fake.features.first(1); }) ==
        dis + "fake.features (expected 3 heads, got 1)");
  CHECK(error_with(logits, [](calls& a) { a.logit_rows.pop_back(); }) ==
        log + "logits (expected 3 heads, got 2)");
  CHECK(error_with(generator, [](calls& a) { a.x_bar.pop_back(); }) ==
        gen + "gradients (expected 3 heads, got 2)");
  CHECK(error_with(generator, [](calls& a) {
          a.options.statistics = a.options.statistics.first(2);
        }) == gen + "statistics (expected 3 heads, got 2)");
  CHECK(error_with(discriminator, [](calls& a) {
          a.options.statistics = a.options.statistics.first(1);
        }) == dis + "statistics (expected 3 heads, got 1)");
  CHECK(error_with(discriminator, [](calls& a) {
          a.options.real_penalties = a.options.real_penalties.first(1);
        }) == dis + "real_penalties (expected 3 heads, got 1)");
  CHECK(error_with(discriminator, [](calls& a) {
          a.options.fake_penalties = a.options.fake_penalties.first(2);
        }) == dis + "fake_penalties (expected 3 heads, got 2)");

  // Features.
  auto const with_feature = [](call which, int k, auto const& tensor) {
    return error_with(which, [&](calls& a) {
      auto& features = which == generator ? a.c.fake.feature_rows : a.c.real.feature_rows;
      features[at(k)] = tensor;
    });
  };
  static numbers<double> const memory(1000, 0.5);
  double const* const data = memory.data();
  CHECK(with_feature(logits, 1, view(data, 4, 3, 7)) ==
        log + "features[1]: channels (expected 2, got 3)");
  CHECK(with_feature(generator, 1, view(data, 2, 2, 7)) ==
        gen + "features[1] (expected 4 samples, got [2,2,7])");
  CHECK(with_feature(discriminator, 2, view(data, 4, 8)) ==
        dis + "real.features[2] (expected shape [B, C, L], got [4,8])");
  CHECK(with_feature(logits, 0, view(data, 4, 3, 5, 1)) ==
        log + "features[0] (expected shape [B, C, L], got [4,3,5,1])");
  CHECK(with_feature(generator, 0, rows<double const>{}) ==
        gen + "features[0] (expected a tensor, got none)");
  CHECK(with_feature(generator, 0, view(data, 0, 3, 5)) ==
        gen + "features[0] (expected a batch of at least one sample, got [0,3,5])");
  CHECK(with_feature(generator, 0, view(data, 4, 3, 0)) ==
        gen + "features[0] (expected samples of at least one element, got [4,3,0])");
  CHECK(with_feature(generator, 0, view(static_cast<double const*>(nullptr), 4, 3, 5)) ==
        gen + "features[0] (expected memory, got a null pointer)");
  auto const strided = [](auto* pointer, std::int64_t const(&extents)[3],
                          std::int64_t const(&strides)[3]) {
    tensor_view<std::remove_pointer_t<decltype(pointer)>, 3> result =
        view(pointer, extents[0], extents[1], extents[2]);
    for (int axis = 0; axis < 3; ++axis) result.strides[axis] = strides[axis];
    return result;
  };
  CHECK(with_feature(logits, 0, strided(data, {4, 3, 5}, {15, 1, 3})) ==
        log + "features[0] (expected row-major memory without gaps, got strides [15,1,3])");
  CHECK(with_feature(logits, 0, strided(data, {4, 3, 5}, {16, 5, 1})) ==
        log + "features[0] (expected row-major memory without gaps, got strides [16,5,1])");
  CHECK(error_with(discriminator,
                   [&](calls& a) { a.c.fake.feature_rows[2] = view(data, 4, 4, 3); }) ==
        dis +
            "fake.features[2] (expected the shape of real.features[2], [4,4,2], got "
            "[4,4,3])");
  CHECK(
      error_with(discriminator,
                 [&](calls& a) {
                   for (auto& features : a.c.fake.feature_rows) {
                     features = view(data, 2, features.shape.extents[1], features.shape.extents[2]);
                   }
                 }) == dis +
                           "fake.features[0] (expected the shape of real.features[0], [4,3,5], got "
                           "[2,3,5])");
  CHECK(error_with(logits,
                   [&](calls& a) {
                     for (auto& features : a.c.real.feature_rows) {
                       features =
                           view(data, 5, features.shape.extents[1], features.shape.extents[2]);
                     }
                   }) ==
        log +
            "features[0]: x (expected a batch that its 3 groups of at most 2 samples divide, got a "
            "batch of 5)");

  // What is written.
  static numbers<double> written(1000);
  double* const out = written.data();
  CHECK(error_with(logits, [&](calls& a) { a.logit_rows[1] = view(out, 4, 6); }) ==
        log + "logits[1] (expected shape [4,7], got [4,6])");
  CHECK(error_with(logits, [&](calls& a) { a.logit_rows[1] = view(out, 4, 1, 7); }) ==
        log + "logits[1] (expected shape [4,7], got [4,1,7])");
  CHECK(error_with(logits, [&](calls& a) {
          a.logit_rows[1] = tensor_view<double, 2>{out, {4, 7}, {8, 1}};
        }) == log + "logits[1] (expected row-major memory without gaps, got strides [8,1])");
  CHECK(error_with(generator, [&](calls& a) { a.x_bar[1] = view(out, 4, 2, 6); }) ==
        gen + "gradients[1] (expected the shape of features[1], [4,2,7], got [4,2,6])");
  CHECK(error_with(generator, [&](calls& a) {
          a.x_bar[1] = strided(out, {4, 2, 7}, {15, 7, 1});
        }) == gen + "gradients[1] (expected row-major memory without gaps, got strides [15,7,1])");

  // Sizes of buffers.
  calls const model;
  string const w_size = std::to_string(model.c.w.size());
  string const state_size = std::to_string(model.c.state.size());
  string const fewer = std::to_string(model.c.w.size() - 1);
  for (auto const& [which, name] : {std::pair{logits, log},
                                    {generator, gen},
                                    {discriminator, dis},
                                    {update, string("head_stack::update_state: ")}}) {
    CHECK(error_with(which, [](calls& a) { a.c.w.pop_back(); }) ==
          name + "parameters (expected " + w_size + " numbers, got " + fewer + ")");
    CHECK(error_with(which, [](calls& a) { a.c.state.clear(); }) ==
          name + "state (expected " + state_size + " numbers, got 0)");
    CHECK(error_with(which, [](calls& a) { a.c.state[3] = -infinity; }) ==
          name + "state[3] (expected a finite number, got -inf)");
    // Residual weight of head 1, beyond the full registers too.
    for (std::size_t const i : {0U, 5U, 16U, 35U}) {
      CHECK(error_with(
                which,
                [&](calls& a) {
                  a.c.w[at(a.c.stack.parameter(model.c.stack[0].parameters() + 4).offset) + i] =
                      not_a_number;
                }) == name + "1.residual.conv.weight[" + std::to_string(i) +
                          "] (expected a finite number, got nan)");
    }
    CHECK(error_with(which, [](calls& a) { a.c.w.back() = infinity; }) ==
          name + "2.classifier.condition1.bias[0] (expected a finite number, got inf)");
  }
  CHECK(error_with(discriminator, [](calls& a) { a.c.w_bar.pop_back(); }) ==
        dis + "gradients (expected " + w_size + " numbers, got " + fewer + ")");

  // A weight that is 0, of head 1.
  for (auto const& [which, name] :
       {std::pair{logits, log}, {generator, gen}, {discriminator, dis}}) {
    CHECK(error_with(which,
                     [](calls& a) {
                       auto const part = a.c.stack.parameter(a.c.stack[0].parameters() + 4);
                       for (std::int64_t i = 0; i < part.size(); ++i)
                         a.c.w[at(part.offset + i)] = 0;
                     }) ==
          name +
              "1.residual.conv.weight (expected a weight whose sigma is finite and not "
              "0, got 0)");
  }

  // Penalties.
  CHECK(error_with(discriminator, [](calls& a) { a.options.real_penalty->gamma = -1; }) ==
        dis + "gamma (expected a number >= 0, got -1)");
  CHECK(error_with(discriminator, [](calls& a) { a.options.fake_penalty->factor = -0.5; }) ==
        dis + "factor (expected a number >= 0, got -0.5)");
  CHECK(error_with(discriminator, [](calls& a) { a.options.fake_penalty->interval = 0; }) ==
        dis + "interval (expected at least 1, got 0)");
  CHECK(error_with(discriminator, [](calls& a) { a.options.real_penalty->gamma = not_a_number; }) ==
        dis + "gamma (expected a number >= 0, got nan)");

  // Conditions.
  for (auto const& [which, name] :
       {std::pair{logits, log}, {generator, gen}, {discriminator, dis}}) {
    auto const with = [which = which](auto const& spoil) {
      return error_with(which, [&](calls& a) {
        spoil(which == generator ? a.fake : a.real,
              which == generator ? a.c.fake.conditions : a.c.real.conditions);
      });
    };
    CHECK(with([](auto& in, auto&) { in.conditions = in.conditions.first(1); }) ==
          name + "conditions (expected 2, got 1)");
    CHECK(with([](auto& in, auto&) { in.conditions = {}; }) ==
          name + "conditions (expected 2, got 0)");
    CHECK(with([](auto& in, auto& conditions) {
            conditions.push_back(conditions[0]);
            in.conditions = conditions;
          }) == name + "conditions (expected 2, got 3)");
    CHECK(with([](auto&, auto& conditions) { conditions[1].size = 3; }) ==
          name + "conditions[1] (expected 2 numbers a sample, got 3)");
    CHECK(with([](auto&, auto& conditions) { conditions[1].values = nullptr; }) ==
          name + "conditions[1] (expected values, got null)");
  }

  CHECK(error_with(discriminator, [](calls& a) { a.fake.conditions = {}; }) ==
        dis + "conditions (expected 2, got 0)");

  // Threads.
  for (auto const& which : {logits, generator, discriminator, update}) {
    CHECK(error_with(which, [](calls& a) { a.c.ctx.threads = 0; }) ==
          "cpu_context: threads (expected at least 1, got 0)");
  }
}

TEST_CASE("stacks that make no sense are refused") {
  auto const make = [](std::size_t heads) {
    return error_of([&] { projected_heads<float>(std::vector<head_settings>(heads)); });
  };
  CHECK(make(0) == "head_stack: heads (expected 1 to 32 heads, got 0)");
  CHECK(make(32) == "no error");
  CHECK(make(33) == "head_stack: heads (expected 1 to 32 heads, got 33)");
  auto const even = [&] {
    head_settings const settings{.channels = 3, .kernel = 4};
    stack_case c(projected_heads<double>(std::span(&settings, 1)), {{4, 3, 5}});
    return error_of([&] { c.logits(c.real); });
  };
  CHECK(even() == "head_stack: kernel (expected an odd number of at least 1, got 4)");
  for (int const i : {-1, 40}) {
    CHECK(error_of([&] { (void)three_in_double().stack.parameter(i); }) ==
          "head_stack::parameter: i (expected 0 to 39, got " + std::to_string(i) + ")");
  }
  CHECK(error_of([&] {
          head_stack<double, many>({many{1, 1}, many{1, 1}});
        }) == "head_stack: heads[0] (expected at most 16 convolutions, got 17)");
}

TEST_CASE("parameters of a stack are those of its heads, named after them") {
  // A copy has names of its own.
  auto const stack = std::make_unique<decltype(three_in_double().stack)>(three_in_double().stack);
  auto const copy = *stack;
  std::int64_t next = 0;
  std::int64_t states = 0;
  int i = 0;
  for (int k = 0; k < 3; ++k) {
    CHECK(copy.parameter_offset(k) == next);
    CHECK(copy.state_offset(k) == states);
    for (int j = 0; j < copy[k].parameters(); ++j, ++i) {
      auto const part = copy.parameter(i);
      CHECK(std::string(part.name) == std::to_string(k) + "." + copy[k].parameter(j).name);
      CHECK(part.name != stack->parameter(i).name);
      CHECK(part.offset == next);
      next += part.size();
    }
    states += copy.spectral(k).state_size();
  }
  CHECK(copy.parameters() == i);
  CHECK(copy.parameter_count() == next);
  CHECK(copy.state_count() == states);
  CHECK(std::string(copy.parameter(0).name) == "0.first.conv.weight");
  CHECK(three_in_double(weight_normalisation::none).stack.state_count() == 0);
}

TEST_CASE("first values follow the rules of the parts") {
  std::vector<head_settings> const settings = {{.channels = 32, .condition_sizes = {48}},
                                               {.channels = 32, .condition_sizes = {48}}};
  auto const stack = projected_heads<double>(settings);
  numbers<double> w(at(stack.parameter_count()), not_a_number);
  numbers<double> state(at(stack.state_count()), not_a_number);
  stack.initialise(5, w, state);
  std::set<double> firsts;
  int drawn = 0;
  for (int i = 0; i < stack.parameters(); ++i) {
    auto const part = stack.parameter(i);
    std::string const name = part.name;
    CAPTURE(name);
    double largest = 0;
    double sum = 0;
    double square = 0;
    for (std::int64_t n = part.offset; n < part.offset + part.size(); ++n) {
      double const x = w[at(n)];
      largest = std::fmax(largest, std::abs(x));
      sum += x;
      square += x * x;
    }
    auto const count = static_cast<double>(part.size());
    bool const convolution = name.find("conv.") != name.npos ||
                             name.ends_with("classifier.weight") ||
                             name.ends_with("classifier.bias");
    if (convolution) {
      double const fan_in = name.find("residual") != name.npos ? 32 * 9 : 32;
      double const bound = 1 / std::sqrt(fan_in);
      CHECK(largest <= bound);
      CHECK(largest > bound * (1 - 12 / count));
      CHECK(std::abs(sum / count) < 4 * bound / std::sqrt(3 * count));
      CHECK(square / count == Approx(bound * bound / 3).epsilon(4 * 0.9 / std::sqrt(count)));
    } else if (name.ends_with("condition0.weight")) {
      CHECK(std::abs(sum / count) < 4 / std::sqrt(count));
      CHECK(square / count == Approx(1).epsilon(4 * std::sqrt(2 / count)));
    } else {
      double const expected = name.ends_with("norm.weight") ? 1 : 0;
      CHECK((name.ends_with("norm.weight") || name.ends_with("norm.bias") ||
             name.ends_with("condition0.bias")));
      CHECK(sum == expected * count);
      CHECK(largest == expected);
      continue;
    }
    ++drawn;
    firsts.insert(w[at(part.offset)]);
  }
  stack.each_state([&](int k, spectral_state_view const& part) {
    for (auto const& [first, count] :
         {std::pair{part.u, part.rows}, std::pair{part.v, part.columns}}) {
      double square = 0;
      double const* const x = state.data() + stack.state_offset(k) + first;
      for (std::int64_t n = 0; n < count; ++n) square += x[n] * x[n];
      CHECK(square == Approx(1).epsilon(1e-14));
      ++drawn;
      firsts.insert(x[0]);
    }
  });
  CHECK(drawn == 2 * (7 + 6));
  CHECK(firsts.size() == at(drawn));  // no two parts and no two heads begin alike

  auto const narrow = projected_heads<float>(settings);
  numbers<float> w_narrow(w.size());
  numbers<float> state_narrow(state.size());
  narrow.initialise(5, w_narrow, state_narrow);
  CHECK(w_narrow == converted<float>(w));
  CHECK(state_narrow == converted<float>(state));
  numbers<double> again(w.size());
  stack.initialise(6, again, state);
  CHECK(again != w);

  auto const before = again;
  CHECK(error_of([&] {
          stack.initialise(6, std::span(again).first(3), state);
        }).starts_with("head_stack::initialise: parameters (expected "));
  CHECK(error_of([&] {
          stack.initialise(6, again, std::span(state).first(3));
        }).starts_with("head_stack::initialise: state (expected "));
  CHECK(again == before);
}
