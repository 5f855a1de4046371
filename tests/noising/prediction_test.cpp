// SPDX-License-Identifier: MIT
#include <addloss/noising/prediction.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::device_space;
using addloss::epsilon_prediction;
using addloss::flow_prediction;
using addloss::noise_level;
using addloss::prediction_coefficients;
using addloss::prediction_type;
using addloss::residual_coefficients;
using addloss::rows;
using addloss::sample_prediction;
using addloss::v_prediction;
using addloss::view;
using addloss::detail::check_pole;
using addloss::detail::check_timesteps;

struct flags {
  static constexpr bool has_pole = false;
  static constexpr bool residual_reads_student = true;
  static constexpr bool residual_reads_noise = false;
};
/// A prediction of a user: x_0 / 2.
struct half_sample : flags {
  static prediction_coefficients sample(noise_level) { return {0, 2}; }
  static prediction_coefficients epsilon(noise_level level) {
    return {1 / level.sigma, -2 * level.alpha / level.sigma};
  }
  static residual_coefficients residual(noise_level) { return {1, 1, 0, -2}; }
};
struct wrong_type : half_sample {
  static double sample(noise_level) { return 1; }
};
struct without_residual : flags {
  static prediction_coefficients sample(noise_level) { return {0, 1}; }
  static prediction_coefficients epsilon(noise_level) { return {0, 1}; }
};
/// Whether there is an x_0 at alpha = 0 is not known, nor what the residual reads.
struct without_flags {
  static prediction_coefficients sample(noise_level) { return {0, 1}; }
  static prediction_coefficients epsilon(noise_level) { return {0, 1}; }
  static residual_coefficients residual(noise_level) { return {1, 1, 0, -1}; }
};

static_assert(prediction_type<epsilon_prediction> && prediction_type<v_prediction>);
static_assert(prediction_type<sample_prediction> && prediction_type<flow_prediction>);
static_assert(prediction_type<half_sample>);
static_assert(!prediction_type<without_residual> && !prediction_type<wrong_type>);
static_assert(!prediction_type<without_flags> && !prediction_type<double>);

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

constexpr noise_level variance_preserving[] = {{0.8, 0.6}, {0.28, 0.96}, {0.96, 0.28}, {0.6, 0.8}};
constexpr noise_level straight[] = {{0.75, 0.25}, {0.5, 0.5}, {0.125, 0.875}, {0.9375, 0.0625}};

double combine(prediction_coefficients const& c, double noisy, double prediction) {
  return c.noisy * noisy + c.prediction * prediction;
}

double combine(residual_coefficients const& c, double student, double noise, double prediction) {
  return c.scale * (c.student * student + c.noise * noise + c.prediction * prediction);
}

/// `predict(x_0, eps, level)` is what a perfect network predicts, `sample_of(x_t, p, level)` the
/// x_0 that the table of the header gives.
template <class P>
void check_prediction(noise_level const (&levels)[4], auto const& predict, auto const& sample_of) {
  std::mt19937 random(81);
  std::normal_distribution<double> normal;
  double worst_sample = 0;
  double worst_epsilon = 0;
  double worst_residual = 0;
  auto const keep = [](double& worst, double error) {
    if (!(error <= worst)) worst = error;
  };
  for (noise_level const level : levels) {
    for (int i = 0; i < 200; ++i) {
      double const x0 = normal(random);
      double const eps = normal(random);
      double const noisy = level.alpha * x0 + level.sigma * eps;
      // A perfect prediction leads back to x_0 and eps.
      double const perfect = predict(x0, eps, level);
      keep(worst_sample, std::abs(combine(P::sample(level), noisy, perfect) - x0));
      keep(worst_epsilon, std::abs(combine(P::epsilon(level), noisy, perfect) - eps));
      keep(worst_residual, std::abs(combine(P::residual(level), x0, eps, perfect)));
      // Any prediction: its x_0, the noise that goes with it, and the difference of both x_0.
      double const any = normal(random);
      double const sample = sample_of(noisy, any, level);
      keep(worst_sample, std::abs(combine(P::sample(level), noisy, any) - sample));
      double const noise = (noisy - level.alpha * sample) / level.sigma;
      keep(worst_epsilon, std::abs(combine(P::epsilon(level), noisy, any) - noise));
      keep(worst_residual, std::abs(combine(P::residual(level), x0, eps, any) - (x0 - sample)));
    }
    CHECK(P::residual_reads_student == (P::residual(level).student != 0));
    CHECK(P::residual_reads_noise == (P::residual(level).noise != 0));
  }
  // Numbers are below 5, divisions by alpha or sigma at least 1/16: a few hundred roundings' worth.
  CHECK(worst_sample < 1e-13);
  CHECK(worst_epsilon < 1e-13);
  CHECK(worst_residual < 1e-13);
}

