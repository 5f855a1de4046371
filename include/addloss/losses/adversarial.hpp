// SPDX-License-Identifier: MIT
/// Adversarial losses on the logits of K discriminator heads, with health statistics, in one call.
///
///   L_D = reduce_k mean_b reduce_l [ D(real_k) + D(fake_k) ]
///   L_G = reduce_k mean_b reduce_l G(fake_k)
/// real_k, fake_k: logits [B, L_k]; L_k may differ between heads. Tokens: `mean` (default) or
/// `sum`; heads: `sum` (default, the sum over k of ADD) or `mean` (StyleGAN-T).
/// Gradients: with respect to every logit, same shapes. NaN in a logit gives NaN in the loss and in
/// its gradient, and so does infinity where the loss is infinite (least squares: an infinite
/// gradient).
/// Statistics per head and side, at no further read of the logits: see logit_statistics.
/// At most `max_heads` heads. Deterministic, no allocation.
///
/// | policy         | D(real)        | D(fake)       | G(fake)      |
/// | hinge          | max(0, 1 - r)  | max(0, 1 + f) | -f           |
/// | non_saturating | softplus(-r)   | softplus(f)   | softplus(-f) |
/// | least_squares  | (r - 1)^2      | f^2           | (f - 1)^2    |
/// | wasserstein    | -r             | f             | -f           |
/// Sources: hinge: Lim, Ye, Geometric GAN, 2017, and ADD, Sauer et al. 2023, eq. 3; non-saturating:
/// Goodfellow et al., Generative Adversarial Nets, 2014; least squares: Mao et al., Least Squares
/// Generative Adversarial Networks, 2017; Wasserstein: Arjovsky et al., Wasserstein GAN, 2017.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>

#include <addloss/core/math.hpp>
#include <addloss/core/number.hpp>
#include <addloss/losses/heads.hpp>
#include <addloss/reduce/destination.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss {

/// Health of one head on one side. An idle hinge discriminator has loss 2; a collapsed one has no
/// active logits.
struct logit_statistics {
  double mean = 0;  ///< mean logit
  double positive = 0;  ///< share of logits > 0
  /// Share of logits whose gradient is not 0 (the hinge's active zone). NaN counts: it is not 0.
  double active = 0;
  std::int64_t non_finite = 0;  ///< number of infinite or NaN logits
};

struct head_statistics {
  logit_statistics real;
  logit_statistics fake;
};

/// What a loss makes of one logit z.
template <class V>
struct logit_term {
  V value;  ///< L(z)
  V grad;  ///< weight * dL/dz
  mask_of<V> active;  ///< dL/dz is not 0
};

namespace detail {

/// `gradient`, or NaN where `of` is NaN or infinite. One fused multiply-add.
template <class V>
ADDLOSS_HOST_DEVICE ADDLOSS_INLINE V keep_nan(V gradient, V of) {
  return V(0) * of + gradient;
}

/// ln(1 + e^x) and its derivative, without overflow: max(x, 0) + ln(1 + e^-abs(x)).
template <class V>
ADDLOSS_HOST_DEVICE ADDLOSS_INLINE value_grad<V> softplus(V x) {
  using math::abs;
  using math::exp;
  using math::log1p;
  using math::select;
  V const decay = exp(-abs(x));  // in [0, 1]
  V const sigmoid = select(x < V(0), decay, V(1)) / (V(1) + decay);
  // `x < 0 ? 0 : x` keeps NaN.
  V const value = select(x < V(0), V(0), x) + log1p(decay);
  return {value, keep_nan(sigmoid, value)};
}

/// -label z: active everywhere.
template <class V>
ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> linear_term(V logit, V label, V weight) {
  return {-label * logit, keep_nan(-label * weight, logit), V(0) <= V(0)};
}

}  // namespace detail

/// `label` is +1 for real logits, -1 for fake ones. `weight` multiplies the gradient here, where it
/// costs nothing: that of most losses is a constant or has a factor already.
struct hinge {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> discriminator(V logit, V label, V weight) const {
    using math::select;
    V const margin = V(1) - label * logit;
    // `margin <= 0` is false for NaN, so NaN stays; the subgradient at the kink is 0.
    auto const active = !(margin <= V(0));
    // 0, or NaN with a weight that is not finite. As a factor of the margin in place of 0 it lets
    // one masked multiply-add make the gradient.
    V const none = V(0) * weight;
    V const slope = none * margin + -label * weight;
    return {select(active, margin, V(0)), select(active, slope, none), active};
  }
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> generator(V logit, V weight) const {
    return detail::linear_term(logit, V(1), weight);
  }
};

struct non_saturating {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> discriminator(V logit, V label, V weight) const {
    auto const [value, grad] = detail::softplus(-label * logit);
    return {value, -label * weight * grad, grad != V(0)};
  }
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> generator(V logit, V weight) const {
    return discriminator(logit, V(1), weight);
  }
};

