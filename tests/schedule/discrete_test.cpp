// SPDX-License-Identifier: MIT
#include <addloss/schedule/discrete.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::cosine_schedule;
using addloss::discrete_schedule;
using addloss::linear_schedule;
using addloss::scaled_linear_schedule;
using addloss::zero_terminal_snr;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

bool starts_with(std::string const& text, std::string const& head) {
  return text.substr(0, head.size()) == head;
}

/// Every level against the product of 1 - beta_i in long double.
template <class Beta>
void check_betas(discrete_schedule const& schedule, std::int64_t timesteps, Beta beta) {
  REQUIRE(schedule.size() == timesteps);
  long double product = 1;
  double worst = 0;
  for (std::int64_t t = 0; t < timesteps; ++t) {
    product *= 1 - beta(static_cast<long double>(t));
    auto const alpha = static_cast<double>(std::sqrt(product));
    auto const sigma = static_cast<double>(std::sqrt(1 - product));
    double const error = std::max(std::abs(schedule.at(t).alpha / alpha - 1),
                                  std::abs(schedule.at(t).sigma / sigma - 1));
    if (!(error <= worst)) worst = error;
  }
  // 1 - abar cancels: at the first beta, 1e-4, a rounding counts 1e4 times.
  CHECK(worst < 1e-12);
}

void check_level(discrete_schedule const& schedule, std::int64_t t, double alpha, double sigma) {
  CAPTURE(t);
  CHECK(schedule.at(t).alpha == Approx(alpha).margin(5.1e-7).epsilon(0));
  CHECK(schedule.at(t).sigma == Approx(sigma).margin(5.1e-7).epsilon(0));
}

std::string from(std::vector<double> const& alphas_cumprod) {
  return error_of([&] { (void)discrete_schedule::from_alphas_cumprod(alphas_cumprod); });
}

}  // namespace

TEST_CASE("outside its table a schedule of a device gives NaN, as nobody there can be told") {
  auto const schedule = linear_schedule();
  addloss::schedule_table<addloss::device_space> const there{schedule.table().levels, 1000};
  CHECK(there.at(999).alpha == schedule.at(999).alpha);
  for (std::int64_t const t : {-1, 1000}) {
    CHECK(std::isnan(there.at(t).alpha));
    CHECK(std::isnan(there.at(t).sigma));
  }
}

TEST_CASE("the linear schedule") {
  check_betas(linear_schedule(), 1000, [](long double t) { return 1e-4L + t * 0.0199L / 999; });
  check_betas(linear_schedule({0.1, 0.4, 4}), 4, [](long double t) { return 0.1L + t * 0.1L; });
  CHECK(linear_schedule().at(0).alpha == Approx(std::sqrt(0.9999)).epsilon(1e-15));
}

TEST_CASE("the scaled linear schedule") {
  check_betas(scaled_linear_schedule(), 1000, [](long double t) {
    long double const first = std::sqrt(8.5e-4L);
    long double const root = first + t * (std::sqrt(1.2e-2L) - first) / 999;
    return root * root;
  });
  // Stable Diffusion's levels at the student's timesteps.
  auto const schedule = scaled_linear_schedule();
  check_level(schedule, 999, 0.068265, 0.997667);
  check_level(schedule, 749, 0.237957, 0.971276);
  check_level(schedule, 499, 0.526944, 0.849900);
  check_level(schedule, 249, 0.821847, 0.569708);
}

TEST_CASE("the cosine schedule") {
  auto const root_f = [](long double u) {
    return std::cos((u + 0.008L) / 1.008L * 3.14159265358979323846264338328L / 2);
  };
  auto const schedule = cosine_schedule();
  REQUIRE(schedule.size() == 1000);
  // Without clips the product telescopes to f((t + 1) / T) / f(0).
  double worst = 0;
  for (std::int64_t t = 0; t < 999; ++t) {
    auto const alpha = root_f(static_cast<long double>(t + 1) / 1000) / root_f(0);
    auto const error = std::abs(static_cast<double>(schedule.at(t).alpha / alpha - 1));
    if (!(error <= worst)) worst = error;
  }
  CHECK(worst < 1e-12);
}

TEST_CASE("the cosine schedule clips beta at 0.999") {
  auto const schedule = cosine_schedule();
  double const ratio = schedule.at(999).alpha / schedule.at(998).alpha;
  CHECK(ratio * ratio == Approx(0.001).epsilon(1e-12));
  CHECK(schedule.at(999).alpha > 0);
  CHECK(cosine_schedule(1).at(0).alpha == Approx(std::sqrt(0.001)).epsilon(1e-14));
}

