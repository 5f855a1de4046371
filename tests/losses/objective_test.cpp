// SPDX-License-Identifier: MIT
#include <addloss/losses/objective.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/weighting/sds.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "test_context.hpp"

namespace {

using namespace addloss;

constexpr std::size_t batch = 4;
constexpr std::size_t size = 30;
constexpr std::size_t tokens[] = {5, 3};

std::vector<double> numbers(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<double> result(count);
  for (double& x : result) x = static_cast<double>(bits() % 4001) / 1000 - 2;
  return result;
}

/// Two heads.
struct head_data {
  std::vector<double> first;
  std::vector<double> second;
  explicit head_data(unsigned seed)
      : first(numbers(batch * tokens[0], seed)), second(numbers(batch * tokens[1], seed + 1)) {}
  std::vector<rows<double const>> read() const {
    return {view(first.data(), batch, tokens[0]), view(second.data(), batch, tokens[1])};
  }
  std::vector<rows<double>> write() {
    return {view(first.data(), batch, tokens[0]), view(second.data(), batch, tokens[1])};
  }
  bool operator==(head_data const&) const = default;
};

struct inputs {
  head_data real{10};
  head_data fake{20};
  head_data features{30};
  std::vector<double> student = numbers(batch * size, 40);
  std::vector<double> target = numbers(batch * size, 50);
  std::vector<std::int64_t> t = {3, 250, 600, 999};
  discrete_schedule schedule = scaled_linear_schedule();

  template <class Objective>
  auto distilled(Objective const& objective) const {
    return objective.distillation(schedule.table(), view(student.data(), batch, size),
                                  view(target.data(), batch, size), t);
  }
};

test_context const ctx;

template <class Objective>
void check_student() {
  inputs const in;
  Objective const objective{.lambda = 1.5};
  auto const fake = in.fake.read();

  double generator = 0;
  double distillation = 0;
  head_data logits_gradient(0);
  std::vector<double> gradient(batch * size);
  auto const logits_out = logits_gradient.write();
  value_and_grad(ctx, objective.adversarial.template generator<double>(fake), generator,
                 {.fake = logits_out});
  value_and_grad(ctx, in.distilled(objective), distillation, view(gradient.data(), batch, size));

  double total = -1;
  double adversarial_term = -1;
  double distillation_term = -1;
  head_data own_logits_gradient(1);
  std::vector<double> own_gradient(batch * size, 7);
  auto const own_out = own_logits_gradient.write();
  std::vector<head_statistics> health(2);
  value_and_grad(ctx, objective.template student<double>(fake, in.distilled(objective)),
                 student_values<double>{total, adversarial_term, distillation_term},
                 {.logits = {.fake = own_out}, .student = view(own_gradient.data(), batch, size)},
                 {.statistics = health});
  CHECK(adversarial_term == generator);
  CHECK(distillation_term == distillation);
  CHECK(total == Approx(generator + 1.5 * distillation).epsilon(1e-14));
  CHECK(own_logits_gradient == logits_gradient);
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    REQUIRE(own_gradient[i] == Approx(1.5 * gradient[i]).epsilon(1e-14));
  }
  CHECK(health[0].fake.positive > 0);

  double alone = -1;
  value(ctx, objective.template student<double>(fake, in.distilled(objective)), alone);
  CHECK(alone == total);

  // The losses of single samples, and their sum.
  std::vector<double> samples(batch);
  std::vector<double> distilled_samples(batch);
  value<per_sample>(ctx, objective.template student<double>(fake, in.distilled(objective)),
                    student_values<double>{.total = samples, .distillation = distilled_samples});
  double mean_of_samples = 0;
  for (double const loss : samples) mean_of_samples += loss / batch;
  CHECK(mean_of_samples == Approx(total).epsilon(1e-14));
  std::vector<double> expected(batch);
  value<per_sample>(ctx, in.distilled(objective), expected);
  CHECK(distilled_samples == expected);
  sum_and_count<double> totals;
  value<sum>(ctx, objective.template student<double>(fake, in.distilled(objective)), totals);
  CHECK(totals.count == batch);
  CHECK(totals.sum / batch == Approx(total).epsilon(1e-14));
}

}  // namespace