struct least_squares {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> discriminator(V logit, V label, V weight) const {
    V const distance = logit - V(0.5) * (V(1) + label);
    return {distance * distance, V(2) * weight * distance, distance != V(0)};
  }
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> generator(V logit, V weight) const {
    return discriminator(logit, V(1), weight);
  }
};

struct wasserstein {
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> discriminator(V logit, V label, V weight) const {
    return detail::linear_term(logit, label, weight);
  }
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE logit_term<V> generator(V logit, V weight) const {
    return detail::linear_term(logit, V(1), weight);
  }
};

/// If it has `check(function)`, that raises addloss::error on the host for settings out of range.
template <class L>
concept logit_loss = std::is_trivially_copyable_v<L> && requires(L const loss, double z) {
  { loss.discriminator(z, z, z) } -> std::same_as<logit_term<double>>;
  { loss.generator(z, z) } -> std::same_as<logit_term<double>>;
};

/// Gradients for the logits of each head: empty spans, or one entry a head. `accumulate` adds.
template <class T, class Space = host_space>
struct logit_gradients {
  std::span<rows<T, Space> const> real{};
  std::span<rows<T, Space> const> fake{};
  bool accumulate = false;
};

template <class T, class Space = host_space>
struct adversarial_options {
  /// As in evaluation_options.
  rows<T const, Space> upstream{};
  number grad_scale = 1;
  std::int64_t* non_finite = nullptr;
  /// One entry a head, written; or empty.
  std::span<head_statistics> statistics{};
};

namespace detail {

template <class A, class Loss, bool Generator>
struct logit_row {
  Loss loss;
  A label;
  A gradient_weight;

  /// Sums: the loss, the logits. Tallies: the positive logits, the active ones.
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE element_result<V, 2, 1, 2> operator()(V const (&x)[1]) const {
    V const logit = x[0];
    auto const term = [&] {
      if constexpr (Generator) {
        return loss.generator(logit, V(gradient_weight));
      } else {
        return loss.discriminator(logit, V(label), V(gradient_weight));
      }
    }();
    return {{term.value, logit}, {term.grad}, {logit > V(0), term.active}};
  }
};

template <class A, class T, class Loss, bool Generator, class Out>
struct adversarial_pass {
  using arithmetic = A;
  static constexpr unsigned operand_count = 1;
  static constexpr unsigned output_count = 1;
  static constexpr unsigned sum_count = 2;
  static constexpr unsigned tally_count = 2;
  static constexpr unsigned total_count = sum_count + tally_count + 1;
  static constexpr int sides = Generator ? 1 : 2;
  static constexpr unsigned max_parts = static_cast<unsigned>(sides * max_heads);

  struct side {
    stored<T> logits;
    T* gradient;  ///< may be null
    std::int64_t gradient_stride;
  };

  Loss loss;
  int heads;
  head_batch batch;
  std::int64_t tokens[max_heads];
  double factor[max_heads];  ///< the reductions over tokens and heads
  side part_side[max_parts];
  bool accumulate;
  gradient_scale<A> upstream;
  loss_writer<Out> writer;
  head_statistics* statistics;

  [[nodiscard]] ADDLOSS_HOST_DEVICE int parts() const { return sides * heads; }
  [[nodiscard]] ADDLOSS_HOST_DEVICE part_extent extent(int part) const {
    return batch.extent(tokens[part / sides]);
  }
  template <int>
  [[nodiscard]] ADDLOSS_HOST_DEVICE stored<T> operand(int part, std::int64_t /*row*/) const {
    return part_side[part].logits;
  }
  template <int>
  [[nodiscard]] ADDLOSS_HOST_DEVICE output_rows<T> output(int part) const {
    side const& of = part_side[part];
    return {of.gradient, of.gradient_stride,
            of.gradient == nullptr ? store_mode::none
            : accumulate           ? store_mode::add
                                   : store_mode::overwrite};
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int part, std::int64_t row) const {
    double const weight = writer.factor * row_weight(part, row) * batch.scale(upstream, row);
    // The real side of a discriminator is the even part of a head.
    return logit_row<A, Loss, Generator>{loss, A(part % sides == 0 ? 1 : -1),
                                         static_cast<A>(weight)};
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double row_weight(int part, std::int64_t /*row*/) const {
    return factor[part / sides];
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE bool writes_samples() const { return writer.writes_samples(); }
  ADDLOSS_HOST_DEVICE void write_sample(int part, std::int64_t row, double value) const {
    writer.write_sample(row, part == 0, value);
  }
  ADDLOSS_HOST_DEVICE void finish_part(int part, double const* totals) const {
    if (statistics == nullptr) return;
    int const head = part / sides;
    auto const size = static_cast<double>(batch.samples * tokens[head]);
    logit_statistics const result{totals[1] / size, totals[2] / size, totals[3] / size,
                                  static_cast<std::int64_t>(totals[total_count - 1])};
    if (Generator || part % sides == 1) {
      statistics[head].fake = result;
    } else {
      statistics[head].real = result;
    }
  }
  ADDLOSS_HOST_DEVICE void finish(double value, double bad) const { writer.write(value, bad); }
};

}  // namespace detail

/// An adversarial loss bound to the logits of K heads; made by `adversarial`.
template <bool Generator, logit_loss Loss, reduction Tokens, reduction Heads, class T, class Space>
struct bound_adversarial {
  using space = Space;
  using arithmetic = arithmetic_t<T>;
  using gradients = logit_gradients<T, Space>;
  using options = adversarial_options<arithmetic, Space>;
  template <class Out>
  using values = detail::loss_output<Out, Space>;
  using logits = std::span<rows<T const, Space> const>;

