// SPDX-License-Identifier: MIT
/// Sampling with a student in a few steps, without guidance.
///
///   x <- sigma(tau_n) eps;  for tau from high to low:  x_0 <- student(x, tau);
///                                                      x <- a x_0 + b x + c eps'
/// The last x_0 is the sample. (a, b, c) from the levels (alpha, sigma) of a step and
/// (alpha', sigma') of the next one:
/// | rule      | a                         | b              | c       |
/// | re_noise  | alpha'                    | 0              | sigma'  |
/// | ddim      | alpha' - sigma' alpha / sigma | sigma' / sigma | 0    |
/// | ancestral | alpha' (1 - d alpha / sigma)  | alpha' d / sigma | alpha' u |
/// ancestral is Euler's method on s = sigma / alpha with fresh noise: u^2 = eta^2 s'^2 (1 - q^2),
/// d^2 = s'^2 - u^2, q = s' / s; eta = 1 adds all the noise that keeps the marginal, eta = 0 none
/// (then it is ddim). All forms are finite at alpha = 0.
/// Every draw of noise has its own stream of `key`: key.stream for the start, key.stream + i for
/// the i-th update; the same sample on every device. Not differentiated. Nothing is allocated here.
/// Sources: re-noise: ADD, Sauer et al. 2023, section 3.1; Song, Dhariwal, Chen, Sutskever,
/// Consistency Models, 2023, algorithm 1; ddim: Song, Meng, Ermon, Denoising Diffusion Implicit
/// Models, 2020, eq. 12; ancestral: Karras, Aittala, Aila, Laine, Elucidating the Design Space of
/// Diffusion-Based Generative Models, 2022, as in k-diffusion's Euler ancestral sampler.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/noising/forward.hpp>
#include <addloss/schedule/concept.hpp>

namespace addloss {

/// x <- sample * x_0 + noisy * x + noise * eps'.
struct step_coefficients {
  double sample;
  double noisy;
  double noise;
};

struct re_noise {
  static constexpr bool reads_noisy = false;
  static constexpr bool adds_noise = true;
  [[nodiscard]] step_coefficients at(noise_level /*level*/, noise_level next) const {
    return {next.alpha, 0, next.sigma};
  }
};

struct ddim {
  static constexpr bool reads_noisy = true;
  static constexpr bool adds_noise = false;
  [[nodiscard]] step_coefficients at(noise_level level, noise_level next) const {
    double const ratio = next.sigma / level.sigma;
    return {next.alpha - ratio * level.alpha, ratio, 0};
  }
};

struct ancestral {
  static constexpr bool reads_noisy = true;
  static constexpr bool adds_noise = true;
  double eta = 1;  ///< share of the noise that is fresh, in [0, 1]
  [[nodiscard]] step_coefficients at(noise_level level, noise_level next) const {
    // alpha' times u and d, so that s = infinity, at alpha = 0, is never met.
    double const q = level.alpha > 0 ? next.sigma * level.alpha / (next.alpha * level.sigma) : 0.0;
    double const up = eta * next.sigma * std::sqrt(1 - q * q);
    double const down = std::sqrt(next.sigma * next.sigma - up * up);
    return {next.alpha - down * level.alpha / level.sigma, down / level.sigma, up};
  }
  void check(char const* function) const {
    if (!(eta >= 0 && eta <= 1)) {
      detail::fail(function, "ancestral.eta", "a number in [0, 1]", detail::text() << eta);
    }
  }
};

/// How one step follows from the last. `reads_noisy`, `adds_noise`: whether these coefficients may
/// differ from 0. If it has `check(function)`, that raises addloss::error for settings out of
/// range.
template <class R>
concept step_rule = requires(R const rule, noise_level level) {
  { rule.at(level, level) } -> std::same_as<step_coefficients>;
  { R::reads_noisy } -> std::convertible_to<bool>;
  { R::adds_noise } -> std::convertible_to<bool>;
};

/// The times of the steps: a span, an array, or `student_timesteps`.
template <class S, class Time>
concept time_sequence = requires(S const& steps) {
  { steps.size() } -> std::convertible_to<std::int64_t>;
  { steps[0] } -> std::convertible_to<Time>;
};

namespace detail {

/// The start: nothing but noise.
struct pure_noise {
  static constexpr bool reads_noisy = false;
  static constexpr bool adds_noise = true;
};

/// x <- [a x_0] [+ b x] [+ c eps']
template <class Rule, class X, class Y>
struct step_pass : combination_pass_base<X> {
  using typename combination_pass_base<X>::arithmetic;
  static constexpr unsigned noisy_index = std::same_as<Rule, pure_noise> ? 0 : 1;
  static constexpr unsigned noise_index = noisy_index + (Rule::reads_noisy ? 1U : 0U);
  static constexpr unsigned operand_count = noise_index + (Rule::adds_noise ? 1U : 0U);

  step_coefficients coefficients;
  stored<Y> sample;
  stored<X> noisy;
  generated_operand noise;

