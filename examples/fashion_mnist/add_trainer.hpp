// SPDX-License-Identifier: MIT
/// Adversarial Diffusion Distillation, step by step: `add_trainer::step` is the whole method.
///
/// The student starts as a copy of the teacher. It denoises real images noised to tau_1 .. tau_n;
/// K heads on the features of a frozen network judge its images (hinge, R1 on the reals'
/// features); the teacher denoises the student's images noised once more, and is their target.
/// Source: Sauer, Lorenz, Blattmann, Rombach, Adversarial Diffusion Distillation, 2023.
#pragma once

#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "data.hpp"
#include "denoiser.hpp"
#include "feature_network.hpp"
#include "image_shape.hpp"
#include "network.hpp"
#include "optimiser.hpp"
#include "sampling.hpp"

namespace demo {

/// c(t) and the distance: the element mean of squares, weighted.
using distillation_loss =
    std::variant<addloss::distillation<addloss::exponential>, addloss::distillation<addloss::sds>,
                 addloss::distillation<addloss::nfsd>>;

struct add_settings {
  std::int64_t batch = 32;
  std::uint64_t seed = 1;
  int threads = 2;
  bool adversarial = true;
  bool distillation = true;
  distillation_loss distance{};
  double lambda = 5;
  double guidance = 1.5;  ///< of the teacher
  std::int64_t teacher_steps = 1;
  bool class_condition = true;  ///< of the heads: c_text
  bool image_condition = false;  ///< c_img
  addloss::student_timesteps taus = addloss::student_timesteps::trailing(4);
  addloss::r1 penalty{.gamma = 1e-4, .interval = 16};
  double student_rate = 1e-4;
  double student_rate_end = 0.2;  ///< share of it that is left in the last step
  double head_rate = 4e-3;
  double average = 0.98;  ///< of the student's parameters, which are what is kept
};

/// What a step tells.
struct add_report {
  double generator = 0;  ///< L_G
  double distillation = 0;  ///< L_distill, without lambda
  double discriminator = 0;  ///< L_D
  double penalty = 0;  ///< where it was due
  double gap = 0;  ///< mean logit of reals minus that of fakes, averaged over heads
  double active = 0;  ///< share of logits in the hinge's active zone
  std::int64_t non_finite = 0;
};

/// One head a feature map, on the chosen conditions.
inline std::vector<addloss::head_settings> head_list(add_settings const& settings) {
  addloss::head_settings head{.channels = feature_network::channels};
  if (settings.class_condition) head.condition_sizes.push_back(class_count);
  if (settings.image_condition) head.condition_sizes.push_back(feature_network::channels);
  return std::vector<addloss::head_settings>(static_cast<std::size_t>(feature_network::maps), head);
}

/// Heads as in ADD but for their norm: groups of channels within a sample, and no spectral norm.
inline auto group_norm_heads(add_settings const& settings) {
  using namespace addloss;
  auto const make = [](head_settings const& h) {
    auto const block = [&](int kernel) {
      return sequence(named("conv", conv1d<float>{h.channels, h.channels, kernel}),
                      named("norm", group_norm{.channels = h.channels,
                                               .groups = 8,
                                               .negative_slope = h.negative_slope}));
    };
    projection<float> classifier{.channels = h.channels,
                                 .width = h.condition_sizes.empty() ? 1 : h.width};
    for (std::int64_t const size : h.condition_sizes) {
      classifier.condition_size[classifier.conditions++] = size;
    }
    return sequence(named("first", block(1)), named("residual", residual{block(h.kernel)}),
                    named("classifier", classifier));
  };
  std::vector<decltype(make(head_settings{}))> heads;
  for (head_settings const& h : head_list(settings)) heads.push_back(make(h));
  return head_stack<float, decltype(make(head_settings{}))>(std::move(heads),
                                                            weight_normalisation::none);
}

template <class Heads>
class add_trainer {
 public:
  add_trainer(add_settings const& settings, Heads heads, parameters teacher, parameters features,
              parameters student)
      : settings_(settings),
        heads_(std::move(heads)),
        teacher_(std::move(teacher)),
        features_(std::move(features)),
        student_(std::move(student)),
        average_(student_),
        head_parameters_(static_cast<std::size_t>(heads_.parameter_count())),
        head_state_(static_cast<std::size_t>(heads_.state_count())),
        student_adam_(student_.values.size(), {.beta1 = 0, .beta2 = 0.99}),
        head_adam_(head_parameters_.size(), {.beta1 = 0, .beta2 = 0.99}) {
    heads_.initialise(settings_.seed, head_parameters_, head_state_);
    std::size_t const batch_pixels = count_of(settings_.batch * image_pixels);
    for (auto* image : {&x_t_, &fake_, &fake_bar_, &v_, &unconditional_, &target_}) {
      image->resize(batch_pixels);
    }
    t_.resize(count_of(settings_.batch));
    t_student_.resize(count_of(settings_.batch));
    no_classes_.assign(count_of(settings_.batch), no_class);
    class_condition_.resize(count_of(settings_.batch * class_count));
    student_gradient_.resize(student_.values.size());
    head_gradient_.resize(head_parameters_.size());
    for (auto& map : map_bar_) map.resize(count_of(settings_.batch * feature_network::map_size));
    std::vector<addloss::feature_shape> const shapes(
        feature_network::maps, {settings_.batch, feature_network::channels, tokens});
    workspace_.resize(static_cast<std::size_t>(heads_.discriminator_workspace(shapes)));
  }

