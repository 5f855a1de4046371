// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cuda/heads/layer_passes.hpp"

/// A head with its inputs and results as another implementation wrote them down.
struct golden_head {
  std::string name{};
  addloss::head_settings settings{};
  addloss::feature_shape shape{};
  int power_iterations = 1;
  double spectral_epsilon = 0;
  std::map<std::string, numbers> in{};  ///< by the names of this library
  std::map<std::string, numbers> out{};
};

/// Those of tests/goldens/discriminator_head.
std::vector<golden_head> golden_heads();
