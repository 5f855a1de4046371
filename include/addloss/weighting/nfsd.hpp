// SPDX-License-Identifier: MIT
/// Noise-free score distillation: the weight of sds, and another residual
/// (losses/distillation.hpp).
///
/// From raw predictions, eps_hat - eps is replaced by delta_D + s delta_C with delta_C = c - u and
/// delta_D = u for t < negative_threshold, else u - negative. From a target it is sds.
/// Source: Katzir, Patashnik, Cohen-Or, Lischinski, Noise-Free Score Distillation, 2023, eqs. 8-9;
/// ADD's final models.
#pragma once

#include <cstdint>

#include <addloss/weighting/sds.hpp>

namespace addloss {

struct nfsd : sds {
  std::int64_t negative_threshold = 200;  ///< timestep from which on the negative is subtracted
};

}  // namespace addloss
