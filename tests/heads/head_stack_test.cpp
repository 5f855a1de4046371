// SPDX-License-Identifier: MIT
// Values and gradients. Memory, threads and errors: head_stack_memory_test.cpp.
#include <addloss/heads/head_stack.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <addloss/heads/linear.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/gated.hpp"
#include "heads/stack_case.hpp"

namespace {

using namespace addloss;
using namespace stack_tests;

template <class T>
constexpr double tolerance = sizeof(T) == sizeof(double) ? 1e-12 : 2e-5;

void check_near(char const* name, double got, double expected, double relative) {
  INFO(name);
  CHECK(std::abs(got - expected) <= relative * std::fmax(1, std::abs(expected)));
}
template <class T>
void check_near(char const* name, numbers<T> const& got, numbers<double> const& expected,
                double relative) {
  layer_checks::near(relative)("step", name, got, expected);
}
template <class T>
void check_near(char const* name, std::vector<numbers<T>> const& got,
                std::vector<numbers<double>> const& expected, double relative) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    CAPTURE(k);
    check_near(name, got[k], expected[k], relative);
  }
}
void check_near(char const* name, logit_statistics const& got, logit_statistics const& expected,
                double relative) {
  INFO(name);
  CHECK(got.mean == Approx(expected.mean).epsilon(relative).margin(relative));
  CHECK(got.positive == Approx(expected.positive));
  CHECK(got.active == Approx(expected.active));
  CHECK(got.non_finite == 0);
}

template <class T>
std::vector<numbers<T>> starts(std::vector<numbers<T>> const& like, unsigned stream) {
  std::vector<numbers<T>> result;
  for (auto const& x : like) {
    result.push_back(some<T>(static_cast<std::int64_t>(x.size()), 31, stream++));
  }
  return result;
}
template <class T>
std::vector<numbers<T>> minus(std::vector<numbers<T>> sums, std::vector<numbers<T>> const& first) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (std::size_t n = 0; n < sums[i].size(); ++n) sums[i][n] -= first[i][n];
  }
  return sums;
}

/// A step of the stack against the same step of the oracle; both are given the same numbers.
template <class T, class Head, class Wide, class Loss>
void check_generator(stack_case<T, Head>& c, oracle<Wide> const& o, Loss const& loss,
                     double grad_scale = 1) {
  auto const e = o.generator(loss, grad_scale);
  auto const first = starts(c.fake.c_bar, 1);
  c.fake.c_bar = first;
  std::vector<head_statistics> health(e.statistics.size());
  auto const got = c.generator(loss, {.grad_scale = grad_scale, .statistics = health});
  check_near("loss", got.loss, e.adversarial, tolerance<T>);
  CHECK(got.non_finite == 0);
  check_near("gradients", c.fake.x_bar, e.fake_x_bar, tolerance<T>);
  check_near("gradients of conditions", minus(c.fake.c_bar, first), e.fake_c_bar, tolerance<T>);
  for (std::size_t k = 0; k < health.size(); ++k) {
    check_near("fake", health[k].fake, e.statistics[k].fake, tolerance<T>);
  }
}

template <class T, class Head, class Wide, class Loss>
void check_discriminator(stack_case<T, Head>& c, oracle<Wide> const& o, Loss const& loss,
                         discriminator_options options = {}, bool accumulate = false) {
  auto const e = o.discriminator(loss, options);
  std::size_t const heads = e.statistics.size();
  auto const first = starts(std::vector<numbers<T>>{c.w_bar}, 9);
  if (accumulate) c.w_bar = first[0];
  auto const real_first = starts(c.real.c_bar, 1);
  auto const fake_first = starts(c.fake.c_bar, 5);
  c.real.c_bar = real_first;
  c.fake.c_bar = fake_first;
  std::vector<head_statistics> health(heads);
  numbers<double> real_penalties(options.real_penalty ? heads : 0);
  numbers<double> fake_penalties(options.fake_penalty ? heads : 0);
  options.statistics = health;
  options.real_penalties = real_penalties;
  options.fake_penalties = fake_penalties;
  auto const got = c.discriminator(loss, options, accumulate);
  check_near("adversarial", got.adversarial, e.adversarial, tolerance<T>);
  check_near("penalty", got.penalty, e.penalty, 10 * tolerance<T>);
  CHECK(got.total == got.adversarial + got.penalty);
  CHECK(got.non_finite == 0);
  check_near("real penalties", real_penalties, e.real_penalties, 10 * tolerance<T>);
  check_near("fake penalties", fake_penalties, e.fake_penalties, 10 * tolerance<T>);
  auto const w_bar = accumulate ? minus(std::vector<numbers<T>>{c.w_bar}, first)[0] : c.w_bar;
  check_near("gradients", w_bar, e.w_bar, 10 * tolerance<T>);
  check_near("gradients of real conditions", minus(c.real.c_bar, real_first), e.real_c_bar,
             10 * tolerance<T>);
  check_near("gradients of fake conditions", minus(c.fake.c_bar, fake_first), e.fake_c_bar,
             10 * tolerance<T>);
  for (std::size_t k = 0; k < heads; ++k) {
    check_near("real", health[k].real, e.statistics[k].real, tolerance<T>);
    check_near("fake", health[k].fake, e.statistics[k].fake, tolerance<T>);
  }
}

