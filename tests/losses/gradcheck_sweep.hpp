// SPDX-License-Identifier: MIT
/// The sweep of finite differences over a differentiable function: each storage type, each pattern
/// of upstream gradients, overwritten and accumulated gradients; in double, each reduction over the
/// batch (loss_writer and gradient_scale, which know the reduction, never see the storage type).
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>
#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"
#include "storage_types.hpp"

namespace sweep {

using namespace addloss;
using ::stored_as;

constexpr std::size_t batch = 3;
constexpr std::size_t heads = 2;
constexpr std::size_t tokens[heads] = {5, 2};
constexpr std::size_t head_begin[heads + 1] = {0, batch * 5, batch * 7};
constexpr std::size_t row = 7;  // elements of a sample: the padding of a group is at work

/// Multiples of 1/16 in [-2, 2]: exact in every storage type, and so is a step of 1/16. Odd
/// multiples of 1/32 are left out, so a kink at an odd multiple is never within a step.
constexpr double step = 1.0 / 16;
inline std::vector<double> sixteenths(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<double> result(count);
  for (double& x : result) x = static_cast<double>(bits() % 65) / 16 - 2;
  return result;
}

template <class T>
inline std::vector<T> stored_as(std::span<double const> numbers) {
  std::vector<T> result;
  for (double const x : numbers) result.push_back(stored_as<T>(x));
  return result;
}

/// Of one rounding to the storage type, and of the third derivative at a step of 1/16.
template <class T>
constexpr double tolerance = std::same_as<T, bfloat16> ? 1e-2 : 2e-3;

template <class T>
struct settings {
  rows<arithmetic_t<T> const> upstream{};
  double grad_scale = 1;
  bool accumulates = false;
};

/// `Function` names a loss: losses<Reduction>(x, out) writes values, gradient<Reduction>(x, g,
/// settings) the gradient with respect to x, in which all its variables lie one after the other.
template <class T, class Reduction, class Function>
void check_reduction(Function const& function, std::vector<double> x) {
  using real = arithmetic_t<T>;
  std::vector<real> const none;
  std::vector<real> const ones(batch, real(1));
  std::vector<real> const unequal = {real(0.5), real(-2), real(0)};
  double const factor = Reduction::factor(static_cast<std::int64_t>(batch));
  for (auto const* const upstream : {&none, &ones, &unequal}) {
    auto const weight = [&](std::size_t b) { return upstream->empty() ? 1.0 : (*upstream)[b]; };
    auto const value = [&](std::span<double const> at) {
      std::vector<double> samples(batch);
      function.template losses<per_sample>(stored_as<T>(at), samples);
      double total = 0;
      for (std::size_t b = 0; b < batch; ++b) total += weight(b) * factor * samples[b];
      return total;
    };
    for (bool const accumulates : {false, true}) {
      double const scale = accumulates ? 2.0 : 1.0;
      double const before = accumulates ? 0.5 : 7.0;
      std::vector<T> gradient(x.size(), stored_as<T>(before));
      settings<T> options{{}, scale, accumulates};
      if (!upstream->empty()) options.upstream = *upstream;
      function.template gradient<Reduction>(stored_as<T>(x), gradient, options);
      std::vector<double> own;
      for (T const g : gradient) {
        own.push_back((as_double(g) - (accumulates ? before : 0)) / scale);
      }
      auto const result = testing::gradcheck(value, x, own, {step, tolerance<T>, 0.5});
      CAPTURE(upstream->size(), accumulates, result.index, result.gradient, result.difference);
      CHECK(result.passed);
    }
  }
  // The reduced value is that of the samples.
  if constexpr (!std::same_as<Reduction, per_sample>) {
    std::vector<double> samples(batch);
    function.template losses<per_sample>(stored_as<T>(x), samples);
    double reduced = 0;
    function.template losses<Reduction>(stored_as<T>(x), reduced);
    CHECK(reduced == Approx(factor * (samples[0] + samples[1] + samples[2])).epsilon(1e-6));
  }
}

template <template <class> class Function>
void check_types(std::vector<double> const& x) {
  check_reduction<double, mean>(Function<double>{}, x);
  check_reduction<double, sum>(Function<double>{}, x);
  check_reduction<double, per_sample>(Function<double>{}, x);
  check_reduction<float, mean>(Function<float>{}, x);
  check_reduction<half, mean>(Function<half>{}, x);
  check_reduction<bfloat16, mean>(Function<bfloat16>{}, x);
}

inline std::vector<std::int64_t> const& timesteps() {
  static std::vector<std::int64_t> const t = {10, 420, 900};
  return t;
}
inline schedule_table<> schedule() {
  static auto const s = scaled_linear_schedule();
  return s.table();
}

/// A constant operand: near 4 or -4 by turns, further than a step from every student, so that no
/// difference is near the kink of L1, also after guidance.
template <class T, unsigned Seed>
auto constant() {
  static std::vector<T> const numbers = [] {
    auto x = sixteenths(batch * row, Seed);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = std::round(2 * x[i]) / 16 + (i % 2 == 0 ? 4 : -4);
    }
    return stored_as<T>(x);
  }();
  return view(numbers.data(), batch, row);
}

/// Rows of each head in one vector; `side` selects one of several such vectors in it.
template <class Row, class T>
inline std::vector<Row> heads_of(T* data, std::size_t side) {
  std::vector<Row> result;
  for (std::size_t k = 0; k < heads; ++k) {
    result.push_back(view(data + side * head_begin[heads] + head_begin[k], batch, tokens[k]));
  }
  return result;
}

/// Logits further than a step from the hinge's kinks at 1 and -1.
inline std::vector<double> logits(std::size_t sides) {
  auto x = sixteenths(sides * head_begin[heads], 5);
  for (double& z : x) {
    if (std::abs(std::abs(z) - 1) <= step) z *= 0.5;
  }
  return x;
}

}  // namespace sweep
