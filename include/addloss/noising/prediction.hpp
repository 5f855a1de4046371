// SPDX-License-Identifier: MIT
/// What a network predicts, and how each prediction turns into the others.
///
/// x_t = alpha x_0 + sigma eps. All conversions are linear in x_t and the prediction p:
/// | policy             | p                     | x_0                   | eps                   |
/// | epsilon_prediction | eps                   | (x_t - sigma p)/alpha | p                     |
/// | v_prediction       | alpha eps - sigma x_0 | alpha x_t - sigma p   | sigma x_t + alpha p   |
/// | sample_prediction  | x_0                   | p                     | (x_t - alpha p)/sigma |
/// | flow_prediction    | eps - x_0             | x_t - sigma p         | x_t + alpha p         |
/// v assumes alpha^2 + sigma^2 = 1, flow assumes alpha + sigma = 1 (rectified flow).
///
/// `residual` gives x_0 - x_0(p) for x_t = alpha x_0 + sigma eps: the difference that a
/// distillation loss measures, as scale * (student x_0 + noise eps + prediction p), free of
/// cancellation.
/// Sources: eps: Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models, 2020; v: Salimans, Ho,
/// Progressive Distillation, 2022, appendix D; flow: Liu, Gong, Liu, Rectified Flow, 2022.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/schedule/concept.hpp>

namespace addloss {

/// noisy * x_t + prediction * p.
struct prediction_coefficients {
  double noisy;
  double prediction;
};

/// scale * (student * x_0 + noise * eps + prediction * p).
struct residual_coefficients {
  double scale;
  double student;
  double noise;
  double prediction;
};

struct epsilon_prediction {
  static constexpr bool has_pole = true;  ///< no x_0 at alpha = 0
  static constexpr bool residual_reads_student = false;
  static constexpr bool residual_reads_noise = true;
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients sample(noise_level level) {
    return {1 / level.alpha, -level.sigma / level.alpha};
  }
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients epsilon(noise_level /*level*/) {
    return {0, 1};
  }
  static ADDLOSS_HOST_DEVICE constexpr residual_coefficients residual(noise_level level) {
    return {level.sigma / level.alpha, 0, -1, 1};
  }
};

struct v_prediction {
  static constexpr bool has_pole = false;
  static constexpr bool residual_reads_student = true;
  static constexpr bool residual_reads_noise = true;
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients sample(noise_level level) {
    return {level.alpha, -level.sigma};
  }
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients epsilon(noise_level level) {
    return {level.sigma, level.alpha};
  }
  static ADDLOSS_HOST_DEVICE constexpr residual_coefficients residual(noise_level level) {
    return {1, level.sigma * level.sigma, -level.alpha * level.sigma, level.sigma};
  }
};

struct sample_prediction {
  static constexpr bool has_pole = false;
  static constexpr bool residual_reads_student = true;
  static constexpr bool residual_reads_noise = false;
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients sample(noise_level /*level*/) {
    return {0, 1};
  }
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients epsilon(noise_level level) {
    return {1 / level.sigma, -level.alpha / level.sigma};
  }
  static ADDLOSS_HOST_DEVICE constexpr residual_coefficients residual(noise_level /*level*/) {
    return {1, 1, 0, -1};
  }
};

struct flow_prediction {
  static constexpr bool has_pole = false;
  static constexpr bool residual_reads_student = true;
  static constexpr bool residual_reads_noise = true;
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients sample(noise_level level) {
    return {1, -level.sigma};
  }
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients epsilon(noise_level level) {
    return {1, level.alpha};
  }
  static ADDLOSS_HOST_DEVICE constexpr residual_coefficients residual(noise_level level) {
    return {level.sigma, 1, -1, 1};
  }
};

template <class P>
concept prediction_type = requires(noise_level level) {
  { P::sample(level) } -> std::same_as<prediction_coefficients>;
  { P::epsilon(level) } -> std::same_as<prediction_coefficients>;
  { P::residual(level) } -> std::same_as<residual_coefficients>;
  { P::has_pole } -> std::convertible_to<bool>;
  { P::residual_reads_student } -> std::convertible_to<bool>;
  { P::residual_reads_noise } -> std::convertible_to<bool>;
};

namespace detail {

template <class T, class Space, noise_schedule Schedule>
void check_timesteps(char const* function, Schedule const& schedule,
                     rows<T, Space> const& timesteps, std::int64_t count) {
  check_per_sample(function, "timesteps", timesteps, count);
  check_settings(function, schedule);
  // A device's timesteps cannot be read here: an index out of range gives NaN there.
  if constexpr (std::same_as<Space, host_space>) {
    for (std::int64_t b = 0; b < count; ++b) {
      schedule.check(function, b, timesteps.data[b * timesteps.row_stride]);
    }
  }
}

/// Refuses an epsilon prediction where alpha is 0.
inline void check_pole(char const* function, noise_level level, std::int64_t sample, double time) {
  if (level.alpha == 0) {
    fail(function, argument_name("timesteps", sample),
         text() << "alpha > 0: an epsilon prediction determines no x_0 at alpha = 0 (use v- or "
                   "x_0-prediction, or a timestep sampler that leaves it out)",
         text() << "timestep " << time << ", where alpha = 0");
  }
}

}  // namespace detail
}  // namespace addloss
