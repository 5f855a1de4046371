// SPDX-License-Identifier: MIT
/// The discriminator of ADD: K heads over K feature maps, and the steps that train it.
///
///   logits              D_k(F_k | c) for each head
///   generator_step      L_G and its gradient with respect to the fakes' features
///   discriminator_step  L_D + P, P = gamma sum_k mean_b |d(sum_l D_k)/dF_k|^2 at the reals, and
///                       its exact gradient with respect to all parameters, with no double backward
///                       (heads/layer.hpp)
/// Features of head k: [B, C_k, L_k], C_k and L_k may differ; logits [B, L_k]. All heads read the
/// same conditions, [B, size] each. A head is any `layer` that gives one channel; all heads are of
/// one type, `projected_head` for instance. `mean` over heads concerns L_D and L_G; P is a sum.
/// Parameters of all heads lie in one contiguous buffer of the caller, gradients in another of that
/// size: any optimiser can step them. `parameter(i)` names the parts: "0.first.conv.weight". With
/// spectral normalisation there is a third buffer, `state`; `update_state` (one power iteration)
/// belongs before the discriminator's step, and all passes of a step then share one state.
/// Gradients are overwritten, those of parameters added to on request. Those of conditions are
/// added to, where `condition::gradient` is set: all heads, and both sides of a step, add to them.
/// `real_penalties` and `fake_penalties` are left as they are where there is no such penalty.
/// Heads are worked on one after the other: `workspace` is that of the largest. Its sizes are
/// functions of the shapes alone, and nothing is allocated in a call.
/// Same bits for any number of threads. The steps need cpu/executor.hpp, which addloss.hpp has.
/// Another back end (on a GPU: cuda_heads.cuh) runs the same stack: features, parameters, state,
/// gradients, conditions, workspace, statistics and penalties then lie in its memory, and so does
/// the result, whose address is the last argument of a step. Workspaces are asked for its context,
/// `discriminator_workspace<Context>(...)`. What lies there is not looked at: parameters or state
/// that are not finite spoil logits and gradients, and are counted with those.
/// Errors, raised before anything is written: shapes, numbers of heads and conditions, sizes of
/// buffers; parameters or state that are not finite. NaN in features goes on to losses and
/// gradients and is counted.
/// Source: Sauer, Lorenz, Blattmann, Rombach, Adversarial Diffusion Distillation, 2023, section 3.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/heads/head_executor.hpp>
#include <addloss/heads/initialise.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/projected_head.hpp>
#include <addloss/heads/projection.hpp>
#include <addloss/heads/spectral_weights.hpp>
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/heads.hpp>
#include <addloss/losses/r1.hpp>
#include <addloss/reduce/destination.hpp>
#include <addloss/reduce/policies.hpp>