constexpr auto epsilon_of = [](double, double eps, noise_level) { return eps; };
constexpr auto sample_from_epsilon = [](double noisy, double p, noise_level level) {
  return (noisy - level.sigma * p) / level.alpha;
};
constexpr auto sample_of = [](double x0, double, noise_level) { return x0; };
constexpr auto sample_from_sample = [](double, double p, noise_level) { return p; };

}  // namespace

TEST_CASE("epsilon predictions") {
  check_prediction<epsilon_prediction>(variance_preserving, epsilon_of, sample_from_epsilon);
  check_prediction<epsilon_prediction>(straight, epsilon_of, sample_from_epsilon);
}

TEST_CASE("sample predictions") {
  check_prediction<sample_prediction>(variance_preserving, sample_of, sample_from_sample);
  check_prediction<sample_prediction>(straight, sample_of, sample_from_sample);
}

TEST_CASE("v predictions") {
  check_prediction<v_prediction>(
      variance_preserving,
      [](double x0, double eps, noise_level level) { return level.alpha * eps - level.sigma * x0; },
      [](double noisy, double p, noise_level level) {
        return level.alpha * noisy - level.sigma * p;
      });
}

TEST_CASE("flow predictions") {
  check_prediction<flow_prediction>(
      straight, [](double x0, double eps, noise_level) { return eps - x0; },
      [](double noisy, double p, noise_level level) { return noisy - level.sigma * p; });
}

TEST_CASE("a prediction of one's own") {
  check_prediction<half_sample>(
      variance_preserving, [](double x0, double, noise_level) { return x0 / 2; },
      [](double, double p, noise_level) { return 2 * p; });
}

TEST_CASE("predictions where there is no signal") {
  constexpr noise_level pure_noise{0, 1};
  CHECK(epsilon_prediction::has_pole);
  CHECK(std::isinf(epsilon_prediction::sample(pure_noise).noisy));
  CHECK(epsilon_prediction::residual(pure_noise).scale == infinity);
  CHECK_FALSE(v_prediction::has_pole);
  CHECK(combine(v_prediction::sample(pure_noise), 3, 2) == -2);
  CHECK(combine(v_prediction::epsilon(pure_noise), 3, 2) == 3);
  CHECK(combine(v_prediction::residual(pure_noise), 5, 3, 2) == 7);
  CHECK_FALSE(sample_prediction::has_pole);
  CHECK(combine(sample_prediction::sample(pure_noise), 3, 2) == 2);
  CHECK(combine(sample_prediction::epsilon(pure_noise), 3, 2) == 3);
  CHECK(combine(sample_prediction::residual(pure_noise), 5, 3, 2) == 3);
  CHECK_FALSE(flow_prediction::has_pole);
  CHECK(combine(flow_prediction::sample(pure_noise), 3, 2) == 1);
  CHECK(combine(flow_prediction::epsilon(pure_noise), 3, 2) == 3);
  CHECK(combine(flow_prediction::residual(pure_noise), 5, 3, 2) == 4);
}

TEST_CASE("predictions where there is no noise") {
  constexpr noise_level clean{1, 0};
  CHECK(combine(epsilon_prediction::sample(clean), 3, 2) == 3);
  CHECK(combine(epsilon_prediction::residual(clean), 3, 5, 2) == 0);
  CHECK(combine(v_prediction::sample(clean), 3, 2) == 3);
  CHECK(combine(v_prediction::residual(clean), 3, 5, 2) == 0);
  CHECK(combine(flow_prediction::sample(clean), 3, 2) == 3);
  CHECK(combine(flow_prediction::residual(clean), 3, 5, 2) == 0);
  CHECK(combine(sample_prediction::residual(clean), 3, 5, 2) == 1);
  CHECK(std::isinf(sample_prediction::epsilon(clean).noisy));
}

