// SPDX-License-Identifier: MIT
/// A stack of heads with all that its steps read and write, and the same steps written out on the
/// four passes of its heads, in double, with losses, penalties and spectral normalisation by their
/// formulas.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <addloss/addloss.hpp>
#include <addloss/heads/head_stack.hpp>

#include "heads/check_layer.hpp"

namespace stack_tests {

using namespace addloss;
using layer_checks::numbers;
using layer_checks::some;

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class To, class From>
numbers<To> converted(numbers<From> const& x) {
  numbers<To> result;
  for (From const number : x) result.push_back(static_cast<To>(number));
  return result;
}

template <class T>
void blank(numbers<T>& x) {
  for (T& number : x) number = std::numeric_limits<T>::quiet_NaN();
}

/// Features of all heads and their conditions, with memory for the gradients of both.
template <class T>
struct side {
  std::vector<feature_shape> shapes;
  std::vector<std::int64_t> condition_sizes;
  std::vector<numbers<T>> x;
  std::vector<numbers<T>> x_bar;
  std::vector<numbers<T>> c;
  std::vector<numbers<T>> c_bar;
  std::vector<rows<T const>> feature_rows{};
  std::vector<condition<T>> conditions{};

  side(std::vector<feature_shape> const& all_shapes, std::vector<std::int64_t> const& sizes,
       unsigned seed)
      : shapes(all_shapes), condition_sizes(sizes) {
    unsigned stream = 0;
    for (feature_shape const& shape : shapes) {
      x.push_back(some<T>(shape.size(), seed, stream++));
      x_bar.emplace_back(at(shape.size()));
    }
    for (std::int64_t const size : sizes) {
      c.push_back(some<T>(shapes[0].batch * size, seed, stream++));
      c_bar.emplace_back(at(shapes[0].batch * size));
    }
  }

  /// Valid until the next call.
  head_inputs<T> in() {
    feature_rows.clear();
    conditions.clear();
    for (std::size_t k = 0; k < shapes.size(); ++k) {
      T const* const data = x[k].data();
      feature_rows.push_back(view(data, shapes[k].batch, shapes[k].channels, shapes[k].length));
    }
    for (std::size_t i = 0; i < condition_sizes.size(); ++i) {
      conditions.push_back({condition_sizes[i], c[i].data(), c_bar[i].data()});
    }
    return {feature_rows, conditions};
  }
  std::vector<rows<T>> gradients() {
    std::vector<rows<T>> result;
    for (std::size_t k = 0; k < shapes.size(); ++k) {
      result.push_back(
          view(x_bar[k].data(), shapes[k].batch, shapes[k].channels, shapes[k].length));
    }
    return result;
  }
};

template <class T, class Head>
struct stack_case {
  head_stack<T, Head> stack;
  side<T> real;
  side<T> fake;
  numbers<T> w{};
  numbers<T> state{};
  numbers<T> w_bar{};
  cpu_context ctx{};

  stack_case(head_stack<T, Head> heads, std::vector<feature_shape> const& shapes,
             std::vector<std::int64_t> const& condition_sizes = {})
      : stack(std::move(heads)),
        real(shapes, condition_sizes, 21),
        fake(shapes, condition_sizes, 22) {
    w.resize(at(stack.parameter_count()));
    state.resize(at(stack.state_count()));
    w_bar.resize(w.size());
    stack.initialise(7, w, state);
    // Biases that are not 0, weights of norms that are not 1.
    auto const more = some<T>(stack.parameter_count(), 7, 1);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] += more[i] / 4;
    for (int i = 0; i < 3; ++i) stack.update_state(ctx, w, state);
    // Numbers that float holds.
    w = converted<T>(converted<float>(w));
    state = converted<T>(converted<float>(state));
  }

  [[nodiscard]] std::vector<feature_shape> const& shapes() const { return real.shapes; }

