// SPDX-License-Identifier: MIT
// Every differentiable function against finite differences: each storage type, each reduction over
// the batch, each pattern of upstream gradients, overwritten and accumulated gradients.
#include <addloss/testing/gradcheck.hpp>

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include "catch.hpp"

namespace {

using namespace addloss;

constexpr std::size_t batch = 3;
constexpr std::size_t heads = 2;
constexpr std::size_t tokens[heads] = {5, 2};
constexpr std::size_t head_begin[heads + 1] = {0, batch * 5, batch * 7};
constexpr std::size_t row = 7;  // elements of a sample: the padding of a group is at work

/// Multiples of 1/16 in [-2, 2]: exact in every storage type, and so is a step of 1/16. Odd
/// multiples of 1/32 are left out, so a kink at an odd multiple is never within a step.
constexpr double step = 1.0 / 16;
std::vector<double> sixteenths(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<double> result(count);
  for (double& x : result) x = static_cast<double>(bits() % 65) / 16 - 2;
  return result;
}

template <class T>
T stored_as(double x) {
  if constexpr (arithmetic_scalar<T>) {
    return static_cast<T>(x);
  } else {
    return T(static_cast<float>(x));
  }
}

template <class T>
std::vector<T> stored_as(std::span<double const> numbers) {
  std::vector<T> result;
  for (double const x : numbers) result.push_back(stored_as<T>(x));
  return result;
}

template <class T>
double as_double(T x) {
  if constexpr (arithmetic_scalar<T>) {
    return static_cast<double>(x);
  } else {
    return static_cast<double>(static_cast<float>(x));
  }
}

/// Of one rounding to the storage type, and of the third derivative at a step of 1/16.
template <class T>
constexpr double tolerance = std::same_as<T, bfloat16> ? 1e-2 : 2e-3;

template <class T>
struct settings {
  rows<arithmetic_t<T> const> upstream{};
  double grad_scale = 1;
  bool accumulates = false;
};

/// `Function` names a loss: losses<Reduction>(x, out) writes values, gradient<Reduction>(x, g,
/// settings) the gradient with respect to x, in which all its variables lie one after the other.
template <class T, class Reduction, class Function>
void check_reduction(Function const& function, std::vector<double> x) {
  using real = arithmetic_t<T>;
  std::vector<real> const none;
  std::vector<real> const ones(batch, real(1));
  std::vector<real> const unequal = {real(0.5), real(-2), real(0)};
  double const factor = Reduction::factor(static_cast<std::int64_t>(batch));
  for (auto const* const upstream : {&none, &ones, &unequal}) {
    auto const weight = [&](std::size_t b) { return upstream->empty() ? 1.0 : (*upstream)[b]; };
    auto const value = [&](std::span<double const> at) {
      std::vector<double> samples(batch);
      function.template losses<per_sample>(stored_as<T>(at), samples);
      double total = 0;
      for (std::size_t b = 0; b < batch; ++b) total += weight(b) * factor * samples[b];
      return total;
    };
    for (bool const accumulates : {false, true}) {
      double const scale = accumulates ? 2.0 : 1.0;
      double const before = accumulates ? 0.5 : 7.0;
      std::vector<T> gradient(x.size(), stored_as<T>(before));
      settings<T> options{{}, scale, accumulates};
      if (!upstream->empty()) options.upstream = *upstream;
      function.template gradient<Reduction>(stored_as<T>(x), gradient, options);
      std::vector<double> own;
      for (T const g : gradient) {
        own.push_back((as_double(g) - (accumulates ? before : 0)) / scale);
      }
      auto const result = testing::gradcheck(value, x, own, {step, tolerance<T>, 0.5});
      CAPTURE(upstream->size(), accumulates, result.index, result.gradient, result.difference);
      CHECK(result.passed);
    }
  }
  // The reduced value is that of the samples.
  if constexpr (!std::same_as<Reduction, per_sample>) {
    std::vector<double> samples(batch);
    function.template losses<per_sample>(stored_as<T>(x), samples);
    double reduced = 0;
    function.template losses<Reduction>(stored_as<T>(x), reduced);
    CHECK(reduced == Approx(factor * (samples[0] + samples[1] + samples[2])).epsilon(1e-6));
  }
}

template <class T, class Function>
void check(std::vector<double> const& x) {
  Function const function;
  check_reduction<T, mean>(function, x);
  check_reduction<T, sum>(function, x);
  check_reduction<T, per_sample>(function, x);
}

/// For each storage type. Half types have the element functors of float: one function shows it.
template <template <class> class Function>
void check_types(std::vector<double> const& x) {
  check<double, Function<double>>(x);
  check<float, Function<float>>(x);
}

// --- distillation ---------------------------------------------------------------------------------

std::vector<std::int64_t> const& timesteps() {
  static std::vector<std::int64_t> const t = {10, 420, 900};
  return t;
}
schedule_table<> schedule() {
  static auto const s = scaled_linear_schedule();
  return s.table();
}

/// The functions of one tensor [B, 7].
template <class T, class Bind>
struct of_student {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    value<Reduction>(cpu_context{}, Bind::template bind<T>(view(x.data(), batch, row)), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const place = view(g.data(), batch, row);
    auto const loss = Bind::template bind<T>(view(x.data(), batch, row));
    using gradient_type = typename decltype(loss)::gradients;
    grad<Reduction>(cpu_context{}, loss,
                    s.accumulates ? gradient_type(accumulate(place)) : gradient_type(place),
                    {s.upstream, s.grad_scale});
  }
};

/// A constant operand: near 4 or -4 by turns, further than a step from every student, so that no
/// difference is near the kink of L1, also after guidance.
template <class T, unsigned Seed>
auto constant() {
  static std::vector<T> const numbers = [] {
    auto x = sixteenths(batch * row, Seed);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = std::round(2 * x[i]) / 16 + (i % 2 == 0 ? 4 : -4);
    }
    return stored_as<T>(x);
  }();
  return view(numbers.data(), batch, row);
}