  /// One step of both, on real images [B, 784] of the classes `labels` [B]. `progress` in [0, 1].
  add_report step(std::int64_t step, std::span<float const> real, std::span<int const> labels,
                  double progress) {
    add_report report;
    auto const key = [&](std::uint32_t use) {
      return addloss::random_key{settings_.seed, static_cast<std::uint32_t>(step), use};
    };
    auto const fake = images(fake_);

    // The student denoises x_s = alpha_s x_0 + sigma_s eps, s drawn from tau_1 .. tau_n.
    addloss::sample_timesteps(settings_.taus, key(0), t_);
    addloss::add_noise(ctx_, schedule_.table(), images(real), t_, addloss::normal_noise{key(1)},
                       images(x_t_));
    for (std::size_t b = 0; b < t_.size(); ++b) t_student_[b] = student_time(t_[b]);
    network_.forward<float>(student_, {x_t_, t_student_, labels}, student_activations_, v_,
                            ctx_.threads);
    addloss::to_sample(addloss::v_prediction{}, ctx_, schedule_.table(), images(x_t_), t_student_,
                       images(v_), fake);
    std::fill(fake_bar_.begin(), fake_bar_.end(), 0.0F);

    if (settings_.adversarial) {
      // The features of reals and fakes, and what the heads are conditioned on.
      feature_network_.forward<float>(features_, real, real_activations_, real_maps_, ctx_.threads);
      feature_network_.forward<float>(features_, fake_, fake_activations_, fake_maps_,
                                      ctx_.threads);
      auto const conditions = condition_list(labels);
      auto const real_rows = rows_of<float const>(real_maps_.map);
      auto const fake_rows = rows_of<float const>(fake_maps_.map);

      // Discriminator: hinge on reals and fakes, R1 on the reals' features.
      heads_.update_state(ctx_, std::span<float const>(head_parameters_), head_state_);
      std::array<addloss::head_statistics, feature_network::maps> health;
      addloss::discriminator_options options{.real_penalty = std::nullopt, .statistics = health};
      if (settings_.penalty.due(step)) options.real_penalty = settings_.penalty;
      auto const judged =
          heads_.discriminator_step(ctx_, loss_, std::span<float const>(head_parameters_),
                                    std::span<float const>(head_state_), {real_rows, conditions},
                                    {fake_rows, conditions}, {head_gradient_}, workspace_, options);
      head_adam_.step(head_parameters_, head_gradient_, settings_.head_rate, 1, ctx_.threads);

      // Student: what the heads say of its images now, and how the images should change.
      auto const map_gradients = rows_of<float>(map_bar_);
      auto const generated = heads_.generator_step(
          ctx_, loss_, std::span<float const>(head_parameters_),
          std::span<float const>(head_state_), {fake_rows, conditions}, map_gradients, workspace_);
      std::array<std::span<float const>, feature_network::maps> map_bar;
      for (std::size_t k = 0; k < map_bar.size(); ++k) map_bar[k] = map_bar_[k];
      feature_network_.backward<float>(features_, map_bar, fake_activations_, fake_bar_,
                                       ctx_.threads);
      report.generator = generated.loss;
      report.discriminator = judged.adversarial;
      report.penalty = judged.penalty;
      report.non_finite = judged.non_finite + generated.non_finite;
      for (auto const& head : health) {
        report.gap += (head.real.mean - head.fake.mean) / static_cast<double>(health.size());
        report.active +=
            (head.real.active + head.fake.active) / (2 * static_cast<double>(health.size()));
      }
    }

    if (settings_.distillation) {
      // The teacher denoises the student's image at a random t; its answer is a constant.
      // NFSD compares predictions of the noise, which say nothing where there is no signal, at 999.
      bool const of_noise =
          std::holds_alternative<addloss::distillation<addloss::nfsd>>(settings_.distance);
      addloss::sample_timesteps(addloss::uniform_timesteps{.hi = of_noise ? 998 : 999}, key(2), t_);
      addloss::normal_noise const noise{key(3)};
      addloss::add_noise(ctx_, schedule_.table(), fake, t_, noise, images(x_t_));
      predict(x_t_, t_, labels, v_);
      predict(x_t_, t_, no_classes_, unconditional_);
      addloss::teacher_predictions<float> const teacher{.noise = noise,
                                                        .conditional = images(v_),
                                                        .unconditional = images(unconditional_),
                                                        .negative = images(unconditional_),
                                                        .guidance_scale = settings_.guidance};
      if (settings_.teacher_steps > 1) denoise_in_steps(labels);
      std::visit(
          [&](auto const& loss) {
            auto const gradient = addloss::accumulate(images(fake_bar_));
            auto const evaluate = [&](auto const& bound) {
              addloss::value_and_grad(ctx_, bound, report.distillation, gradient,
                                      {.grad_scale = settings_.lambda});
            };
            if (settings_.teacher_steps > 1) {
              evaluate(loss(schedule_.table(), fake, images(std::as_const(target_)), t_));
            } else if constexpr (std::same_as<
                                     typename std::remove_cvref_t<decltype(loss)>::weighting_type,
                                     addloss::nfsd>) {
              // Its residual is made of noise predictions.
              for (auto* v : {&v_, &unconditional_}) {
                addloss::to_epsilon(addloss::v_prediction{}, ctx_, schedule_.table(), images(x_t_),
                                    t_, images(*v), images(*v));
              }
              evaluate(loss.from_teacher(addloss::epsilon_prediction{}, schedule_.table(), fake,
                                         teacher, t_));
            } else {
              evaluate(
                  loss.from_teacher(addloss::v_prediction{}, schedule_.table(), fake, teacher, t_));
            }
          },
          settings_.distance);
    }

    // x_0 = alpha x_t - sigma v: the gradient of v, and back through the student.
    for (std::size_t b = 0; b < t_student_.size(); ++b) {
      auto const sigma = static_cast<float>(schedule_.at(t_student_[b]).sigma);
      for (std::size_t i = 0; i < count_of(image_pixels); ++i)
        fake_bar_[b * count_of(image_pixels) + i] *= -sigma;
    }
    network_.backward<float>(student_, fake_bar_, student_activations_, student_gradient_, {},
                             ctx_.threads);
    double const rate = settings_.student_rate * warm_up(step, 20) *
                        linear_decay(progress, settings_.student_rate_end);
    student_adam_.step(student_.values, student_gradient_, rate, 1, ctx_.threads);
    update_average(average_.values, student_.values, average_decay(step, settings_.average, 10),
                   ctx_.threads);
    return report;
  }

