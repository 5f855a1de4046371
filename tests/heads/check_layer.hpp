// SPDX-License-Identifier: MIT
/// What every layer must do (heads/layer.hpp), checked with nothing but the concept.
///
///   check_layer<double>(layer, shape)    derivatives, R1, memory, null outputs; a small shape, as
///                                        every number of x, w and conditions is moved
///   check_layer<float>(layer, shape)     memory, null outputs
///   check_threads<T>(layer, shape)       same bits on 1, 2 and 3 threads; a shape of some 2^16
///   check_float(narrow, wide, shape)     a layer in float against the same layer in double
/// Inputs, parameters and conditions are fixed random numbers of sizes in [1/16, 1), exact in
/// float. Every pass, wherever it is called from, is also checked to write its outputs and nothing
/// else: see `passes`. A failure names the pass and the output.
///
/// Derivatives are compared with central differences of several steps and the best of them counts.
/// A step that crosses a kink, or is too large or too small for the function, cannot make a right
/// gradient fail so; and no step makes a wrong one pass.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <addloss/heads/layer.hpp>
#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"

namespace layer_checks {

using namespace addloss;

struct check_options {
  unsigned seed = 1;
  std::array<double, 3> steps = {1e-5, 1e-4, 1e-6};
};

/// Relative errors that pass. Derivatives: of double, each to itself, or to a hundredth of the
/// largest of its kind (or of 1) where it is smaller. Adjoint: to the sum of the products' sizes.
/// Float: to the largest number of the output.
inline constexpr double first_order = 1e-7;
inline constexpr double second_order = 1e-6;
inline constexpr double adjoint = 1e-12;
inline constexpr double float_rounding = 5e-6;

template <class T>
using numbers = std::vector<T>;

/// Numbers of both signs and sizes in [1/16, 1), no two `stream`s of a seed alike.
template <class T>
numbers<T> some(std::int64_t count, unsigned seed, unsigned stream) {
  std::mt19937 random(seed * 1000 + stream);
  numbers<T> x(static_cast<std::size_t>(count));
  for (T& number : x) {
    auto const bits = static_cast<std::uint32_t>(random());
    double const size = 1.0 / 16 + 15.0 / 16 * static_cast<double>(bits >> 12) / (1 << 20);
    number = static_cast<T>((bits & 1) != 0 ? size : -size);
  }
  return x;
}

template <class T>
bool same_bits(numbers<T> const& a, numbers<T> const& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool guarded_by_sanitizer = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool guarded_by_sanitizer = true;
#else
inline constexpr bool guarded_by_sanitizer = false;
#endif
#else
inline constexpr bool guarded_by_sanitizer = false;
#endif

/// Memory between words that must stay. They and what is not written yet are NaN, so that reading
/// them shows. AddressSanitizer sees more where nothing follows the memory.
template <class T>
class guarded {
 public:
  guarded() : guarded(0) {}
  explicit guarded(std::int64_t size)
      : memory_(before + static_cast<std::size_t>(size) + after, guard()) {
    blank();
  }
  explicit guarded(numbers<T> const& content) : guarded(static_cast<std::int64_t>(content.size())) {
    for (std::size_t n = 0; n < content.size(); ++n) data()[n] = content[n];
  }

  T* data() { return memory_.data() + before; }
  [[nodiscard]] std::span<T> values() { return {data(), memory_.size() - before - after}; }
  [[nodiscard]] numbers<T> content() const {
    return numbers<T>(memory_.data() + before, memory_.data() + memory_.size() - after);
  }
  void blank() {
    for (T& number : values()) number = std::numeric_limits<T>::quiet_NaN();
  }
  [[nodiscard]] bool intact() const {
    numbers<T> const word = {guard()};
    for (std::size_t n = 0; n < memory_.size(); ++n) {
      bool const inside = n >= before && n < memory_.size() - after;
      if (!inside && !same_bits({memory_[n]}, word)) return false;
    }
    return true;
  }
  [[nodiscard]] bool same_as(guarded const& other) const {
    return same_bits(memory_, other.memory_);
  }

 private:
  /// More than a register, and odd: layers cannot count on aligned memory.
  static constexpr std::size_t before = 17;
  static constexpr std::size_t after = guarded_by_sanitizer ? 0 : 257;

  static T guard() {
    if constexpr (sizeof(T) == 4) {
      return std::bit_cast<T>(0x7fc0abcdU);
    } else {
      return std::bit_cast<T>(std::uint64_t{0x7ff800000000abcd});
    }
  }

  numbers<T> memory_;
};

/// All that passes read, and what they carry from one to the next.
template <class T>
struct pass_memory {
  guarded<T> w, x, x_dot, y_bar, y_dot_bar;
  std::vector<guarded<T>> conditions{};
  guarded<T> saved{}, saved_bar{}, saved_dot{};
};

/// Outputs that a pass is given no memory for, or none of their own.
struct left_out {
  bool x_bar = false;
  bool w_bar = false;
  bool conditions = false;
  bool saved_bar = false;
  bool y_dot = false;
  bool own_x_bar = false;  ///< x_bar lies over x, or over x_dot
};

/// Of a backward pass; x_bar and w_bar are empty where they were left out.
template <class T>
struct pass_gradients {
  numbers<T> x_bar{}, w_bar{};
  std::vector<numbers<T>> conditions{};
};

/// The passes of a layer, each with exactly the memory that the contract promises it: members that
/// it does not read are null, outputs and workspace are NaN before, gradients of parameters and
/// conditions are added to numbers that are not 0. After each pass all guards must be intact and
/// all that is not its output must be as it was.
template <class T, class Layer>
class passes : public pass_memory<T> {
 public:
  cpu_context ctx{};

  passes(Layer const& layer, feature_shape shape, unsigned seed)
      : pass_memory<T>{guarded<T>(some<T>(layer.parameter_count(), seed, 1)),
                       guarded<T>(some<T>(shape.size(), seed, 2)),
                       guarded<T>(some<T>(shape.size(), seed, 3)),
                       guarded<T>(some<T>(layer.output_shape("check", shape).size(), seed, 4)),
                       guarded<T>(some<T>(layer.output_shape("check", shape).size(), seed, 5))},
        layer_(layer),
        shape_(shape),
        y_size_(layer.output_shape("check", shape).size()),
        sizes_(layer.sizes(shape)),
        w_before_(some<T>(layer.parameter_count(), seed, 6)) {
    this->saved = guarded<T>(sizes_.saved);
    this->saved_bar = guarded<T>(sizes_.saved_bar);
    this->saved_dot = guarded<T>(sizes_.saved_dot);
    unsigned stream = 10;
    for (std::int64_t const size : detail::condition_sizes_of(layer)) {
      condition_sizes_.push_back(size);
      this->conditions.emplace_back(some<T>(shape.batch * size, seed, stream++));
      conditions_before_.push_back(some<T>(shape.batch * size, seed, stream++));
    }
  }

  /// y
  numbers<T> forward() {
    guarded<T> y(y_size_);
    this->saved.blank();
    run("forward", &this->saved, [&](layer_pass<T>& p) {
      p.y = y.data();
      p.saved = this->saved.data();
      layer_.forward(ctx, p);
    });
    require(y.intact(), "forward wrote outside of y");
    return y.content();
  }
  /// y_dot, of the last forward pass
  numbers<T> tangent(left_out without = {}) {
    guarded<T> y_dot(y_size_);
    this->saved_dot.blank();
    run("tangent", &this->saved_dot, [&](layer_pass<T>& p) {
      p.saved = this->saved.data();
      p.x_dot = this->x_dot.data();
      p.y_dot = without.y_dot ? nullptr : y_dot.data();
      p.saved_dot = this->saved_dot.data();
      layer_.tangent(ctx, p);
    });
    require(y_dot.intact(), "tangent wrote outside of y_dot");
    return without.y_dot ? numbers<T>{} : y_dot.content();
  }
  /// Of the cotangent `of`: y_bar, or y_dot_bar where tangent_backward follows.
  pass_gradients<T> backward(guarded<T> const& of, left_out without = {}) {
    this->saved_bar.blank();
    lent memory(*this, of, this->x);
    bool const last = without.saved_bar;
    auto result =
        gradients("backward", last ? nullptr : &this->saved_bar, without, [&](layer_pass<T>& p) {
          p.y_bar = memory.y_bar.data();
          p.saved = last ? memory.saved.data() : this->saved.data();
          if (without.own_x_bar) p.x = p.x_bar = memory.x.data();
          if (last) return layer_.backward(ctx, p);
          p.saved_bar = this->saved_bar.data();
          p.saved_dot = memory.saved_dot.data();
          layer_.backward(ctx, p);
        });
    memory.check("backward", *this, of);
    if (without.own_x_bar) result.x_bar = memory.x.content();
    if (!last) y_bar_left_ = memory.y_bar;
    return result;
  }
  /// Of the last tangent pass, and of the last backward pass, which must have been of y_dot_bar.
  pass_gradients<T> tangent_backward(left_out without = {}) {
    lent memory(*this, this->y_bar, this->x_dot);
    lent memory_dot(*this, y_bar_left_, this->x_dot);
    auto result = gradients("tangent_backward", nullptr, without, [&](layer_pass<T>& p) {
      p.x_dot = memory.x.data();
      if (without.own_x_bar) p.x_bar = memory.x.data();
      p.y_bar = memory.y_bar.data();
      p.y_dot_bar = memory_dot.y_bar.data();
      p.saved = memory.saved.data();
      p.saved_bar = memory.saved_bar.data();
      p.saved_dot = memory.saved_dot.data();
      layer_.tangent_backward(ctx, p);
    });
    memory.check("tangent_backward", *this, this->y_bar);
    memory_dot.check("tangent_backward", *this, y_bar_left_);
    if (without.own_x_bar) result.x_bar = memory.x.content();
    require(without.own_x_bar || memory.x.same_as(this->x_dot),
            "tangent_backward wrote into x_dot");
    return result;
  }

  /// What gradients of the parameters are added to.
  [[nodiscard]] numbers<T> const& w_start() const { return w_before_; }
  /// What was added to the gradients of parameters and conditions, in place of the sums.
  [[nodiscard]] pass_gradients<T> added(pass_gradients<T> sums) const {
    auto const subtract = [](numbers<T>& from, numbers<T> const& what) {
      for (std::size_t n = 0; n < from.size(); ++n) from[n] -= what[n];
    };
    subtract(sums.w_bar, w_before_);
    for (std::size_t k = 0; k < sums.conditions.size(); ++k) {
      subtract(sums.conditions[k], conditions_before_[k]);
    }
    return sums;
  }

 private:
  static void require(bool holds, std::string const& what) {
    if (!holds) FAIL(what);
  }

  /// Copies of what a pass may overwrite.
  struct lent {
    guarded<T> y_bar, x, saved, saved_bar, saved_dot;

    lent(pass_memory<T> const& from, guarded<T> const& cotangent, guarded<T> const& input)
        : y_bar(cotangent),
          x(input),
          saved(from.saved),
          saved_bar(from.saved_bar),
          saved_dot(from.saved_dot) {}
    void check(std::string const& pass, pass_memory<T> const& from,
               guarded<T> const& cotangent) const {
      auto const holds = [&](char const* name, guarded<T> const& now, guarded<T> const& then,
                             bool may_change) {
        require(now.intact(), pass + " wrote outside of " + name);
        require(may_change || now.same_as(then), pass + " wrote into " + name);
      };
      holds("y_bar", y_bar, cotangent, detail::overwrites_y_bar<Layer>);
      require(x.intact(), pass + " wrote outside of x or x_dot");
      bool const is_lent = !detail::in_place<Layer>;
      holds("saved", saved, from.saved, is_lent);
      holds("saved_bar", saved_bar, from.saved_bar, true);
      holds("saved_dot", saved_dot, from.saved_dot, is_lent);
    }
  };

  template <class Call>
  pass_gradients<T> gradients(char const* pass, guarded<T> const* written, left_out without,
                              Call const& call) {
    guarded<T> x_bar(shape_.size());
    guarded<T> w_bar(w_before_);
    pass_gradients<T> result;
    result.conditions = run(
        pass, written,
        [&](layer_pass<T>& p) {
          p.x_bar = without.x_bar ? nullptr : x_bar.data();
          p.w_bar = without.w_bar ? nullptr : w_bar.data();
          call(p);
        },
        without);
    require(x_bar.intact(), std::string(pass) + " wrote outside of x_bar");
    require(w_bar.intact(), std::string(pass) + " wrote outside of w_bar");
    if (!without.x_bar) result.x_bar = x_bar.content();
    if (!without.w_bar) result.w_bar = w_bar.content();
    return result;
  }

  /// Calls a pass on what all passes read; the gradients of the conditions. `written`: what it may
  /// write of the memory that is carried on.
  template <class Call>
  std::vector<numbers<T>> run(std::string const& pass, guarded<T> const* written, Call const& call,
                              left_out without = {}) {
    bool const is_backward = pass.ends_with("backward");
    pass_memory<T> const before = *this;
    guarded<T> workspace(sizes_.workspace);
    std::vector<guarded<T>> condition_gradients;
    for (auto const& start : conditions_before_) condition_gradients.emplace_back(start);
    std::vector<condition<T>> given;
    for (std::size_t k = 0; k < condition_sizes_.size(); ++k) {
      given.push_back({condition_sizes_[k], this->conditions[k].data(),
                       without.conditions ? nullptr : condition_gradients[k].data()});
    }
    layer_pass<T> p;
    p.shape = shape_;
    p.w = this->w.data();
    p.x = this->x.data();
    p.workspace = workspace.data();
    p.conditions = given;
    call(p);

    require(workspace.intact(), pass + " wrote outside of the workspace");
    auto const unchanged = [&](char const* name, guarded<T> const& now, guarded<T> const& then) {
      require(now.intact(), pass + " wrote outside of " + name);
      require(&now == written || now.same_as(then), pass + " wrote into " + name);
    };
    unchanged("w", this->w, before.w);
    unchanged("x", this->x, before.x);
    unchanged("x_dot", this->x_dot, before.x_dot);
    unchanged("y_bar", this->y_bar, before.y_bar);
    unchanged("y_dot_bar", this->y_dot_bar, before.y_dot_bar);
    unchanged("saved", this->saved, before.saved);
    unchanged("saved_bar", this->saved_bar, before.saved_bar);
    unchanged("saved_dot", this->saved_dot, before.saved_dot);
    std::vector<numbers<T>> result;
    for (std::size_t k = 0; k < given.size(); ++k) {
      unchanged("a condition", this->conditions[k], before.conditions[k]);
      require(condition_gradients[k].intact(), pass + " wrote outside of a condition's gradient");
      result.push_back(condition_gradients[k].content());
      require(is_backward || same_bits(result[k], conditions_before_[k]),
              pass + " wrote into a condition's gradient");
    }
    return without.conditions ? std::vector<numbers<T>>{} : result;
  }

  Layer const& layer_;
  feature_shape shape_;
  std::int64_t y_size_;
  layer_sizes sizes_;
  std::vector<std::int64_t> condition_sizes_{};
  numbers<T> w_before_;
  std::vector<numbers<T>> conditions_before_{};
  guarded<T> y_bar_left_{};
};

/// All that the four passes write, with a backward pass of y_bar before that of y_dot_bar.
template <class T>
struct pass_results {
  numbers<T> y, saved;
  pass_gradients<T> of_y_bar, of_y_dot_bar;
  numbers<T> saved_bar, y_dot, saved_dot;
  pass_gradients<T> second;
};

template <class T, class Layer>
pass_results<T> run_all(passes<T, Layer>& run) {
  pass_results<T> r;
  r.y = run.forward();
  r.saved = run.saved.content();
  r.of_y_bar = run.backward(run.y_bar);
  r.of_y_dot_bar = run.backward(run.y_dot_bar);
  r.saved_bar = run.saved_bar.content();
  r.y_dot = run.tangent();
  r.saved_dot = run.saved_dot.content();
  r.second = run.tangent_backward();
  return r;
}

/// visit(pass, output, numbers of a, numbers of b) for the outputs of two runs.
template <class A, class B, class Visit>
void each_gradient(std::string const& pass, pass_gradients<A> const& a, pass_gradients<B> const& b,
                   Visit const& visit) {
  visit(pass, "x_bar", a.x_bar, b.x_bar);
  visit(pass, "w_bar", a.w_bar, b.w_bar);
  REQUIRE(a.conditions.size() == b.conditions.size());
  for (std::size_t k = 0; k < a.conditions.size(); ++k) {
    visit(pass, "conditions[" + std::to_string(k) + "].gradient", a.conditions[k], b.conditions[k]);
  }
}
template <class A, class B, class Visit>
void each_output(pass_results<A> const& a, pass_results<B> const& b, Visit const& visit) {
  visit("forward", "y", a.y, b.y);
  each_gradient("backward of y_bar", a.of_y_bar, b.of_y_bar, visit);
  each_gradient("backward of y_dot_bar", a.of_y_dot_bar, b.of_y_dot_bar, visit);
  visit("tangent", "y_dot", a.y_dot, b.y_dot);
  each_gradient("tangent_backward", a.second, b.second, visit);
}

template <class T>
void check_same_bits(std::string const& pass, std::string const& output, numbers<T> const& a,
                     numbers<T> const& b) {
  INFO(pass << ": " << output);
  CHECK(same_bits(a, b));
}
inline constexpr auto same = [](auto const& pass, auto const& output, auto const& a,
                                auto const& b) { check_same_bits(pass, output, a, b); };

inline double dot(numbers<double> const& a, numbers<double> const& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t n = 0; n < a.size(); ++n) sum += a[n] * b[n];
  return sum;
}

/// `gradient` against the differences of value(), which depends on x.
template <class Value>
void check_gradient(std::string const& pass, std::string const& output, std::span<double> x,
                    numbers<double> const& gradient, double tolerance, check_options const& options,
                    Value const& value) {
  INFO(pass << ": " << output << " against finite differences");
  REQUIRE(gradient.size() == x.size());
  double largest = 1;
  for (double const number : gradient) largest = std::fmax(largest, std::abs(number));
  testing::gradcheck_result worst;
  std::size_t index = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    testing::gradcheck_result best;
    for (double const step : options.steps) {
      auto const result =
          testing::gradcheck([&](std::span<double const> /*moved*/) { return value(); },
                             x.subspan(i, 1), std::span(gradient).subspan(i, 1),
                             {.step = step, .tolerance = tolerance, .floor = 1e-2 * largest});
      if (step == options.steps[0] || result.error < best.error) best = result;
      if (best.passed) break;
    }
    if (i == 0 || best.error > worst.error) {
      worst = best;
      index = i;
    }
  }
  INFO("element " << index << ": gradient " << worst.gradient << ", difference " << worst.difference
                  << ", error " << worst.error);
  CHECK(worst.error <= tolerance);
}