template <class Distance, class Elements, class Weighting = exponential>
struct from_target {
  template <class T>
  static auto bind(auto student) {
    distillation<Weighting, Distance, Elements> loss;
    if constexpr (std::same_as<Distance, pseudo_huber>) loss.distance.c = 1;
    return loss(schedule(), student, constant<T, 101>(), timesteps());
  }
};

template <class Prediction, class Weighting, class Distance = squared>
struct from_teacher {
  template <class T>
  static auto bind(auto student) {
    distillation<Weighting, Distance, mean> loss;
    teacher_predictions<T> const teacher{.noise = constant<T, 102>(),
                                         .conditional = constant<T, 103>(),
                                         .unconditional = constant<T, 104>(),
                                         .negative = constant<T, 105>(),
                                         .guidance_scale = 2};
    return loss.from_teacher(Prediction{}, schedule(), student, teacher, timesteps());
  }
};

// --- losses on K heads ----------------------------------------------------------------------------

/// Rows of each head in one vector; `side` selects one of several such vectors in it.
template <class Row, class T>
std::vector<Row> heads_of(T* data, std::size_t side) {
  std::vector<Row> result;
  for (std::size_t k = 0; k < heads; ++k) {
    result.push_back(view(data + side * head_begin[heads] + head_begin[k], batch, tokens[k]));
  }
  return result;
}

template <class T, class Loss, bool Generator, class Heads>
struct of_logits {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), Generator ? 0 : 1);
    adversarial<Loss, mean, Heads> const loss;
    if constexpr (Generator) {
      value<Reduction>(cpu_context{}, loss.template generator<T>(fake), out);
    } else {
      value<Reduction>(cpu_context{}, loss.template discriminator<T>(real, fake), out);
    }
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), Generator ? 0 : 1);
    auto const real_out = heads_of<rows<T>>(g.data(), 0);
    auto const fake_out = heads_of<rows<T>>(g.data(), Generator ? 0 : 1);
    adversarial<Loss, mean, Heads> const loss;
    if constexpr (Generator) {
      grad<Reduction>(cpu_context{}, loss.template generator<T>(fake),
                      {.fake = fake_out, .accumulate = s.accumulates}, {s.upstream, s.grad_scale});
    } else {
      grad<Reduction>(cpu_context{}, loss.template discriminator<T>(real, fake),
                      {.real = real_out, .fake = fake_out, .accumulate = s.accumulates},
                      {s.upstream, s.grad_scale});
    }
  }
};