  /// The student, averaged over its last steps.
  [[nodiscard]] parameters const& student() const { return average_; }

  /// All that changes, for a checkpoint: `contents` is saved_contents or loaded_contents.
  void add_to(auto& contents) {
    contents.add("student.", student_);
    contents.add("average.", average_);
    auto const count = static_cast<std::int64_t>(head_parameters_.size());
    contents.add("heads", {count}, head_parameters_.data());
    if (!head_state_.empty()) {
      contents.add("heads.state", {static_cast<std::int64_t>(head_state_.size())},
                   head_state_.data());
    }
    student_adam_.add_to(contents, "student.adam.");
    head_adam_.add_to(contents, "heads.adam.");
  }

 private:
  [[nodiscard]] addloss::tensor_view<float, 2> images(std::vector<float>& x) const {
    return addloss::view(x.data(), settings_.batch, image_pixels);
  }
  [[nodiscard]] addloss::tensor_view<float const, 2> images(std::span<float const> x) const {
    return addloss::view(x.data(), settings_.batch, image_pixels);
  }

  /// Feature maps, or their gradients, as the heads read them.
  template <class T, std::size_t K>
  [[nodiscard]] std::vector<addloss::rows<T>> rows_of(
      std::array<std::vector<float>, K>& maps) const {
    std::vector<addloss::rows<T>> result;
    for (auto& map : maps) {
      result.emplace_back(
          addloss::view(map.data(), settings_.batch, feature_network::channels, tokens));
    }
    return result;
  }

