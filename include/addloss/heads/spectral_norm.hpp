// SPDX-License-Identifier: MIT
/// Spectral normalisation of a weight: W / sigma with sigma near the largest singular value of W.
///
///   update   v <- n(W^T u), u <- n(W v), `iterations` times;  n(x) = x / max(|x|, epsilon)
///   divide   sigma = u^T W v,  W_hat = W / sigma
/// W [rows, columns] row-major: a convolution's weight as [out, in * k]; state u [rows],
/// v [columns] in memory of the caller. Two calls, so that all passes of a training step (real,
/// fake, R1) share the state of one update, and evaluation leaves it as it is.
/// Gradient, u and v constant: W_bar += W_hat_bar / sigma - (<W_hat_bar, W> / sigma^2) u v^T.
/// sigma is linear in W, so this is all that second order needs too: parameters are constant in
/// tangents (heads/layer.hpp).
/// Sums in double. Same bits for any number of threads. Nothing is allocated. W = 0 makes u = v = 0
/// for good: start anew from heads/initialise.hpp.
/// Errors: extents, iterations, epsilon; in divide, before anything is written, sigma that is 0,
/// NaN or infinite.
/// Source: Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for Generative Adversarial
/// Networks, 2018, algorithm 1.
#pragma once

#include <cmath>
#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tasks.hpp>

namespace addloss {
namespace detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// Independent lanes: they hide the latency of the additions and fill SIMD registers.
template <arithmetic_scalar T>
double dot(T const* a, T const* b, std::int64_t count) {
  constexpr int lanes = 8;
  double sum[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int lane = 0; lane < lanes; ++lane) {
      sum[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) {
    sum[lane] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/// Numbers with a stride between them.
template <arithmetic_scalar T>
struct strided {
  T const* data;
  std::int64_t stride;
  double operator[](std::int64_t i) const { return static_cast<double>(data[i * stride]); }
};

/// Columns that are summed at once: their sums stay in the first-level cache.
inline constexpr std::int64_t column_block = 64;

[[nodiscard]] constexpr std::int64_t column_blocks(std::int64_t columns) {
  return (columns + column_block - 1) / column_block;
}

/// finish(j, sum_i weight[i] matrix[i, j]) for the columns j of one block.
template <arithmetic_scalar T, class Finish>
void sum_rows(strided<T> weight, std::int64_t rows, T const* matrix, std::int64_t columns,
              std::int64_t block, Finish const& finish) {
  std::int64_t const first = block * column_block;
  std::int64_t const count = columns - first < column_block ? columns - first : column_block;
  double sum[column_block] = {};
  for (std::int64_t i = 0; i < rows; ++i) {
    double const factor = weight[i];
    T const* const row = matrix + i * columns + first;
    for (std::int64_t j = 0; j < count; ++j) sum[j] += factor * static_cast<double>(row[j]);
  }
  for (std::int64_t j = 0; j < count; ++j) finish(first + j, sum[j]);
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace detail

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
      detail::each_task(
          ctx, detail::column_blocks(columns), rows * columns, [&](std::int64_t block) {
            detail::sum_rows(detail::strided<T>{u, 1}, rows, W, columns, block,
                             [&](std::int64_t j, double sum) { v[j] = static_cast<T>(sum); });
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

  /// W_hat = W / sigma; gives sigma, which `divide_backward` wants. W_hat may be W.
  template <arithmetic_scalar T>
  double divide(cpu_context const& ctx, T const* W, T const* u, T const* v, T* W_hat) const {
    double const scale = sigma(ctx, W, u, v);
    check_scale("spectral_norm.divide", scale);
    detail::each_task(ctx, rows, rows * columns, [&](std::int64_t i) {
      for (std::int64_t j = i * columns; j < (i + 1) * columns; ++j) {
        W_hat[j] = static_cast<T>(static_cast<double>(W[j]) / scale);
      }
    });
    return scale;
  }

  /// Adds to W_bar. W, u, v: as they were in `divide`, which gave `scale`. No two may overlap.
  template <arithmetic_scalar T>
  void divide_backward(cpu_context const& ctx, T const* W, T const* u, T const* v, double scale,
                       T const* W_hat_bar, T* W_bar) const {
    check("spectral_norm.divide_backward");
    check_scale("spectral_norm.divide_backward", scale);
    double const inner = sum_over_rows(ctx, [&](std::int64_t i) {
      return detail::dot(W_hat_bar + i * columns, W + i * columns, columns);
    });
    double const factor = inner / scale;
    detail::each_task(ctx, rows, rows * columns, [&](std::int64_t i) {
      double const along = factor * static_cast<double>(u[i]);
      for (std::int64_t j = 0; j < columns; ++j) {
        std::int64_t const n = i * columns + j;
        double const change =
            (static_cast<double>(W_hat_bar[n]) - along * static_cast<double>(v[j])) / scale;
        W_bar[n] = static_cast<T>(static_cast<double>(W_bar[n]) + change);
      }
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

  static void check_scale(char const* function, double scale) {
    if (scale == 0 || !std::isfinite(scale)) {
      detail::fail(function, "sigma", "a finite number other than 0", detail::text() << scale);
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
