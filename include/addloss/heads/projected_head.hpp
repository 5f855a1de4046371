// SPDX-License-Identifier: MIT
/// The discriminator head of ADD: features [B, C, L] -> logits [B, 1, L].
///
///   h = first(F)                     conv1d, kernel 1; local norm; leaky ReLU
///   h = (residual(h) + h) / sqrt(2)  the same with kernel 9, circular padding
///   logits = classifier(h)           conv1d, kernel 1, to P channels, projected on the conditions
/// A head is a `sequence` of layers, so all four passes come with it, and any of its layers can be
/// exchanged by writing the sequence anew. All three convolutions are spectrally normalised
/// (heads/spectral_weights.hpp). Several heads, and the steps of training: heads/head_stack.hpp.
/// Parameters: first.conv.weight, first.conv.bias, first.norm.weight, first.norm.bias,
/// residual.conv..., classifier.weight, classifier.bias, classifier.condition0.weight, ...
/// Errors: more than projection<T>::max_conditions conditions; all others in output_shape.
/// Source: Sauer, Karras, Laine, Geiger, Aila, StyleGAN-T, 2023; in ADD: Sauer et al. 2023, section
/// 3.2.
#pragma once

#include <cstdint>
#include <vector>

#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/conv1d.hpp>
#include <addloss/heads/local_norm.hpp>
#include <addloss/heads/projection.hpp>
#include <addloss/heads/residual.hpp>
#include <addloss/heads/sequence.hpp>

namespace addloss {

struct head_settings {
  std::int64_t channels = 0;  ///< C
  int kernel = 9;  ///< of the residual block, odd
  std::vector<std::int64_t> condition_sizes{};  ///< numbers of c_text, c_img; none: unconditional
  condition_combination combination = condition_combination::sum;
  std::int64_t width = 64;  ///< P where there are conditions; 1 without
  std::int64_t virtual_batch = 8;  ///< samples that are normalised together
  double norm_epsilon = 1e-5;
  double negative_slope = 0.2;
  convolution_method method = convolution_method::automatic;  ///< of the residual block
};

template <arithmetic_scalar T>
auto projected_head(head_settings const& settings) {
  auto const block = [&](int kernel, convolution_method method) {
    return sequence(named("conv", conv1d<T>{settings.channels, settings.channels, kernel, method}),
                    named("norm", local_norm{settings.channels, settings.virtual_batch,
                                             settings.norm_epsilon, settings.negative_slope}));
  };
  auto const conditions = static_cast<std::int64_t>(settings.condition_sizes.size());
  if (conditions > projection<T>::max_conditions) {
    detail::fail("projected_head", "condition_sizes",
                 detail::text() << "at most " << projection<T>::max_conditions,
                 detail::text() << conditions);
  }
  projection<T> classifier{.channels = settings.channels,
                           .width = conditions == 0 ? 1 : settings.width,
                           .combination = settings.combination};
  for (std::int64_t const size : settings.condition_sizes) {
    classifier.condition_size[classifier.conditions++] = size;
  }
  return sequence(named("first", block(1, convolution_method::direct)),
                  named("residual", residual{block(settings.kernel, settings.method)}),
                  named("classifier", classifier));
}

}  // namespace addloss