TEST_CASE("the student's objective is its terms, added up") {
  check_student<add_practical<>>();
  check_student<add_practical<sds>>();
  check_student<add_paper<>>();
}

TEST_CASE("the presets differ by the number of elements in the distillation term") {
  inputs const in;
  double paper = 0;
  double practical = 0;
  value(ctx, in.distilled(add_paper<>{}), paper);
  value(ctx, in.distilled(add_practical<>{}), practical);
  CHECK(paper == Approx(size * practical).epsilon(1e-14));
  CHECK(add_paper<>{}.lambda.get() == 2.5);
  CHECK(add_practical<>{}.lambda.get() == 2.5);
  CHECK(add_paper<>{}.penalty.gamma.get() == 1e-5);
  CHECK(add_practical<>{}.penalty.factor == 1);
}

TEST_CASE("the discriminator's objective is its terms, added up") {
  inputs const in;
  add_practical<> const objective{.penalty = {.gamma = 0.25, .interval = 3}};
  auto const real = in.real.read();
  auto const fake = in.fake.read();
  auto const features = in.features.read();
  double hinges = 0;
  double penalty = 0;
  value(ctx, objective.adversarial.discriminator<double>(real, fake), hinges);
  value(ctx, objective.penalty.on<double>(features), penalty);

  double total = -1;
  double own_hinges = -1;
  double own_penalty = -1;
  head_data gradients[3] = {head_data(1), head_data(2), head_data(3)};
  auto const real_out = gradients[0].write();
  auto const fake_out = gradients[1].write();
  auto const cotangent_out = gradients[2].write();
  std::vector<head_statistics> health(2);
  std::vector<double> penalties(2);
  std::vector<double> const upstream = {1, 0.5, 0, -2};
  value_and_grad(
      ctx, objective.discriminator<double>(real, fake, features),
      discriminator_values<double>{total, own_hinges, own_penalty},
      {.logits = {.real = real_out, .fake = fake_out}, .cotangents = {.features = cotangent_out}},
      {.upstream = upstream, .grad_scale = 4, .statistics = health, .penalties = penalties});
  CHECK(own_hinges == Approx(hinges).epsilon(1e-14));
  CHECK(own_penalty == Approx(penalty).epsilon(1e-14));
  CHECK(total == Approx(hinges + penalty).epsilon(1e-14));
  CHECK(0.25 * 3 * (penalties[0] + penalties[1]) == Approx(penalty).epsilon(1e-14));
  // 2 gamma interval g / B, times upstream and grad_scale.
  for (std::size_t i = 0; i < gradients[2].first.size(); ++i) {
    double const expected =
        2 * 0.25 * 3 * in.features.first[i] / batch * 4 * upstream[i / tokens[0]];
    REQUIRE(gradients[2].first[i] == Approx(expected).epsilon(1e-14));
  }
}

TEST_CASE("lambda, gamma and grad_scale are read when a call is made") {
  inputs const in;
  auto const real = in.real.read();
  auto const fake = in.fake.read();
  auto const features = in.features.read();
  double lambda = 0;
  double gamma = 0;
  double scale = 0;
  struct outcome {
    double totals[2] = {-1, -1};
    head_data logits{1};
    head_data cotangents{2};
    std::vector<double> student = std::vector<double>(batch * size);
    bool operator==(outcome const&) const = default;
  };
  auto const run = [&](add_practical<> const& objective, number const& grad_scale) {
    outcome result;
    auto const logits_out = result.logits.write();
    auto const cotangents_out = result.cotangents.write();
    value_and_grad(
        ctx, objective.student<double>(fake, in.distilled(objective)), result.totals[0],
        {.logits = {.fake = logits_out}, .student = view(result.student.data(), batch, size)},
        {.grad_scale = grad_scale});
    value_and_grad(ctx, objective.discriminator<double>(real, fake, features), result.totals[1],
                   {.logits = {.fake = logits_out, .accumulate = true},
                    .cotangents = {.features = cotangents_out}},
                   {.grad_scale = grad_scale});
    return result;
  };
  add_practical<> const objective{.lambda = number_at{&lambda},
                                  .penalty = {.gamma = number_at{&gamma}, .factor = 0.5}};
  auto before = run(objective, number_at{&scale});
  for (double const step : {1.0, 2.0, 3.0}) {
    lambda = 0.3 * step;
    gamma = 0.2 * step;
    scale = 512 * step;
    auto const now = run(objective, number_at{&scale});
    CHECK(now == run({.lambda = lambda, .penalty = {.gamma = gamma, .factor = 0.5}}, scale));
    CHECK(now.totals[0] != before.totals[0]);
    CHECK(now.totals[1] != before.totals[1]);
    CHECK(now.logits != before.logits);
    before = now;
  }
}

