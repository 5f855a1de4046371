// SPDX-License-Identifier: MIT
#pragma once

#include <addloss/core/scalar.hpp>

/// A number that no test computes, exact in every storage type: what nobody may touch has it.
inline constexpr double guard = 768;

/// Numbers from and to a storage type; half types convert through float.
template <addloss::storage_scalar T>
double as_double(T x) {
  if constexpr (addloss::arithmetic_scalar<T>) {
    return static_cast<double>(x);
  } else {
    return static_cast<double>(static_cast<float>(x));
  }
}

template <addloss::storage_scalar T>
T stored_as(double x) {
  if constexpr (addloss::arithmetic_scalar<T>) {
    return static_cast<T>(x);
  } else {
    return T(static_cast<float>(x));
  }
}