TEST_CASE("schedules of one timestep") {
  CHECK(linear_schedule({0.25, 0.75, 1}).size() == 1);
  CHECK(linear_schedule({0.25, 0.75, 1}).at(0).alpha == Approx(std::sqrt(0.75)).epsilon(1e-15));
  CHECK(linear_schedule({0.25, 0.75, 1}).at(0).sigma == Approx(0.5).epsilon(1e-15));
  CHECK(scaled_linear_schedule({0.25, 0.75, 1}).at(0).sigma == Approx(0.5).epsilon(1e-15));
}

TEST_CASE("discrete schedules preserve variance and lose signal all the way") {
  for (auto const& schedule : {linear_schedule(), scaled_linear_schedule(), cosine_schedule(),
                               zero_terminal_snr(scaled_linear_schedule())}) {
    int bad = 0;
    double last = 1;
    for (std::int64_t t = 0; t < schedule.size(); ++t) {
      auto const [alpha, sigma] = schedule.at(t);
      bad += std::abs(alpha * alpha + sigma * sigma - 1) < 1e-15 && alpha < last ? 0 : 1;
      last = alpha;
    }
    CHECK(bad == 0);
  }
}

TEST_CASE("zero terminal SNR leaves no signal at the last timestep") {
  for (auto const& schedule : {linear_schedule(), scaled_linear_schedule(), cosine_schedule()}) {
    auto const rescaled = zero_terminal_snr(schedule);
    REQUIRE(rescaled.size() == schedule.size());
    CHECK(rescaled.at(999).alpha == 0);
    CHECK(rescaled.at(999).sigma == 1);
    CHECK(rescaled.at(0).alpha == Approx(schedule.at(0).alpha).epsilon(1e-14));
    double worst = 0;
    long double const first = schedule.at(0).alpha;
    long double const last = schedule.at(999).alpha;
    for (std::int64_t t = 0; t < 999; ++t) {
      long double const alpha = (schedule.at(t).alpha - last) * first / (first - last);
      auto const error = std::abs(static_cast<double>(rescaled.at(t).alpha / alpha - 1));
      if (!(error <= worst)) worst = error;
    }
    CHECK(worst < 1e-14);
  }
  auto const schedule = zero_terminal_snr(scaled_linear_schedule());
  CHECK(schedule.at(749).alpha == Approx(0.182130).margin(5.1e-7).epsilon(0));
  CHECK(schedule.at(499).alpha == Approx(0.492300).margin(5.1e-7).epsilon(0));
  CHECK(schedule.at(249).alpha == Approx(0.808820).margin(5.1e-7).epsilon(0));
}

TEST_CASE("zero terminal SNR of a schedule that has it already changes nothing") {
  auto const schedule = discrete_schedule::from_alphas_cumprod(std::vector{1.0, 0.25, 0.0});
  auto const rescaled = zero_terminal_snr(schedule);
  CHECK(rescaled.at(0).alpha == 1);
  CHECK(rescaled.at(0).sigma == 0);
  CHECK(rescaled.at(1).alpha == 0.5);
  CHECK(rescaled.at(2).alpha == 0);
}

TEST_CASE("zero terminal SNR refuses what it cannot rescale") {
  auto const rescale = [](std::vector<double> const& alphas_cumprod) {
    return error_of(
        [&] { (void)zero_terminal_snr(discrete_schedule::from_alphas_cumprod(alphas_cumprod)); });
  };
  CHECK(rescale({0.5}) == "zero_terminal_snr: schedule (expected at least 2 timesteps, got 1)");
  CHECK(error_of([] { (void)zero_terminal_snr(discrete_schedule{}); }) ==
        "zero_terminal_snr: schedule (expected at least 2 timesteps, got 0)");
  std::string const not_falling =
      "zero_terminal_snr: schedule (expected alpha that falls from first to last timestep, got one "
      "that does not)";
  CHECK(rescale({0.5, 0.5}) == not_falling);
  CHECK(rescale({0.1, 0.5}) == not_falling);
  // The first would make a negative alpha, the second one greater than alpha_0.
  CHECK(rescale({0.9, 0.1, 0.5}) == not_falling);
  CHECK(rescale({0.5, 0.9, 0.1}) == not_falling);
  CHECK(rescale({0.9, 0.5, 0.5}) == "no error");
}

