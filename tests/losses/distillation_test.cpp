// SPDX-License-Identifier: MIT
#include <addloss/losses/distillation.hpp>

#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/noising/forward.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/weighting/sds.hpp>
#include <addloss/weighting/snr.hpp>
#include <addloss/weighting/uniform.hpp>

#include "batch_tensor.hpp"
#include "catch.hpp"
#include "error_of.hpp"
#include "storage_types.hpp"
#include "test_context.hpp"

// Not in the unnamed namespace: kernels are named after them.
namespace distillation_test {

using addloss::noise_level;
using addloss::value_grad;

/// A user's own weighting and distance.
struct noisiness {
  [[nodiscard]] ADDLOSS_HOST_DEVICE double at(noise_level level) const {
    return 1 / (1 + level.sigma);
  }
};
struct quartic {
  template <class V>
  ADDLOSS_HOST_DEVICE value_grad<V> operator()(V d) const {
    return {d * d * d * d, V(4) * d * d * d};
  }
};

}  // namespace distillation_test

namespace {

using namespace addloss;
using batch_tests::batch, batch_tests::batch_tensor, batch_tests::size;
using distillation_test::noisiness;
using distillation_test::quartic;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

template <class Weighting, class Distance, class Elements>
concept distils = requires { typename distillation<Weighting, Distance, Elements>; };
static_assert(distils<uniform, squared, mean> && distils<noisiness, quartic, sum>);
static_assert(!distils<squared, squared, mean>);
static_assert(!distils<uniform, uniform, mean>);
static_assert(!distils<uniform, squared, per_sample>);

template <class Student, class Target, class Time>
concept can_distil = requires(Student student, Target target, Time time) {
  distillation<>{}(schedule_table<>{}, student, target, time);
};
using image = tensor_view<float const, 4>;
using times = tensor_view<std::int64_t const, 1>;
static_assert(can_distil<image, image, times>);
static_assert(can_distil<tensor_view<half, 4>, tensor_view<double, 4>, times>);
static_assert(!can_distil<image, image, tensor_view<int const, 1>>);
static_assert(!can_distil<image, image, tensor_view<float const, 1>>);
static_assert(!can_distil<image, int, times>);
static_assert(!can_distil<image, image, tensor_view<std::int64_t const, 1, device_space>>);

// --- the formulas, one number at a time ----------------------------------------------------------

double weight_of(uniform, noise_level) { return 1; }
double weight_of(exponential, noise_level l) { return l.alpha; }
double weight_of(sds, noise_level l) {
  double const w = l.sigma * l.sigma;
  return l.alpha * w / (2 * l.sigma);
}
double weight_of(basic_sds<unit>, noise_level l) { return l.alpha / (2 * l.sigma); }
double weight_of(snr, noise_level l) { return l.alpha * l.alpha / (l.sigma * l.sigma); }
double weight_of(min_snr w, noise_level l) { return std::fmin(weight_of(snr{}, l), w.gamma); }
double weight_of(noisiness, noise_level l) { return 1 / (1 + l.sigma); }

struct point {
  double value;
  double slope;
};
point distance_of(squared, double d) { return {d * d, 2 * d}; }
point distance_of(absolute, double d) { return {std::abs(d), d > 0 ? 1.0 : d < 0 ? -1.0 : 0.0}; }
point distance_of(pseudo_huber h, double d) {
  double const root = std::sqrt(d * d + h.c * h.c);
  return {root - h.c, d / root};
}
point distance_of(quartic, double d) { return {d * d * d * d, 4 * d * d * d}; }

double sample_of(epsilon_prediction, noise_level l, double x_t, double p) {
  return (x_t - l.sigma * p) / l.alpha;
}
double sample_of(v_prediction, noise_level l, double x_t, double p) {
  return l.alpha * x_t - l.sigma * p;
}
double sample_of(sample_prediction, noise_level, double, double p) { return p; }
double sample_of(flow_prediction, noise_level l, double x_t, double p) { return x_t - l.sigma * p; }

// --- tensors -------------------------------------------------------------------------------------

template <class T>
constexpr double tolerance = std::same_as<T, double>  ? 1e-12
                             : std::same_as<T, float> ? 2e-6
                             : std::same_as<T, half>  ? 0x1p-10
                                                      : 0x1p-7;

/// Values and gradients of a bound loss: sample b has the weight c(b), element (b, i) the
/// difference r(b, i). `Reduction` is over the batch, `Elements` over a sample.
template <class X, class Reduction, class Elements, class Distance>
void check_bound(auto const& bound, auto const& c, auto const& r, Distance distance,
                 std::vector<arithmetic_t<X>> const& upstream = {}) {
  batch_tensor<X> gradient(5);
  std::int64_t bad = 99;
  evaluation_options<arithmetic_t<X>> options{.grad_scale = 2, .non_finite = &bad};
  if (!upstream.empty()) options.upstream = upstream;
  std::vector<double> losses(std::same_as<Reduction, per_sample> ? batch : 1, guard);
  if constexpr (std::same_as<Reduction, per_sample>) {
    value_and_grad<Reduction>(test_context{}, bound, losses, gradient.view(), options);
  } else {
    value_and_grad<Reduction>(test_context{}, bound, losses[0], gradient.view(), options);
  }
  std::vector<double> samples(batch);
  double const over_elements = std::same_as<Elements, mean> ? 1.0 / size : 1;
  double const over_batch = std::same_as<Reduction, mean> ? 1.0 / batch : 1;
  double worst = 0;
  double largest = 0;
  gradient.each([&](std::size_t b, std::size_t i) {
    auto const [value, slope] = distance_of(distance, r(b, i));
    samples[b] += c(b) * over_elements * value;
    double expected = 2 * c(b) * over_elements * over_batch * slope;
    if (!upstream.empty()) expected *= static_cast<double>(upstream[b]);
    double const error = std::abs(as_double(gradient.at(b, i)) - expected);
    if (!(error <= worst)) worst = error;
    largest = std::fmax(largest, std::abs(expected));
  });
  CHECK(worst <= tolerance<X> * largest);
  CHECK(gradient.gaps_untouched());
  CHECK(bad == 0);
  if constexpr (!std::same_as<Reduction, per_sample>) {
    samples = {over_batch * (samples[0] + samples[1] + samples[2])};
  }
  for (std::size_t b = 0; b < losses.size(); ++b) {
    CHECK(losses[b] == Approx(samples[b]).epsilon(std::fmin(tolerance<X>, 5e-6)));
  }
}

std::vector<std::int64_t> const timesteps = {10, 420, 900};
discrete_schedule const& levels() {
  static discrete_schedule const result = scaled_linear_schedule();
  return result;
}

template <class X, class Reduction = mean, class Y = X, class Weighting, class Distance,
          class Elements>
void check_target(distillation<Weighting, Distance, Elements> const& loss,
                  std::vector<arithmetic_t<X>> const& upstream = {}) {
  auto student = batch_tensor<X>::random(91);
  auto target = batch_tensor<Y>::random(92, 3);
  check_bound<X, Reduction, Elements>(
      loss(levels().table(), student.view(), target.view(), timesteps),
      [&](std::size_t b) { return weight_of(loss.weighting, levels().at(timesteps[b])); },
      [&](std::size_t b, std::size_t i) {
        return as_double(student.at(b, i)) - as_double(target.at(b, i));
      },
      loss.distance, upstream);
}

/// Through x_t and the teacher's x_0, as the loss is defined.
template <class X, class Prediction, class Reduction = mean, class Y = X, class Weighting,
          class Distance, class Elements, class Schedule, class Time>
void check_teacher(Prediction type, distillation<Weighting, Distance, Elements> const& loss,
                   Schedule const& schedule, std::vector<Time> const& t, double guidance = 7.5) {
  auto student = batch_tensor<X>::random(93, 2);
  auto noise = batch_tensor<Y>::random(94, 1);
  auto conditional = batch_tensor<Y>::random(95);
  auto unconditional = batch_tensor<Y>::random(96);
  teacher_predictions<Y> teacher{.noise = noise.view(),
                                 .conditional = conditional.view(),
                                 .unconditional = unconditional.view(),
                                 .guidance_scale = guidance};
  if (guidance == 1) teacher.unconditional = {};
  check_bound<X, Reduction, Elements>(
      loss.from_teacher(type, schedule, student.view(), teacher, t),
      [&](std::size_t b) { return weight_of(loss.weighting, schedule.at(t[b])); },
      [&](std::size_t b, std::size_t i) {
        auto const level = schedule.at(t[b]);
        double const x = as_double(student.at(b, i));
        double const x_t = level.alpha * x + level.sigma * as_double(noise.at(b, i));
        double const u = as_double(unconditional.at(b, i));
        double const p = u + guidance * (as_double(conditional.at(b, i)) - u);
        return x - sample_of(type, level, x_t, p);
      },
      loss.distance);
}

template <class Prediction>
void check_prediction(Prediction type, auto const& schedule, auto const& t) {
  check_teacher<double>(type, distillation<>{}, schedule, t);
  check_teacher<double>(type, distillation<>{}, schedule, t, 1);
  check_teacher<double>(type, distillation<>{}, schedule, t, 0);
  if constexpr (!on_gpu || (each_with_each && std::same_as<Prediction, epsilon_prediction>)) {
    check_teacher<double>(type, distillation<uniform, pseudo_huber>{.distance = {.c = 0.5}},
                          schedule, t);
  }
}

}  // namespace

