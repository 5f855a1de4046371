// SPDX-License-Identifier: MIT
/// How many numbers become one: reductions as types.
///
/// Over the batch, a reduction is the template argument of a verb, `value_and_grad<per_sample>`:
///   mean        L = 1/B sum_b L_b, the default
///   sum         L = sum_b L_b; with `count` from the shape, a mean over several ranks can be had
///   per_sample  the L_b themselves, shape [B]; the upstream gradient may differ for each b
/// Over the elements of a sample, tokens and heads, `mean` or `sum` is a parameter of the loss.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/core/config.hpp>

namespace addloss {

struct mean {
  /// What the sum of `count` numbers is multiplied with.
  static ADDLOSS_HOST_DEVICE constexpr double factor(std::int64_t count) {
    return 1.0 / static_cast<double>(count);
  }
};

struct sum {
  static ADDLOSS_HOST_DEVICE constexpr double factor(std::int64_t /*count*/) { return 1.0; }
};

struct per_sample {
  static ADDLOSS_HOST_DEVICE constexpr double factor(std::int64_t /*count*/) { return 1.0; }
};

template <class R>
concept reduction = std::same_as<R, mean> || std::same_as<R, sum>;

template <class R>
concept batch_reduction = reduction<R> || std::same_as<R, per_sample>;

}  // namespace addloss