/// Logits, and both steps with few of the options.
template <class T, class Head, class Wide>
void check_steps(stack_case<T, Head>& c, oracle<Wide> const& o) {
  auto const e = o.discriminator(adversarial<>{});
  check_near("logits", c.logits(c.real), e.real_logits, tolerance<T>);
  check_near("logits", c.logits(c.fake), e.fake_logits, tolerance<T>);
  check_generator(c, o, adversarial<>{});
  check_discriminator(c, o, adversarial<>{}, {.real_penalty = r1{.gamma = 0.1}});
}

std::vector<discriminator_options> const all_penalties = {
    {.real_penalty = std::nullopt},
    {.real_penalty = r1{.gamma = 0.3}},
    {.real_penalty = std::nullopt, .fake_penalty = r1{.gamma = 0.2, .factor = 0.5, .interval = 4}},
    {.real_penalty = r1{.gamma = 0.1, .factor = 0.5, .interval = 16},
     .fake_penalty = r1{.gamma = 0.25}},
    {.real_penalty = r1{.gamma = 0.3},
     .fake_penalty = r1{.gamma = 0.2},
     .penalised = penalised_logits::mean},
    {.real_penalty = r1{.gamma = 0.3}, .fake_penalty = r1{.gamma = 0.2}, .grad_scale = 1024}};

}  // namespace

TEST_CASE("the steps of a stack are the passes of its heads, with the losses written out") {
  for (auto const normalisation : {weight_normalisation::spectral, weight_normalisation::none}) {
    for (auto const& conditions : {two_conditions, std::vector<std::int64_t>{}}) {
      CAPTURE(normalisation == weight_normalisation::spectral, conditions);
      auto wide = three_in_double(normalisation, conditions);
      auto narrow = narrowed(projected_heads<float>(three_heads(conditions), normalisation), wide);
      oracle const o{wide};
      check_steps(wide, o);
      check_steps(narrow, o);
    }
  }
}

TEST_CASE("penalties on reals, fakes, both and none, with their factors") {
  auto wide = three_in_double();
  auto narrow = narrowed(projected_heads<float>(three_heads(two_conditions)), wide);
  oracle const o{wide};
  for (std::size_t i = 0; i < all_penalties.size(); ++i) {
    for (bool const accumulate : {false, true}) {
      CAPTURE(i, accumulate);
      check_discriminator(wide, o, adversarial<>{}, all_penalties[i], accumulate);
      if (!accumulate) check_discriminator(narrow, o, adversarial<>{}, all_penalties[i]);
    }
  }
  check_generator(wide, o, adversarial<>{}, 1024);
  check_generator(narrow, o, adversarial<>{}, 1024);
}

TEST_CASE("losses and reductions over tokens and heads") {
  auto wide = three_in_double();
  oracle const o{wide};
  auto const check = [&](auto const& loss) {
    check_generator(wide, o, loss);
    check_discriminator(wide, o, loss, all_penalties[4]);
  };
  check(adversarial<hinge, sum, mean>{});
  check(adversarial<hinge, mean, mean>{});
  check(adversarial<non_saturating, mean, sum>{});
  check(adversarial<non_saturating, sum, mean>{});
}

TEST_CASE("one head is a stack too, in which nothing can be mistaken") {
  head_settings const settings{.channels = 3, .kernel = 3};
  stack_case c(projected_heads<double>(std::span(&settings, 1)), {{4, 3, 1}});
  oracle const o{c};
  check_steps(c, o);
}

TEST_CASE("the gradient of the generator's loss is that of finite differences") {
  auto c = three_in_double();
  adversarial<non_saturating> const loss;
  auto const value = [&] { return c.generator(loss).loss; };
  for (auto& sum : c.fake.c_bar) sum.assign(sum.size(), 0);
  c.generator(loss);
  auto const x_bar = c.fake.x_bar;
  auto const c_bar = c.fake.c_bar;
  for (std::size_t k = 0; k < x_bar.size(); ++k) {
    layer_checks::check_gradient("generator_step", "gradients", c.fake.x[k], x_bar[k],
                                 layer_checks::first_order, {}, value);
  }
  for (std::size_t i = 0; i < c_bar.size(); ++i) {
    layer_checks::check_gradient("generator_step", "condition", c.fake.c[i], c_bar[i],
                                 layer_checks::first_order, {}, value);
  }
}

