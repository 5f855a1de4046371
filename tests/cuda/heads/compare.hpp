// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "cuda/heads/layer_passes.hpp"

/// The largest difference, as a part of the largest number that is expected, where one is not 0.
inline double difference(numbers const& got, numbers const& expected) {
  if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double scale = 0;
  double most = 0;
  for (double const x : expected) scale = std::abs(x) > scale ? std::abs(x) : scale;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const d = std::abs(got[i] - expected[i]);
    if (!(d <= most)) most = d;
  }
  return scale > 0 ? most / scale : most;
}

inline bool same_bits(numbers const& a, numbers const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}
