// SPDX-License-Identifier: MIT
/// The losses of ADD as functions of LibTorch's tensors that autograd differentiates.
///
///   auto const distilled = torch_loss::distil(objective.distillation, schedule, fake, target, t);
///   auto const loss = torch_loss::student(objective, fake_logits, distilled);
///   loss.backward();
/// | function      | loss                                | differentiated with respect to         |
/// | distil        | losses/distillation.hpp, both forms | the student's image                    |
/// | generator     | losses/adversarial.hpp, L_G         | the fakes' logits                      |
/// | discriminator | losses/adversarial.hpp, L_D         | all logits                             |
/// | the same      | losses/paired.hpp, relativistic     | all logits                             |
/// | penalty       | losses/paired.hpp, approximate R1   | all logits                             |
/// | penalty       | losses/r1.hpp, of given gradients   | the gradients                          |
/// | penalty       | R1 of logits and their features     | whatever the logits were computed from |
/// | student, discriminator | losses/objective.hpp       | as their terms                         |
/// `penalty` of logits differentiates through your own network (double backward): its features must
/// require gradients and its operations second derivatives.
/// Value and gradients come from one pass over the data, in forward, on the CPU or on a GPU, where
/// the tensors lie and the value will (torch/device.hpp); they are those of the library, to the
/// same bits.
/// The memory of the gradient is kept for backward, nothing else is.
/// Value: Double for Double, else Float; shape [], or [B] for per_sample. Upstream gradients may be
/// any. Second derivatives are exact where the losses are this library's; third ones are refused
/// unless they are 0.
/// Tensors lie on one device, of one type, samples without gaps (channels_last in all or none).
/// Timesteps: Long, or Double for schedules of a continuous time. Discrete schedules:
/// schedule.table() on the CPU, a torch_schedule (torch/schedule.hpp) on either.
/// On a GPU, timesteps outside the schedule give NaN instead of an error, and gamma, lambda and the
/// key of generated noise are given by value: a captured graph repeats them.
/// Errors: addloss::error that names the tensor, before anything is computed.
/// In .cpp units only: nvcc cannot read LibTorch's headers.
#pragma once

#include <torch/csrc/autograd/autograd.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <addloss/adapters/torch.hpp>
#include <addloss/core/config.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/number.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cpu/executor.hpp>
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/objective.hpp>
#include <addloss/losses/paired.hpp>
#include <addloss/losses/r1.hpp>
#include <addloss/schedule/concept.hpp>
#include <addloss/torch/device.hpp>
#include <addloss/torch/fused.hpp>
#include <addloss/torch/schedule.hpp>