  template <int Index>
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto operand(int /*part*/, std::int64_t /*row*/) const {
    if constexpr (Index < noisy_index) {
      return sample;
    } else if constexpr (Index < noise_index) {
      return noisy;
    } else {
      return noise;
    }
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int /*part*/, std::int64_t /*row*/) const {
    combination_row<arithmetic, operand_count> result{};
    if constexpr (noisy_index > 0) result.factor[0] = static_cast<arithmetic>(coefficients.sample);
    if constexpr (Rule::reads_noisy) {
      result.factor[noisy_index] = static_cast<arithmetic>(coefficients.noisy);
    }
    if constexpr (Rule::adds_noise) {
      result.factor[noise_index] = static_cast<arithmetic>(coefficients.noise);
    }
    return result;
  }
};

/// The times of the steps, as they are given and from high to low.
template <class Time, class Timesteps>
struct step_times {
  Timesteps const& timesteps;

  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(timesteps.size()); }
  [[nodiscard]] Time given(std::int64_t i) const {
    return static_cast<Time>(timesteps[static_cast<decltype(timesteps.size())>(i)]);
  }
  [[nodiscard]] bool rising() const { return given(count() - 1) > given(0); }
  [[nodiscard]] Time falling(std::int64_t i) const { return given(rising() ? count() - 1 - i : i); }
};

/// Refuses an empty sequence, one that turns back, and a time without noise.
template <class Schedule, class Times>
void check_steps(char const* function, Schedule const& schedule, Times const& times) {
  if (times.count() < 1) fail(function, "timesteps", "at least one", "none");
  auto const at = [&](std::int64_t i) { return times.given(i); };
  bool const rising = times.rising();
  for (std::int64_t i = 0; i < times.count(); ++i) {
    schedule.check(function, i, at(i));
    if (i > 0 && !(rising ? at(i) > at(i - 1) : at(i) < at(i - 1))) {
      fail(function, argument_name("timesteps", i),
           text() << "a strictly " << (rising ? "rising" : "falling") << " sequence",
           text() << static_cast<double>(at(i)) << " after " << static_cast<double>(at(i - 1)));
    }
    if (!(schedule.at(at(i)).sigma > 0)) {
      fail(function, argument_name("timesteps", i), "a noise level sigma > 0",
           text() << "timestep " << static_cast<double>(at(i)) << ", where sigma = 0");
    }
  }
}

}  // namespace detail

/// Draws samples [B, ...] into `x_0`; `x_t` of the same shape holds the noisy image between steps.
///
///   sample_few_steps(re_noise{}, ctx, schedule.table(), student_timesteps::trailing(4), key,
///                    [&](auto x_t, std::int64_t t, auto x_0) { ... }, x_t, x_0);
/// `student(x_t, t, x_0)` reads the view x_t and writes its prediction of x_0 into the view x_0, on
/// the context's own stream or queue. `timesteps` rise or fall strictly and are walked from high to
/// low. The schedule is read on the host, whatever the space of the tensors.
/// Errors: shapes, an empty batch, timesteps that are empty, out of range, unordered or without
/// noise, eta outside [0, 1]; all found before the student is first called.
template <step_rule Rule, has_executor Context, noise_schedule Schedule,
          time_sequence<typename Schedule::time_type> Timesteps, class Student,
          writable_tensor_of<Context> Noisy, writable_tensor_of<Context> Sample>
  requires(std::invocable<Student&, view_of<Noisy>, typename Schedule::time_type, view_of<Sample>>)
void sample_few_steps(Rule rule, Context const& ctx, Schedule const& schedule,
                      Timesteps const& timesteps, random_key key, Student&& student, Noisy&& x_t,
                      Sample&& x_0) {
  using space = typename Context::space;
  using noisy_type = detail::value_of<Noisy>;
  using sample_type = detail::value_of<Sample>;
  char const* const function = "sample_few_steps";
  detail::check_settings(function, rule);
  rows<noisy_type, space> const noisy(as_view(x_t));
  rows<sample_type, space> const sample(as_view(x_0));
  detail::check_rows(function, "x_t", noisy);
  detail::check_distinct_rows(function, "x_t", noisy);
  detail::check_same_rows(function, "x_0", sample, "x_t", noisy);
  detail::check_distinct_rows(function, "x_0", sample);
  detail::check_noise(function, "x_t", noise_source<float, space>(normal_noise{key}), "x_t", noisy);
  detail::step_times<typename Schedule::time_type, Timesteps> const times{timesteps};
  detail::check_steps(function, schedule, times);

  auto const update = [&]<class Any>(Any /*rule*/, step_coefficients coefficients) {
    executor<Context>::run(ctx, detail::step_pass<Any, noisy_type, sample_type>{
                                    {{noisy.count, noisy.row_size},
                                     {noisy.data, noisy.row_stride, detail::store_mode::overwrite}},
                                    coefficients,
                                    detail::stored_rows(sample),
                                    detail::stored_rows(noisy),
                                    {key}});
    ++key.stream;
  };
  update(detail::pure_noise{}, {0, 0, schedule.at(times.falling(0)).sigma});
  for (std::int64_t i = 0; i < times.count(); ++i) {
    student(as_view(x_t), times.falling(i), as_view(x_0));
    if (i + 1 < times.count()) {
      update(rule, rule.at(schedule.at(times.falling(i)), schedule.at(times.falling(i + 1))));
    }
  }
}

}  // namespace addloss