// --- from a target -------------------------------------------------------------------------------

TEST_CASE("distillation from a target under each weighting") {
  check_target<double>(distillation<uniform>{});
  check_target<double>(distillation<exponential>{});
  check_target<double>(distillation<sds>{});
  check_target<double>(distillation<snr>{});
  check_target<double>(distillation<min_snr>{.weighting = {.gamma = 0.4}});
  check_target<double>(distillation<noisiness>{});
  if constexpr (each_with_each) {
    check_target<double>(distillation<nfsd>{});  // from a target it is sds
  }
}

TEST_CASE("distillation from a target in each distance") {
  check_target<double>(distillation<exponential, absolute>{});
  check_target<double>(distillation<exponential, pseudo_huber>{});
  check_target<double>(distillation<exponential, pseudo_huber>{.distance = {.c = 2}});
  check_target<double>(distillation<exponential, quartic>{});
}

TEST_CASE("distillation summed over the elements of a sample, and averaged by default") {
  static_assert(std::same_as<distillation<>, distillation<exponential, squared, mean>>);
  check_target<double>(distillation<exponential, squared, sum>{});
  if constexpr (each_with_each) {
    check_target<double>(distillation<exponential, absolute, sum>{});
  }
}

TEST_CASE("distillation reduced over the batch, with upstream gradients") {
  check_target<double, sum>(distillation<>{});
  check_target<double, per_sample>(distillation<>{}, {0.5, -2, 0});
  check_target<double, mean>(distillation<exponential, squared, sum>{}, {0.5, -2, 0});
}

