// SPDX-License-Identifier: MIT
/// c(t) = 1. Copy this struct to write your own weighting.
#pragma once

#include <addloss/weighting/concept.hpp>

namespace addloss {

struct uniform {
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double at(noise_level /*level*/) const { return 1; }
};

}  // namespace addloss
