// SPDX-License-Identifier: MIT
/// The discriminator head of ADD: features [B, C, L] -> logits [B, 1, L].
///
///   h = first(F)                     conv1d, kernel 1; local norm; leaky ReLU
///   h = (residual(h) + h) / sqrt(2)  the same with kernel 9, circular padding
///   logits = classifier(h)           conv1d, kernel 1, to P channels, projected on the conditions
/// A head is a `sequence` of layers, so forward, backward and both tangents come with it, and any of
/// its layers can be exchanged by writing the sequence anew. All three convolutions are spectrally
/// normalised (heads/spectral_weights.hpp).
/// Parameters: first.conv.weight, first.conv.bias, first.norm.weight, first.norm.bias,
/// residual.conv..., classifier.weight, classifier.bias, classifier.condition0.weight, ...
/// Source: Sauer, Karras, Laine, Geiger, Aila, StyleGAN-T, 2023; in ADD: Sauer et al. 2023, section
/// 3.2.
#pragma once

#include <cstdint>
#include <span>

#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/conv1d.hpp>
#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/local_norm.hpp>
#include <addloss/heads/projection.hpp>
#include <addloss/heads/residual.hpp>
#include <addloss/heads/sequence.hpp>

namespace addloss {

struct head_settings {
  std::int64_t channels = 0;  ///< C
  int kernel = 9;  ///< of the residual block, odd
  std::int64_t width = 64;  ///< P where there are conditions; 1 without
  std::int64_t virtual_batch = 8;  ///< samples that are normalised together
  double norm_epsilon = 1e-5;
  double negative_slope = 0.2;
};

/// A head on `conditions` (none: unconditional). The conditions' memory is read by every pass.
template <arithmetic_scalar T>
auto projected_head(head_settings const& settings, std::span<condition<T> const> conditions = {}) {
  auto const block = [&](int kernel) {
    return sequence(
        named("conv", conv1d<T>{settings.channels, settings.channels, kernel}),
        named("norm", local_norm{settings.channels, settings.virtual_batch, settings.norm_epsilon}),
        leaky_relu{settings.negative_slope});
  };
  projection<T> classifier;
  if (conditions.size() > static_cast<std::size_t>(projection<T>::max_conditions)) {
    detail::fail("projected_head", "conditions",
                 detail::text() << "at most " << projection<T>::max_conditions,
                 detail::text() << static_cast<std::int64_t>(conditions.size()));
  }
  classifier.channels = settings.channels;
  classifier.width = conditions.empty() ? 1 : settings.width;
  for (condition<T> const& given : conditions) classifier.given[classifier.conditions++] = given;
  return sequence(named("first", block(1)), named("residual", residual{block(settings.kernel)}),
                  named("classifier", classifier));
}

}  // namespace addloss