TEST_CASE("students and targets of different storage types") {
  check_target<float>(distillation<>{});
  check_target<half, mean, float>(distillation<>{});
  check_target<bfloat16, mean, half>(distillation<>{});
  check_target<double, mean, bfloat16>(distillation<>{});
}

TEST_CASE("a student that equals its target has loss 0 and gradient 0") {
  auto student = batch_tensor<float>::random(97);
  batch_tensor<float> gradient;
  double loss = 1;
  value_and_grad(test_context{},
                 distillation<exponential, absolute>{}(levels().table(), student.view(),
                                                       student.view(), timesteps),
                 loss, gradient.view());
  CHECK(loss == 0);
  gradient.each([&](std::size_t b, std::size_t i) { REQUIRE(gradient.at(b, i) == 0); });
}

TEST_CASE("one sample of one element") {
  double const x[] = {3};
  double const y[] = {1};
  std::int64_t const t[] = {420};
  double g[] = {0};
  double loss = 0;
  value_and_grad(test_context{},
                 distillation<uniform>{}(levels().table(), view(x, 1), view(y, 1), view(t, 1)),
                 loss, view(g, 1));
  CHECK(loss == 4);
  CHECK(g[0] == 4);
}

TEST_CASE("a gradient may be written over the student, in either form") {
  auto target = batch_tensor<float>::random(98);
  auto noise = batch_tensor<float>::random(99);
  distillation<> const loss;
  teacher_predictions<float> const teacher{.noise = noise.view(), .conditional = target.view()};
  auto const check = [&](auto const& bind) {
    auto student = batch_tensor<float>::random(100, 2);
    batch_tensor<float> gradient(2);
    double apart = 0;
    double over = 0;
    value_and_grad(test_context{}, bind(student), apart, gradient.view());
    value_and_grad(test_context{}, bind(student), over, student.view());
    CHECK(apart == over);
    CHECK(student.memory == gradient.memory);
  };
  check([&](auto& student) {
    return loss(levels().table(), student.view(), target.view(), timesteps);
  });
  check([&](auto& student) {
    return loss.from_teacher(v_prediction{}, levels().table(), student.view(), teacher, timesteps);
  });
}