namespace addloss {

enum class weight_normalisation { spectral, none };

/// What the logits of a token map are made of before the penalty differentiates them.
enum class penalised_logits { sum, mean };

/// Features of each head, and what all heads are conditioned on.
template <arithmetic_scalar T, class Space = host_space>
struct head_inputs {
  head_rows<T, Space> features{};  ///< [B, C_k, L_k], contiguous
  std::span<condition<T> const> conditions{};
};

/// Gradients of the parameters of all heads.
template <arithmetic_scalar T>
struct parameter_gradients {
  std::span<T> values{};
  bool accumulate = false;
};

struct generator_options {
  double grad_scale = 1;  ///< of gradients, not of the loss
  std::span<head_statistics> statistics{};  ///< one a head, or empty
};

struct generator_result {
  double loss = 0;
  std::int64_t non_finite = 0;  ///< logits
};

struct discriminator_options {
  std::optional<r1> real_penalty = r1{};  ///< R1; none where a lazy penalty is not due
  std::optional<r1> fake_penalty{};  ///< R2
  penalised_logits penalised = penalised_logits::sum;
  double grad_scale = 1;  ///< of gradients, not of the losses
  std::span<head_statistics> statistics{};  ///< one a head, or empty
  std::span<double> real_penalties{};  ///< mean_b |gradient|^2 of each head, or empty
  std::span<double> fake_penalties{};
};

struct discriminator_result {
  double total = 0;
  double adversarial = 0;
  double penalty = 0;
  std::int64_t non_finite = 0;  ///< logits and, of penalties, feature gradients
};

namespace detail {

struct total_of_step {
  discriminator_result* result;
  ADDLOSS_HOST_DEVICE void operator()(std::int64_t /*i*/) const {
    result->total = result->adversarial + result->penalty;
  }
};

}  // namespace detail

inline namespace ADDLOSS_ISA_NAMESPACE {

template <arithmetic_scalar T, layer<T> Head>
class head_stack {
 public:
  using value_type = T;
  using head_type = Head;
  template <class Context>
  using inputs = std::type_identity_t<head_inputs<T, typename Context::space>>;

  explicit head_stack(std::vector<Head> heads,
                      weight_normalisation normalisation = weight_normalisation::spectral)
      : normalisation_(normalisation) {
    detail::check_heads("head_stack", "heads", heads.size());
    for (Head& head : heads) heads_.push_back(spectral_weights<Head>{std::move(head)});
    for (std::size_t k = 0; k < heads_.size(); ++k) {
      Head const& head = heads_[k].layer;
      int const weights = heads_[k].weights();
      if (weights > spectral_weights<Head>::max_weights) {
        detail::fail("head_stack", {"heads", static_cast<std::int64_t>(k)},
                     detail::text()
                         << "at most " << spectral_weights<Head>::max_weights << " convolutions",
                     detail::text() << weights);
      }
      for (int i = 0; i < head.parameters(); ++i) {
        names_.push_back(std::to_string(k) + "." + head.parameter(i).name);
      }
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(heads_.size()); }
  [[nodiscard]] Head const& operator[](int k) const { return at(k).layer; }
  [[nodiscard]] weight_normalisation normalisation() const { return normalisation_; }
  /// Parameters and state of head k.
  [[nodiscard]] spectral_weights<Head> const& spectral(int k) const { return at(k); }

  [[nodiscard]] std::int64_t parameter_count() const { return parameter_offset(size()); }
  [[nodiscard]] int parameters() const { return static_cast<int>(names_.size()); }
  /// The name is valid as long as this stack.
  [[nodiscard]] parameter_view parameter(int i) const {
    int first = 0;
    for (int k = 0; i >= 0 && k < size(); ++k) {
      Head const& head = (*this)[k];
      if (i < first + head.parameters()) {
        parameter_view view = head.parameter(i - first);
        view.offset += parameter_offset(k);
        view.name = names_[static_cast<std::size_t>(i)].c_str();
        return view;
      }
      first += head.parameters();
    }
    detail::fail("head_stack::parameter", "i", detail::text() << "0 to " << parameters() - 1,
                 detail::text() << i);
  }
  /// Numbers before those of head k.
  [[nodiscard]] std::int64_t parameter_offset(int k) const {
    std::int64_t offset = 0;
    for (int i = 0; i < k; ++i) offset += (*this)[i].parameter_count();
    return offset;
  }
  [[nodiscard]] std::int64_t state_count() const { return state_offset(size()); }
  [[nodiscard]] std::int64_t state_offset(int k) const {
    std::int64_t offset = 0;
    for (int i = 0; spectral_norm() && i < k; ++i) offset += at(i).state_size();
    return offset;
  }

  /// First values, as a function of the seed: see parameter_view::initial. States are unit vectors.
  void initialise(std::uint64_t seed, std::span<T> parameters, std::span<T> state) const {
    check_size("head_stack::initialise", "parameters", parameters.size(), parameter_count());
    check_size("head_stack::initialise", "state", state.size(), state_count());
    for (int i = 0; i < this->parameters(); ++i) {
      parameter_view const part = parameter(i);
      std::visit(
          [&](auto const& rule) {
            addloss::initialise(rule, {seed, static_cast<std::uint32_t>(i)},
                                slice(parameters, part.offset, part.size()));
          },
          part.initial);
    }
    auto index = static_cast<std::uint32_t>(this->parameters());
    each_state([&](int k, spectral_state_view const& view) {
      std::int64_t const offset = state_offset(k);
      addloss::initialise(unit_vector{}, {seed, index++}, slice(state, offset + view.u, view.rows));
      addloss::initialise(unit_vector{}, {seed, index++},
                          slice(state, offset + view.v, view.columns));
    });
  }

  /// body(k, view) for the state of each normalised weight; offsets are within head k.
  template <class Body>
  void each_state(Body const& body) const {
    for (int k = 0; spectral_norm() && k < size(); ++k) {
      for (int i = 0; i < at(k).weights(); ++i) body(k, at(k).weight(i));
    }
  }

  /// One update of the spectral state by power iteration.
  template <head_context Context>
  void update_state(Context const& ctx, std::span<T const> parameters, std::span<T> state) const {
    char const* const function = "head_stack::update_state";
    head_executor<Context>::template check<T>(ctx);
    check_parameters<Context>(function, parameters, state);
    for (int k = 0; spectral_norm() && k < size(); ++k) {
      at(k).update(ctx, parameters.data() + parameter_offset(k), state.data() + state_offset(k));
    }
  }

  /// Shape of the logits of head k for features [batch, channels, length].
  [[nodiscard]] feature_shape output_shape(int k, feature_shape shape) const {
    return (*this)[k].output_shape("head_stack", shape);
  }

  // Numbers in the workspace of a call, from the shape of each head's features.
  template <head_context Context = cpu_context>
  [[nodiscard]] std::int64_t logits_workspace(std::span<feature_shape const> shapes) const {
    return forward_workspace<Context>(shapes, for_logits);
  }
  template <head_context Context = cpu_context>
  [[nodiscard]] std::int64_t generator_workspace(std::span<feature_shape const> shapes) const {
    return forward_workspace<Context>(shapes, for_generator);
  }
  /// `accumulate`: as in parameter_gradients.
  template <head_context Context = cpu_context>
  [[nodiscard]] std::int64_t discriminator_workspace(std::span<feature_shape const> shapes,
                                                     discriminator_options const& options = {},
                                                     bool accumulate = false) const {
    return largest<Context>(shapes, [&](int k, feature_shape shape) {
      return discriminator_plan<Context>(k, shape, options, accumulate).size;
    });
  }

  /// logits[k] [B, L_k] are written.
  template <head_context Context>
  void logits(Context const& ctx, std::span<T const> parameters, std::span<T const> state,
              inputs<Context> const& in, std::span<rows<T, typename Context::space> const> logits,
              std::span<T> workspace) const {
    char const* const function = "head_stack::logits";
    sigma_table sigmas;
    check_call(function, ctx, parameters, state, sigmas);
    check_inputs(function, "features", in);
    detail::check_same_heads(function, "logits", logits.size(), heads_.size());
    for (int k = 0; k < size(); ++k) check_logits(function, k, logits[slot(k)], shape_of(in, k));
    check_workspace(function, workspace,
                    forward_workspace<Context>(shapes_of(in).all(size()), for_logits));
    T* const memory = begin(function, ctx, parameters, state, workspace, sigmas);
    for (int k = 0; k < size(); ++k) {
      head_memory const m = forward_plan<Context>(k, shape_of(in, k), for_logits).at(memory);
      layer_pass<T> pass = pass_of(ctx, k, in, weights(ctx, k, parameters, sigmas, m), m);
      pass.y = logits[slot(k)].data;
      head_on<Context>::forward((*this)[k], ctx, pass);
    }
  }

  /// L_G = reduce_k mean_b reduce_l G(D_k(F_k)) and, in `gradients`, dL_G/dF_k, written; the loss
  /// goes to `result`, in memory of the context.
  template <head_context Context, logit_loss Loss, reduction Tokens, reduction Heads>
  void generator_step(Context const& ctx, adversarial<Loss, Tokens, Heads> const& loss,
                      std::span<T const> parameters, std::span<T const> state,
                      inputs<Context> const& fake,
                      std::span<rows<T, typename Context::space> const> gradients,
                      std::span<T> workspace, generator_options const& options,
                      generator_result* result) const {
    using space = typename Context::space;
    using executor = head_executor<Context>;
    char const* const function = "head_stack::generator_step";
    sigma_table sigmas;
    check_call(function, ctx, parameters, state, sigmas);
    check_inputs(function, "features", fake);
    check_statistics(function, options.statistics);
    detail::check_same_heads(function, "gradients", gradients.size(), heads_.size());
    for (int k = 0; k < size(); ++k) {
      detail::check_same_rows(function, {"gradients", k}, gradients[slot(k)], {"features", k},
                              fake.features[slot(k)]);
      check_contiguous(function, {"gradients", k}, gradients[slot(k)]);
    }
    check_workspace(function, workspace,
                    forward_workspace<Context>(shapes_of(fake).all(size()), for_generator));
    check_losses(function, ctx, fake, result);
    T* const memory = begin(function, ctx, parameters, state, workspace, sigmas);
    set(ctx, result, {});
    double const factor = Heads::factor(size());
    for (int k = 0; k < size(); ++k) {
      head_memory const m = forward_plan<Context>(k, shape_of(fake, k), for_generator).at(memory);
      layer_pass<T> pass = pass_of(ctx, k, fake, weights(ctx, k, parameters, sigmas, m), m);
      pass.y = m.logits;
      head_on<Context>::forward((*this)[k], ctx, pass);
      T* const logits_bar = m.logits + logits_size(k, pass.shape);
      rows<T const, space> const logits[] = {
          logits_view<space>(k, pass.shape, std::as_const(m.logits))};
      rows<T, space> const gradient[] = {logits_view<space>(k, pass.shape, logits_bar)};
      add_loss(ctx, adversarial<Loss, Tokens>{loss.loss}.template generator<T, space>(logits),
               factor, &result->loss, {.fake = gradient},
               {.grad_scale = options.grad_scale,
                .non_finite = &result->non_finite,
                .statistics = one(options.statistics, k)});
      pass.y_bar = logits_bar;
      T* const x_bar = gradients[slot(k)].data;
      T* const own_x_bar = m.features + feature_numbers<Context>(pass.shape);
      pass.x_bar = executor::gradient_memory(x_bar, own_x_bar);
      head_on<Context>::backward((*this)[k], ctx, pass);
      executor::write_features(ctx, pass.shape, std::as_const(own_x_bar), x_bar);
    }
  }
  /// The same on the CPU.
  template <logit_loss Loss, reduction Tokens, reduction Heads>
  generator_result generator_step(cpu_context const& ctx,
                                  adversarial<Loss, Tokens, Heads> const& loss,
                                  std::span<T const> parameters, std::span<T const> state,
                                  head_inputs<T> const& fake, std::span<rows<T> const> gradients,
                                  std::span<T> workspace,
                                  generator_options const& options = {}) const {
    generator_result result;
    generator_step(ctx, loss, parameters, state, fake, gradients, workspace, options, &result);
    return result;
  }

  /// L_D + P and its gradients with respect to all parameters; the losses go to `result`, in memory
  /// of the context.
  template <head_context Context, logit_loss Loss, reduction Tokens, reduction Heads>
  void discriminator_step(Context const& ctx, adversarial<Loss, Tokens, Heads> const& loss,
                          std::span<T const> parameters, std::span<T const> state,
                          inputs<Context> const& real, inputs<Context> const& fake,
                          parameter_gradients<T> const& gradients, std::span<T> workspace,
                          discriminator_options const& options,
                          discriminator_result* result) const {
    using space = typename Context::space;
    char const* const function = "head_stack::discriminator_step";
    sigma_table sigmas;
    check_call(function, ctx, parameters, state, sigmas);
    check_inputs(function, "real.features", real);
    check_inputs(function, "fake.features", fake);
    for (int k = 0; k < size(); ++k) {
      detail::check_same_rows(function, {"fake.features", k}, fake.features[slot(k)],
                              {"real.features", k}, real.features[slot(k)]);
    }
    check_size(function, "gradients", gradients.values.size(), parameter_count());
    check_statistics(function, options.statistics);
    check_penalty<space>(function, options.real_penalty, "real_penalties", options.real_penalties);
    check_penalty<space>(function, options.fake_penalty, "fake_penalties", options.fake_penalties);
    check_workspace(function, workspace,
                    discriminator_workspace<Context>(shapes_of(real).all(size()), options,
                                                     gradients.accumulate));
    check_losses(function, ctx, real, result);

    T* const memory = begin(function, ctx, parameters, state, workspace, sigmas);
    set(ctx, result, {});
    double const factor = Heads::factor(size());
    for (int k = 0; k < size(); ++k) {
      Head const& head = (*this)[k];
      feature_shape const shape = shape_of(real, k);
      discriminator_memory const m =
          discriminator_plan<Context>(k, shape, options, gradients.accumulate).at(memory);
      T const* const w = weights(ctx, k, parameters, sigmas, m.common);
      std::int64_t const count = logits_size(k, shape);
      T* const w_bar = gradients.values.data() + parameter_offset(k);
      T* const gradient = gradients.accumulate ? m.gradient : w_bar;
      fill(ctx, gradient, head.parameter_count(), T(0));
      // A head may leave its y_bar changed.
      auto const penalised = [&] {
        fill(ctx, m.ones, count,
             options.penalised == penalised_logits::sum
                 ? T(1)
                 : T(1) / static_cast<T>(output_shape(k, shape).length));
        return m.ones;
      };

      layer_pass<T> real_pass = pass_of(ctx, k, real, w, m.common);
      real_pass.y = m.common.logits;
      head_on<Context>::forward(head, ctx, real_pass);
      head_memory fake_memory = m.common;
      fake_memory.features += feature_numbers<Context>(shape);
      fake_memory.saved = m.fake_saved;
      layer_pass<T> fake_pass = pass_of(ctx, k, fake, w, fake_memory);
      fake_pass.y = m.common.logits + count;
      head_on<Context>::forward(head, ctx, fake_pass);

      T* const real_bar = m.common.logits + 2 * count;
      T* const fake_bar = real_bar + count;
      rows<T const, space> const real_logits[] = {
          logits_view<space>(k, shape, std::as_const(real_pass.y))};
      rows<T const, space> const fake_logits[] = {
          logits_view<space>(k, shape, std::as_const(fake_pass.y))};
      rows<T, space> const real_gradient[] = {logits_view<space>(k, shape, real_bar)};
      rows<T, space> const fake_gradient[] = {logits_view<space>(k, shape, fake_bar)};
      add_loss(ctx,
               adversarial<Loss, Tokens>{loss.loss}.template discriminator<T, space>(real_logits,
                                                                                     fake_logits),
               factor, &result->adversarial, {.real = real_gradient, .fake = fake_gradient},
               {.grad_scale = options.grad_scale,
                .non_finite = &result->non_finite,
                .statistics = one(options.statistics, k)});

      // The fakes first: what the reals' passes keep then takes the place of the fakes' `saved`.
      fake_pass.y_bar = fake_bar;
      fake_pass.w_bar = gradient;
      add_gradient(ctx, head, fake_pass, options.fake_penalty, one(options.fake_penalties, k),
                   options.grad_scale, penalised(), m.fake_second, result);
      real_pass.y_bar = real_bar;
      real_pass.w_bar = gradient;
      add_gradient(ctx, head, real_pass, options.real_penalty, one(options.real_penalties, k),
                   options.grad_scale, penalised(), m.real_second, result);

      if (spectral_norm()) {
        at(k).normalise_backward(ctx, parameters.data() + parameter_offset(k),
                                 state.data() + state_offset(k), sigmas.of(k), gradient,
                                 sigmas.scratch);
      }
      if (gradients.accumulate) {
        head_executor<Context>::each_element(ctx, head.parameter_count(),
                                             detail::add_elements<T>{gradient, w_bar});
      }
    }
    head_executor<Context>::each_element(ctx, 1, detail::total_of_step{result});
  }
  /// The same on the CPU.
  template <logit_loss Loss, reduction Tokens, reduction Heads>
  discriminator_result discriminator_step(cpu_context const& ctx,
                                          adversarial<Loss, Tokens, Heads> const& loss,
                                          std::span<T const> parameters, std::span<T const> state,
                                          head_inputs<T> const& real, head_inputs<T> const& fake,
                                          parameter_gradients<T> const& gradients,
                                          std::span<T> workspace,
                                          discriminator_options const& options = {}) const {
    discriminator_result result;
    discriminator_step(ctx, loss, parameters, state, real, fake, gradients, workspace, options,
                       &result);
    return result;
  }

 private:
  template <class Context>
  using head_on = layer_on<Context, Head>;

  /// sigma of each normalised weight of each head: here on the CPU, else in the workspace.
  struct sigma_table {
    double values[max_heads][spectral_weights<Head>::max_weights];
    double* first[max_heads] = {};
    double* scratch = nullptr;
    [[nodiscard]] double* of(int k) const { return first[k]; }
  };

  /// Memory of one head in every call.
  struct head_memory {
    T* w_hat;
    T* logits;
    T* saved;
    T* features;
    T* workspace;
  };
  struct plan {
    std::int64_t w_hat;
    std::int64_t logits;
    std::int64_t saved;
    std::int64_t features;
    std::int64_t workspace;
    std::int64_t size;
    head_memory at(T* base) const {
      return {base + w_hat, base + logits, base + saved, base + features, base + workspace};
    }
  };
  /// What a gradient penalty keeps: v, then saved_bar and saved_dot.
  struct second_order {
    T* x_bar;
    T* saved_bar;
    T* saved_dot;
  };
  struct discriminator_memory {
    head_memory common;  ///< logits: of reals, fakes, and their gradients; saved: of the reals
    T* gradient;
    T* ones;
    T* fake_saved;
    second_order fake_second;
    second_order real_second;  ///< where the fakes' memory was
  };
  struct discriminator_layout {
    plan common;
    std::int64_t gradient;
    std::int64_t ones;
    std::int64_t fake_saved;
    std::int64_t fake_second;
    std::int64_t real_second;
    std::int64_t x_size;
    std::int64_t saved_bar_size;
    std::int64_t size;
    discriminator_memory at(T* base) const {
      auto const second = [&](std::int64_t offset) {
        T* const x_bar = base + offset;
        return second_order{x_bar, x_bar + x_size, x_bar + x_size + saved_bar_size};
      };
      return {common.at(base),   base + gradient,     base + ones,
              base + fake_saved, second(fake_second), second(real_second)};
    }
  };

  /// What a call keeps of a head: maps of logits, and features in the layers' own order.
  struct kept {
    int maps;
    int features;
  };
  static constexpr kept for_logits{0, 1};
  static constexpr kept for_generator{2, 2};
  static constexpr kept for_discriminator{4, 2};

  template <class Context>
  static std::int64_t feature_numbers(feature_shape shape) {
    return detail::aligned(head_executor<Context>::feature_numbers(shape));
  }
  template <class Context>
  [[nodiscard]] plan forward_plan(int k, feature_shape shape, kept what) const {
    layer_sizes const sizes = head_on<Context>::sizes((*this)[k], shape);
    plan p{};
    p.logits = p.w_hat + (spectral_norm() ? detail::aligned((*this)[k].parameter_count()) : 0);
    p.saved = p.logits + detail::aligned(what.maps * logits_size(k, shape));
    p.features = p.saved + detail::aligned(sizes.saved);
    p.workspace = p.features + what.features * feature_numbers<Context>(shape);
    p.size = p.workspace + detail::aligned(sizes.workspace);
    return p;
  }
  template <class Context>
  [[nodiscard]] std::int64_t forward_workspace(std::span<feature_shape const> shapes,
                                               kept what) const {
    return largest<Context>(shapes, [&](int k, feature_shape shape) {
      return forward_plan<Context>(k, shape, what).size;
    });
  }
  template <class Context>
  [[nodiscard]] discriminator_layout discriminator_plan(int k, feature_shape shape,
                                                        discriminator_options const& options,
                                                        bool accumulate) const {
    layer_sizes const sizes = head_on<Context>::sizes((*this)[k], shape);
    std::int64_t const second =
        detail::aligned(shape.size()) + detail::aligned(sizes.saved_bar) + sizes.saved_dot;
    discriminator_layout d{};
    d.common = forward_plan<Context>(k, shape, for_discriminator);
    d.gradient = d.common.size;
    d.ones = d.gradient + (accumulate ? detail::aligned((*this)[k].parameter_count()) : 0);
    d.fake_saved = d.ones + detail::aligned(logits_size(k, shape));
    d.fake_second = d.fake_saved + detail::aligned(sizes.saved);
    d.real_second = d.fake_saved;
    std::int64_t const fake_end = d.fake_second + (options.fake_penalty ? second : 0);
    std::int64_t const real_end = d.real_second + (options.real_penalty ? second : 0);
    d.x_size = detail::aligned(shape.size());
    d.saved_bar_size = detail::aligned(sizes.saved_bar);
    d.size = fake_end > real_end ? fake_end : real_end;
    return d;
  }

  /// Adds the gradient of one side: of the adversarial loss, with that of its penalty if there is
  /// one.
  template <class Context>
  static void add_gradient(Context const& ctx, Head const& head, layer_pass<T> pass,
                           std::optional<r1> const& penalty, std::span<double> penalties,
                           double grad_scale, T* ones, second_order const& m,
                           discriminator_result* result) {
    using space = typename Context::space;
    if (!penalty) {
      head_on<Context>::backward(head, ctx, pass);
      return;
    }
    condition<T> constant[detail::max_conditions];
    std::size_t const conditions = pass.conditions.size();
    for (std::size_t i = 0; i < conditions; ++i) {
      constant[i] = pass.conditions[i];
      constant[i].gradient = nullptr;
    }
    layer_pass<T> first = pass;
    first.y_bar = ones;
    first.x_bar = m.x_bar;
    first.w_bar = nullptr;
    first.saved_bar = m.saved_bar;
    first.saved_dot = m.saved_dot;
    first.conditions = {constant, conditions};
    head_on<Context>::backward(head, ctx, first);

    feature_shape const shape = pass.shape;
    // A sample is one row, whatever the order of its elements.
    rows<T const, space> const gradient[] = {
        view<space>(std::as_const(first.x_bar), shape.batch, shape.channels, shape.length)};
    rows<T, space> const direction[] = {
        view<space>(first.x_bar, shape.batch, shape.channels, shape.length)};
    add_loss(ctx, penalty->template on<T, space>(gradient), 1, &result->penalty,
             {.features = direction},
             {.grad_scale = grad_scale, .non_finite = &result->non_finite, .penalties = penalties});

    pass.x_dot = m.x_bar;
    pass.y_dot_bar = ones;
    pass.saved_bar = m.saved_bar;
    pass.saved_dot = m.saved_dot;
    head_on<Context>::tangent(head, ctx, pass);
    head_on<Context>::tangent_backward(head, ctx, pass);
  }

  /// Adds `weight` times a loss to `total`, and its count to options.non_finite. Gradients are
  /// times `weight`, too.
  template <class Context, class Loss>
  // NOLINTNEXTLINE(readability-non-const-parameter): written through the view
  static void add_loss(Context const& ctx, Loss const& loss, double weight, double* total,
                       typename Loss::gradients const& gradients,
                       typename Loss::options const& options) {
    using space = typename Context::space;
    detail::loss_output<double, space> out;
    out.total = tensor_view<double, 0, space>{total};
    out.weight = weight;
    out.adds = true;
    detail::evaluate<mean>("value_and_grad", head_executor<Context>::losses(ctx), loss, out,
                           gradients, options);
  }

  /// After all checks: where the heads' memory begins in a workspace. Not on the CPU, sigmas lie
  /// before it, and are computed.
  template <class Context>
  T* begin(char const* function, Context const& ctx, std::span<T const> parameters,
           std::span<T const> state, std::span<T> workspace, sigma_table& sigmas) const {
    T* const memory = cache_line(workspace);
    if constexpr (on_host<Context>) {
      return memory;
    } else {
      auto* next = reinterpret_cast<double*>(memory);
      for (int k = 0; spectral_norm() && k < size(); ++k) {
        sigmas.first[k] = next;
        next += at(k).template sigma_numbers<Context>();
        at(k).sigmas({function, k}, ctx, parameters.data() + parameter_offset(k),
                     state.data() + state_offset(k), sigmas.first[k]);
      }
      sigmas.scratch = next;
      return memory + sigma_numbers<Context>();
    }
  }
  /// Numbers of the workspace before the heads' memory: sigmas, and as much again of one head.
  template <class Context>
  [[nodiscard]] std::int64_t sigma_numbers() const {
    if (on_host<Context> || !spectral_norm()) return 0;
    std::int64_t all = 0;
    std::int64_t most = 0;
    for (int k = 0; k < size(); ++k) {
      std::int64_t const numbers = at(k).template sigma_numbers<Context>();
      all += numbers;
      if (numbers > most) most = numbers;
    }
    return detail::aligned((all + most) * static_cast<std::int64_t>(sizeof(double) / sizeof(T)));
  }

  /// The weights that head k works with.
  template <class Context>
  T const* weights(Context const& ctx, int k, std::span<T const> parameters,
                   sigma_table const& sigmas, head_memory const& m) const {
    T const* const w = parameters.data() + parameter_offset(k);
    if (!spectral_norm()) return w;
    at(k).normalise(ctx, w, sigmas.of(k), m.w_hat);
    return m.w_hat;
  }

  template <class Context>
  static layer_pass<T> pass_of(Context const& ctx, int k, inputs<Context> const& in, T const* w,
                               head_memory const& m) {
    layer_pass<T> pass;
    pass.shape = shape_of(in, k);
    pass.w = w;
    pass.x = head_executor<Context>::read_features(ctx, pass.shape, in.features[slot(k)].data,
                                                   m.features);
    pass.saved = m.saved;
    pass.workspace = m.workspace;
    pass.conditions = in.conditions;
    return pass;
  }

  // Checks.

  template <class Context>
  void check_call(char const* function, Context const& ctx, std::span<T const> parameters,
                  std::span<T const> state, sigma_table& sigmas) const {
    head_executor<Context>::template check<T>(ctx);
    check_parameters<Context>(function, parameters, state);
    if constexpr (on_host<Context>) {
      for (int k = 0; spectral_norm() && k < size(); ++k) {
        sigmas.first[k] = sigmas.values[k];
        at(k).sigmas({function, k}, ctx, parameters.data() + parameter_offset(k),
                     state.data() + state_offset(k), sigmas.of(k));
      }
    }
  }
  template <class Context, class Result>
  void check_losses(char const* function, Context const& ctx, inputs<Context> const& in,
                    Result const* result) const {
    for (int k = 0; k < size(); ++k) {
      feature_shape const shape = shape_of(in, k);
      head_executor<Context>::template check_losses<T>(ctx, shape, output_shape(k, shape));
    }
    if (result == nullptr) detail::fail(function, "result", "memory", "a null pointer");
  }
  template <class Context>
  void check_parameters(char const* function, std::span<T const> parameters,
                        std::span<T const> state) const {
    check_size(function, "parameters", parameters.size(), parameter_count());
    check_size(function, "state", state.size(), state_count());
    if constexpr (on_host<Context>) {
      for (int i = 0; i < this->parameters(); ++i) {
        parameter_view const part = parameter(i);
        check_finite(function, part.name, slice(parameters, part.offset, part.size()));
      }
      check_finite(function, "state", state);
    }
  }
  static void check_finite(char const* function, char const* name, std::span<T const> values) {
    // 0 x is 0 for finite x, else NaN.
    constexpr std::size_t lanes = 16;
    T sum[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= values.size(); i += lanes) {
      for (std::size_t j = 0; j < lanes; ++j) sum[j] += T(0) * values[i + j];
    }
    for (std::size_t j = 0; i < values.size(); ++i, ++j) sum[j] += T(0) * values[i];
    bool finite = true;
    for (T const lane : sum) finite = finite && lane == T(0);
    if (finite) return;
    i = 0;
    while (std::isfinite(values[i])) ++i;
    detail::fail(function, {name, static_cast<std::int64_t>(i)}, "a finite number",
                 detail::text() << static_cast<double>(values[i]));
  }
  static void check_size(char const* function, char const* name, std::size_t got,
                         std::int64_t expected) {
    if (static_cast<std::int64_t>(got) != expected) {
      detail::fail(function, name, detail::text() << expected << " numbers",
                   detail::text() << static_cast<std::int64_t>(got));
    }
  }
  static void check_workspace(char const* function, std::span<T> workspace, std::int64_t needed) {
    if (static_cast<std::int64_t>(workspace.size()) < needed) {
      detail::fail(function, "workspace", detail::text() << "at least " << needed << " numbers",
                   detail::text() << static_cast<std::int64_t>(workspace.size()));
    }
  }
  /// Features [B, C, L] without gaps that fit their heads, all of one batch, and conditions.
  template <class Space>
  void check_inputs(char const* function, char const* name, head_inputs<T, Space> const& in) const {
    detail::check_same_heads(function, name, in.features.size(), heads_.size());
    for (int k = 0; k < size(); ++k) {
      detail::argument_name const argument(name, k);
      rows<T const, Space> const& features = in.features[slot(k)];
      detail::check_batch(function, argument, features, in.features[0].count);
      if (features.shape.rank != 3) {
        detail::fail(function, argument, "shape [B, C, L]", detail::shape_text(features.shape));
      }
      check_contiguous(function, argument, features);
      detail::text place;
      place << function << ": " << argument;
      feature_shape const logits = (*this)[k].output_shape(place.c_str(), shape_of(in, k));
      if (logits.channels != 1) {
        detail::fail(function, argument, "a head that gives one channel of logits",
                     detail::text() << logits.channels << " channels");
      }
      detail::check_conditions(function, detail::condition_sizes_of((*this)[k]), in.conditions);
    }
  }
  template <class U, class Space>
  static void check_contiguous(char const* function, detail::argument_name argument,
                               rows<U, Space> const& tensor) {
    detail::layout const& shape = tensor.shape;
    std::int64_t stride = 1;
    bool row_major = true;
    for (int axis = shape.rank - 1; axis >= 0; --axis) {
      row_major = row_major && (shape.extents[axis] == 1 || shape.strides[axis] == stride);
      stride *= shape.extents[axis];
    }
    if (!row_major) {
      detail::fail(function, argument, "row-major memory without gaps",
                   detail::text() << "strides " << detail::bracketed(shape.strides, shape.rank));
    }
  }
  template <class Space>
  void check_logits(char const* function, int k, rows<T, Space> const& logits,
                    feature_shape shape) const {
    detail::argument_name const argument("logits", k);
    detail::check_rows(function, argument, logits);
    feature_shape const expected = output_shape(k, shape);
    if (logits.shape.rank != 2 || logits.count != expected.batch ||
        logits.row_size != expected.length) {
      std::int64_t const extents[] = {expected.batch, expected.length};
      detail::fail(function, argument, detail::text() << "shape " << detail::bracketed(extents, 2),
                   detail::shape_text(logits.shape));
    }
    check_contiguous(function, argument, logits);
  }
  void check_statistics(char const* function, std::span<head_statistics> statistics) const {
    if (statistics.empty()) return;
    detail::check_same_heads(function, "statistics", statistics.size(), heads_.size());
  }
  template <class Space>
  void check_penalty(char const* function, std::optional<r1> const& penalty, char const* name,
                     std::span<double> penalties) const {
    if (penalty) {
      detail::check_penalty<Space>(function, penalty->gamma, penalty->factor, penalty->interval);
    }
    if (penalties.empty()) return;
    detail::check_same_heads(function, name, penalties.size(), heads_.size());
  }

  // Small things.

  static constexpr std::int64_t line = 64 / sizeof(T);
  template <class Context>
  static constexpr bool on_host = std::same_as<typename Context::space, host_space>;

  [[nodiscard]] bool spectral_norm() const {
    return normalisation_ == weight_normalisation::spectral;
  }
  static std::size_t slot(int k) { return static_cast<std::size_t>(k); }
  [[nodiscard]] spectral_weights<Head> const& at(int k) const { return heads_[slot(k)]; }
  [[nodiscard]] std::int64_t logits_size(int k, feature_shape shape) const {
    return output_shape(k, shape).size();
  }
  template <class Space>
  static feature_shape shape_of(head_inputs<T, Space> const& in, int k) {
    auto const& extents = in.features[slot(k)].shape.extents;
    return {extents[0], extents[1], extents[2]};
  }
  struct shape_list {
    feature_shape shapes[max_heads];
    [[nodiscard]] std::span<feature_shape const> all(int heads) const {
      return {shapes, slot(heads)};
    }
  };
  template <class Space>
  [[nodiscard]] shape_list shapes_of(head_inputs<T, Space> const& in) const {
    shape_list list;
    for (int k = 0; k < size(); ++k) list.shapes[k] = shape_of(in, k);
    return list;
  }
  template <class Space, class U>
  [[nodiscard]] rows<U, Space> logits_view(int k, feature_shape shape, U* logits) const {
    return view<Space>(logits, shape.batch, output_shape(k, shape).length);
  }
  template <class U>
  static std::span<U> one(std::span<U> all, int k) {
    return all.empty() ? all : all.subspan(slot(k), 1);
  }
  template <class U>
  static std::span<U> slice(std::span<U> all, std::int64_t first, std::int64_t count) {
    return all.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
  }
  /// The first whole cache line of a workspace, which is larger by what may lie before it.
  static T* cache_line(std::span<T> workspace) {
    auto const address = reinterpret_cast<std::uintptr_t>(workspace.data());
    return workspace.data() + (line - 1) - (address / sizeof(T) + line - 1) % line;
  }
  template <class Context, class U>
  static void fill(Context const& ctx, U* values, std::int64_t count, U value) {
    head_executor<Context>::each_element(ctx, count, detail::fill_elements<U>{values, value});
  }
  template <class Context, class Result>
  static void set(Context const& ctx, Result* result, Result value) {
    fill(ctx, result, 1, value);
  }
  template <class Context, class Size>
  [[nodiscard]] std::int64_t largest(std::span<feature_shape const> shapes,
                                     Size const& size_of) const {
    detail::check_same_heads("head_stack", "shapes", shapes.size(), heads_.size());
    std::int64_t result = 0;
    for (int k = 0; k < size(); ++k) {
      std::int64_t const needed = size_of(k, shapes[slot(k)]);
      if (needed > result) result = needed;
    }
    return sigma_numbers<Context>() + result + line - 1;
  }

  std::vector<spectral_weights<Head>> heads_;
  std::vector<std::string> names_;
  weight_normalisation normalisation_;
};

/// A stack of projected heads, one for each of `settings`.
template <arithmetic_scalar T>
auto projected_heads(std::span<head_settings const> settings,
                     weight_normalisation normalisation = weight_normalisation::spectral) {
  std::vector<decltype(projected_head<T>(head_settings{}))> heads;
  for (head_settings const& head : settings) heads.push_back(projected_head<T>(head));
  return head_stack<T, decltype(projected_head<T>(head_settings{}))>(std::move(heads),
                                                                     normalisation);
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
