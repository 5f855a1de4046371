// SPDX-License-Identifier: MIT
/// Losses on pairs of logits: the relativistic adversarial loss, and approximate R1.
///
///   L = weight reduce_k mean_b reduce_l P(a_{k,b,l} - b_{k,b,l})
/// | bound by                                | a        | b                  | P(d)         |
/// | paired<relativistic>.discriminator      | real     | fake               | softplus(-d) |
/// | paired<relativistic>.generator          | fake     | real               | softplus(-d) |
/// | approximate_r1.on                       | D(F)     | D(F + sigma noise) | lambda d^2   |
/// Logits [B, L_k] of K heads; both tensors of a head have one shape. Gradients with respect to
/// both, `first` for a and `second` for b: both or none. NaN in either gives NaN in the loss and in
/// both gradients. Reductions, determinism and errors as in losses/adversarial.hpp.
/// Sources: relativistic pairing: Huang, Gokaslan, Kuleshov, Tompkin, The GAN is dead; long live
/// the GAN! (R3GAN), 2024, section 2; approximate R1: Lin et al., Diffusion Adversarial
/// Post-Training for One-Step Video Generation (APT), 2025, section 3.
#pragma once

#include <cstdint>
#include <span>

#include <addloss/core/number.hpp>
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/distance.hpp>

namespace addloss {

/// softplus(-d), d = real - fake.
struct relativistic {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE value_grad<V> operator()(V d) const {
    auto const [value, grad] = detail::softplus(-d);
    return {value, -grad};
  }
};

/// Where the gradients of a paired loss go: one entry a head, or both empty.
template <class T, class Space = host_space>
struct pair_gradients {
  std::span<rows<T, Space> const> first{};
  std::span<rows<T, Space> const> second{};
  bool accumulate = false;
};

/// Means and shares of both sides of a head; `active`: the share of pairs whose gradient is not 0,
/// those of NaN among them.
struct pair_statistics {
  logit_statistics first;
  logit_statistics second;
};

template <class T, class Space = host_space>
struct pair_options {
  rows<T const, Space> upstream{};  ///< as in evaluation_options
  number grad_scale = 1;  ///< as in evaluation_options
  std::int64_t* non_finite = nullptr;  ///< pairs with an infinite or NaN logit or loss
  std::span<pair_statistics> statistics{};  ///< one entry a head, written; or empty
};

namespace detail {

template <class A, class Loss>
struct pair_row {
  Loss loss;
  A gradient_weight;

  /// Sums: the loss, both logits. Tallies: the positive logits of both, the active pairs.
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE element_result<V, 3, 2, 3> operator()(V const (&x)[2]) const {
    auto const [value, grad] = loss(x[0] - x[1]);
    V const gradient = V(gradient_weight) * grad;
    return {{value, x[0], x[1]}, {gradient, -gradient}, {x[0] > V(0), x[1] > V(0), grad != V(0)}};
  }
};

template <class A, class T, class Loss, class Out>
struct pair_pass {
  using arithmetic = A;
  static constexpr unsigned operand_count = 2;
  static constexpr unsigned output_count = 2;
  static constexpr unsigned sum_count = 3;
  static constexpr unsigned tally_count = 3;
  static constexpr unsigned total_count = sum_count + tally_count + 1;
  static constexpr unsigned max_parts = max_heads;

  Loss loss;
  number weight = 1;
  int heads;
  head_batch batch;
  std::int64_t tokens[max_heads];
  double factor[max_heads];  ///< the reductions over tokens and heads
  stored<T> logits[2][max_heads];
  output_rows<T> gradient[2][max_heads];
  gradient_scale<A> upstream;
  loss_writer<Out> writer;
  pair_statistics* statistics;

  [[nodiscard]] ADDLOSS_HOST_DEVICE int parts() const { return heads; }
  [[nodiscard]] ADDLOSS_HOST_DEVICE part_extent extent(int part) const {
    return batch.extent(tokens[part]);
  }
  template <int Index>
  [[nodiscard]] ADDLOSS_HOST_DEVICE stored<T> operand(int part, std::int64_t /*row*/) const {
    return logits[Index][part];
  }
  template <int Index>
  [[nodiscard]] ADDLOSS_HOST_DEVICE output_rows<T> const& output(int part) const {
    return gradient[Index][part];
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int part, std::int64_t row) const {
    double const weight_of_row = writer.factor * row_weight(part, row) * batch.scale(upstream, row);
    return pair_row<A, Loss>{loss, static_cast<A>(weight_of_row)};
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double row_weight(int part, std::int64_t /*row*/) const {
    return weight.get() * factor[part];
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE bool writes_samples() const { return writer.writes_samples(); }
  ADDLOSS_HOST_DEVICE void write_sample(int part, std::int64_t row, double value) const {
    writer.write_sample(row, part == 0, value);
  }
  ADDLOSS_HOST_DEVICE void finish_part(int part, double const* totals) const {
    if (statistics == nullptr) return;
    auto const size = static_cast<double>(batch.samples * tokens[part]);
    auto const bad = static_cast<std::int64_t>(totals[total_count - 1]);
    statistics[part] = {{totals[1] / size, totals[3] / size, totals[5] / size, bad},
                        {totals[2] / size, totals[4] / size, totals[5] / size, bad}};
  }
  ADDLOSS_HOST_DEVICE void finish(double value, double bad) const { writer.write(value, bad); }
};

}  // namespace detail

/// A paired loss bound to the logits of K heads; made by `paired` and `approximate_r1`.
template <distance Loss, reduction Tokens, reduction Heads, class T, class Space>
struct bound_pair {
  using space = Space;
  using arithmetic = arithmetic_t<T>;
  using gradients = pair_gradients<T, Space>;
  using options = pair_options<arithmetic, Space>;
  template <class Out>
  using values = detail::loss_output<Out, Space>;