/// x_bar, w_bar and the gradients of conditions against the differences of value().
template <class Layer, class Value>
void check_gradients(std::string const& pass, passes<double, Layer>& run,
                     pass_gradients<double> const& sums, double tolerance,
                     check_options const& options, Value const& value) {
  auto const found = run.added(sums);
  check_gradient(pass, "x_bar", run.x.values(), found.x_bar, tolerance, options, value);
  check_gradient(pass, "w_bar", run.w.values(), found.w_bar, tolerance, options, value);
  for (std::size_t k = 0; k < found.conditions.size(); ++k) {
    check_gradient(pass, "conditions[" + std::to_string(k) + "].gradient",
                   run.conditions[k].values(), found.conditions[k], tolerance, options, value);
  }
}

/// y_dot against differences of y along x_dot, and the transpose against the tangent.
template <class Layer>
void check_tangent(passes<double, Layer>& run, check_options const& options) {
  run.forward();
  auto const y_dot = run.tangent();
  auto const x_bar = run.backward(run.y_bar).x_bar;
  auto const y_bar = run.y_bar.content();
  auto const x_dot = run.x_dot.content();
  auto const center = run.x.content();
  double distance[] = {0};
  auto const y_at_distance = [&] {
    for (std::size_t n = 0; n < center.size(); ++n) {
      run.x.values()[n] = center[n] + distance[0] * x_dot[n];
    }
    return run.forward();
  };
  for (std::size_t n = 0; n < y_dot.size(); ++n) {
    check_gradient("tangent", "y_dot[" + std::to_string(n) + "]", distance, {y_dot[n]}, first_order,
                   options, [&] { return y_at_distance()[n]; });
  }
  run.x = guarded<double>(center);

  INFO("tangent and backward: <y_bar, y_dot> = <x_bar, x_dot>");
  double size = 0;
  for (std::size_t n = 0; n < y_bar.size(); ++n) size += std::abs(y_bar[n] * y_dot[n]);
  for (std::size_t n = 0; n < x_bar.size(); ++n) size += std::abs(x_bar[n] * x_dot[n]);
  double const left = dot(y_bar, y_dot);
  double const right = dot(x_bar, x_dot);
  INFO("difference " << left - right << " of " << size);
  CHECK(std::abs(left - right) <= adjoint * size);
}

