// SPDX-License-Identifier: MIT
#include "sampling.hpp"

#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "denoiser.hpp"
#include "image_shape.hpp"

namespace demo {

addloss::discrete_schedule diffusion_schedule() {
  return addloss::zero_terminal_snr(addloss::scaled_linear_schedule());
}

std::vector<std::int64_t> trailing_timesteps(std::int64_t steps) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 1; i <= steps; ++i) result.push_back(i * 1000 / steps - 1);
  return result;
}

std::vector<float> image_sampler::student(std::span<int const> labels, sampler_settings const& s) {
  return draw(addloss::re_noise{}, labels, s,
              [&](piece const& p, std::int64_t t) { student_step(p, student_time(t), s); });
}

std::vector<float> image_sampler::teacher(std::span<int const> labels, sampler_settings const& s) {
  return draw(addloss::ddim{}, labels, s,
              [&](piece const& p, std::int64_t t) { teacher_step(p, t, s); });
}

template <class Rule, class Step>
std::vector<float> image_sampler::draw(Rule rule, std::span<int const> labels,
                                       sampler_settings const& s, Step const& step) {
  constexpr std::size_t piece_size = 250;
  addloss::cpu_context const ctx{.threads = s.threads};
  auto const steps = trailing_timesteps(s.steps);
  std::vector<float> x_t(labels.size() * count_of(image_pixels));
  std::vector<float> x_0(x_t.size());
  for (std::size_t first = 0; first < labels.size(); first += piece_size) {
    std::size_t const count = std::min(piece_size, labels.size() - first);
    auto const noisy =
        std::span(x_t).subspan(first * count_of(image_pixels), count * count_of(image_pixels));
    auto const clean =
        std::span(x_0).subspan(first * count_of(image_pixels), count * count_of(image_pixels));
    piece const p{noisy, clean, labels.subspan(first, count)};
    auto const samples = static_cast<std::int64_t>(count);
    addloss::random_key const key{.seed = s.seed,
                                  .first_sample = static_cast<std::uint32_t>(first)};
    addloss::sample_few_steps(
        rule, ctx, schedule_.table(), steps, key,
        [&](auto const&, std::int64_t t, auto const&) { step(p, t); },
        addloss::view(noisy.data(), samples, image_pixels),
        addloss::view(clean.data(), samples, image_pixels));
  }
  return x_0;
}

void image_sampler::student_step(piece const& p, std::int64_t t, sampler_settings const& s) {
  predict(p, p.labels, t, s.threads, conditional_);
  to_image(p, t, conditional_);
}

void image_sampler::teacher_step(piece const& p, std::int64_t t, sampler_settings const& s) {
  predict(p, p.labels, t, s.threads, conditional_);
  if (s.guidance != 1) {
    std::vector<int> const none(p.labels.size(), no_class);
    predict(p, none, t, s.threads, unconditional_);
    auto const scale = static_cast<float>(s.guidance);
    for (std::size_t i = 0; i < conditional_.size(); ++i) {
      conditional_[i] = unconditional_[i] + scale * (conditional_[i] - unconditional_[i]);
    }
  }
  to_image(p, t, conditional_);
  for (float& x : p.x_0) x = std::clamp(x, -1.0F, 1.0F);
}

void image_sampler::predict(piece const& p, std::span<int const> labels, std::int64_t t,
                            int threads, std::vector<float>& v) {
  v.resize(p.x_t.size());
  times_.assign(labels.size(), t);
  network_.predict<float>(weights_, {p.x_t, times_, labels}, activations_, v, threads);
}

void image_sampler::to_image(piece const& p, std::int64_t t, std::span<float const> v) const {
  auto const level = schedule_.at(t);
  auto const alpha = static_cast<float>(level.alpha);
  auto const sigma = static_cast<float>(level.sigma);
  for (std::size_t i = 0; i < v.size(); ++i) p.x_0[i] = alpha * p.x_t[i] - sigma * v[i];
}

}  // namespace demo