TEST_CASE("the gradient of the discriminator's total is that of finite differences") {
  auto const check = [](auto const& loss, weight_normalisation normalisation,
                        discriminator_options const& options) {
    auto c = three_in_double(normalisation);
    auto const value = [&] { return c.discriminator(loss, options).total; };
    for (auto* const of : {&c.real, &c.fake}) {
      for (auto& sum : of->c_bar) sum.assign(sum.size(), 0);
    }
    // The second-order part has weight.
    REQUIRE(c.discriminator(loss, options).penalty > 0.1);
    auto const w_bar = c.w_bar;
    auto const real = c.real.c_bar;
    auto const fake = c.fake.c_bar;
    layer_checks::check_gradient("discriminator_step", "gradients", c.w, w_bar,
                                 layer_checks::second_order, {}, value);
    for (std::size_t i = 0; i < real.size(); ++i) {
      layer_checks::check_gradient("discriminator_step", "real condition", c.real.c[i], real[i],
                                   layer_checks::second_order, {}, value);
      layer_checks::check_gradient("discriminator_step", "fake condition", c.fake.c[i], fake[i],
                                   layer_checks::second_order, {}, value);
    }
  };
  discriminator_options const both{.real_penalty = r1{.gamma = 1},
                                   .fake_penalty = r1{.gamma = 0.5}};
  discriminator_options const of_mean{.real_penalty = r1{.gamma = 3},
                                      .penalised = penalised_logits::mean};
  check(adversarial<>{}, weight_normalisation::spectral, {.real_penalty = r1{.gamma = 1}});
  check(adversarial<non_saturating>{}, weight_normalisation::spectral, both);
  check(adversarial<non_saturating>{}, weight_normalisation::none, of_mean);
}

TEST_CASE("both sides of a step may add to one gradient of a condition") {
  auto c = three_in_double();
  oracle const o{c};
  c.fake.c = c.real.c;
  auto const e = o.discriminator(adversarial<>{}, all_penalties[3]);
  for (auto& sum : c.real.c_bar) sum.assign(sum.size(), 0);
  auto const real = c.real.in();
  head_inputs<double> fake = c.fake.in();
  fake.conditions = real.conditions;
  numbers<double> workspace(at(c.stack.discriminator_workspace(c.shapes(), all_penalties[3])));
  c.stack.discriminator_step(c.ctx, adversarial<>{}, std::as_const(c.w), std::as_const(c.state),
                             real, fake, {.values = c.w_bar}, workspace, all_penalties[3]);
  auto expected = e.real_c_bar;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    for (std::size_t n = 0; n < expected[i].size(); ++n) expected[i][n] += e.fake_c_bar[i][n];
  }
  check_near("gradients of conditions", c.real.c_bar, expected, 1e-11);
  check_near("gradients", c.w_bar, e.w_bar, 1e-11);
}

TEST_CASE("conditions without memory for a gradient change nothing else") {
  auto c = three_in_double();
  c.discriminator(adversarial<>{});
  auto const w_bar = c.w_bar;
  auto real = c.real.in();
  auto fake = c.fake.in();
  for (auto& given : c.real.conditions) given.gradient = nullptr;
  for (auto& given : c.fake.conditions) given.gradient = nullptr;
  blank(c.w_bar);
  numbers<double> workspace(at(c.stack.discriminator_workspace(c.shapes())));
  c.stack.discriminator_step(c.ctx, adversarial<>{}, std::as_const(c.w), std::as_const(c.state),
                             real, fake, {.values = c.w_bar}, workspace);
  CHECK(layer_checks::same_bits(c.w_bar, w_bar));
}

