// SPDX-License-Identifier: MIT
#include <addloss/noising/few_step.hpp>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/noising/forward.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/schedule/karras.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "test_context.hpp"

namespace {

using namespace addloss;

static_assert(step_rule<re_noise> && step_rule<ddim> && step_rule<ancestral>);
static_assert(!step_rule<int>);
static_assert(time_sequence<student_timesteps, std::int64_t>);
static_assert(time_sequence<std::vector<double>, double>);
static_assert(!time_sequence<int, double>);

constexpr std::size_t batch = 3;
constexpr std::size_t size = 70;
constexpr random_key key{.seed = 9, .step = 4, .stream = 20, .first_sample = 5};

/// x_0 = 0.5 x + t / 1000: reads its input and its time, so a wrong order of steps shows.
struct half_student {
  std::vector<double>* times;
  template <class Time>
  void operator()(auto x_t, Time t, auto x_0) const {
    times->push_back(static_cast<double>(t));
    for (std::size_t i = 0; i < batch * size; ++i) {
      x_0.data[i] = 0.5 * x_t.data[i] + static_cast<double>(t) / 1000;
    }
  }
};

/// The fresh noise of a step, in the bits of where the tests run.
std::vector<double> noise(std::uint32_t step) {
  random_key k = key;
  k.stream += step;
  std::vector<double> const zero(batch * size);
  std::vector<double> result(zero.size());
  // At t = 1 there is no signal: x_t is the noise itself.
  std::vector<double> const t(batch, 1);
  add_noise(test_context{}, rectified_flow{}, view(zero.data(), batch, size), t, normal_noise{k},
            view(result.data(), batch, size));
  return result;
}

/// The loop written out, with the formulas as they stand in the papers, in sigma / alpha.
template <class Rule, class Schedule, class Time>
std::vector<double> oracle(Rule rule, Schedule const& schedule, std::vector<Time> const& falling) {
  std::vector<double> x(batch * size);
  std::vector<double> x_0(x.size());
  auto const start = noise(0);
  for (std::size_t n = 0; n < x.size(); ++n) x[n] = schedule.at(falling[0]).sigma * start[n];
  for (std::size_t step = 0; step < falling.size(); ++step) {
    for (std::size_t n = 0; n < x.size(); ++n) {
      x_0[n] = 0.5 * x[n] + static_cast<double>(falling[step]) / 1000;
    }
    if (step + 1 == falling.size()) break;
    auto const [alpha, sigma] = schedule.at(falling[step]);
    auto const [alpha_next, sigma_next] = schedule.at(falling[step + 1]);
    auto const fresh_noise = noise(static_cast<std::uint32_t>(step + 1));
    for (std::size_t n = 0; n < x.size(); ++n) {
      double const fresh = fresh_noise[n];
      if constexpr (std::same_as<Rule, re_noise>) {
        x[n] = alpha_next * x_0[n] + sigma_next * fresh;
      } else if constexpr (std::same_as<Rule, ddim>) {
        double const epsilon = (x[n] - alpha * x_0[n]) / sigma;
        x[n] = alpha_next * x_0[n] + sigma_next * epsilon;
      } else {
        double const s = sigma / alpha;
        double const s_next = sigma_next / alpha_next;
        double const up = rule.eta * std::sqrt(s_next * s_next * (s * s - s_next * s_next)) / s;
        double const down = std::sqrt(s_next * s_next - up * up);
        double const scaled = x[n] / alpha;
        x[n] = alpha_next * (scaled + (scaled - x_0[n]) / s * (down - s) + up * fresh);
      }
    }
  }
  return x_0;
}

template <class Rule, class Schedule, class Steps>
std::vector<double> run(Rule rule, Schedule const& schedule, Steps const& steps,
                        std::vector<double>& times) {
  std::vector<double> x(batch * size, std::nan(""));
  std::vector<double> x_0(x.size(), std::nan(""));
  sample_few_steps(rule, test_context{}, schedule, steps, key, half_student{&times},
                   view(x.data(), batch, size), view(x_0.data(), batch, size));
  return x_0;
}

template <class Rule, class Schedule, class Time>
void check(Rule rule, Schedule const& schedule, std::vector<Time> const& falling) {
  std::vector<double> times;
  auto const got = run(rule, schedule, falling, times);
  CHECK(times == std::vector<double>(falling.begin(), falling.end()));
  auto const expected = oracle(rule, schedule, falling);
  double worst = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    worst = std::fmax(worst, std::abs(got[n] - expected[n]));
    if (std::isnan(got[n])) worst = INFINITY;
  }
  CHECK(worst < 1e-12 * static_cast<double>(times.size()));
  // Rising times are the same steps.
  std::vector<double> again;
  CHECK(run(rule, schedule, std::vector<Time>(falling.rbegin(), falling.rend()), again) == got);
  CHECK(again == times);
}

}  // namespace