TEST_CASE("NaN and infinity in the student or the target stay in their sample, and are counted") {
  auto student = batch_tensor<float>::random(101);
  auto target = batch_tensor<float>::random(102);
  student.at(0, 69) = std::numeric_limits<float>::quiet_NaN();
  target.at(2, 3) = std::numeric_limits<float>::infinity();
  batch_tensor<float> gradient;
  std::vector<double> losses(batch);
  std::int64_t bad = 0;
  value_and_grad<per_sample>(
      test_context{}, distillation<>{}(levels().table(), student.view(), target.view(), timesteps),
      losses, gradient.view(), {.non_finite = &bad});
  CHECK(std::isnan(losses[0]));
  CHECK(std::isfinite(losses[1]));
  CHECK(std::isinf(losses[2]));
  CHECK(bad == 2);
  CHECK(std::isnan(gradient.at(0, 69)));
  CHECK(gradient.at(2, 3) == -std::numeric_limits<float>::infinity());
  int non_finite = 0;
  gradient.each([&](std::size_t b, std::size_t i) {
    non_finite += std::isfinite(gradient.at(b, i)) ? 0 : 1;
  });
  CHECK(non_finite == 2);
}

// --- from the teacher's predictions --------------------------------------------------------------

TEST_CASE("epsilon predictions give the student minus the x_0 they stand for") {
  check_prediction(epsilon_prediction{}, levels().table(), timesteps);
}
TEST_CASE("v predictions give the student minus the x_0 they stand for") {
  check_prediction(v_prediction{}, levels().table(), timesteps);
}
TEST_CASE("x_0 predictions give the student minus themselves") {
  check_prediction(sample_prediction{}, levels().table(), timesteps);
}
TEST_CASE("flow predictions give the student minus the x_0 they stand for") {
  check_prediction(flow_prediction{}, rectified_flow{.shift = 3}, std::vector<double>{0.1, 0.5, 1});
}

#if !defined(ADDLOSS_TEST_ON_GPU)
TEST_CASE("epsilon predictions under each weighting, with and without c(t) / alpha") {
  check_teacher<double>(epsilon_prediction{}, distillation<uniform>{}, levels().table(), timesteps);
  check_teacher<double>(epsilon_prediction{}, distillation<sds>{}, levels().table(), timesteps);
  check_teacher<double>(epsilon_prediction{}, distillation<basic_sds<unit>>{}, levels().table(),
                        timesteps);
  check_teacher<double>(epsilon_prediction{}, distillation<min_snr>{}, levels().table(), timesteps);
  check_teacher<double>(epsilon_prediction{}, distillation<exponential, squared, sum>{},
                        levels().table(), timesteps);
}
#endif

TEST_CASE("teacher predictions reduced over the batch and stored in other types") {
  check_teacher<double, v_prediction, sum>({}, distillation<>{}, levels().table(), timesteps);
  check_teacher<half, v_prediction, mean, float>({}, distillation<>{}, levels().table(), timesteps);
  if constexpr (each_with_each) {
    check_teacher<double, v_prediction, per_sample>({}, distillation<sds, squared, sum>{},
                                                    levels().table(), timesteps);
    check_teacher<float, v_prediction, mean, bfloat16>({}, distillation<>{}, levels().table(),
                                                       timesteps);
  }
}

TEST_CASE("generated noise is the stored noise of the same key, bit for bit") {
  random_key const key{.seed = 3, .step = 5, .stream = 2, .first_sample = 7};
  batch_tensor<double> stored;
  auto zero = batch_tensor<double>::random(103);
  // x_t at alpha = 0, sigma = 1 is the noise itself.
  auto const schedule = zero_terminal_snr(levels());
  std::vector<std::int64_t> const last(batch, 999);
  add_noise(test_context{}, schedule.table(), zero.view(), last, normal_noise{key}, stored.view());
  auto student = batch_tensor<double>::random(104);
  auto conditional = batch_tensor<double>::random(105);
  auto const run = [&](noise_source<double> const& noise, auto type,
                       batch_tensor<double>& gradient) {
    teacher_predictions<double> const teacher{.noise = noise, .conditional = conditional.view()};
    double loss = 0;
    value_and_grad(
        test_context{},
        distillation<>{}.from_teacher(type, levels().table(), student.view(), teacher, timesteps),
        loss, gradient.view());
    return loss;
  };
  auto const check = [&](auto type) {
    batch_tensor<double> gradients[3];
    double const loss = run(stored.view(), type, gradients[0]);
    double const of_generated = run(normal_noise{key}, type, gradients[1]);
#if defined(ADDLOSS_TEST_ON_GPU)
    // Its threads share out generated elements otherwise than stored ones: another order of sums.
    CHECK(of_generated == Approx(loss).epsilon(1e-14));
#else
    CHECK(of_generated == loss);
#endif
    CHECK(gradients[0].memory == gradients[1].memory);
    CHECK(run(normal_noise{{.seed = 4}}, type, gradients[2]) != loss);
  };
  check(epsilon_prediction{});
  check(v_prediction{});
}