TEST_CASE("a schedule from the user's alphas_cumprod") {
  auto const schedule = discrete_schedule::from_alphas_cumprod(std::vector{1.0, 0.64, 0.0});
  CHECK(schedule.size() == 3);
  CHECK(schedule.at(0).alpha == 1);
  CHECK(schedule.at(0).sigma == 0);
  CHECK(schedule.at(1).alpha == Approx(0.8).epsilon(1e-15));
  CHECK(schedule.at(1).sigma == Approx(0.6).epsilon(1e-15));
  CHECK(schedule.at(2).alpha == 0);
  CHECK(schedule.at(2).sigma == 1);
}

TEST_CASE("bad alphas_cumprod are refused") {
  CHECK(from({}) == "discrete_schedule: alphas_cumprod (expected at least one timestep, got none)");
  CHECK(from({0.5, 1.5}) ==
        "discrete_schedule: alphas_cumprod (expected numbers in [0, 1], got 1.5)");
  CHECK(from({-0.25}) ==
        "discrete_schedule: alphas_cumprod (expected numbers in [0, 1], got -0.25)");
  CHECK(from({0.5, infinity}) ==
        "discrete_schedule: alphas_cumprod (expected numbers in [0, 1], got inf)");
  CHECK(from({0.5, not_a_number}) ==
        "discrete_schedule: alphas_cumprod (expected numbers in [0, 1], got nan)");
}

TEST_CASE("bad betas and counts of timesteps are refused") {
  auto const linear = [](double first, double last, std::int64_t timesteps) {
    return error_of([&] { (void)linear_schedule({first, last, timesteps}); });
  };
  CHECK(linear(1e-4, 2e-2, 0) == "linear_schedule: timesteps (expected at least 1, got 0)");
  CHECK(linear(1e-4, 2e-2, -5) == "linear_schedule: timesteps (expected at least 1, got -5)");
  CHECK(linear(0, 0.5, 10) == "linear_schedule: beta (expected numbers in (0, 1), got 0)");
  CHECK(linear(0.5, 1, 10) == "linear_schedule: beta (expected numbers in (0, 1), got 1)");
  CHECK(linear(not_a_number, 0.5, 10) ==
        "linear_schedule: beta (expected numbers in (0, 1), got nan)");
  CHECK(linear(0.5, 0.25, 10) == "no error");
  CHECK(error_of([] {
          (void)scaled_linear_schedule({0.25, 4, 2});
        }) == "scaled_linear_schedule: beta (expected numbers in (0, 1), got 4)");
  // The root of a negative beta is NaN, of either sign.
  CHECK(starts_with(error_of([] {
                      (void)scaled_linear_schedule({-0.25, 0.5, 2});
                    }),
                    "scaled_linear_schedule: beta (expected numbers in (0, 1), got "));
  CHECK(error_of([] {
          (void)scaled_linear_schedule({0.1, 0.2, 0});
        }) == "scaled_linear_schedule: timesteps (expected at least 1, got 0)");
  CHECK(error_of([] { (void)cosine_schedule(0); }) ==
        "cosine_schedule: timesteps (expected at least 1, got 0)");
}

TEST_CASE("a timestep out of range is refused with its sample") {
  auto const schedule = linear_schedule();
  auto const at = [&](std::int64_t t) { return error_of([&] { (void)schedule.at(t); }); };
  CHECK(at(0) == "no error");
  CHECK(at(999) == "no error");
  CHECK(at(1000) == "discrete_schedule::at: timesteps[0] (expected 0 to 999, got 1000)");
  CHECK(at(-1) == "discrete_schedule::at: timesteps[0] (expected 0 to 999, got -1)");
  CHECK(error_of([&] { schedule.table().check("f", 7, 1000); }) ==
        "f: timesteps[7] (expected 0 to 999, got 1000)");
  CHECK(error_of([&] { schedule.table().check("f", 7, 0); }) == "no error");
}

TEST_CASE("a table refers to the levels of its schedule") {
  auto const schedule = cosine_schedule(10);
  auto const table = schedule.table();
  REQUIRE(table.size == 10);
  for (std::int64_t t = 0; t < 10; ++t) {
    CHECK(table.at(t).alpha == schedule.at(t).alpha);
    CHECK(table.at(t).sigma == schedule.at(t).sigma);
  }
  CHECK(table.levels == schedule.table().levels);
}