/// gamma |v|^2 / B + <y_bar, y> and its gradients, as heads/layer.hpp says.
template <class Layer>
void check_r1(passes<double, Layer>& run, feature_shape shape, check_options const& options) {
  double const gamma = 0.7;
  auto const batch = static_cast<double>(shape.batch);
  for (double& number : run.y_dot_bar.values()) number = 1;
  run.forward();
  auto const v = run.backward(run.y_dot_bar, {.w_bar = true, .conditions = true}).x_bar;
  for (std::size_t n = 0; n < v.size(); ++n) run.x_dot.values()[n] = 2 * gamma * v[n] / batch;
  run.tangent({.y_dot = true});
  auto const found = run.tangent_backward();
  check_gradients("R1", run, found, second_order, options, [&] {
    double const plain = dot(run.y_bar.content(), run.forward());
    auto const slope =
        run.backward(run.y_dot_bar, {.w_bar = true, .conditions = true, .saved_bar = true}).x_bar;
    return plain + gamma * dot(slope, slope) / batch;
  });
}

template <class Layer>
  requires layer<Layer, double>
void check_derivatives(Layer const& l, feature_shape shape, check_options options = {}) {
  passes<double, Layer> run(l, shape, options.seed);
  auto const r = run_all(run);
  check_gradients("backward", run, r.of_y_bar, first_order, options,
                  [&] { return dot(run.y_bar.content(), run.forward()); });
  check_gradients("tangent_backward", run, r.second, second_order, options, [&] {
    double const plain = dot(run.y_bar.content(), run.forward());
    return plain + dot(run.y_dot_bar.content(), run.tangent());
  });
  check_tangent(run, options);
  if (shape.batch > 0) check_r1(run, shape, options);
}