TEST_CASE("the residual of a perfect prediction is exactly 0, however little signal there is") {
  // From x_t, (x_t - sigma eps) / alpha - x_0 would be off by 1e-16 / alpha.
  constexpr noise_level level{1e-9, 1};
  CHECK(combine(epsilon_prediction::residual(level), 0.3, 0.7, 0.7) == 0);
  CHECK(combine(sample_prediction::residual(level), 0.3, 0.7, 0.3) == 0);
  CHECK(combine(epsilon_prediction::residual(level), 0.3, 0.5, 0.75) == Approx(0.25e9));
}

TEST_CASE("timesteps out of range are refused with their sample") {
  auto const schedule = addloss::linear_schedule();
  auto const check = [&](rows<std::int64_t const> const& timesteps, std::int64_t count) {
    return error_of([&] { check_timesteps("f", schedule.table(), timesteps, count); });
  };
  std::int64_t const good[] = {0, 500, 999};
  CHECK(check(view(good, 3), 3) == "no error");
  std::int64_t const large[] = {0, 500, 1000};
  CHECK(check(view(large, 3), 3) == "f: timesteps[2] (expected 0 to 999, got 1000)");
  std::int64_t const negative[] = {0, -1, 999};
  CHECK(check(view(negative, 3), 3) == "f: timesteps[1] (expected 0 to 999, got -1)");
  CHECK(check(view(good, 3), 2) ==
        "f: timesteps (expected shape [2], one number a sample, got [3])");
  CHECK(check(view(good, 3, 1), 3) ==
        "f: timesteps (expected shape [3], one number a sample, got [3,1])");
  CHECK(check({}, 3) == "f: timesteps (expected a tensor, got none)");
}

TEST_CASE("timesteps are read at their stride") {
  auto const schedule = addloss::linear_schedule();
  std::int64_t const memory[] = {7, -1, 8, -1, 9, 1000};
  auto every_second = view(memory, 3);
  every_second.strides[0] = 2;
  CHECK(error_of([&] {
          check_timesteps("f", schedule.table(), rows<std::int64_t const>(every_second), 3);
        }) == "no error");
  auto backwards = view(memory + 5, 3);
  backwards.strides[0] = -2;
  CHECK(error_of([&] {
          check_timesteps("f", schedule.table(), rows<std::int64_t const>(backwards), 3);
        }) == "f: timesteps[0] (expected 0 to 999, got 1000)");
}

TEST_CASE("a continuous time that is NaN or out of range is refused") {
  auto const check = [](double time) {
    double const times[] = {0.5, time};
    return error_of([&] {
      check_timesteps("f", addloss::rectified_flow{}, rows<double const>(view(times, 2)), 2);
    });
  };
  CHECK(check(1) == "no error");
  CHECK(check(not_a_number) == "f: timesteps[1] (expected 0 to 1, got nan)");
  CHECK(check(1.5) == "f: timesteps[1] (expected 0 to 1, got 1.5)");
}

TEST_CASE("a device's timesteps are not read on the host") {
  auto const schedule = addloss::linear_schedule();
  std::int64_t const bad[] = {-1, 1000};
  rows<std::int64_t const, device_space> const there(view<device_space>(bad, 2));
  CHECK(error_of([&] { check_timesteps("f", schedule.table(), there, 2); }) == "no error");
  CHECK(error_of([&] { check_timesteps("f", schedule.table(), there, 3); }) ==
        "f: timesteps (expected shape [3], one number a sample, got [2])");
}

TEST_CASE("a schedule's own settings are checked where its timesteps are not read") {
  double const times[] = {0.5, 2};
  rows<double const, device_space> const there(view<device_space>(times, 2));
  auto const check = [&](double shift) {
    return error_of([&] { check_timesteps("f", addloss::rectified_flow{shift}, there, 2); });
  };
  CHECK(check(3) == "no error");
  CHECK(check(-3) == "f: shift (expected a finite number > 0, got -3)");
}

TEST_CASE("an epsilon prediction at alpha = 0 is refused with a way out") {
  auto const check = [](noise_level level) {
    return error_of([&] { check_pole("f", level, 4, 999); });
  };
  CHECK(check({0, 1}) ==
        "f: timesteps[4] (expected alpha > 0: an epsilon prediction determines no x_0 at alpha = 0 "
        "(use v- or x_0-prediction, or a timestep sampler that leaves it out), got timestep 999, "
        "where alpha = 0)");
  CHECK(check({1e-300, 1}) == "no error");
}