TEST_CASE("NaN in any prediction that counts is in the loss and in the gradient") {
  for (int which = 0; which < 4; ++which) {
    batch_tensor<float> operands[4] = {
        batch_tensor<float>::random(1), batch_tensor<float>::random(2),
        batch_tensor<float>::random(3), batch_tensor<float>::random(4)};
    operands[which].at(1, 65) = static_cast<float>(not_a_number);
    teacher_predictions<float> const teacher{.noise = operands[0].view(),
                                             .conditional = operands[1].view(),
                                             .unconditional = operands[2].view(),
                                             .guidance_scale = 3};
    batch_tensor<float> gradient;
    std::vector<double> losses(batch);
    std::int64_t bad = 0;
    value_and_grad<per_sample>(
        test_context{},
        distillation<>{}.from_teacher(v_prediction{}, levels().table(), operands[3].view(), teacher,
                                      timesteps),
        losses, gradient.view(), {.non_finite = &bad});
    CAPTURE(which);
    CHECK(std::isfinite(losses[0]));
    CHECK(std::isnan(losses[1]));
    CHECK(bad == 1);
    CHECK(std::isnan(gradient.at(1, 65)));
    CHECK(std::isfinite(gradient.at(1, 64)));
  }
}

// --- NFSD ----------------------------------------------------------------------------------------

namespace {

/// Samples at t = 10, 199, 200, whose negative NaN must not matter in the first two.
struct nfsd_inputs {
  batch_tensor<double> student = batch_tensor<double>::random(111);
  batch_tensor<double> conditional = batch_tensor<double>::random(112);
  batch_tensor<double> unconditional = batch_tensor<double>::random(113);
  batch_tensor<double> negative = batch_tensor<double>::random(114);
  std::vector<std::int64_t> t = {10, 199, 200};
  nfsd weighting{};
  bool with_negative = true;
  bool with_unconditional = true;
  double guidance = 7.5;

  [[nodiscard]] teacher_predictions<double> teacher() {
    teacher_predictions<double> result{.conditional = conditional.view(),
                                       .guidance_scale = guidance};
    if (with_unconditional) result.unconditional = unconditional.view();
    if (with_negative) result.negative = negative.view();
    return result;
  }
  auto bound(schedule_table<> const& schedule) {
    return distillation<nfsd>{.weighting = weighting}.from_teacher(epsilon_prediction{}, schedule,
                                                                   student.view(), teacher(), t);
  }
  void check() {
    check_bound<double, mean, mean>(
        bound(levels().table()), [&](std::size_t b) { return weight_of(sds{}, levels().at(t[b])); },
        [&](std::size_t b, std::size_t i) {
          double const u = unconditional.at(b, i);
          double const domain = t[b] < weighting.negative_threshold ? u : u - negative.at(b, i);
          double const condition = conditional.at(b, i) - u;
          auto const level = levels().at(t[b]);
          return level.sigma / level.alpha * (domain + guidance * condition);
        },
        squared{});
  }
};

}  // namespace

TEST_CASE("nfsd replaces the residual and subtracts the negative from t = 200 on") {
  nfsd_inputs{}.check();
  nfsd_inputs high;
  high.t = {999, 500, 300};
  high.guidance = 1;
  high.check();
  nfsd_inputs threshold;
  threshold.weighting.negative_threshold = 11;
  threshold.check();
}

TEST_CASE("nfsd does not read the negative below its threshold") {
  nfsd_inputs inputs;
  inputs.negative.each([&](std::size_t b, std::size_t i) {
    if (b < 2) inputs.negative.at(b, i) = not_a_number;
  });
  inputs.check();
  nfsd_inputs none;
  none.t = {0, 100, 199};
  none.with_negative = false;
  none.check();
}

TEST_CASE("nfsd names the prediction it lacks") {
  double loss = guard;
  auto const text = [&](nfsd_inputs& inputs) {
    return error_of([&] { value(test_context{}, inputs.bound(levels().table()), loss); });
  };
  nfsd_inputs negative;
  negative.with_negative = false;
  CHECK(text(negative) == "value: teacher.negative (expected a tensor, got none)");
  nfsd_inputs unconditional;
  unconditional.with_unconditional = false;
  unconditional.guidance = 1;
  CHECK(text(unconditional) ==
        "value: teacher.unconditional (expected a tensor, as guidance_scale is 1 and the weighting "
        "nfsd, got none)");
  // One that is there is checked, even where it is not read.
  nfsd_inputs low;
  low.t = {0, 1, 2};
  auto teacher = low.teacher();
  teacher.negative = view(low.negative.memory.data(), batch, 5);
  CHECK(error_of([&] {
          value(test_context{},
                distillation<nfsd>{}.from_teacher(epsilon_prediction{}, levels().table(),
                                                  low.student.view(), teacher, low.t),
                loss);
        }) == "value: teacher.negative (expected the shape of student, [3,2,35], got [3,5])");
  CHECK(loss == guard);
}