  /// c_text: the class, c_img: what F sees in the real image; each number of size about 1.
  std::vector<addloss::condition<float>> condition_list(std::span<int const> labels) {
    std::vector<addloss::condition<float>> result;
    if (settings_.class_condition) {
      std::fill(class_condition_.begin(), class_condition_.end(), 0.0F);
      for (std::size_t b = 0; b < labels.size(); ++b) {
        class_condition_[b * class_count + static_cast<std::size_t>(labels[b])] =
            std::sqrt(static_cast<float>(class_count));
      }
      result.push_back({class_count, class_condition_.data(), nullptr});
    }
    if (settings_.image_condition) {
      result.push_back({feature_network::channels, real_maps_.embedding.data(), nullptr});
    }
    return result;
  }

  /// v of the teacher.
  void predict(std::span<float const> x_t, std::span<std::int64_t const> t,
               std::span<int const> labels, std::vector<float>& v) {
    network_.predict<float>(teacher_, {x_t, t, labels}, teacher_activations_, v, ctx_.threads);
  }

  /// target: the teacher's image after `teacher_steps` steps of DDIM from x_t to 0.
  void denoise_in_steps(std::span<int const> labels) {
    std::vector<std::int64_t> now = t_;
    for (std::int64_t step = 0; step < settings_.teacher_steps; ++step) {
      if (step > 0) {
        predict(x_t_, now, labels, v_);
        predict(x_t_, now, no_classes_, unconditional_);
      }
      for (std::size_t b = 0; b < now.size(); ++b) {
        std::int64_t const left = settings_.teacher_steps - step - 1;
        std::int64_t const next = t_[b] * left / settings_.teacher_steps;
        auto const level = schedule_.at(now[b]);
        auto const after = schedule_.at(next);
        for (std::size_t i = b * count_of(image_pixels); i < (b + 1) * count_of(image_pixels);
             ++i) {
          auto const u = static_cast<double>(unconditional_[i]);
          double const v = u + settings_.guidance * (static_cast<double>(v_[i]) - u);
          auto const x = static_cast<double>(x_t_[i]);
          double const clean = level.alpha * x - level.sigma * v;
          double const noise = level.sigma * x + level.alpha * v;
          target_[i] = static_cast<float>(clean);
          x_t_[i] = static_cast<float>(after.alpha * clean + after.sigma * noise);
        }
        now[b] = next;
      }
    }
  }

  add_settings settings_;
  addloss::cpu_context ctx_{.threads = settings_.threads};
  addloss::discrete_schedule schedule_ = diffusion_schedule();
  addloss::adversarial<addloss::hinge> loss_;
  Heads heads_;
  denoiser network_;
  feature_network feature_network_;
  parameters teacher_, features_, student_, average_;
  std::vector<float> head_parameters_, head_state_;
  adam student_adam_, head_adam_;

  std::vector<float> x_t_, fake_, fake_bar_, v_, unconditional_, target_;
  std::vector<std::int64_t> t_, t_student_;
  std::vector<int> no_classes_;
  std::vector<float> class_condition_, student_gradient_, head_gradient_, workspace_;
  std::array<std::vector<float>, feature_network::maps> map_bar_;
  denoiser::activations<float> student_activations_, teacher_activations_;
  feature_network::activations<float> real_activations_, fake_activations_;
  feature_network::features<float> real_maps_, fake_maps_;
};

}  // namespace demo
