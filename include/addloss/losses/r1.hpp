// SPDX-License-Identifier: MIT
/// R1 and R2 gradient penalties on the input features of K discriminator heads.
///
///   P = gamma factor interval sum_k mean_b sum_i g_{k,b,i}^2,  g_k = d (sum_l D_k) / d F_k
/// g_k: the gradient of head k's logits, summed over its tokens, with respect to its features,
/// shape [B, ...], from the user's own differentiation; R1 takes it at real samples, R2 at fakes.
/// The gradient of P with respect to g_k is its cotangent 2 gamma factor interval g_k / B: feed it
/// to a second reverse pass through the computation of g_k to get the parameters' gradients.
/// (The penalty concerns the gradient with respect to features, never to parameters.)
/// Deterministic, one read of g, one write of the cotangent, no allocation.
/// Errors: shapes, an empty batch, more than `max_heads` heads, gamma < 0, factor < 0,
/// interval < 1.
/// Source: Mescheder, Geiger, Nowozin, Which Training Methods for GANs do actually Converge?, 2018,
/// eq. 9 (gamma / 2 there: factor = 0.5); on the heads' input: ADD, Sauer et al. 2023, section 3.2;
/// lazy interval: Karras et al., StyleGAN2, 2020, section 3.1.
#pragma once

#include <cstdint>
#include <span>

#include <addloss/core/number.hpp>
#include <addloss/losses/adversarial.hpp>

namespace addloss {

template <class T, class Space = host_space>
struct cotangents {
  std::span<rows<T, Space> const> features{};  ///< one a head
  bool accumulate = false;
};

template <class T, class Space = host_space>
struct r1_options {
  rows<T const, Space> upstream{};  ///< as in evaluation_options
  number grad_scale = 1;  ///< as in evaluation_options
  std::int64_t* non_finite = nullptr;  ///< as in evaluation_options
  std::span<double> penalties{};  ///< r1_k = mean_b sum g^2 of each head, written; or empty
};

namespace detail {

constexpr void check_interval(char const* function, int interval) {
  if (interval < 1) fail(function, "interval", text() << "at least 1", text() << interval);
}

template <class Space = host_space>
void check_penalty(char const* function, number const& gamma, double factor, int interval) {
  check_weight<Space>(function, "gamma", gamma);
  if (!(factor >= 0)) fail(function, "factor", text() << "a number >= 0", text() << factor);
  check_interval(function, interval);
}

template <class A>
struct square_row {
  A gradient_weight;
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE element_result<V, 1, 1> operator()(V const (&x)[1]) const {
    return {{x[0] * x[0]}, {V(gradient_weight) * x[0]}, {}};
  }
};

template <class A, class T, class Out>
struct r1_pass {
  using arithmetic = A;
  static constexpr unsigned operand_count = 1;
  static constexpr unsigned output_count = 1;
  static constexpr unsigned sum_count = 1;
  static constexpr unsigned tally_count = 0;
  static constexpr unsigned total_count = sum_count + tally_count + 1;
  static constexpr unsigned max_parts = max_heads;

  int heads;
  head_batch batch;
  number gamma = 1;
  double factor;  ///< also of the interval
  std::int64_t sizes[max_heads];
  stored<T> gradient[max_heads];
  output_rows<T> cotangent[max_heads];
  gradient_scale<A> upstream;
  loss_writer<Out> writer;
  double* penalties;

