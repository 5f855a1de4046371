// SPDX-License-Identifier: MIT
/// Policies and weightings that are known when the program runs: a loss is compiled once for all of
/// them. Without LibTorch, so that nvcc compiles them too.
#pragma once

#include <addloss/core/config.hpp>
#include <addloss/losses/adversarial.hpp>
#include <addloss/schedule/concept.hpp>
#include <addloss/weighting/concept.hpp>
#include <addloss/weighting/exponential.hpp>
#include <addloss/weighting/sds.hpp>
#include <addloss/weighting/snr.hpp>
#include <addloss/weighting/uniform.hpp>

namespace operators {

/// A loss of logits.
struct any_policy {
  enum class name { hinge, non_saturating, least_squares, wasserstein };
  name chosen;

  /// Calls `body` with the policy.
  template <class Body>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE auto visit(Body const& body) const {
    switch (chosen) {
      case name::hinge: return body(addloss::hinge{});
      case name::non_saturating: return body(addloss::non_saturating{});
      case name::least_squares: return body(addloss::least_squares{});
      default: return body(addloss::wasserstein{});
    }
  }

  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE addloss::logit_term<V> discriminator(V logit, V label,
                                                                          V weight) const {
    return visit([&](auto policy) { return policy.discriminator(logit, label, weight); });
  }
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE addloss::logit_term<V> generator(V logit, V weight) const {
    return visit([&](auto policy) { return policy.generator(logit, weight); });
  }
};

/// A weighting of a distillation loss.
struct any_weighting {
  enum class name { uniform, exponential, sds, snr, min_snr };
  name chosen;

  /// Calls `body` with the weighting.
  template <class Body>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE auto visit(Body const& body) const {
    switch (chosen) {
      case name::uniform: return body(addloss::uniform{});
      case name::exponential: return body(addloss::exponential{});
      case name::sds: return body(addloss::sds{});
      case name::snr: return body(addloss::snr{});
      default: return body(addloss::min_snr{});
    }
  }

  [[nodiscard]] ADDLOSS_HOST_DEVICE double at(addloss::noise_level level) const {
    return visit([&](auto weighting) { return weighting.at(level); });
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double over_alpha(addloss::noise_level level) const {
    return visit([&](auto weighting) {
      if constexpr (addloss::weighting_without_pole<decltype(weighting)>) {
        return weighting.over_alpha(level);
      } else {
        return weighting.at(level) / level.alpha;
      }
    });
  }
};

}  // namespace operators