namespace addloss {
inline namespace ADDLOSS_ISA_NAMESPACE {
namespace torch_loss {

/// What the teacher said, as in teacher_predictions; what is absent there is undefined here.
struct teacher {
  at::Tensor noise{};
  std::optional<normal_noise> generated{};  ///< noise of this key instead of a stored one
  at::Tensor conditional{};
  at::Tensor unconditional{};
  at::Tensor negative{};
  double guidance_scale = 1;
};

namespace detail {

using namespace addloss::detail;  // NOLINT(google-build-using-namespace)

/// The second derivative of a functor of this library at the place where its first is `slope`.
inline at::Tensor curvature(squared /*loss*/, at::Tensor const& slope) {
  return at::full_like(slope, 2);
}
inline at::Tensor curvature(absolute /*loss*/, at::Tensor const& slope) {
  return at::zeros_like(slope);
}
inline at::Tensor curvature(pseudo_huber loss, at::Tensor const& slope) {
  return at::pow(1 - slope * slope, 1.5) / loss.c;
}
inline at::Tensor curvature(hinge /*loss*/, at::Tensor const& slope) {
  return at::zeros_like(slope);
}
inline at::Tensor curvature(wasserstein /*loss*/, at::Tensor const& slope) {
  return at::zeros_like(slope);
}
inline at::Tensor curvature(least_squares /*loss*/, at::Tensor const& slope) {
  return at::full_like(slope, 2);
}
inline at::Tensor curvature(non_saturating /*loss*/, at::Tensor const& slope) {
  return at::abs(slope) * (1 - at::abs(slope));
}
inline at::Tensor curvature(addloss::relativistic /*loss*/, at::Tensor const& slope) {
  return at::abs(slope) * (1 - at::abs(slope));
}

template <class Loss>
concept curved = requires(Loss loss, at::Tensor slope) { curvature(loss, slope); };
/// Whose third derivative is 0. That of any other functor is refused.
template <class Loss>
inline constexpr bool quadratic =
    std::same_as<Loss, squared> || std::same_as<Loss, absolute> || std::same_as<Loss, hinge> ||
    std::same_as<Loss, wasserstein> || std::same_as<Loss, least_squares>;

/// `gradient`, as a function of `difference` = x - x that is differentiated with respect to x.
/// `weight`: what the derivative of the functor was multiplied with.
template <class Loss>
at::Tensor with_slope(Loss const& loss, at::Tensor const& gradient, at::Tensor const& weight,
                      at::Tensor const& difference) {
  // A weight of 0 leaves no slope to tell the place from, and needs none.
  at::Tensor const slope = gradient / at::where(weight == 0, at::ones_like(weight), weight);
  return gradient +
         second_derivative::apply(difference, weight * curvature(loss, slope), quadratic<Loss>);
}
inline at::Tensor zero_of(at::Tensor const& x) { return x - x.detach(); }

/// One number as a tensor like `like`.
inline at::Tensor number_like(at::Tensor const& like, double number) {
  return at::full({}, number, like.options());
}

/// Evaluates a loss of `samples` samples on `device` into a new tensor.
template <class Reduction, class Loss>
at::Tensor evaluate(at::Device device, Loss const& loss, std::int64_t samples, int threads,
                    typename Loss::gradients const& gradients,
                    typename Loss::options const& options) {
  using value_type = typename Loss::arithmetic;
  using space = typename Loss::space;
  constexpr int rank = std::same_as<Reduction, per_sample> ? 1 : 0;
  std::vector<std::int64_t> const shape(rank, samples);
  at::Tensor value = at::empty(shape, at::TensorOptions(torch_type<value_type>()).device(device));
  auto const out = from_torch<value_type, rank, space>(value);
  if constexpr (std::same_as<space, host_space>) {
    value_and_grad<Reduction>(cpu_context{.threads = threads}, loss, out, gradients, options);
  } else {
    evaluate_on_device<Reduction>(device, loss, {destination<value_type, space>(out)}, gradients,
                                  options);
  }
  return value;
}

/// Calls `body` with a schedule that code for tensors on `device`, in `Space`, can read.
template <class Space, class Schedule, class Body>
at::Tensor with_schedule(at::Device device, Schedule const& schedule, Body const& body) {
  if constexpr (std::same_as<Schedule, torch_schedule>) {
    if (schedule.levels().device() != device) {
      fail("distil", "schedule", text() << "levels on " << device.str().c_str(),
           text() << "levels on " << schedule.levels().device().str().c_str());
    }
    return body(schedule.template table<Space>());
  } else if constexpr (schedule_in<Schedule, Space>) {
    return body(schedule);
  } else {
    fail("distil", "schedule", text() << "a torch_schedule on " << device.str().c_str(),
         "a table elsewhere");
  }
}

/// The tensor that a schedule reads; undefined if it is none.
template <class Schedule>
at::Tensor memory_of(Schedule const& schedule) {
  if constexpr (std::same_as<Schedule, torch_schedule>) {
    return schedule.levels();
  } else {
    return {};
  }
}

/// Counts what was written to a tensor, where that is counted.
inline std::int64_t version_of(at::Tensor const& tensor) {
  return tensor.is_inference() ? 0 : static_cast<std::int64_t>(tensor._version());
}

/// Evaluates a distillation loss of either form, bound to a student of type T. `times`, `levels`:
/// the tensors behind its timesteps and its schedule.
template <class Reduction, class T, class Bound>
at::Tensor distil(Bound const& bound, at::Tensor const& student, at::Tensor const& times,
                  at::Tensor const& levels, torch_options const& options) {
  using loss_type = decltype(bound.loss);
  using space = typename Bound::space;
  double const factor =
      loss_type::elements::factor(bound.student.row_size) * Reduction::factor(bound.student.count);
  // c(t), a number a sample. On the CPU filled in forward, as the schedule's table may be gone in
  // backward; on a GPU that would be another kernel, for what is rarely asked for.
  auto const weights = std::make_shared<std::vector<double>>();
  torch_slopes slopes;
  if constexpr (curved<typename loss_type::distance_type>) {
    slopes = [bound, factor, weights, read = torch_list{times, levels},
              version = version_of(times)](torch_list const& inputs, torch_list const& gradients) {
      at::Tensor weight;
      if constexpr (std::same_as<space, host_space>) {
        weight = at::tensor(*weights, at::kDouble);
      } else {
        if (version_of(read[0]) != version) {
          fail("backward", "timesteps", "what they were in forward", "others, written since");
        }
        weight = weights_on_device<Reduction>(inputs[0].device(), bound);
      }
      // What the derivative of the distance was multiplied with.
      std::vector<std::int64_t> shape(static_cast<std::size_t>(inputs[0].dim()), 1);
      shape[0] = -1;
      weight = (factor * weight).view(shape).to(gradients[0].scalar_type());
      return torch_list{with_slope(bound.loss.distance, gradients[0], weight, zero_of(inputs[0]))};
    };
  }
  return differentiable({student}, options, std::move(slopes), [&](torch_list const& gradients) {
    gradient<T, space> to;
    if (!gradients.empty()) to = rows_from_torch<T, space>(gradients[0], "gradient");
    at::Tensor value =
        evaluate<Reduction>(student.device(), bound, bound.student.count, options.threads, to,
                            {.grad_scale = options.grad_scale, .non_finite = options.non_finite});
    if constexpr (std::same_as<space, host_space>) {
      for (std::int64_t b = 0; b < bound.student.count; ++b) {
        auto const t = bound.timesteps.data[b * bound.timesteps.row_stride];
        weights->push_back(bound.loss.weighting.at(bound.schedule.at(t)));
      }
    }
    return value;
  });
}

/// Slopes of a loss of single logits, or other elements. `weights`: one for each input.
template <class Loss>
torch_slopes slopes_of(Loss const& loss, std::vector<double> weights) {
  if constexpr (curved<Loss>) {
    return [loss, weights = std::move(weights)](torch_list const& inputs,
                                                torch_list const& gradients) {
      torch_list result;
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        result.push_back(with_slope(loss, gradients[i], number_like(gradients[i], weights[i]),
                                    zero_of(inputs[i])));
      }
      return result;
    };
  } else {
    return {};
  }
}

/// Slopes of a loss of the differences between the first half of the inputs and the second.
template <class Loss>
torch_slopes slopes_of_pairs(Loss const& loss, std::vector<double> weights) {
  if constexpr (curved<Loss>) {
    return [loss, weights = std::move(weights)](torch_list const& inputs,
                                                torch_list const& gradients) {
      std::size_t const heads = inputs.size() / 2;
      torch_list result(inputs.size());
      for (std::size_t k = 0; k < heads; ++k) {
        at::Tensor const difference = zero_of(inputs[k]) - zero_of(inputs[heads + k]);
        result[k] =
            with_slope(loss, gradients[k], number_like(gradients[k], weights[k]), difference);
        result[heads + k] = -result[k];
      }
      return result;
    };
  } else {
    return {};
  }
}

/// What the gradient of one logit of each head was multiplied with.
template <class Reduction, class Tokens, class Heads, class Rows>
std::vector<double> logit_weights(std::vector<Rows> const& heads, double weight = 1) {
  std::vector<double> result;
  for (auto const& logits : heads) {
    result.push_back(weight * Reduction::factor(logits.count) * Tokens::factor(logits.row_size) *
                     Heads::factor(static_cast<std::int64_t>(heads.size())));
  }
  return result;
}

inline torch_list concatenated(at::TensorList first, at::TensorList second) {
  torch_list result(first.begin(), first.end());
  result.insert(result.end(), second.begin(), second.end());
  return result;
}

/// Tensors of heads: one at least.
inline at::Tensor const& first_of(char const* function, char const* name, at::TensorList heads) {
  check_heads(function, name, heads.size());
  return heads[0];
}

/// Both losses on pairs: first, second and their weight are those of `bind`.
template <class Reduction, class Tokens, class Heads, class Loss, class Bind>
at::Tensor pairs(char const* function, Loss const& loss, double weight, at::TensorList first,
                 at::TensorList second, torch_options const& options, Bind const& bind) {
  at::Tensor const& model = first_of(function, "first", first);
  return by_torch_type(function, "first", model, [&]<class T, class Space>() {
    at::Device const device = model.device();
    auto const a = rows_of_heads<T const, Space>(device, first, "first");
    auto const b = rows_of_heads<T const, Space>(device, second, "second");
    auto const bound = bind.template operator()<T, Space>(a, b);
    return differentiable(
        concatenated(first, second), options,
        slopes_of_pairs(loss, logit_weights<Reduction, Tokens, Heads>(a, weight)),
        [&](torch_list const& gradients) {
          auto const to = rows_of_heads<T, Space>(device, gradients, "gradient");
          auto const half_of = std::span(to);
          return evaluate<Reduction>(
              device, bound, a[0].count, options.threads,
              {.first = half_of.first(to.size() / 2), .second = half_of.last(to.size() / 2)},
              {.grad_scale = options.grad_scale, .non_finite = options.non_finite});
        });
  });
}

/// A weight of a loss of tensors of K heads: second derivatives and sums of losses need its value.
inline double weight_by_value(char const* function, char const* name, number const& weight,
                              at::TensorList heads) {
  if (weight.in_memory() && !heads.empty() && heads[0].defined() && heads[0].is_cuda()) {
    fail(function, name, "a number by value", "one in memory");
  }
  check_weight<host_space>(function, name, weight);
  return weight.get();
}

}  // namespace detail

/// A schedule for `distil`: one of the library that can be read where the tensors are, or a
/// torch_schedule.
template <class S>
concept schedule_for_torch = noise_schedule<S> || std::same_as<S, torch_schedule>;

/// From the teacher's image, or any target.
template <batch_reduction Reduction = mean, class Weighting, class Distance, class Elements,
          schedule_for_torch Schedule>
at::Tensor distil(distillation<Weighting, Distance, Elements> const& loss, Schedule const& schedule,
                  at::Tensor const& student, at::Tensor const& target, at::Tensor const& timesteps,
                  torch_options const& options = {}) {
  using namespace detail;  // NOLINT(google-build-using-namespace)
  return by_torch_type("distil", "student", student, [&]<class T, class Space>() {
    at::Device const device = student.device();
    return with_schedule<Space>(device, schedule, [&]<class Levels>(Levels const& levels) {
      using time_type = typename Levels::time_type;
      target_distillation<distillation<Weighting, Distance, Elements>, Levels, T, T, Space> const
          bound{loss, levels, rows_on<T const, Space>(device, student, "student"),
                rows_on<T const, Space>(device, target, "target"),
                rows_on<time_type const, Space>(device, timesteps, "timesteps")};
      return detail::distil<Reduction, T>(bound, student, timesteps, memory_of(schedule), options);
    });
  });
}

/// From the teacher's raw predictions.
template <batch_reduction Reduction = mean, class Weighting, class Distance, class Elements,
          prediction_type Prediction, schedule_for_torch Schedule>
at::Tensor distil(distillation<Weighting, Distance, Elements> const& loss,
                  Prediction /*prediction*/, Schedule const& schedule, at::Tensor const& student,
                  teacher const& said, at::Tensor const& timesteps,
                  torch_options const& options = {}) {
  using namespace detail;  // NOLINT(google-build-using-namespace)
  return by_torch_type("distil", "student", student, [&]<class T, class Space>() {
    at::Device const device = student.device();
    return with_schedule<Space>(device, schedule, [&]<class Levels>(Levels const& levels) {
      using time_type = typename Levels::time_type;
      auto const rows_of = [&](at::Tensor const& tensor, char const* name) {
        return tensor.defined() ? rows_on<T const, Space>(device, tensor, name)
                                : rows<T const, Space>();
      };
      teacher_predictions<T, Space> predictions;
      if (said.generated) {
        predictions.noise = *said.generated;
      } else if (said.noise.defined()) {
        predictions.noise = rows_of(said.noise, "noise");
      }
      predictions.conditional = rows_of(said.conditional, "conditional");
      predictions.unconditional = rows_of(said.unconditional, "unconditional");
      predictions.negative = rows_of(said.negative, "negative");
      predictions.guidance_scale = said.guidance_scale;
      teacher_distillation<distillation<Weighting, Distance, Elements>, Prediction, Levels, T, T,
                           Space> const bound{
          loss, levels, rows_on<T const, Space>(device, student, "student"), predictions,
          rows_on<time_type const, Space>(device, timesteps, "timesteps")};
      return detail::distil<Reduction, T>(bound, student, timesteps, memory_of(schedule), options);
    });
  });
}

/// L_G: one tensor of logits a head.
template <batch_reduction Reduction = mean, class Loss, class Tokens, class Heads>
at::Tensor generator(adversarial<Loss, Tokens, Heads> const& loss, at::TensorList fake,
                     torch_options const& options = {}) {
  using namespace detail;  // NOLINT(google-build-using-namespace)
  at::Tensor const& model = first_of("generator", "fake", fake);
  return by_torch_type("generator", "fake", model, [&]<class T, class Space>() {
    at::Device const device = model.device();
    auto const logits = rows_of_heads<T const, Space>(device, fake, "fake");
    return differentiable(
        fake.vec(), options, slopes_of(loss.loss, logit_weights<Reduction, Tokens, Heads>(logits)),
        [&](torch_list const& gradients) {
          auto const to = rows_of_heads<T, Space>(device, gradients, "gradient");
          return evaluate<Reduction>(device, loss.template generator<T, Space>(logits),
                                     logits[0].count, options.threads, {.fake = to},
                                     {.grad_scale = options.grad_scale,
                                      .non_finite = options.non_finite,
                                      .statistics = options.statistics});
        });
  });
}

/// L_D.
template <batch_reduction Reduction = mean, class Loss, class Tokens, class Heads>
at::Tensor discriminator(adversarial<Loss, Tokens, Heads> const& loss, at::TensorList real,
                         at::TensorList fake, torch_options const& options = {}) {
  using namespace detail;  // NOLINT(google-build-using-namespace)
  char const* const function = "discriminator";
  at::Tensor const& model = first_of(function, "fake", fake);
  return by_torch_type(function, "fake", model, [&]<class T, class Space>() {
    at::Device const device = model.device();
    auto const real_logits = rows_of_heads<T const, Space>(device, real, "real");
    auto const fake_logits = rows_of_heads<T const, Space>(device, fake, "fake");
    auto weights = logit_weights<Reduction, Tokens, Heads>(real_logits);
    auto const of_fakes = logit_weights<Reduction, Tokens, Heads>(fake_logits);
    weights.insert(weights.end(), of_fakes.begin(), of_fakes.end());
    return differentiable(
        concatenated(real, fake), options, slopes_of(loss.loss, std::move(weights)),
        [&](torch_list const& gradients) {
          auto const to = rows_of_heads<T, Space>(device, gradients, "gradient");
          auto const half_of = std::span(to);
          return evaluate<Reduction>(
              device, loss.template discriminator<T, Space>(real_logits, fake_logits),
              fake_logits[0].count, options.threads,
              {.real = half_of.first(to.size() / 2), .fake = half_of.last(to.size() / 2)},
              {.grad_scale = options.grad_scale,
               .non_finite = options.non_finite,
               .statistics = options.statistics});
        });
  });
}

/// The relativistic loss of the student, differentiated with respect to both sides.
template <batch_reduction Reduction = mean, class Loss, class Tokens, class Heads>
at::Tensor generator(paired<Loss, Tokens, Heads> const& loss, at::TensorList real,
                     at::TensorList fake, torch_options const& options = {}) {
  return detail::pairs<Reduction, Tokens, Heads>(
      "generator", loss.loss, 1, fake, real, options,
      [&]<class T, class Space>(auto const& a, auto const& b) {
        return loss.template generator<T, Space>(a, b);
      });
}
template <batch_reduction Reduction = mean, class Loss, class Tokens, class Heads>
at::Tensor discriminator(paired<Loss, Tokens, Heads> const& loss, at::TensorList real,
                         at::TensorList fake, torch_options const& options = {}) {
  return detail::pairs<Reduction, Tokens, Heads>(
      "discriminator", loss.loss, 1, real, fake, options,
      [&]<class T, class Space>(auto const& a, auto const& b) {
        return loss.template discriminator<T, Space>(a, b);
      });
}

/// Approximate R1, of logits at an input and at the same with a little noise.
template <batch_reduction Reduction = mean, class Tokens, class Heads>
at::Tensor penalty(approximate_r1<Tokens, Heads> const& loss, at::TensorList logits,
                   at::TensorList perturbed, torch_options const& options = {}) {
  double const lambda = detail::weight_by_value("penalty", "lambda", loss.lambda, logits);
  return detail::pairs<Reduction, Tokens, Heads>(
      "penalty", squared{}, lambda, logits, perturbed, options,
      [&]<class T, class Space>(auto const& a, auto const& b) {
        return loss.template on<T, Space>(a, b);
      });
}

/// R1 or R2 of the gradients of K heads with respect to their features.
template <batch_reduction Reduction = mean>
at::Tensor penalty(r1 const& loss, at::TensorList gradients_of_features,
                   torch_options const& options = {}) {
  using namespace detail;  // NOLINT(google-build-using-namespace)
  char const* const name = "features";
  double const gamma = weight_by_value("penalty", "gamma", loss.gamma, gradients_of_features);
  check_penalty("penalty", gamma, loss.factor, loss.interval);
  at::Tensor const& model = first_of("penalty", name, gradients_of_features);
  return by_torch_type("penalty", name, model, [&]<class T, class Space>() {
    at::Device const device = model.device();
    auto const features = rows_of_heads<T const, Space>(device, gradients_of_features, name);
    std::vector<double> const weights(features.size(), gamma * loss.factor * loss.interval *
                                                           Reduction::factor(features[0].count));
    return differentiable(
        gradients_of_features.vec(), options, slopes_of(squared{}, weights),
        [&](torch_list const& gradients) {
          auto const to = rows_of_heads<T, Space>(device, gradients, "gradient");
          return evaluate<Reduction>(
              device, loss.template on<T, Space>(features), features[0].count, options.threads,
              {.features = to},
              {.grad_scale = options.grad_scale, .non_finite = options.non_finite});
        });
  });
}

/// R1 or R2 of logits with respect to the features that they were computed from, which must require
/// gradients: the gradient of the logits' sum, and through it the user's network a second time.
template <batch_reduction Reduction = mean>
at::Tensor penalty(r1 const& loss, at::TensorList logits, at::TensorList features,
                   torch_options const& options = {}) {
  detail::check_same_heads("penalty", "features", features.size(), logits.size());
  detail::torch_list sums;
  for (at::Tensor const& head : logits) {
    if (!head.defined()) detail::fail("penalty", "logits", "a tensor", "an undefined one");
    sums.push_back(head.sum());
  }
  auto const gradients =
      torch::autograd::grad(sums, features.vec(), {}, /*retain_graph=*/true, /*create_graph=*/true);
  return penalty<Reduction>(loss, gradients, options);
}

/// L_G + lambda L_distill, of a distillation loss by `distil`.
template <batch_reduction Reduction = mean, class Adversarial, class Distillation>
at::Tensor student(add_objective<Adversarial, Distillation> const& objective, at::TensorList fake,
                   at::Tensor const& distilled, torch_options const& options = {}) {
  double const lambda = detail::weight_by_value("student", "lambda", objective.lambda, fake);
  return generator<Reduction>(objective.adversarial, fake, options) + lambda * distilled;
}

/// L_D + R1 at the reals, whose features must require gradients. `non_finite`: of both terms.
template <batch_reduction Reduction = mean, class Adversarial, class Distillation>
at::Tensor discriminator(add_objective<Adversarial, Distillation> const& objective,
                         at::TensorList real, at::TensorList fake, at::TensorList real_features,
                         torch_options const& options = {}) {
  at::Tensor const adversarial =
      discriminator<Reduction>(objective.adversarial, real, fake, options);
  torch_options of_penalty = options;
  at::Tensor more;
  if (options.non_finite != nullptr) {
    more = at::empty({1}, at::TensorOptions(at::kLong).device(adversarial.device()));
    of_penalty.non_finite = static_cast<std::int64_t*>(more.data_ptr());
  }
  at::Tensor const penalised =
      penalty<Reduction>(objective.penalty, real, real_features, of_penalty);
  if (more.defined()) detail::torch_count(options.non_finite, more.device()).add_(more);
  return adversarial + penalised;
}

}  // namespace torch_loss
}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
