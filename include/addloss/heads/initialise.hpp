// SPDX-License-Identifier: MIT
/// First values of parameters, as a pure function of (seed, index of the parameter).
///
/// | rule            | values                              | for                                 |
/// | fan_in_uniform  | uniform in +-1 / sqrt(fan_in)       | weight and bias of convolutions and |
/// |                 |                                     | linear layers, as in PyTorch        |
/// | standard_normal | N(0, 1)                             | weight of a projection              |
/// | constant_value  | a number                            | biases (0), weights of norms (1)    |
/// | unit_vector     | N(0, 1) / norm: uniform direction   | u and v of a spectral norm          |
/// fan_in: input channels times kernel size. Every parameter of a model has its own index, u and v
/// theirs; then no numbers are shared, and values do not change when others are added after them.
/// The same numbers in float as in double, up to rounding; on any number of threads, ranks and
/// devices. They come from a stream of Philox of their own (core/philox.hpp), at step 0.
/// Nothing is allocated. Errors: fan_in < 1; for unit_vector, no values.
/// Source: the bound: He, Zhang, Ren, Sun, Delving Deep into Rectifiers, 2015, with a = sqrt(5) as
/// PyTorch's layers set it.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <addloss/core/error.hpp>
#include <addloss/core/normal.hpp>
#include <addloss/core/philox.hpp>
#include <addloss/core/scalar.hpp>

namespace addloss {

/// Which parameter of which model.
struct parameter_key {
  std::uint64_t seed = 0;
  std::uint32_t index = 0;
};

namespace detail {

/// "init" in ASCII: far from the small numbers that the uses within a step have.
inline constexpr std::uint32_t initial_stream = 0x696e6974U;

/// Element `element` of the uniform numbers in (0, 1) under `key`, symmetric about 1/2.
[[nodiscard]] inline double initial_uniform(parameter_key key, std::uint64_t element) {
  philox_block const block = philox4x32_10(random_key{key.seed, 0, initial_stream, 0}, key.index,
                                           static_cast<std::uint32_t>(element / 2));
  bool const second = element % 2 != 0;
  std::uint64_t const high = second ? block.word[2] : block.word[0];
  std::uint64_t const low = second ? block.word[3] : block.word[1];
  // 52 bits and a half: all of them fit a double.
  return (static_cast<double>((high << 20) | (low >> 12)) + 0.5) * 0x1p-52;
}

[[nodiscard]] inline float initial_normal(parameter_key key, std::uint64_t element) {
  return normal_at(random_key{key.seed, 0, initial_stream, 0}, key.index, element);
}

}  // namespace detail

struct fan_in_uniform {
  std::int64_t fan_in = 1;
  template <arithmetic_scalar T>
  void operator()(parameter_key key, std::span<T> values) const {
    if (fan_in < 1) {
      detail::fail("initialise", "fan_in", "at least 1", detail::text() << fan_in);
    }
    double const bound = 1 / std::sqrt(static_cast<double>(fan_in));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<T>(bound * (2 * detail::initial_uniform(key, i) - 1));
    }
  }
};

struct standard_normal {
  template <arithmetic_scalar T>
  void operator()(parameter_key key, std::span<T> values) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<T>(detail::initial_normal(key, i));
    }
  }
};

struct constant_value {
  double value = 0;
  template <arithmetic_scalar T>
  void operator()(parameter_key /*key*/, std::span<T> values) const {
    for (T& x : values) x = static_cast<T>(value);
  }
};

struct unit_vector {
  template <arithmetic_scalar T>
  void operator()(parameter_key key, std::span<T> values) const {
    if (values.empty()) detail::fail("initialise", "values", "at least one", "none");
    double square = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      auto const x = static_cast<double>(detail::initial_normal(key, i));
      square += x * x;
    }
    if (square == 0) return constant_value{1}(key, values.first(1));  // one value, drawn as 0
    double const norm = std::sqrt(square);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<T>(static_cast<double>(detail::initial_normal(key, i)) / norm);
    }
  }
};

/// A rule that gives first values: one of the above, or your own.
template <class R>
concept initial_rule =
    requires(R const rule, parameter_key key, std::span<float> narrow, std::span<double> wide) {
      rule(key, narrow);
      rule(key, wide);
    };

/// For instance
///   initialise(fan_in_uniform{.fan_in = in * k}, {.seed = 1, .index = 4}, std::span(weight));
template <initial_rule Rule, arithmetic_scalar T>
void initialise(Rule const& rule, parameter_key key, std::span<T> values) {
  rule(key, values);
}

}  // namespace addloss
