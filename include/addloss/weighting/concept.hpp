// SPDX-License-Identifier: MIT
/// What a weighting c(t) of the distillation loss is.
#pragma once

#include <concepts>
#include <type_traits>

#include <addloss/schedule/concept.hpp>

namespace addloss {

/// A small struct that gives c(t) >= 0 for a noise level. See uniform.hpp to write your own. If it
/// has `check(function)`, that raises addloss::error on the host for settings out of range.
template <class W>
concept weighting =
    std::is_trivially_copyable_v<W> && requires(W const weighting, noise_level level) {
      { weighting.at(level) } -> std::same_as<double>;
    };

/// Also gives c(t) / alpha(t) without dividing by alpha: the gradient of a distillation loss from
/// epsilon predictions then has no pole at alpha = 0.
template <class W>
concept weighting_without_pole = weighting<W> && requires(W const weighting, noise_level level) {
  { weighting.over_alpha(level) } -> std::same_as<double>;
};

}  // namespace addloss