// --- where there is no signal --------------------------------------------------------------------

#if !defined(ADDLOSS_TEST_ON_GPU)
namespace {

std::string const pole_text =
    " (expected alpha > 0: an epsilon prediction determines no x_0 at alpha = 0 (use v- or "
    "x_0-prediction, or a timestep sampler that leaves it out), got timestep 999, where alpha = 0)";

struct without_signal {
  discrete_schedule schedule = zero_terminal_snr(levels());
  batch_tensor<double> student = batch_tensor<double>::random(121);
  batch_tensor<double> noise = batch_tensor<double>::random(122);
  batch_tensor<double> conditional = batch_tensor<double>::random(123);
  batch_tensor<double> unconditional = batch_tensor<double>::random(124);
  batch_tensor<double> gradient{};
  std::vector<std::int64_t> t = {420, 999, 900};
  double loss = guard;

  auto bound(auto const& distil, auto type) {
    teacher_predictions<double> const teacher{.noise = noise.view(),
                                              .conditional = conditional.view(),
                                              .unconditional = unconditional.view(),
                                              .negative = student.view(),
                                              .guidance_scale = 3};
    return distil.from_teacher(type, schedule.table(), student.view(), teacher, t);
  }
  double residual(std::size_t b, std::size_t i) {
    double const u = unconditional.at(b, i);
    return u + 3 * (conditional.at(b, i) - u) - noise.at(b, i);
  }
  /// The gradient is `weight(level)` times `residual`, at alpha = 0 too.
  void check(auto const& distil, auto const& weight, auto const& expected_residual) {
    std::int64_t bad = -1;
    grad<sum>(test_context{}, bound(distil, epsilon_prediction{}), gradient.view(),
              {.non_finite = &bad});
    double worst = 0;
    gradient.each([&](std::size_t b, std::size_t i) {
      double const expected = weight(schedule.at(t[b])) * expected_residual(b, i) / size;
      double const error = std::abs(gradient.at(b, i) - expected);
      if (!(error <= worst)) worst = error;
    });
    CHECK(worst < 1e-14);
    CHECK(bad == 0);
  }
  std::string value_text(auto const& distil) {
    return error_of([&] { value(test_context{}, bound(distil, epsilon_prediction{}), loss); });
  }
  std::string grad_text(auto const& distil) {
    return error_of(
        [&] { grad(test_context{}, bound(distil, epsilon_prediction{}), gradient.view()); });
  }
};

}  // namespace

TEST_CASE("at alpha = 0 the squared distance has a gradient, and it is right") {
  without_signal inputs;
  REQUIRE(inputs.schedule.at(999).alpha == 0);
  auto const residual = [&](std::size_t b, std::size_t i) { return inputs.residual(b, i); };
  // 2 (c / alpha) sigma: c / alpha is 1 for exponential, sigma / 2 for sds, ...
  inputs.check(
      distillation<exponential>{}, [](noise_level l) { return 2 * l.sigma; }, residual);
  inputs.check(
      distillation<sds>{}, [](noise_level l) { return l.sigma * l.sigma; }, residual);
  inputs.check(
      distillation<basic_sds<unit>>{}, [](noise_level) { return 1.0; }, residual);
  inputs.check(
      distillation<snr>{}, [](noise_level l) { return 2 * l.alpha / l.sigma; }, residual);
  inputs.check(
      distillation<nfsd>{}, [](noise_level l) { return l.sigma * l.sigma; },
      [&](std::size_t b, std::size_t i) {
        double const u = inputs.unconditional.at(b, i);
        return u - inputs.student.at(b, i) + 3 * (inputs.conditional.at(b, i) - u);
      });
}

TEST_CASE("at alpha = 0 the value of an epsilon prediction is refused, with a way out") {
  without_signal inputs;
  CHECK(inputs.value_text(distillation<>{}) == "value: timesteps[1]" + pole_text);
  CHECK(inputs.value_text(distillation<nfsd>{}) == "value: timesteps[1]" + pole_text);
  CHECK(error_of([&] {
          value_and_grad(test_context{}, inputs.bound(distillation<>{}, epsilon_prediction{}),
                         inputs.loss, inputs.gradient.view());
        }) == "value_and_grad: timesteps[1]" + pole_text);
  CHECK(inputs.loss == guard);
  CHECK(inputs.gradient.untouched());
}

