// SPDX-License-Identifier: MIT
/// Images from noise: the teacher's by many steps of DDIM with guidance, the student's by a few
/// steps that each predict the clean image and add noise again.
#pragma once

#include <addloss/addloss.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "denoiser.hpp"
#include "image_shape.hpp"
#include "network.hpp"

namespace demo {

inline std::size_t count_of(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Scaled linear, rescaled to end without signal: pure noise is what it says.
addloss::discrete_schedule diffusion_schedule();

/// A v-prediction at t = 999, where there is no signal, tells nothing of the teacher's knowledge of
/// x_t: the student takes pure noise for an image at this timestep, throughout.
inline constexpr std::int64_t pure_noise_timestep = 900;
inline std::int64_t student_time(std::int64_t t) { return std::min(t, pure_noise_timestep); }

/// Timesteps of `steps` student or teacher steps.
std::vector<std::int64_t> trailing_timesteps(std::int64_t steps);

struct sampler_settings {
  std::int64_t steps = 1;
  double guidance = 1;  ///< of the teacher: p = u + s (c - u); the student needs none
  std::uint64_t seed = 7;
  int threads = 1;
};

/// Draws one image a label, in pieces that keep the activations small.
class image_sampler {
 public:
  explicit image_sampler(parameters const& weights) : weights_(weights) {}

  /// The student's: x_0 predicted, noise added again.
  std::vector<float> student(std::span<int const> labels, sampler_settings const& s);

  /// The teacher's: DDIM, guided, each prediction clamped to the range of pixels.
  std::vector<float> teacher(std::span<int const> labels, sampler_settings const& s);

 private:
  struct piece {
    std::span<float const> x_t;
    std::span<float> x_0;
    std::span<int const> labels;
  };

  template <class Rule, class Step>
  std::vector<float> draw(Rule rule, std::span<int const> labels, sampler_settings const& s,
                          Step const& step);
  void student_step(piece const& p, std::int64_t t, sampler_settings const& s);
  void teacher_step(piece const& p, std::int64_t t, sampler_settings const& s);
  void predict(piece const& p, std::span<int const> labels, std::int64_t t, int threads,
               std::vector<float>& v);
  void to_image(piece const& p, std::int64_t t, std::span<float const> v) const;

  parameters const& weights_;
  addloss::discrete_schedule schedule_ = diffusion_schedule();
  denoiser network_;
  denoiser::activations<float> activations_;
  std::vector<float> conditional_, unconditional_;
  std::vector<std::int64_t> times_;
};

}  // namespace demo