  Loss loss;
  logits real;  ///< empty for a generator loss
  logits fake;

  template <class Reduction, class Out>
  auto pass(char const* function, detail::loss_output<Out, Space> const& value,
            gradients const& grad, options const& settings) const {
    using pass_type = detail::adversarial_pass<arithmetic, T, Loss, Generator, Out>;
    pass_type result{};
    detail::check_settings(function, loss);
    result.heads = detail::check_heads(function, "fake", fake.size());
    detail::check_same_heads(function, "real", real.size(), Generator ? 0 : fake.size());
    // They would be left unwritten.
    if (Generator) detail::check_same_heads(function, "gradients.real", grad.real.size(), 0);
    if (!settings.statistics.empty()) {
      detail::check_same_heads(function, "statistics", settings.statistics.size(), fake.size());
    }
    result.loss = loss;
    result.accumulate = grad.accumulate;
    result.batch = detail::make_head_batch<Reduction>(fake[0].count, settings.upstream);
    for (int head = 0; head < result.heads; ++head) {
      auto const k = static_cast<std::size_t>(head);
      result.tokens[head] = fake[k].row_size;
      result.factor[head] = Tokens::factor(fake[k].row_size) * Heads::factor(result.heads);
      int const part = pass_type::sides * head;
      // First the fakes, whose shapes are the measure of the reals.
      add_part(function, "fake", "gradients.fake", head, fake, grad.fake, result,
               part + pass_type::sides - 1);
      if constexpr (!Generator) {
        add_part(function, "real", "gradients.real", head, real, grad.real, result, part);
      }
    }
    result.writer =
        detail::check_output<Reduction>(function, value, result.batch.samples, settings.non_finite);
    result.upstream = detail::check_upstream(function, settings.upstream, settings.grad_scale,
                                             value.weight, result.batch.samples);
    result.statistics = settings.statistics.data();
    return result;
  }

 private:
  /// Checks the logits and the gradient of one side of a head and adds them to the pass.
  template <class Pass>
  void add_part(char const* function, char const* logits_name, char const* gradient_name, int head,
                logits const& all, std::span<rows<T, Space> const> gradients_of_side, Pass& pass,
                int part) const {
    auto const k = static_cast<std::size_t>(head);
    detail::argument_name const name(logits_name, head);
    // Real and fake logits of a head share its tokens; all heads share the batch.
    rows<T const, Space> const& logits_rows = all[k];
    detail::check_batch(function, name, logits_rows, pass.batch.samples);
    if (logits_rows.row_size != pass.tokens[head]) {
      detail::fail(function, name,
                   detail::text() << pass.tokens[head] << " logits a sample, as many as fake",
                   detail::shape_text(logits_rows.shape));
    }
    pass.part_side[part].logits = detail::stored_rows(logits_rows);
    pass.batch.add(logits_rows);
    if (!gradients_of_side.empty()) {
      detail::check_same_heads(function, gradient_name, gradients_of_side.size(), all.size());
      auto const output =
          detail::check_gradient(function, detail::argument_name(gradient_name, head),
                                 gradients_of_side[k], name, logits_rows, pass.accumulate);
      pass.part_side[part].gradient = output.data;
      pass.part_side[part].gradient_stride = output.row_stride;
      pass.batch.add(gradients_of_side[k]);
    }
  }
};

/// An adversarial loss as a value.
///
///   rows<float const> real[] = {view(r0, B, L0), ...}, fake[] = {...};
///   adversarial<hinge> loss;
///   value_and_grad(ctx, loss.discriminator<float>(real, fake), loss_d,
///                  {.real = ..., .fake = ...});
///   value_and_grad(ctx, loss.generator<float>(fake), loss_g, {.fake = ...});
/// The spans are read when the loss is evaluated, so the arrays must live until then.
template <logit_loss Loss = hinge, reduction Tokens = mean, reduction Heads = sum>
struct adversarial {
  Loss loss{};

  template <storage_scalar T, class Space = host_space>
  auto discriminator(head_rows<T, Space> real, head_rows<T, Space> fake) const {
    return bound_adversarial<false, Loss, Tokens, Heads, T, Space>{loss, real, fake};
  }

  template <storage_scalar T, class Space = host_space>
  auto generator(head_rows<T, Space> fake) const {
    return bound_adversarial<true, Loss, Tokens, Heads, T, Space>{loss, {}, fake};
  }
};

}  // namespace addloss