/// The functions of pairs of logits. `Bind::bind<T>(first, second)`.
template <class T, class Bind>
struct of_pairs {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const first = heads_of<rows<T const>>(x.data(), 0);
    auto const second = heads_of<rows<T const>>(x.data(), 1);
    value<Reduction>(cpu_context{}, Bind::template bind<T>(first, second), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const first = heads_of<rows<T const>>(x.data(), 0);
    auto const second = heads_of<rows<T const>>(x.data(), 1);
    auto const first_out = heads_of<rows<T>>(g.data(), 0);
    auto const second_out = heads_of<rows<T>>(g.data(), 1);
    grad<Reduction>(cpu_context{}, Bind::template bind<T>(first, second),
                    {.first = first_out, .second = second_out, .accumulate = s.accumulates},
                    {s.upstream, s.grad_scale});
  }
};

struct relativistic_discriminator {
  template <class T>
  static auto bind(auto const& a, auto const& b) {
    return paired<relativistic>{}.template discriminator<T>(a, b);
  }
};
struct relativistic_generator {
  template <class T>
  static auto bind(auto const& a, auto const& b) {
    return paired<relativistic, sum, mean>{}.template generator<T>(a, b);
  }
};
struct approximate_penalty {
  template <class T>
  static auto bind(auto const& a, auto const& b) {
    return approximate_r1<>{.lambda = 0.25}.template on<T>(a, b);
  }
};

template <class T>
struct of_features {
  static constexpr r1 penalty{.gamma = 0.125, .factor = 0.5, .interval = 4};
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const features = heads_of<rows<T const>>(x.data(), 0);
    value<Reduction>(cpu_context{}, penalty.on<T>(features), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const features = heads_of<rows<T const>>(x.data(), 0);
    auto const out = heads_of<rows<T>>(g.data(), 0);
    grad<Reduction>(cpu_context{}, penalty.on<T>(features),
                    {.features = out, .accumulate = s.accumulates}, {s.upstream, s.grad_scale});
  }
};

// --- objectives -----------------------------------------------------------------------------------

/// x: the logits of the fakes, then the student's images.
template <class T, class Objective>
struct of_student_objective {
  static auto bound(std::vector<T> const& x, std::vector<rows<T const>> const& fake) {
    Objective const objective{.lambda = 0.75};
    return objective.template student<T>(
        fake, objective.distillation(schedule(), view(x.data() + head_begin[heads], batch, row),
                                     constant<T, 106>(), timesteps()));
  }
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const fake = heads_of<rows<T const>>(x.data(), 0);
    value<Reduction>(cpu_context{}, bound(x, fake), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const fake = heads_of<rows<T const>>(x.data(), 0);
    auto const out = heads_of<rows<T>>(g.data(), 0);
    auto const place = view(g.data() + head_begin[heads], batch, row);
    grad<Reduction>(cpu_context{}, bound(x, fake),
                    {.logits = {.fake = out, .accumulate = s.accumulates},
                     .student = s.accumulates ? addloss::gradient<T>(accumulate(place))
                                              : addloss::gradient<T>(place)},
                    {s.upstream, s.grad_scale});
  }
};

/// x: the logits of reals and fakes, then the feature gradients.
template <class T>
struct of_discriminator_objective {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), 1);
    auto const features = heads_of<rows<T const>>(x.data(), 2);
    add_practical<> const objective{.penalty = {.gamma = 0.5}};
    value<Reduction>(cpu_context{}, objective.template discriminator<T>(real, fake, features), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), 1);
    auto const features = heads_of<rows<T const>>(x.data(), 2);
    auto const real_out = heads_of<rows<T>>(g.data(), 0);
    auto const fake_out = heads_of<rows<T>>(g.data(), 1);
    auto const cotangent = heads_of<rows<T>>(g.data(), 2);
    add_practical<> const objective{.penalty = {.gamma = 0.5}};
    grad<Reduction>(cpu_context{}, objective.template discriminator<T>(real, fake, features),
                    {.logits = {.real = real_out, .fake = fake_out, .accumulate = s.accumulates},
                     .cotangents = {.features = cotangent, .accumulate = s.accumulates}},
                    {s.upstream, s.grad_scale});
  }
};

/// Logits further than a step from the hinge's kinks at 1 and -1.
std::vector<double> logits(std::size_t sides) {
  auto x = sixteenths(sides * head_begin[heads], 5);
  for (double& z : x) {
    if (std::abs(std::abs(z) - 1) <= step) z *= 0.5;
  }
  return x;
}

