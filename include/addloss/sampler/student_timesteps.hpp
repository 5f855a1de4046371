// SPDX-License-Identifier: MIT
/// The student's timesteps tau = <tau_1 .. tau_n>: a set that is drawn from in training and walked
/// from high to low in sampling.
///
///   trailing(n)  tau_i = i T / n - 1, 249 499 749 999 for n = 4
///   turbo(n)     the last n of ..., T - 201, T - 101, T - 1: 699 799 899 999 for n = 4, what the
///                released SDXL-Turbo samples at
/// Drawn uniformly, or with weights. A student that starts from pure noise needs T - 1 in its set;
/// without it the student is trained for image-to-image use only, where sampling begins from a
/// noised image.
/// Errors: no timestep or more than `capacity`, not strictly rising, negative; weights of another
/// count, negative, not finite (or their sum is not), or all 0.
/// Source: Sauer et al., Adversarial Diffusion Distillation, 2023, section 3.1; weights: Sauer et
/// al., Latent Adversarial Diffusion Distillation, 2024, section 3.2.
#pragma once

#include <cstdint>
#include <span>

#include <addloss/core/error.hpp>
#include <addloss/sampler/concept.hpp>

namespace addloss {

class student_timesteps {
 public:
  using time_type = std::int64_t;
  static constexpr std::int64_t capacity = 64;

  /// Strictly rising timesteps, with equal weights.
  static student_timesteps from(std::span<std::int64_t const> timesteps) {
    using detail::text;
    auto const count = static_cast<std::int64_t>(timesteps.size());
    if (count < 1 || count > capacity) {
      detail::fail("student_timesteps", "timesteps", text() << "1 to " << capacity << " of them",
                   text() << count);
    }
    student_timesteps result;
    result.size_ = count;
    std::int64_t last = -1;
    for (std::size_t i = 0; i < timesteps.size(); ++i) {
      if (timesteps[i] <= last) {
        detail::fail("student_timesteps", "timesteps",
                     text() << (last < 0 ? "numbers >= 0" : "strictly rising numbers"),
                     text() << timesteps[i] << " at index " << static_cast<std::int64_t>(i));
      }
      last = result.timesteps_[i] = timesteps[i];
      result.cumulative_[i] = static_cast<double>(i + 1) / static_cast<double>(count);
    }
    return result;
  }

  static student_timesteps trailing(std::int64_t n, std::int64_t train_timesteps = 1000) {
    return spaced("student_timesteps::trailing", n, train_timesteps,
                  [&](std::int64_t i) { return (i + 1) * train_timesteps / n - 1; });
  }

  static student_timesteps turbo(std::int64_t n, std::int64_t train_timesteps = 1000) {
    if (n > 10) {
      detail::fail("student_timesteps::turbo", "n",
                   detail::text() << "1 to 10, as steps lie a tenth of the schedule apart",
                   detail::text() << n);
    }
    return spaced("student_timesteps::turbo", n, train_timesteps, [&](std::int64_t i) {
      return train_timesteps - 1 - (n - 1 - i) * (train_timesteps / 10);
    });
  }

  /// The same set drawn with probabilities proportional to `weights`.
  [[nodiscard]] student_timesteps with_weights(std::span<double const> weights) const {
    using detail::text;
    if (static_cast<std::int64_t>(weights.size()) != size_) {
      detail::fail("student_timesteps::with_weights", "weights", text() << size_ << " numbers",
                   text() << static_cast<std::int64_t>(weights.size()));
    }
    double total = 0;
    for (double const weight : weights) {
      if (!(weight >= 0 && weight - weight == 0)) {
        detail::fail("student_timesteps::with_weights", "weights", text() << "finite numbers >= 0",
                     text() << weight);
      }
      total += weight;
    }
    if (!(total > 0)) {
      detail::fail("student_timesteps::with_weights", "weights", "one weight > 0", "none");
    }
    if (total - total != 0) {
      detail::fail("student_timesteps::with_weights", "weights",
                   text() << "numbers with a finite sum", text() << total);
    }
    student_timesteps result = *this;
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      sum += weights[i];
      result.cumulative_[i] = sum / total;
    }
    return result;
  }

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr std::int64_t size() const { return size_; }
  /// tau_{i+1}; precondition 0 <= i < size().
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr std::int64_t operator[](std::int64_t i) const {
    return timesteps_[i];
  }
  /// How likely a draw is to give (*this)[i], to a rounding of 1; precondition 0 <= i < size().
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double probability(std::int64_t i) const {
    return i == 0 ? cumulative_[0] : cumulative_[i] - cumulative_[i - 1];
  }

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr std::int64_t draw(random_key const& key,
                                                                std::uint32_t sample) const {
    double const u = detail::uniform_at(key, sample, 0);
    std::int64_t i = 0;
    while (i < size_ - 1 && u >= cumulative_[i]) ++i;
    return timesteps_[i];
  }

 private:
  student_timesteps() = default;  // an empty set has nothing to draw

  template <class Timestep>
  static student_timesteps spaced(char const* function, std::int64_t n, std::int64_t timesteps,
                                  Timestep timestep) {
    using detail::text;
    if (n < 1 || n > capacity) {
      detail::fail(function, "n", text() << "1 to " << capacity, text() << n);
    }
    if (timesteps < n) {
      detail::fail(function, "train_timesteps", text() << "at least n = " << n,
                   text() << timesteps);
    }
    std::int64_t steps[capacity];
    for (std::int64_t i = 0; i < n; ++i) steps[i] = timestep(i);
    return from(std::span<std::int64_t const>(steps, static_cast<std::size_t>(n)));
  }

  std::int64_t timesteps_[capacity] = {};
  double cumulative_[capacity] = {};
  std::int64_t size_ = 0;
};

}  // namespace addloss