  Loss loss;
  number weight;
  std::span<rows<T const, Space> const> first;
  std::span<rows<T const, Space> const> second;

  template <class Reduction, class Out>
  auto pass(char const* function, detail::loss_output<Out, Space> const& value,
            gradients const& grad, options const& settings) const {
    using detail::check_heads;
    detail::pair_pass<arithmetic, T, Loss, Out> result{};
    detail::check_weight<Space>(function, "lambda", weight);
    detail::check_settings(function, loss);
    result.heads = check_heads(function, "first", first.size());
    detail::check_same_heads(function, "second", second.size(), first.size());
    bool const wants_gradient = !grad.first.empty() || !grad.second.empty();
    if (wants_gradient) {
      detail::check_same_heads(function, "gradients.first", grad.first.size(), first.size());
      detail::check_same_heads(function, "gradients.second", grad.second.size(), first.size());
    }
    if (!settings.statistics.empty()) {
      detail::check_same_heads(function, "statistics", settings.statistics.size(), first.size());
    }
    result.loss = loss;
    result.weight = weight;
    result.batch = detail::make_head_batch<Reduction>(first[0].count, settings.upstream);
    for (int head = 0; head < result.heads; ++head) {
      auto const k = static_cast<std::size_t>(head);
      detail::argument_name const first_name("first", head);
      detail::argument_name const second_name("second", head);
      detail::check_batch(function, first_name, first[k], result.batch.samples);
      detail::check_same_rows(function, second_name, second[k], first_name, first[k]);
      result.tokens[head] = first[k].row_size;
      result.factor[head] = Tokens::factor(first[k].row_size) * Heads::factor(result.heads);
      result.logits[0][head] = detail::stored_rows(first[k]);
      result.logits[1][head] = detail::stored_rows(second[k]);
      result.batch.add(first[k]);
      result.batch.add(second[k]);
      if (wants_gradient) {
        result.gradient[0][head] =
            detail::check_gradient(function, detail::argument_name("gradients.first", head),
                                   grad.first[k], first_name, first[k], grad.accumulate);
        result.gradient[1][head] =
            detail::check_gradient(function, detail::argument_name("gradients.second", head),
                                   grad.second[k], first_name, first[k], grad.accumulate);
        result.batch.add(grad.first[k]);
        result.batch.add(grad.second[k]);
      }
    }
    result.writer =
        detail::check_output<Reduction>(function, value, result.batch.samples, settings.non_finite);
    result.upstream = detail::check_upstream(function, settings.upstream, settings.grad_scale,
                                             value.weight, result.batch.samples);
    result.statistics = settings.statistics.data();
    return result;
  }
};

/// An adversarial loss on pairs as a value.
template <distance Loss = relativistic, reduction Tokens = mean, reduction Heads = sum>
struct paired {
  Loss loss{};

  template <storage_scalar T, class Space = host_space>
  auto discriminator(head_rows<T, Space> real, head_rows<T, Space> fake) const {
    return bound_pair<Loss, Tokens, Heads, T, Space>{loss, 1, real, fake};
  }
  /// Gradients: `first` belongs to the fakes.
  template <storage_scalar T, class Space = host_space>
  auto generator(head_rows<T, Space> fake, head_rows<T, Space> real) const {
    return bound_pair<Loss, Tokens, Heads, T, Space>{loss, 1, fake, real};
  }
};

/// R1 without any gradient of a gradient: lambda ||D(F) - D(F + sigma n)||^2, n standard normal.
/// The user evaluates the heads at both; sigma (APT: 0.01 in image space) is in the second input,
/// which add_noise can make. Tokens are summed, as the norm is.
template <reduction Tokens = sum, reduction Heads = sum>
struct approximate_r1 {
  number lambda = 100;  ///< weight, >= 0

  template <storage_scalar T, class Space = host_space>
  auto on(head_rows<T, Space> logits, head_rows<T, Space> perturbed) const {
    return bound_pair<squared, Tokens, Heads, T, Space>{{}, lambda, logits, perturbed};
  }
};

}  // namespace addloss
