// SPDX-License-Identifier: MIT
/// Compares a gradient with central finite differences, for tests of losses, yours too.
///
///   d_i = (f(x + h e_i) - f(x - h e_i)) / 2h,  error_i = |g_i - d_i| / max(|g_i|, |d_i|, floor)
/// f: any function of x in R^n, evaluated 2n times; g: the gradient to test; h: `step`, in the
/// units of x. The truncation error of d is about h^2 f''' / 6 and its rounding error about eps |f|
/// / h, so for f in double 1e-5 suits x of order 1, and for f in float 1e-2 or more. Keep x further
/// than h from any kink of f. NaN or infinity in g or d is an infinite error.
/// x is written while f is evaluated, and restored bit for bit, unless f throws.
/// Errors: g and x of different sizes; a step or a floor that is not a positive finite number.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <addloss/core/error.hpp>

namespace addloss::testing {

struct gradcheck_options {
  double step = 1e-5;  ///< h, > 0
  double tolerance = 1e-6;  ///< largest relative error that passes
  double floor = 1e-4;  ///< derivatives smaller than this are compared relative to it, > 0
};

/// The worst element. For an empty x: no error, index 0.
struct gradcheck_result {
  double error = 0;  ///< relative
  std::size_t index = 0;  ///< the first element with that error
  double gradient = 0;  ///< g at `index`
  double difference = 0;  ///< d at `index`
  bool passed = true;  ///< error <= tolerance

  explicit operator bool() const { return passed; }
};

template <class Function>
concept value_function = requires(Function&& function, std::span<double const> x) {
  { std::forward<Function>(function)(x) } -> std::convertible_to<double>;
};

/// For instance
///   auto const result = gradcheck([&](std::span<double const> x) { return loss_at(x); }, x, g);
///   CHECK(result.passed);
template <value_function Function>
gradcheck_result gradcheck(Function&& function, std::span<double> x,
                           std::span<double const> gradient, gradcheck_options options = {}) {
  using addloss::detail::fail;
  using addloss::detail::text;
  if (gradient.size() != x.size()) {
    fail("gradcheck", "gradient",
         text() << static_cast<std::int64_t>(x.size()) << " elements, as x has",
         text() << static_cast<std::int64_t>(gradient.size()));
  }
  auto const positive = [](double number) { return number > 0 && std::isfinite(number); };
  if (!positive(options.step)) {
    fail("gradcheck", "options.step", text() << "a positive number", text() << options.step);
  }
  if (!positive(options.floor)) {
    fail("gradcheck", "options.floor", text() << "a positive number", text() << options.floor);
  }
  gradcheck_result worst;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const center = x[i];
    double const above = center + options.step;
    double const below = center - options.step;
    x[i] = above;
    auto const value_above = static_cast<double>(function(std::span<double const>(x)));
    x[i] = below;
    auto const value_below = static_cast<double>(function(std::span<double const>(x)));
    x[i] = center;
    // The step that was taken, not the one that was asked for: x + h is rounded.
    double const difference = (value_above - value_below) / (above - below);
    double const scale =
        std::fmax(std::fmax(std::abs(gradient[i]), std::abs(difference)), options.floor);
    double error = std::abs(gradient[i] - difference) / scale;
    if (!std::isfinite(error)) error = std::numeric_limits<double>::infinity();
    if (i == 0 || error > worst.error) {
      worst = {error, i, gradient[i], difference, error <= options.tolerance};
    }
  }
  return worst;
}

}  // namespace addloss::testing