/// Outputs are finite, and the same bits whatever other outputs are left out.
template <class T, class Layer>
  requires layer<Layer, T>
void check_outputs(Layer const& l, feature_shape shape, check_options options = {}) {
  passes<T, Layer> run(l, shape, options.seed);
  auto const all = run_all(run);
  each_output(all, all, [](auto const& pass, auto const& output, auto const& x, auto const&) {
    INFO(pass << ": " << output << " is finite");
    bool finite = true;
    for (T const number : x) finite &= std::isfinite(number);
    CHECK(finite);
  });

  run.tangent({.y_dot = true});
  check_same_bits("tangent without y_dot", "saved_dot", run.saved_dot.content(), all.saved_dot);
  constexpr int in_place = detail::in_place<Layer> ? 1 : 0;
  for (int mask = 0; mask < (16 << in_place); ++mask) {
    left_out const without{.x_bar = (mask & 1) != 0,
                           .w_bar = (mask & 2) != 0,
                           .conditions = (mask & 4) != 0,
                           .saved_bar = (mask & 8) != 0,
                           .own_x_bar = (mask & 16) != 0};
    if (without.x_bar && without.own_x_bar) continue;
    CAPTURE(without.x_bar, without.w_bar, without.conditions, without.saved_bar, without.own_x_bar);
    auto const expected = [&](pass_gradients<T> gradients) {
      if (without.x_bar) gradients.x_bar.clear();
      if (without.w_bar) gradients.w_bar.clear();
      if (without.conditions) gradients.conditions.clear();
      return gradients;
    };
    auto const first = run.backward(run.y_dot_bar, without);
    each_gradient("backward without an output", first, expected(all.of_y_dot_bar), same);
    if (without.saved_bar) continue;
    check_same_bits("backward without an output", "saved_bar", run.saved_bar.content(),
                    all.saved_bar);
    auto const second = run.tangent_backward(without);
    each_gradient("tangent_backward without an output", second, expected(all.second), same);
  }
}