  /// With all outputs NaN before, but for what is added to.
  template <class Loss>
  generator_result generator(Loss const& loss, generator_options const& options = {}) {
    for (auto& x : fake.x_bar) blank(x);
    layer_checks::guarded<T> workspace(stack.generator_workspace(shapes()));
    auto const result =
        stack.generator_step(ctx, loss, std::as_const(w), std::as_const(state), fake.in(),
                             fake.gradients(), workspace.values(), options);
    if (!workspace.intact()) FAIL("generator_step wrote outside of its workspace");
    return result;
  }
  template <class Loss>
  discriminator_result discriminator(Loss const& loss, discriminator_options const& options = {},
                                     bool accumulate = false) {
    if (!accumulate) blank(w_bar);
    layer_checks::guarded<T> workspace(
        stack.discriminator_workspace(shapes(), options, accumulate));
    auto const result = stack.discriminator_step(
        ctx, loss, std::as_const(w), std::as_const(state), real.in(), fake.in(),
        {.values = w_bar, .accumulate = accumulate}, workspace.values(), options);
    if (!workspace.intact()) FAIL("discriminator_step wrote outside of its workspace");
    return result;
  }
  std::vector<numbers<T>> logits(side<T>& of) {
    std::vector<numbers<T>> result;
    std::vector<rows<T>> logit_rows;
    for (int k = 0; k < stack.size(); ++k) {
      auto const shape = stack.output_shape(k, shapes()[at(k)]);
      result.emplace_back(at(shape.size()));
      blank(result.back());
      logit_rows.push_back(view(result.back().data(), shape.batch, shape.length));
    }
    layer_checks::guarded<T> workspace(stack.logits_workspace(shapes()));
    stack.logits(ctx, std::as_const(w), std::as_const(state), of.in(), logit_rows,
                 workspace.values());
    if (!workspace.intact()) FAIL("logits wrote outside of its workspace");
    return result;
  }
};

/// The same numbers, in float.
template <class Narrow, class Wide>
stack_case<float, Narrow> narrowed(head_stack<float, Narrow> stack,
                                   stack_case<double, Wide> const& wide) {
  stack_case<float, Narrow> result(std::move(stack), wide.shapes(), wide.real.condition_sizes);
  result.w = converted<float>(wide.w);
  result.state = converted<float>(wide.state);
  return result;
}

// Losses by their formulas; `label` is +1 for reals, -1 for fakes.
inline double discriminator_loss(hinge, double z, double label) {
  return 1 - label * z > 0 ? 1 - label * z : 0;
}
inline double discriminator_slope(hinge, double z, double label) {
  return 1 - label * z > 0 ? -label : 0;
}
inline double generator_loss(hinge, double z) { return -z; }
inline double generator_slope(hinge, double /*z*/) { return -1; }
inline double discriminator_loss(non_saturating, double z, double label) {
  return std::log(1 + std::exp(-label * z));
}
inline double discriminator_slope(non_saturating, double z, double label) {
  return -label / (1 + std::exp(label * z));
}
inline double generator_loss(non_saturating loss, double z) {
  return discriminator_loss(loss, z, 1);
}
inline double generator_slope(non_saturating loss, double z) {
  return discriminator_slope(loss, z, 1);
}

/// One side of one head: the four passes, each output in memory of its own.
template <class Head>
struct head_passes {
  Head const& head;
  feature_shape shape;
  numbers<double> w;
  numbers<double> x;
  std::vector<std::int64_t> condition_sizes;
  std::vector<numbers<double>> c;
  std::vector<numbers<double>> c_bar{};  ///< added to
  numbers<double> w_bar{};  ///< added to
  numbers<double> saved{};
  numbers<double> saved_bar{};
  numbers<double> saved_dot{};
  numbers<double> workspace{};

  head_passes(Head const& of, numbers<double> weights, side<double> const& in, std::size_t k)
      : head(of),
        shape(in.shapes[k]),
        w(std::move(weights)),
        x(in.x[k]),
        condition_sizes(in.condition_sizes),
        c(in.c) {
    for (auto const& values : c) c_bar.emplace_back(values.size());
    w_bar.resize(w.size());
    layer_sizes const sizes = head.sizes(shape);
    saved.resize(at(sizes.saved));
    saved_bar.resize(at(sizes.saved_bar));
    saved_dot.resize(at(sizes.saved_dot));
    workspace.resize(at(sizes.workspace));
  }

  numbers<double> forward() {
    numbers<double> y(at(head.output_shape("test", shape).size()));
    call(false, [&](layer_pass<double>& p) {
      p.y = y.data();
      head.forward({}, p);
    });
    return y;
  }
  /// y_bar: as tangent_backward wants it afterwards.
  numbers<double> backward(numbers<double>& y_bar, bool gradients) {
    numbers<double> x_bar(x.size());
    call(gradients, [&](layer_pass<double>& p) {
      p.y_bar = y_bar.data();
      p.x_bar = x_bar.data();
      p.saved_bar = saved_bar.data();
      p.saved_dot = saved_dot.data();
      head.backward({}, p);
    });
    return x_bar;
  }
  /// Adds the gradients of <y_dot_bar, y_dot>; after backward(y_dot_bar).
  void second_order(numbers<double> const& x_dot, numbers<double>& y_dot_bar) {
    numbers<double> zeros(y_dot_bar.size());
    call(true, [&](layer_pass<double>& p) {
      p.x_dot = x_dot.data();
      p.saved_dot = saved_dot.data();
      head.tangent({}, p);
      p.y_bar = zeros.data();
      p.y_dot_bar = y_dot_bar.data();
      p.saved_bar = saved_bar.data();
      head.tangent_backward({}, p);
    });
  }

