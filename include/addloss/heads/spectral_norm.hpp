// SPDX-License-Identifier: MIT
/// Spectral normalisation of a weight: W / sigma with sigma near the largest singular value of W.
///
///   update   v <- n(W^T u), u <- n(W v), `iterations` times;  n(x) = x / max(|x|, epsilon)
///   sigma    u^T W v
///   divide   W_hat = W / sigma
/// W [rows, columns] row-major: a convolution's weight as [out, in * k]; state u [rows],
/// v [columns] in memory of the caller. Calls of their own, so that all passes of a training step
/// (real, fake, R1) share the state of one update, and evaluation leaves it as it is.
/// Gradient, u and v constant: W_bar = W_hat_bar / sigma - (<W_hat_bar, W> / sigma^2) u v^T.
/// sigma is linear in W, so this is all that second order needs too: parameters are constant in
/// tangents (heads/layer.hpp).
/// Sums in double. Same bits for any number of threads. Nothing is allocated. W = 0 makes u = v = 0
/// for good: start anew from heads/initialise.hpp.
/// Errors: extents, iterations, epsilon; in divide, before anything is written, sigma that is 0,
/// NaN, infinite or so small that 1 / sigma is infinite.
/// Source: Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for Generative Adversarial
/// Networks, 2018, algorithm 1.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/sums.hpp>

namespace addloss {
inline namespace ADDLOSS_ISA_NAMESPACE {

struct spectral_norm {
  std::int64_t rows = 0;  ///< of W: output channels
  std::int64_t columns = 0;  ///< of W: input channels times kernel size
  int iterations = 1;  ///< of an update, >= 0
  double epsilon = 1e-12;  ///< norms below this are taken for it, > 0

  /// One update of u and v by power iteration.
  template <arithmetic_scalar T>
  void update(cpu_context const& ctx, T const* W, T* u, T* v) const {
    check("spectral_norm.update");
    for (int iteration = 0; iteration < iterations; ++iteration) {
      detail::each_task(ctx, detail::column_blocks(columns), rows * columns,
                        [&](std::int64_t block) {
                          detail::column_range const range(columns, block);
                          double sum[detail::column_block];
                          detail::sum_columns<T>({u, 1}, {W, columns, rows}, range, sum);
                          detail::write(1, sum, 0, range.count, v + range.first);
                        });
      normalise(v, columns);
      detail::each_task(ctx, rows, rows * columns, [&](std::int64_t i) {
        u[i] = static_cast<T>(detail::dot(W + i * columns, v, columns));
      });
      normalise(u, rows);
    }
  }

  /// u^T W v.
  template <arithmetic_scalar T>
  [[nodiscard]] double sigma(cpu_context const& ctx, T const* W, T const* u, T const* v) const {
    check("spectral_norm.sigma");
    return sum_over_rows(ctx, [&](std::int64_t i) {
      return static_cast<double>(u[i]) * detail::dot(W + i * columns, v, columns);
    });
  }

  /// W_hat = W / sigma, which may be W itself.
  template <arithmetic_scalar T>
  void divide(cpu_context const& ctx, T const* W, double sigma, T* W_hat) const {
    check("spectral_norm.divide");
    check_sigma("spectral_norm.divide", sigma);
    detail::each_task(ctx, rows, rows * columns, [&](std::int64_t i) {
      detail::scale_row(1 / sigma, W + i * columns, columns, W_hat + i * columns);
    });
  }

  /// The gradient of W_hat becomes that of W, in place. W, u, v as they were for `sigma`.
  template <arithmetic_scalar T>
  void divide_backward(cpu_context const& ctx, T const* W, T const* u, T const* v, double sigma,
                       T* gradient) const {
    check("spectral_norm.divide_backward");
    check_sigma("spectral_norm.divide_backward", sigma);
    double const inner = sum_over_rows(ctx, [&](std::int64_t i) {
      return detail::dot(gradient + i * columns, W + i * columns, columns);
    });
    double const factor = inner / sigma;
    detail::each_task(ctx, rows, rows * columns, [&](std::int64_t i) {
      detail::combine(1 / sigma, gradient + i * columns,
                      -factor * static_cast<double>(u[i]) / sigma, v, columns);
    });
  }

 private:
  void check(char const* function) const {
    using detail::text;
    auto const at_least = [&](char const* argument, std::int64_t number, std::int64_t least) {
      if (number < least) {
        detail::fail(function, argument, text() << "at least " << least, text() << number);
      }
    };
    at_least("rows", rows, 1);
    at_least("columns", columns, 1);
    at_least("iterations", iterations, 0);
    if (!(epsilon > 0) || !std::isfinite(epsilon)) {
      detail::fail(function, "epsilon", "a positive number", text() << epsilon);
    }
  }

  static void check_sigma(char const* function, double sigma) {
    if (sigma == 0 || !std::isfinite(sigma)) {
      detail::fail(function, "sigma", "a finite number other than 0", detail::text() << sigma);
    }
    if (!std::isfinite(1 / sigma)) {
      detail::fail(function, "sigma", "a number whose inverse is finite", detail::text() << sigma);
    }
  }

  template <arithmetic_scalar T>
  void normalise(T* x, std::int64_t count) const {
    double const norm = std::sqrt(detail::dot(x, x, count));
    double const scale = norm < epsilon ? epsilon : norm;  // NaN stays
    for (std::int64_t i = 0; i < count; ++i) {
      x[i] = static_cast<T>(static_cast<double>(x[i]) / scale);
    }
  }

  /// Sum of row(i): of groups of rows, whose number does not depend on the threads.
  template <class Row>
  [[nodiscard]] double sum_over_rows(cpu_context const& ctx, Row const& row) const {
    constexpr std::int64_t most = 64;
    std::int64_t const groups = rows < most ? rows : most;
    double partial[most];
    detail::each_task(ctx, groups, rows * columns, [&](std::int64_t group) {
      double sum = 0;
      for (std::int64_t i = rows * group / groups; i < rows * (group + 1) / groups; ++i) {
        sum += row(i);
      }
      partial[group] = sum;
    });
    double sum = 0;
    for (std::int64_t group = 0; group < groups; ++group) sum += partial[group];
    return sum;
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