TEST_CASE("at alpha = 0 so is the gradient, where weighting or distance has a pole") {
  without_signal inputs;
  CHECK(inputs.grad_text(distillation<uniform>{}) == "grad: timesteps[1]" + pole_text);
  CHECK(inputs.grad_text(distillation<exponential, pseudo_huber>{}) ==
        "grad: timesteps[1]" + pole_text);
  CHECK(inputs.gradient.untouched());
}

TEST_CASE("at alpha = 0 a v prediction has a value and a gradient") {
  without_signal inputs;
  value_and_grad(test_context{}, inputs.bound(distillation<uniform>{}, v_prediction{}), inputs.loss,
                 inputs.gradient.view());
  CHECK((std::isfinite(inputs.loss) && inputs.loss > 0));
  // x_0 = -p there.
  double const u = inputs.unconditional.at(1, 4);
  double const p = u + 3 * (inputs.conditional.at(1, 4) - u);
  CHECK(inputs.gradient.at(1, 4) ==
        Approx(2 * (inputs.student.at(1, 4) + p) / (batch * size)).epsilon(1e-13));
}
#endif

// --- errors --------------------------------------------------------------------------------------

namespace {

/// A good call, whose arguments a test then spoils one at a time.
struct call {
  batch_tensor<float> images[6];
  batch_tensor<float> out{};
  rows<float const> student = images[0].view();
  rows<float const> target = images[1].view();
  std::vector<std::int64_t> t = timesteps;
  gradient<float> g = out.view();
  std::vector<float> upstream = {1, 1, 1};
  std::vector<double> losses = {guard, guard, guard};
  teacher_predictions<float> teacher{.noise = images[2].view(),
                                     .conditional = images[3].view(),
                                     .unconditional = images[4].view(),
                                     .guidance_scale = 7.5};
  std::int64_t bad = -7;
  float scratch[3 * 70] = {};

  std::string run(auto const& bound) {
    std::string const text = error_of([&] {
      value_and_grad<per_sample>(test_context{}, bound, losses, g,
                                 {.upstream = upstream, .non_finite = &bad});
    });
    bool clean = bad == -7 && out.untouched();
    for (double const x : losses) clean = clean && x == guard;
    for (float const x : scratch) clean = clean && x == 0;
    if (!clean) return "written in spite of: " + text;
    std::string const begin = "value_and_grad: ";
    return text.starts_with(begin) ? text.substr(begin.size()) : text;
  }
  // Bound to rows, which may be absent, as no tensor is.
  using loss_type = distillation<>;
  std::string refusal() {
    return run(target_distillation<loss_type, schedule_table<>, float, float, host_space>{
        {}, levels().table(), student, target, t});
  }
  std::string teacher_refusal() {
    return run(
        teacher_distillation<loss_type, v_prediction, schedule_table<>, float, float, host_space>{
            {}, levels().table(), student, teacher, t});
  }
};

}  // namespace

TEST_CASE("good calls of distillation are not refused, and write") {
  CHECK(call{}.refusal() == "written in spite of: no error");
  CHECK(call{}.teacher_refusal() == "written in spite of: no error");
}

TEST_CASE("shapes of student, target and gradient are checked") {
  call absent;
  absent.student = {};
  CHECK(absent.refusal() == "student (expected a tensor, got none)");
  CHECK(absent.teacher_refusal() == "student (expected a tensor, got none)");
  call empty;
  empty.student = view(empty.scratch, 0, 2, 35);
  CHECK(empty.refusal() == "student (expected a batch of at least one sample, got [0,2,35])");
  call target;
  target.target = view(target.scratch, 3, 35, 2);
  CHECK(target.refusal() == "target (expected the shape of student, [3,2,35], got [3,35,2])");
  call order;
  auto channels_last = view(order.scratch, 3, 2, 35);
  channels_last.strides[1] = 1;
  channels_last.strides[2] = 2;
  order.target = channels_last;
  CHECK(order.refusal() ==
        "target (expected the memory order of student, stride 35 on axis 1, got stride 1)");
  call wrong_gradient;
  wrong_gradient.g = gradient<float>(view(wrong_gradient.scratch, 3, 70));
  CHECK(wrong_gradient.refusal() ==
        "gradient (expected the shape of student, [3,2,35], got [3,70])");
  CHECK(wrong_gradient.teacher_refusal() ==
        "gradient (expected the shape of student, [3,2,35], got [3,70])");
  call none;
  none.g = gradient<float>(rows<float>{});
  CHECK(none.refusal() == "gradient (expected a tensor, got none)");
}