TEST_CASE("few steps equal the loop written out") {
  auto const schedule = scaled_linear_schedule();
  std::vector<std::int64_t> const falling = {999, 749, 499, 249};
  check(re_noise{}, schedule.table(), falling);
  check(ddim{}, schedule.table(), falling);
  check(ancestral{}, schedule.table(), falling);
  check(ancestral{.eta = 0.3}, schedule.table(), falling);
  check(re_noise{}, rectified_flow{}, std::vector<double>{0.999, 0.7, 0.25});
  check(ddim{}, rectified_flow{}, std::vector<double>{0.999, 0.7, 0.25});
  check(ancestral{}, karras{}, std::vector<double>{14.6, 3.1, 0.9, 0.05});
}

TEST_CASE("one step is the student on pure noise") {
  std::vector<double> times;
  auto const schedule = scaled_linear_schedule();
  auto const got = run(re_noise{}, schedule.table(), student_timesteps::trailing(1), times);
  REQUIRE(times == std::vector<double>{999});
  double const sigma = schedule.at(999).sigma;
  CHECK(got[0] == Approx(0.5 * sigma * noise(0)[0] + 0.999).epsilon(1e-12));
}

TEST_CASE("student_timesteps are walked from high to low") {
  std::vector<double> times;
  auto const schedule = scaled_linear_schedule();
  run(re_noise{}, schedule.table(), student_timesteps::trailing(4), times);
  CHECK(times == std::vector<double>{999, 749, 499, 249});
}

TEST_CASE("ancestral without fresh noise is ddim") {
  std::vector<double> times;
  auto const schedule = scaled_linear_schedule();
  auto const steps = student_timesteps::turbo(4);
  auto const a = run(ancestral{.eta = 0}, schedule.table(), steps, times);
  auto const b = run(ddim{}, schedule.table(), steps, times);
  for (std::size_t n = 0; n < a.size(); ++n) REQUIRE(a[n] == Approx(b[n]).epsilon(1e-12));
}

TEST_CASE("every rule is finite from zero terminal SNR") {
  auto const schedule = zero_terminal_snr(scaled_linear_schedule());
  REQUIRE(schedule.at(999).alpha == 0);
  auto const steps = student_timesteps::trailing(4);
  std::vector<double> times;
  for (double const x : run(re_noise{}, schedule.table(), steps, times)) REQUIRE(std::isfinite(x));
  for (double const x : run(ddim{}, schedule.table(), steps, times)) REQUIRE(std::isfinite(x));
  for (double const x : run(ancestral{}, schedule.table(), steps, times)) {
    REQUIRE(std::isfinite(x));
  }
}

TEST_CASE("a rule keeps the marginal of data with unit variance") {
  // For x_0 = the posterior mean of normal data, alpha'^2 + sigma'^2 = 1 must come out of the
  // coefficients when x and x_0 are what they are for an exact denoiser: x_0 = alpha x.
  auto const schedule = scaled_linear_schedule();
  auto const from = schedule.at(749);
  auto const to = schedule.at(499);
  // The Euler step of an exact denoiser is exact only to first order; the limit of small steps is.
  auto const near = schedule.at(748);
  for (double const eta : {0.0, 0.5, 1.0}) {
    auto const [a, b, c] = ancestral{eta}.at(from, near);
    double const variance = std::pow(a * from.alpha + b, 2) + c * c;
    CHECK(variance == Approx(1).margin(1e-4));
  }
  auto const [a, b, c] = re_noise{}.at(from, to);
  CHECK((a == to.alpha && b == 0 && c == to.sigma));
}