TEST_CASE("an idle discriminator without feature gradients has hinge loss 2 a head") {
  head_data const zero = [] {
    head_data h(1);
    for (auto* const head : {&h.first, &h.second}) head->assign(head->size(), 0);
    return h;
  }();
  auto const logits = zero.read();
  double total = -1;
  value(ctx, add_practical<>{}.discriminator<double>(logits, logits, logits), total);
  CHECK(total == 4);
}

TEST_CASE("non-finite elements of both terms are counted together") {
  inputs in;
  in.fake.first[2] = std::numeric_limits<double>::quiet_NaN();
  in.student[5] = std::numeric_limits<double>::infinity();
  in.student[6] = std::numeric_limits<double>::quiet_NaN();
  add_practical<> const objective;
  auto const fake = in.fake.read();
  std::int64_t bad = -1;
  double total = 0;
  value(ctx, objective.student<double>(fake, in.distilled(objective)), total, {.non_finite = &bad});
  CHECK(bad == 3);
  CHECK(std::isnan(total));
}

TEST_CASE("a bad argument of either term is refused before anything is written") {
  inputs const in;
  add_practical<> const objective;
  auto const fake = in.fake.read();
  auto const real = in.real.read();
  double total = -1;
  head_data gradient(1);
  head_data const before = gradient;
  auto const out = gradient.write();
  std::vector<double> small(size);
  CHECK(error_of([&] {
          value_and_grad(ctx, objective.student<double>(fake, in.distilled(objective)), total,
                         {.logits = {.fake = out}, .student = view(small.data(), 1, size)});
        }) == "value_and_grad: gradient (expected the shape of student, [4,30], got [1,30])");
  std::vector<double> per_head(2);
  CHECK(error_of([&] {
          value(ctx, objective.student<double>(fake, in.distilled(objective)),
                student_values<double>{.total = total, .distillation = per_head});
        }) ==
        "value: distillation (expected a scalar (the losses of single samples are "
        "per_sample), got [2])");
  CHECK(error_of([&] {
          add_practical<> const negative{.lambda = -1};
          value(ctx, negative.student<double>(fake, in.distilled(negative)), total);
        }) == "value: lambda (expected a number >= 0, got -1)");
  CHECK(error_of([&] {
          add_practical<> const nowhere{.lambda = number_at{}};
          value(ctx, nowhere.student<double>(fake, in.distilled(nowhere)), total);
        }) == "value: lambda (expected memory, got a null pointer)");
  CHECK(error_of([&] {
          value_and_grad(ctx, objective.discriminator<double>(real, fake, real), total,
                         {.logits = {.fake = out}}, {.grad_scale = number_at{}});
        }) == "value_and_grad: grad_scale (expected memory, got a null pointer)");
  std::vector<rows<double const>> const half_batch = {view(in.features.first.data(), 2, 5),
                                                      view(in.features.second.data(), 2, 3)};
  CHECK(error_of([&] {
          value_and_grad(ctx, objective.discriminator<double>(real, fake, half_batch), total,
                         {.logits = {.fake = out}});
        }) == "value_and_grad: feature_gradients (expected a batch of 4 samples, got 2)");
  std::vector<rows<double const>> const half_logits = {view(in.fake.first.data(), 2, 5),
                                                       view(in.fake.second.data(), 2, 3)};
  CHECK(error_of([&] {
          value(ctx, objective.student<double>(half_logits, in.distilled(objective)), total);
        }) == "value: logits (expected a batch of 4 samples, got 2)");
  CHECK(total == -1);
  CHECK(gradient == before);
}