  [[nodiscard]] ADDLOSS_HOST_DEVICE double weight() const { return gamma.get() * factor; }
  [[nodiscard]] ADDLOSS_HOST_DEVICE int parts() const { return heads; }
  [[nodiscard]] ADDLOSS_HOST_DEVICE part_extent extent(int part) const {
    return batch.extent(sizes[part]);
  }
  template <int>
  [[nodiscard]] ADDLOSS_HOST_DEVICE stored<T> operand(int part, std::int64_t /*row*/) const {
    return gradient[part];
  }
  template <int>
  [[nodiscard]] ADDLOSS_HOST_DEVICE output_rows<T> const& output(int part) const {
    return cotangent[part];
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int /*part*/, std::int64_t row) const {
    double const scale = weight() * writer.factor * batch.scale(upstream, row);
    return square_row<A>{static_cast<A>(2 * scale)};
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double row_weight(int /*part*/, std::int64_t /*row*/) const {
    return weight();
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE bool writes_samples() const { return writer.writes_samples(); }
  ADDLOSS_HOST_DEVICE void write_sample(int part, std::int64_t row, double value) const {
    writer.write_sample(row, part == 0, value);
  }
  ADDLOSS_HOST_DEVICE void finish_part(int part, double const* totals) const {
    if (penalties != nullptr) penalties[part] = totals[0] / static_cast<double>(batch.samples);
  }
  ADDLOSS_HOST_DEVICE void finish(double value, double bad) const { writer.write(value, bad); }
};

}  // namespace detail

/// A gradient penalty bound to the feature gradients of K heads; made by `r1`.
template <class T, class Space>
struct bound_r1 {
  using space = Space;
  using arithmetic = arithmetic_t<T>;
  using gradients = cotangents<T, Space>;
  using options = r1_options<arithmetic, Space>;
  template <class Out>
  using values = detail::loss_output<Out, Space>;

  number gamma;
  double factor;
  int interval;
  std::span<rows<T const, Space> const> features;

  template <class Reduction, class Out>
  auto pass(char const* function, detail::loss_output<Out, Space> const& value,
            gradients const& cotangent, options const& settings) const {
    detail::check_penalty<Space>(function, gamma, factor, interval);
    int const heads = detail::check_heads(function, "features", features.size());
    if (!settings.penalties.empty()) {
      detail::check_same_heads(function, "penalties", settings.penalties.size(), features.size());
    }
    if (!cotangent.features.empty()) {
      detail::check_same_heads(function, "cotangents", cotangent.features.size(), features.size());
    }
    detail::r1_pass<arithmetic, T, Out> result{};
    result.heads = heads;
    result.batch = detail::make_head_batch<Reduction>(features[0].count, settings.upstream);
    result.gamma = gamma;
    result.factor = factor * interval;
    for (int head = 0; head < result.heads; ++head) {
      auto const k = static_cast<std::size_t>(head);
      detail::argument_name const name("features", head);
      detail::check_batch(function, name, features[k], result.batch.samples);
      result.sizes[head] = features[k].row_size;
      result.gradient[head] = detail::stored_rows(features[k]);
      result.batch.add(features[k]);
      if (!cotangent.features.empty()) {
        result.cotangent[head] =
            detail::check_gradient(function, detail::argument_name("cotangents", head),
                                   cotangent.features[k], name, features[k], cotangent.accumulate);
        result.batch.add(cotangent.features[k]);
      }
    }
    result.writer =
        detail::check_output<Reduction>(function, value, result.batch.samples, settings.non_finite);
    result.upstream = detail::check_upstream(function, settings.upstream, settings.grad_scale,
                                             value.weight, result.batch.samples);
    result.penalties = settings.penalties.data();
    return result;
  }
};

/// The penalty as a value. `r1{.gamma = 1e-5}`; for R2 bind the fakes' gradients.
///
/// Lazy regularisation: evaluate every `interval`-th step only (`due(step)`); the penalty is then
/// multiplied by the interval.
struct r1 {
  number gamma = 1e-5;  ///< weight, >= 0
  double factor = 1;  ///< 1 (ADD), or 0.5 (Mescheder et al.)
  int interval = 1;  ///< steps between penalties, >= 1

  [[nodiscard]] constexpr bool due(std::int64_t step) const {
    detail::check_interval("r1::due", interval);
    return step % interval == 0;
  }

  /// Binds the feature gradients of K heads: `r1{}.on<float>(gradients)`.
  template <storage_scalar T, class Space = host_space>
  auto on(head_rows<T, Space> features) const {
    return bound_r1<T, Space>{gamma, factor, interval, features};
  }
};

}  // namespace addloss