/// Same bits on any number of threads, also in what passes keep.
template <class T, class Layer>
  requires layer<Layer, T>
void check_threads(Layer const& l, feature_shape shape, check_options options = {}) {
  passes<T, Layer> run(l, shape, options.seed);
  auto const one = run_all(run);
  for (int const threads : {2, 3}) {
    CAPTURE(threads);
    run.ctx.threads = threads;
    auto const several = run_all(run);
    each_output(one, several, same);
    check_same_bits("forward", "saved", one.saved, several.saved);
    check_same_bits("backward", "saved_bar", one.saved_bar, several.saved_bar);
    check_same_bits("tangent", "saved_dot", one.saved_dot, several.saved_dot);
  }
}

/// For each_output: errors relative to the largest number of the output.
inline auto near(double tolerance) {
  return [tolerance](std::string const& pass, std::string const& output, auto const& got,
                     auto const& expected) {
    INFO(pass << ": " << output << " is near what is expected");
    REQUIRE(got.size() == expected.size());
    double error = 0;
    double largest = 0;
    for (std::size_t n = 0; n < got.size(); ++n) {
      double const difference =
          std::abs(static_cast<double>(got[n]) - static_cast<double>(expected[n]));
      if (std::isnan(difference) || difference > error) error = difference;  // NaN is kept
      largest = std::fmax(largest, std::abs(static_cast<double>(expected[n])));
    }
    INFO("error " << error << " of " << largest << ", to pass " << tolerance * largest);
    CHECK(error <= tolerance * largest);
  };
}

/// A layer in float and the same one in double, on the same numbers.
template <class Narrow, class Wide>
  requires(layer<Narrow, float> && layer<Wide, double>)
void check_float(Narrow const& narrow, Wide const& wide, feature_shape shape,
                 double tolerance = float_rounding, check_options options = {}) {
  passes<float, Narrow> in_float(narrow, shape, options.seed);
  passes<double, Wide> in_double(wide, shape, options.seed);
  each_output(run_all(in_float), run_all(in_double), near(tolerance));
}

/// All that can be said of one layer in one arithmetic on a small shape.
template <class T, class Layer>
  requires layer<Layer, T>
void check_layer(Layer const& l, feature_shape shape, check_options options = {}) {
  CAPTURE(shape.batch, shape.channels, shape.length);
  check_outputs<T>(l, shape, options);
  if constexpr (std::is_same_v<T, double>) check_derivatives(l, shape, options);
}

}  // namespace layer_checks

using layer_checks::check_float;
using layer_checks::check_layer;
using layer_checks::check_threads;