 private:
  template <class Call>
  void call(bool gradients, Call const& body) {
    std::vector<condition<double>> conditions;
    for (std::size_t i = 0; i < c.size(); ++i) {
      conditions.push_back(
          {condition_sizes[i], c[i].data(), gradients ? c_bar[i].data() : nullptr});
    }
    layer_pass<double> p;
    p.shape = shape;
    p.w = w.data();
    p.x = x.data();
    p.w_bar = gradients ? w_bar.data() : nullptr;
    p.saved = saved.data();
    p.workspace = workspace.data();
    p.conditions = conditions;
    body(p);
  }
};

struct expected_step {
  double adversarial = 0;
  double penalty = 0;
  numbers<double> real_penalties{};
  numbers<double> fake_penalties{};
  std::vector<head_statistics> statistics{};
  numbers<double> w_bar{};
  std::vector<numbers<double>> real_logits{};
  std::vector<numbers<double>> fake_logits{};
  std::vector<numbers<double>> fake_x_bar{};
  std::vector<numbers<double>> real_c_bar{};
  std::vector<numbers<double>> fake_c_bar{};
};

template <class Head>
struct oracle {
  stack_case<double, Head>& of;

  /// Parameters of head k with its convolutions divided by u^T W v.
  [[nodiscard]] numbers<double> weights(int k) const {
    auto const first = of.w.begin() + of.stack.parameter_offset(k);
    numbers<double> w(first, first + of.stack[k].parameter_count());
    each_weight(
        k,
        [&](double* W, double const* u, double const* v, std::int64_t rows, std::int64_t columns) {
          double const sigma = product(u, W, v, rows, columns);
          for (std::int64_t i = 0; i < rows * columns; ++i) W[i] /= sigma;
        },
        w);
    return w;
  }
  /// The gradient of these becomes that of the parameters: of g = W / sigma(W).
  void to_parameters(int k, numbers<double>& gradient) const {
    each_weight(
        k,
        [&](double* g, double const* u, double const* v, std::int64_t rows, std::int64_t columns) {
          double const* const W =
              of.w.data() + of.stack.parameter_offset(k) + (g - gradient.data());
          double const sigma = product(u, W, v, rows, columns);
          double inner = 0;
          for (std::int64_t i = 0; i < rows * columns; ++i) inner += g[i] * W[i];
          for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j) {
              double& entry = g[i * columns + j];
              entry = entry / sigma - inner / (sigma * sigma) * u[i] * v[j];
            }
          }
        },
        gradient);
  }

  template <class Loss, class Tokens, class Heads>
  [[nodiscard]] expected_step generator(adversarial<Loss, Tokens, Heads> const& loss,
                                        double grad_scale = 1) const {
    expected_step e;
    start(e);
    for (int k = 0; k < of.stack.size(); ++k) {
      head_passes<Head> fake(of.stack[k], weights(k), of.fake, at(k));
      auto const logits = fake.forward();
      double const weight = weight_of<Tokens, Heads>(fake.shape);
      numbers<double> bar;
      for (double const z : logits) {
        e.adversarial += weight * generator_loss(loss.loss, z);
        bar.push_back(grad_scale * weight * generator_slope(loss.loss, z));
      }
      e.statistics[at(k)].fake = statistics(logits, bar);
      e.fake_logits.push_back(logits);
      e.fake_x_bar.push_back(fake.backward(bar, true));
      add(e.fake_c_bar, fake.c_bar);
    }
    return e;
  }

  template <class Loss, class Tokens, class Heads>
  [[nodiscard]] expected_step discriminator(adversarial<Loss, Tokens, Heads> const& loss,
                                            discriminator_options const& options = {}) const {
    expected_step e;
    start(e);
    for (int k = 0; k < of.stack.size(); ++k) {
      numbers<double> gradient(at(of.stack[k].parameter_count()));
      auto const one_side = [&](side<double> const& in, double label,
                                std::optional<r1> const& penalty, logit_statistics& health,
                                numbers<double>& penalties, std::vector<numbers<double>>& logits,
                                std::vector<numbers<double>>& c_bar) {
        head_passes<Head> passes(of.stack[k], weights(k), in, at(k));
        logits.push_back(passes.forward());
        double const weight = weight_of<Tokens, Heads>(passes.shape);
        numbers<double> bar;
        for (double const z : logits.back()) {
          e.adversarial += weight * discriminator_loss(loss.loss, z, label);
          bar.push_back(options.grad_scale * weight * discriminator_slope(loss.loss, z, label));
        }
        health = statistics(logits.back(), bar);
        passes.backward(bar, true);
        if (penalty) {
          bool const mean_logit = options.penalised == penalised_logits::mean;
          numbers<double> ones(bar.size(),
                               mean_logit ? 1 / static_cast<double>(passes.shape.length) : 1.0);
          auto const v = passes.backward(ones, false);
          auto const batch = static_cast<double>(passes.shape.batch);
          double const strength = penalty->gamma.get() * penalty->factor * penalty->interval;
          double square = 0;
          numbers<double> direction;
          for (double const number : v) {
            square += number * number / batch;
            direction.push_back(options.grad_scale * strength * 2 * number / batch);
          }
          penalties.push_back(square);
          e.penalty += strength * square;
          passes.second_order(direction, ones);
        }
        for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += passes.w_bar[i];
        add(c_bar, passes.c_bar);
      };
      one_side(of.real, 1, options.real_penalty, e.statistics[at(k)].real, e.real_penalties,
               e.real_logits, e.real_c_bar);
      one_side(of.fake, -1, options.fake_penalty, e.statistics[at(k)].fake, e.fake_penalties,
               e.fake_logits, e.fake_c_bar);
      to_parameters(k, gradient);
      e.w_bar.insert(e.w_bar.end(), gradient.begin(), gradient.end());
    }
    return e;
  }

 private:
  static double product(double const* u, double const* W, double const* v, std::int64_t rows,
                        std::int64_t columns) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) sum += u[i] * W[i * columns + j] * v[j];
    }
    return sum;
  }
  /// visit(place in `numbers_of_head`, u, v, rows, columns) for each normalised weight.
  template <class Visit>
  void each_weight(int k, Visit const& visit, numbers<double>& numbers_of_head) const {
    if (of.stack.normalisation() == weight_normalisation::none) return;
    std::int64_t next = of.stack.state_offset(k);
    for (int i = 0; i < of.stack[k].parameters(); ++i) {
      parameter_view const part = of.stack[k].parameter(i);
      if (part.rank != 3) continue;
      std::int64_t const columns = part.extents[1] * part.extents[2];
      double const* const u = of.state.data() + next;
      visit(numbers_of_head.data() + part.offset, u, u + part.extents[0], part.extents[0], columns);
      next += part.extents[0] + columns;
    }
  }
  /// Of one logit in the loss.
  template <class Tokens, class Heads>
  [[nodiscard]] double weight_of(feature_shape shape) const {
    double weight = 1 / static_cast<double>(shape.batch);
    if (std::is_same_v<Tokens, mean>) weight /= static_cast<double>(shape.length);
    if (std::is_same_v<Heads, mean>) weight /= of.stack.size();
    return weight;
  }
  static logit_statistics statistics(numbers<double> const& logits, numbers<double> const& bar) {
    logit_statistics result;
    auto const count = static_cast<double>(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      result.mean += logits[i] / count;
      result.positive += logits[i] > 0 ? 1 / count : 0;
      result.active += bar[i] != 0 ? 1 / count : 0;
    }
    return result;
  }
  void start(expected_step& e) const {
    e.statistics.resize(at(of.stack.size()));
    for (auto const& values : of.real.c) e.real_c_bar.emplace_back(values.size());
    for (auto const& values : of.fake.c) e.fake_c_bar.emplace_back(values.size());
  }
  static void add(std::vector<numbers<double>>& sums, std::vector<numbers<double>> const& terms) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      for (std::size_t n = 0; n < sums[i].size(); ++n) sums[i][n] += terms[i][n];
    }
  }
};
template <class Head>
oracle(stack_case<double, Head>&) -> oracle<Head>;

/// Three heads of different channels, tokens and kernels, for a batch of 4.
inline std::vector<head_settings> three_heads(std::vector<std::int64_t> const& conditions) {
  return {
      {.channels = 3, .kernel = 3, .condition_sizes = conditions, .width = 2, .virtual_batch = 2},
      {.channels = 2,
       .kernel = 9,
       .condition_sizes = conditions,
       .combination = condition_combination::concatenation,
       .width = 3,
       .virtual_batch = 4,
       .method = convolution_method::toom_cook},
      {.channels = 4, .kernel = 1, .condition_sizes = conditions, .width = 1}};
}
inline std::vector<feature_shape> const three_shapes = {{4, 3, 5}, {4, 2, 7}, {4, 4, 2}};
inline std::vector<std::int64_t> const two_conditions = {4, 2};

inline auto three_in_double(weight_normalisation normalisation = weight_normalisation::spectral,
                            std::vector<std::int64_t> const& conditions = two_conditions) {
  return stack_case(projected_heads<double>(three_heads(conditions), normalisation), three_shapes,
                    conditions);
}

}  // namespace stack_tests