std::vector<double> student_and_logits() {
  auto x = logits(1);
  auto const student = sixteenths(batch * row, 6);
  x.insert(x.end(), student.begin(), student.end());
  return x;
}

template <class T>
using target_squared = of_student<T, from_target<squared, mean>>;
template <class T>
using target_squared_sum = of_student<T, from_target<squared, sum, sds>>;
template <class T>
using target_absolute = of_student<T, from_target<absolute, mean, min_snr>>;
template <class T>
using target_pseudo_huber = of_student<T, from_target<pseudo_huber, sum, uniform>>;
template <class T>
using teacher_sample = of_student<T, from_teacher<sample_prediction, uniform, absolute>>;
template <class T>
using hinge_discriminator = of_logits<T, hinge, false, sum>;
template <class T>
using hinge_generator = of_logits<T, hinge, true, mean>;
template <class T>
using non_saturating_discriminator = of_logits<T, non_saturating, false, mean>;
template <class T>
using non_saturating_generator = of_logits<T, non_saturating, true, sum>;
template <class T>
using least_squares_discriminator = of_logits<T, least_squares, false, sum>;
template <class T>
using least_squares_generator = of_logits<T, least_squares, true, sum>;
template <class T>
using wasserstein_discriminator = of_logits<T, wasserstein, false, sum>;
template <class T>
using wasserstein_generator = of_logits<T, wasserstein, true, sum>;
template <class T>
using pairs_discriminator = of_pairs<T, relativistic_discriminator>;
template <class T>
using pairs_generator = of_pairs<T, relativistic_generator>;
template <class T>
using pairs_penalty = of_pairs<T, approximate_penalty>;
template <class T>
using paper_student = of_student_objective<T, add_paper<>>;
template <class T>
using practical_student = of_student_objective<T, add_practical<>>;

}  // namespace

TEST_CASE("gradients of the distillation from a target") {
  auto const x = sixteenths(batch * row, 4);
  check_types<target_squared>(x);
  check_types<target_squared_sum>(x);
  check_types<target_absolute>(x);
  check_types<target_pseudo_huber>(x);
  check<half, target_squared<half>>(x);
  check<bfloat16, target_squared<bfloat16>>(x);
}

TEST_CASE("gradients of the distillation from the teacher's predictions") {
  // The residual of an epsilon prediction does not read the student: its gradient is not that of
  // its value, which holds the prediction constant too. tests/losses/distillation_test.cpp has it.
  auto const x = sixteenths(batch * row, 4);
  check_types<teacher_sample>(x);
  check<half, teacher_sample<half>>(x);
  check<bfloat16, teacher_sample<bfloat16>>(x);
}

TEST_CASE("gradients of the adversarial losses") {
  check_types<hinge_discriminator>(logits(2));
  check_types<hinge_generator>(logits(1));
  check_types<non_saturating_discriminator>(logits(2));
  check_types<non_saturating_generator>(logits(1));
  check_types<least_squares_discriminator>(logits(2));
  check_types<least_squares_generator>(logits(1));
  check_types<wasserstein_discriminator>(logits(2));
  check_types<wasserstein_generator>(logits(1));
  check<half, hinge_discriminator<half>>(logits(2));
  check<bfloat16, hinge_discriminator<bfloat16>>(logits(2));
}

TEST_CASE("gradients of the losses on pairs") {
  check_types<pairs_discriminator>(logits(2));
  check_types<pairs_generator>(logits(2));
  check_types<pairs_penalty>(logits(2));
  check<half, pairs_discriminator<half>>(logits(2));
  check<bfloat16, pairs_discriminator<bfloat16>>(logits(2));
}

TEST_CASE("the cotangent of R1 is the gradient of the penalty") {
  check_types<of_features>(logits(1));
  check<half, of_features<half>>(logits(1));
  check<bfloat16, of_features<bfloat16>>(logits(1));
}

TEST_CASE("gradients of both objectives are those of the totals") {
  check_types<paper_student>(student_and_logits());
  check_types<practical_student>(student_and_logits());
  check_types<of_discriminator_objective>(logits(3));
  check<half, practical_student<half>>(student_and_logits());
  check<bfloat16, of_discriminator_objective<bfloat16>>(logits(3));
}