TEST_CASE("gradient rows that share memory are refused") {
  call overlapping;
  auto place = view(overlapping.scratch, 3, 2, 35);
  place.strides[0] = 69;
  std::string const text =
      "gradient (expected samples at least 70 elements apart, as they are written, got stride 69 "
      "on axis 0)";
  overlapping.g = gradient<float>(place);
  CHECK(overlapping.refusal() == text);
  CHECK(overlapping.teacher_refusal() == text);
  overlapping.g = accumulate(place);
  CHECK(overlapping.refusal() == text);
  // Inputs may share rows: one target for all samples.
  call broadcast;
  auto one = broadcast.images[1].view();
  one.strides[0] = 0;
  broadcast.target = one;
  CHECK(broadcast.refusal() == "written in spite of: no error");
}

TEST_CASE("timesteps outside the schedule are refused with their sample") {
  call large;
  large.t[2] = 1000;
  CHECK(large.refusal() == "timesteps[2] (expected 0 to 999, got 1000)");
  CHECK(large.teacher_refusal() == "timesteps[2] (expected 0 to 999, got 1000)");
  call negative;
  negative.t[0] = -1;
  CHECK(negative.refusal() == "timesteps[0] (expected 0 to 999, got -1)");
  call fewer;
  fewer.t.pop_back();
  CHECK(fewer.refusal() == "timesteps (expected shape [3], one number a sample, got [2])");
  CHECK(fewer.teacher_refusal() == "timesteps (expected shape [3], one number a sample, got [2])");
}

TEST_CASE("upstream gradients and losses of distillation are one a sample") {
  call upstream;
  upstream.upstream.pop_back();
  CHECK(upstream.refusal() == "upstream (expected shape [3], one number a sample, got [2])");
  CHECK(upstream.teacher_refusal() ==
        "upstream (expected shape [3], one number a sample, got [2])");
  call losses;
  losses.losses.pop_back();
  CHECK(losses.refusal() == "value (expected shape [3], one number a sample, got [2])");
  CHECK(losses.teacher_refusal() == "value (expected shape [3], one number a sample, got [2])");
}

#if !defined(ADDLOSS_TEST_ON_GPU)
TEST_CASE("settings of weighting and distance that are out of range are refused") {
  using loss_type = distillation<min_snr, pseudo_huber>;
  auto const refusals = [](loss_type const& loss) {
    call target;
    call teacher;
    return std::array<std::string, 2>{
        target.run(loss(levels().table(), target.images[0].view(), target.images[1].view(),
                        view(target.t.data(), target.t.size()))),
        teacher.run(loss.from_teacher(v_prediction{}, levels().table(), teacher.images[0].view(),
                                      teacher.teacher, view(teacher.t.data(), teacher.t.size())))};
  };
  double const nan = std::numeric_limits<double>::quiet_NaN();
  double const infinity = std::numeric_limits<double>::infinity();
  for (double const c : {0.0, -0.03, nan, infinity}) {
    for (auto const& text : refusals({.distance = {.c = c}})) {
      CHECK(text.starts_with("pseudo_huber.c (expected a finite number > 0, got "));
    }
  }
  for (double const gamma : {0.0, -5.0, nan}) {
    for (auto const& text : refusals({.weighting = {.gamma = gamma}})) {
      CHECK(text.starts_with("min_snr.gamma (expected a number > 0, got "));
    }
  }
  for (auto const& text : refusals({.weighting = {.gamma = infinity}})) {
    CHECK(text == "written in spite of: no error");
  }
}
#endif

TEST_CASE("what the teacher said is checked by name") {
  call conditional;
  conditional.teacher.conditional = {};
  CHECK(conditional.teacher_refusal() == "teacher.conditional (expected a tensor, got none)");
  call shape;
  shape.teacher.conditional = view(shape.scratch, 3, 70);
  CHECK(shape.teacher_refusal() ==
        "teacher.conditional (expected the shape of student, [3,2,35], got [3,70])");
  call unconditional;
  unconditional.teacher.unconditional = view(unconditional.scratch, 2, 2, 35);
  CHECK(unconditional.teacher_refusal() ==
        "teacher.unconditional (expected the shape of student, [3,2,35], got [2,2,35])");
  call unguided;
  unguided.teacher.unconditional = {};
  CHECK(unguided.teacher_refusal() ==
        "teacher.unconditional (expected a tensor, as guidance_scale is 7.5, got none)");
  call noise;
  noise.teacher.noise = {};
  CHECK(noise.teacher_refusal() == "teacher.noise (expected a tensor, got none)");
  call noise_shape;
  noise_shape.teacher.noise = view(noise_shape.scratch, 3, 2, 34);
  CHECK(noise_shape.teacher_refusal() ==
        "teacher.noise (expected the shape of student, [3,2,35], got [3,2,34])");
}
