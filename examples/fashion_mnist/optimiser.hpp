// SPDX-License-Identifier: MIT
/// Adam over a flat buffer of parameters, and what goes with it: clipping, decay of the learning
/// rate, moving averages. Nothing depends on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "network.hpp"

namespace demo {

/// Elements that a thread takes at a time; sums are formed block by block.
inline constexpr std::int64_t element_block = 1 << 13;

/// work(first, count) for the blocks of `size` elements.
template <class Work>
void each_block(std::int64_t size, [[maybe_unused]] int threads, Work const& work) {
  std::int64_t const blocks = (size + element_block - 1) / element_block;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t i = 0; i < blocks; ++i) {
    work(i * element_block, std::min(element_block, size - i * element_block));
  }
}

/// sqrt(sum g^2), the squares of a block summed in float, the blocks in double.
inline double global_norm(std::span<float const> g, int threads) {
  auto const size = static_cast<std::int64_t>(g.size());
  std::vector<double> squares(static_cast<std::size_t>((size + element_block - 1) / element_block));
  each_block(size, threads, [&](std::int64_t first, std::int64_t count) {
    squares[static_cast<std::size_t>(first / element_block)] =
        static_cast<double>(as_row(g.data() + first, count).square().sum());
  });
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

/// What to multiply gradients of this norm by, so that it becomes at most `limit`.
inline double clip_factor(double norm, double limit) { return norm > limit ? limit / norm : 1; }

/// Factors of the learning rate; `progress` goes from 0 to 1.
inline double linear_decay(double progress, double last = 0) {
  return 1 - (1 - last) * std::clamp(progress, 0.0, 1.0);
}
inline double warm_up(std::int64_t step, std::int64_t steps) {
  return std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(steps));
}

struct adam_settings {
  double beta1 = 0.9;
  double beta2 = 0.99;
  double epsilon = 1e-8;
  double weight_decay = 0;  ///< decoupled from the gradient: AdamW
};

///   m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2
///   w <- w - rate (m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + epsilon) + weight_decay w)
/// Sources: Kingma, Ba, Adam, 2015; Loshchilov, Hutter, Decoupled Weight Decay, 2019.
struct adam {
  adam_settings settings;
  std::vector<float> m;
  std::vector<float> v;
  double steps = 0;  ///< taken; a whole number, a double as files hold floating-point numbers

  adam(std::size_t size, adam_settings const& chosen) : settings(chosen), m(size), v(size) {}

  /// Gradients count times `factor`.
  void step(std::span<float> w, std::span<float const> g, double rate, double factor, int threads) {
    if (w.size() != m.size() || g.size() != m.size()) {
      throw std::invalid_argument("adam: parameters or gradients of another number");
    }
    ++steps;
    auto const b1 = static_cast<float>(settings.beta1);
    auto const b2 = static_cast<float>(settings.beta2);
    auto const c1 = static_cast<float>((1 - settings.beta1) * factor);
    auto const c2 = static_cast<float>((1 - settings.beta2) * factor * factor);
    auto const size = static_cast<float>(rate / (1 - std::pow(settings.beta1, steps)));
    auto const root = static_cast<float>(1 / std::sqrt(1 - std::pow(settings.beta2, steps)));
    auto const keep = static_cast<float>(1 - rate * settings.weight_decay);
    auto const epsilon = static_cast<float>(settings.epsilon);
    each_block(static_cast<std::int64_t>(w.size()), threads,
               [&](std::int64_t first, std::int64_t count) {
                 auto const g_block = as_row(g.data() + first, count);
                 auto m_block = as_row(m.data() + first, count);
                 auto v_block = as_row(v.data() + first, count);
                 auto w_block = as_row(w.data() + first, count);
                 m_block = b1 * m_block + c1 * g_block;
                 v_block = b2 * v_block + c2 * g_block.square();
                 w_block = keep * w_block - size * m_block / (root * v_block.sqrt() + epsilon);
               });
  }

  /// The state, for a file: tensors prefix + "m", "v" and "steps".
  void add_to(auto& contents, std::string const& prefix) {
    auto const size = static_cast<std::int64_t>(m.size());
    contents.add(prefix + "m", {size}, m.data());
    contents.add(prefix + "v", {size}, v.data());
    contents.add(prefix + "steps", {}, &steps);
  }
};

/// average <- decay average + (1 - decay) w
inline void update_average(std::span<float> average, std::span<float const> w, double decay,
                           int threads) {
  if (average.size() != w.size()) {
    throw std::invalid_argument("update_average: averages and parameters of different number");
  }
  each_block(static_cast<std::int64_t>(w.size()), threads,
             [&](std::int64_t first, std::int64_t count) {
               auto block = as_row(average.data() + first, count);
               block += static_cast<float>(1 - decay) * (as_row(w.data() + first, count) - block);
             });
}

/// A decay that begins small, so that the first, untrained parameters are soon forgotten.
inline double average_decay(std::int64_t step, double decay, double start = 20) {
  auto const n = static_cast<double>(step);
  return std::min(decay, (1 + n) / (start + n));
}

}  // namespace demo
