// SPDX-License-Identifier: MIT
/// Discrete variance-preserving schedules: tables of (alpha_t, sigma_t), t = 0 .. T-1.
///
///   alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t), abar_t = prod_{i<=t} (1 - beta_i)
/// | schedule      | beta_i                                                              |
/// | linear        | linspace(beta_start, beta_end, T), defaults 1e-4, 2e-2              |
/// | scaled linear | linspace(sqrt beta_start, sqrt beta_end, T)^2, defaults 8.5e-4, 1.2e-2 |
/// | cosine        | min(1 - f((i+1)/T) / f(i/T), 0.999), f(u) = cos^2((u + 0.008)/1.008 pi/2) |
/// Built in double on the host. The papers' timestep 1 .. T is t + 1 here.
/// Errors: fewer than one timestep, a beta outside (0, 1), a table that is not in [0, 1].
/// Sources: linear: Ho, Jain, Abbeel, DDPM, 2020; scaled linear: Rombach et al., Latent Diffusion,
/// 2022; cosine: Nichol, Dhariwal, Improved DDPM, 2021, eq. 17; zero terminal SNR: Lin et al.,
/// Common Diffusion Noise Schedules and Sample Steps are Flawed, 2023, algorithm 1.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>
#include <vector>

#include <addloss/core/error.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/schedule/concept.hpp>

namespace addloss {

/// A table of noise levels in `Space`, owned by somebody else: what losses and kernels read. For a
/// GPU copy the `size` levels of a host's table there: schedule_table<device_space>{copy, size}.
template <class Space = host_space>
struct schedule_table {
  using time_type = std::int64_t;
  using space = Space;
  noise_level const* levels = nullptr;
  std::int64_t size = 0;

  static constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

  /// Precondition on the host: 0 <= t < size. A device has nobody to tell: NaN elsewhere.
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr noise_level at(std::int64_t t) const {
    if constexpr (!std::same_as<Space, host_space>) {
      if (t < 0 || t >= size) return {not_a_number, not_a_number};
    }
    return levels[t];
  }
  void check(char const* function, std::int64_t sample, std::int64_t t) const {
    if (t < 0 || t >= size) {
      detail::fail(function, detail::argument_name("timesteps", sample),
                   detail::text() << "0 to " << size - 1, detail::text() << t);
    }
  }
};

/// Owns a table. Losses take `schedule.table()`, valid as long as the schedule lives.
class discrete_schedule {
 public:
  /// abar_t for t = 0 .. T-1, each in [0, 1].
  static discrete_schedule from_alphas_cumprod(std::span<double const> alphas_cumprod) {
    discrete_schedule result;
    result.levels_.reserve(alphas_cumprod.size());
    if (alphas_cumprod.empty()) {
      detail::fail("discrete_schedule", "alphas_cumprod", "at least one timestep", "none");
    }
    for (double const abar : alphas_cumprod) {
      if (!(abar >= 0 && abar <= 1)) {
        detail::fail("discrete_schedule", "alphas_cumprod", detail::text() << "numbers in [0, 1]",
                     detail::text() << abar);
      }
      result.levels_.push_back({std::sqrt(abar), std::sqrt(1 - abar)});
    }
    return result;
  }

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(levels_.size()); }
  /// A view of this schedule, which must outlive it.
  [[nodiscard]] schedule_table<> table() const& { return {levels_.data(), size()}; }
  schedule_table<> table() const&& = delete;
  /// Raises for t outside 0 .. T-1.
  [[nodiscard]] noise_level at(std::int64_t t) const {
    table().check("discrete_schedule::at", 0, t);
    return levels_[static_cast<std::size_t>(t)];
  }

 private:
  std::vector<noise_level> levels_;
};

struct beta_range {
  double beta_start;
  double beta_end;
  std::int64_t timesteps = 1000;  ///< T >= 1
};

namespace detail {

template <class Beta>
discrete_schedule schedule_from_betas(char const* function, std::int64_t timesteps, Beta beta) {
  if (timesteps < 1) fail(function, "timesteps", text() << "at least 1", text() << timesteps);
  std::vector<double> alphas_cumprod;
  alphas_cumprod.reserve(static_cast<std::size_t>(timesteps));
  double product = 1;
  for (std::int64_t i = 0; i < timesteps; ++i) {
    double const value = beta(i);
    if (!(value > 0 && value < 1)) {
      fail(function, "beta", text() << "numbers in (0, 1)", text() << value);
    }
    product *= 1 - value;
    alphas_cumprod.push_back(product);
  }
  return discrete_schedule::from_alphas_cumprod(alphas_cumprod);
}

/// Number i of n from `first` to `last`, both included.
inline double linspace(double first, double last, std::int64_t n, std::int64_t i) {
  return n == 1 ? first
                : first + (last - first) * static_cast<double>(i) / static_cast<double>(n - 1);
}

}  // namespace detail

inline discrete_schedule linear_schedule(beta_range range = {1e-4, 2e-2}) {
  return detail::schedule_from_betas("linear_schedule", range.timesteps, [&](std::int64_t i) {
    return detail::linspace(range.beta_start, range.beta_end, range.timesteps, i);
  });
}

/// Stable Diffusion's.
inline discrete_schedule scaled_linear_schedule(beta_range range = {8.5e-4, 1.2e-2}) {
  return detail::schedule_from_betas(
      "scaled_linear_schedule", range.timesteps, [&](std::int64_t i) {
        double const root = detail::linspace(std::sqrt(range.beta_start), std::sqrt(range.beta_end),
                                             range.timesteps, i);
        return root * root;
      });
}

inline discrete_schedule cosine_schedule(std::int64_t timesteps = 1000) {
  auto const f = [&](std::int64_t i) {
    double const u = static_cast<double>(i) / static_cast<double>(timesteps);
    double const root = std::cos((u + 0.008) / 1.008 * std::numbers::pi / 2);
    return root * root;
  };
  return detail::schedule_from_betas("cosine_schedule", timesteps, [&](std::int64_t i) {
    double const beta = 1 - f(i + 1) / f(i);
    return beta < 0.999 ? beta : 0.999;
  });
}

/// Shifts and scales sqrt(abar) so that the last alpha is exactly 0 and the first is kept:
///   a <- (a - a_{T-1}) a_0 / (a_0 - a_{T-1})
inline discrete_schedule zero_terminal_snr(discrete_schedule const& schedule) {
  std::int64_t const last = schedule.size() - 1;
  if (last < 1) {
    detail::fail("zero_terminal_snr", "schedule", detail::text() << "at least 2 timesteps",
                 detail::text() << schedule.size());
  }
  double const a_first = schedule.at(0).alpha;
  double const a_last = schedule.at(last).alpha;
  std::vector<double> alphas_cumprod;
  for (std::int64_t t = 0; t <= last; ++t) {
    double const alpha = schedule.at(t).alpha;
    // Beyond the two ends the rescaled alpha would be negative, or greater than 1.
    if (!(a_first > a_last && a_first >= alpha && alpha >= a_last)) {
      detail::fail("zero_terminal_snr", "schedule", "alpha that falls from first to last timestep",
                   "one that does not");
    }
    double const a = (alpha - a_last) * (a_first / (a_first - a_last));
    alphas_cumprod.push_back(a * a);
  }
  return discrete_schedule::from_alphas_cumprod(alphas_cumprod);
}

}  // namespace addloss