TEST_CASE("a batch split over ranks draws the same samples") {
  std::vector<double> times;
  auto const schedule = scaled_linear_schedule();
  auto const whole = run(re_noise{}, schedule.table(), student_timesteps::trailing(4), times);
  random_key part = key;
  part.first_sample += 2;
  std::vector<double> x(size);
  std::vector<double> x_0(size);
  sample_few_steps(
      re_noise{}, test_context{}, schedule.table(), student_timesteps::trailing(4), part,
      [](auto x_t, std::int64_t t, auto out) {
        for (std::size_t i = 0; i < size; ++i) {
          out.data[i] = 0.5 * x_t.data[i] + static_cast<double>(t) / 1000;
        }
      },
      view(x.data(), 1, size), view(x_0.data(), 1, size));
  CHECK(x_0 == std::vector<double>(whole.begin() + 2 * size, whole.end()));
}

TEST_CASE("bad steps are refused before the student is called") {
  auto const schedule = scaled_linear_schedule();
  std::vector<double> times;
  auto const attempt = [&](std::vector<std::int64_t> const& steps) {
    return error_of([&] { run(re_noise{}, schedule.table(), steps, times); });
  };
  CHECK(attempt({}) == "sample_few_steps: timesteps (expected at least one, got none)");
  CHECK(attempt({999, 1000}) == "sample_few_steps: timesteps[1] (expected 0 to 999, got 1000)");
  CHECK(attempt({999, 499, 749}) ==
        "sample_few_steps: timesteps[2] (expected a strictly falling sequence, got 749 after 499)");
  CHECK(attempt({1, 3, 3}) ==
        "sample_few_steps: timesteps[2] (expected a strictly rising sequence, got 3 after 3)");
  CHECK(error_of([&] {
          run(re_noise{}, rectified_flow{}, std::vector<double>{1, 0}, times);
        }) ==
        "sample_few_steps: timesteps[1] (expected a noise level sigma > 0, got timestep 0, "
        "where sigma = 0)");
  for (double const eta : {-0.1, 1.1, std::nan("")}) {
    CHECK(error_of([&] {
            run(ancestral{.eta = eta}, schedule.table(), student_timesteps::trailing(4), times);
          }).starts_with("sample_few_steps: ancestral.eta (expected a number in [0, 1], got "));
  }
  CHECK(times.empty());
  std::vector<double> x(batch * size);
  CHECK(error_of([&] {
          sample_few_steps(re_noise{}, test_context{}, schedule.table(),
                           student_timesteps::trailing(4), key, half_student{&times},
                           view(x.data(), batch, size), view(x.data(), batch, size / 2));
        }) == "sample_few_steps: x_0 (expected the shape of x_t, [3,70], got [3,35])");

  // Tensors whose samples share memory, and keys without numbers for all of them.
  auto const refusal = [&](auto const& x_t, auto const& x_0, random_key const& of) {
    return error_of([&] {
      sample_few_steps(re_noise{}, test_context{}, schedule.table(), student_timesteps::trailing(4),
                       of, half_student{&times}, x_t, x_0);
    });
  };
  auto const good = view(x.data(), batch, size);
  auto shared = good;
  shared.strides[0] = 0;
  std::string const apart =
      " (expected samples at least 70 elements apart, as they are written, got stride 0 on axis 0)";
  CHECK(refusal(shared, good, key) == "sample_few_steps: x_t" + apart);
  CHECK(refusal(good, shared, key) == "sample_few_steps: x_0" + apart);
  CHECK(refusal(good, good, {.first_sample = 0xffffffff}) ==
        "sample_few_steps: x_t (expected at most 1 samples, whose indices fit 32 bits, got 3)");
  CHECK(times.empty());
  CHECK(x == std::vector<double>(batch * size));
}
