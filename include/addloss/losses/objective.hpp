// SPDX-License-Identifier: MIT
/// The two objectives of ADD, each one call: what the student and the discriminator minimise.
///
///   student        L   = L_G + lambda L_distill
///   discriminator  L   = L_D + P,  P = gamma sum_k mean_b sum g_k^2  (losses/r1.hpp)
/// In a step where a lazy penalty is not due, evaluate `adversarial.discriminator` alone.
/// Values: the total alone, or with its terms:
///   value_and_grad(ctx, objective.student<float>(...), total, {.logits = ..., .student = ...});
///   value_and_grad(ctx, objective.student<float>(...),
///                  student_values<float>{.total = total, .distillation = distilled}, {...});
/// A term is written as it is, its weight lambda is in the total. Gradients are those of the total:
/// that of the distillation term is multiplied with lambda. `upstream` and `grad_scale` concern
/// both terms. The student's gradient through the networks (heads, feature network) is the user's:
/// it goes from the logits' gradient to the image, to be added to the gradient of the distillation.
/// Arguments of both terms are checked before the first write. Deterministic, no allocation.
/// Source: Sauer, Lorenz, Blattmann, Rombach, Adversarial Diffusion Distillation, 2023, eq. 1-4.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include <addloss/core/number.hpp>
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/r1.hpp>

namespace addloss {

/// Destinations of the student's objective; each may be absent.
template <class T, class Space = host_space>
struct student_values {
  using value_type = T;
  destination<T, Space> total{};
  destination<T, Space> adversarial{};
  destination<T, Space> distillation{};
};

/// Destinations of the discriminator's objective; each may be absent.
template <class T, class Space = host_space>
struct discriminator_values {
  using value_type = T;
  destination<T, Space> total{};
  destination<T, Space> adversarial{};
  destination<T, Space> penalty{};
};

/// L_G + lambda L_distill, bound to its inputs; made by `add_objective`.
template <bound_loss Generator, bound_loss Distillation>
struct bound_student_objective {
  using space = typename Generator::space;
  using arithmetic = typename Generator::arithmetic;
  template <class T>
  using values = student_values<T, space>;
  struct gradients {
    typename Generator::gradients logits{};
    typename Distillation::gradients student{};
  };
  struct options {
    rows<arithmetic const, space> upstream{};  ///< as in evaluation_options
    number grad_scale = 1;  ///< as in evaluation_options
    std::int64_t* non_finite = nullptr;  ///< of both terms
    std::span<head_statistics> statistics{};  ///< as in adversarial_options
  };

  Generator generator;
  Distillation distillation;
  number lambda;

  template <class Reduction, class Out>
  auto pass(char const* function, student_values<Out, space> const& value, gradients const& grad,
            options const& settings) const {
    detail::check_weight<space>(function, "lambda", lambda);
    auto const first = generator.template pass<Reduction>(
        function, detail::loss_output<Out, space>{value.adversarial, "adversarial", value.total},
        grad.logits,
        {settings.upstream, settings.grad_scale, settings.non_finite, settings.statistics});
    auto const second = distillation.template pass<Reduction>(
        function,
        detail::loss_output<Out, space>{value.distillation, "distillation", value.total, lambda,
                                        true},
        grad.student, {settings.upstream, settings.grad_scale, settings.non_finite});
    detail::check_same_batch(function, "logits", first.writer.batch, second.writer.batch);
    return std::pair(first, second);
  }
};

/// L_D + P, bound to its inputs; made by `add_objective`.
template <bound_loss Adversarial, bound_loss Penalty>
struct bound_discriminator_objective {
  using space = typename Adversarial::space;
  using arithmetic = typename Adversarial::arithmetic;
  template <class T>
  using values = discriminator_values<T, space>;
  struct gradients {
    typename Adversarial::gradients logits{};
    typename Penalty::gradients cotangents{};
  };
  struct options {
    rows<arithmetic const, space> upstream{};  ///< as in evaluation_options
    number grad_scale = 1;  ///< as in evaluation_options
    std::int64_t* non_finite = nullptr;  ///< of both terms
    std::span<head_statistics> statistics{};  ///< as in adversarial_options
    std::span<double> penalties{};  ///< as in r1_options
  };

  Adversarial adversarial;
  Penalty penalty;

  template <class Reduction, class Out>
  auto pass(char const* function, discriminator_values<Out, space> const& value,
            gradients const& grad, options const& settings) const {
    auto const first = adversarial.template pass<Reduction>(
        function, detail::loss_output<Out, space>{value.adversarial, "adversarial", value.total},
        grad.logits,
        {settings.upstream, settings.grad_scale, settings.non_finite, settings.statistics});
    auto const second = penalty.template pass<Reduction>(
        function, detail::loss_output<Out, space>{value.penalty, "penalty", value.total, 1, true},
        grad.cotangents,
        {settings.upstream, settings.grad_scale, settings.non_finite, settings.penalties});
    detail::check_same_batch(function, "feature_gradients", second.writer.batch,
                             first.writer.batch);
    return std::pair(first, second);
  }
};

/// Both objectives of ADD as one value: the terms, and their weights.
///
///   add_practical<> const objective;                      // or with .lambda = ..., .penalty = ...
///   objective.student<float>(fake_logits, objective.distillation(schedule, student, target, t))
///   objective.discriminator<float>(real_logits, fake_logits, feature_gradients)
template <class Adversarial, class Distillation>
struct add_objective {
  Adversarial adversarial{};
  Distillation distillation{};
  number lambda = 2.5;  ///< weight of the distillation, >= 0
  r1 penalty{.gamma = 1e-5};

  /// `distilled`: the distillation loss bound to its inputs, in either form.
  template <storage_scalar T, bound_loss Distilled>
  auto student(head_rows<T, typename Distilled::space> fake, Distilled const& distilled) const {
    auto const generator = adversarial.template generator<T, typename Distilled::space>(fake);
    return bound_student_objective<decltype(generator), Distilled>{generator, distilled, lambda};
  }

  /// `feature_gradients`: g_k of the real samples.
  template <storage_scalar T, class Space = host_space>
  auto discriminator(head_rows<T, Space> real, head_rows<T, Space> fake,
                     head_rows<T, Space> feature_gradients) const {
    auto const hinges = adversarial.template discriminator<T, Space>(real, fake);
    auto const gradient_penalty = penalty.template on<T, Space>(feature_gradients);
    return bound_discriminator_objective<decltype(hinges), decltype(gradient_penalty)>{
        hinges, gradient_penalty};
  }
};

/// The paper's formulas read literally: the distillation loss is the squared norm, summed over the
/// elements of a sample; heads are summed. At 512 x 512 x 3 its distillation term weighs 786432
/// times that of `add_practical`.
template <weighting Weighting = exponential>
using add_paper =
    add_objective<adversarial<hinge, mean, sum>, distillation<Weighting, squared, sum>>;

/// The defaults of this library: the distillation loss is averaged over elements, so lambda means
/// the same at every resolution.
template <weighting Weighting = exponential>
using add_practical =
    add_objective<adversarial<hinge, mean, sum>, distillation<Weighting, squared, mean>>;

}  // namespace addloss