TEST_CASE("NaN in features goes on to the losses and gradients of its head and is counted") {
  auto c = three_in_double();
  double const nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<head_statistics> health(3);
  numbers<double> real_penalties(3);
  numbers<double> fake_penalties(3);
  discriminator_options options{.fake_penalty = r1{}};
  options.statistics = health;
  options.real_penalties = real_penalties;
  options.fake_penalties = fake_penalties;
  // Head 0, sample 1: with sample 0 it is a group that is normalised together.
  std::int64_t const logits = 2 * 5;
  std::int64_t const features = 2 * 3 * 5;
  auto const spoilt = [&](numbers<double> const& gradient, int k) {
    auto const first = gradient.begin() + c.stack.parameter_offset(k);
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < c.stack[k].parameter_count(); ++i) {
      count += std::isnan(first[i]) ? 1 : 0;
    }
    return count;
  };
  SECTION("of the generator") {
    c.fake.x[0][17] = nan;
    auto const got = c.generator(adversarial<>{}, {.statistics = health});
    CHECK(std::isnan(got.loss));
    CHECK(got.non_finite == logits);
    CHECK(health[0].fake.non_finite == logits);
    CHECK(health[1].fake.non_finite == 0);
    std::int64_t count = 0;
    for (double const number : c.fake.x_bar[0]) count += std::isnan(number) ? 1 : 0;
    CHECK(count == features);
    for (double const number : c.fake.x_bar[1]) CHECK(std::isfinite(number));
  }
  SECTION("of reals") {
    c.real.x[0][17] = nan;
    auto const got = c.discriminator(adversarial<>{}, options);
    CHECK(std::isnan(got.total));
    CHECK(std::isnan(got.adversarial));
    CHECK(std::isnan(got.penalty));
    CHECK(got.non_finite == logits + features);
    CHECK(health[0].real.non_finite == logits);
    CHECK(health[0].fake.non_finite == 0);
    CHECK(std::isnan(real_penalties[0]));
    CHECK(std::isfinite(real_penalties[1]));
    CHECK(std::isfinite(fake_penalties[0]));
    CHECK(spoilt(c.w_bar, 0) == c.stack[0].parameter_count());
    CHECK(spoilt(c.w_bar, 1) == 0);
    CHECK(spoilt(c.w_bar, 2) == 0);
  }
  SECTION("of fakes") {
    c.fake.x[0][17] = nan;
    auto const got = c.discriminator(adversarial<>{}, options);
    CHECK(std::isnan(got.penalty));
    CHECK(got.non_finite == logits + features);
    CHECK(health[0].real.non_finite == 0);
    CHECK(health[0].fake.non_finite == logits);
    CHECK(std::isfinite(real_penalties[0]));
    CHECK(std::isnan(fake_penalties[0]));
    CHECK(spoilt(c.w_bar, 1) == 0);
  }
}

TEST_CASE("heads of a user's own") {
  SECTION("one layer") {
    std::vector<gated> const heads = {{3, 1, 2}, {2, 1, 2}, {5, 1, 2}};
    std::vector<feature_shape> const shapes = {{3, 3, 4}, {3, 2, 1}, {3, 5, 2}};
    stack_case wide(head_stack<double, gated>(heads), shapes, {2});
    auto narrow = narrowed(head_stack<float, gated>(heads), wide);
    CHECK(wide.stack.state_count() == 0);  // it has no convolution
    oracle const o{wide};
    check_steps(wide, o);
    check_steps(narrow, o);
    check_discriminator(wide, o, adversarial<>{}, all_penalties[3], true);
  }
  SECTION("a sequence without spectral normalisation of its last layer") {
    auto const make = [](std::int64_t channels, int kernel) {
      return sequence(
          named("conv",
                conv1d<double>{.in_channels = channels, .out_channels = 4, .kernel = kernel}),
          group_norm{.channels = 4, .groups = 2, .negative_slope = 0.1},
          named("logits", linear<double>{.in_channels = 4, .out_channels = 1}));
    };
    using head = decltype(make(1, 1));
    stack_case c(head_stack<double, head>({make(3, 3), make(2, 5)}), {{3, 3, 4}, {3, 2, 6}});
    CHECK(c.stack.state_count() == (4 + 9) + (4 + 10));
    CHECK(std::string(c.stack.parameter(6).name) == "1.conv.weight");
    oracle const o{c};
    check_steps(c, o);
  }
  SECTION("one that leaves its y_bar changed") {
    auto const make = [](std::int64_t channels) {
      return sequence(gated{channels, 1}, residual{gated{1, 1}});
    };
    using head = decltype(make(1));
    stack_case c(head_stack<double, head>({make(3), make(2)}), {{3, 3, 4}, {3, 2, 6}});
    oracle const o{c};
    check_steps(c, o);
    check_discriminator(c, o, adversarial<>{}, all_penalties[3], true);
  }
  SECTION("with two channels") {
    stack_case c(head_stack<double, gated>({{3, 1}, {2, 2}}), {{3, 3, 4}, {3, 2, 1}});
    CHECK(error_of([&] { c.generator(adversarial<>{}); }) ==
          "head_stack::generator_step: features[1] (expected a head that gives one channel of "
          "logits, got 2 channels)");
  }
}
