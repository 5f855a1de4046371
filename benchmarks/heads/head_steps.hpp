// SPDX-License-Identifier: MIT
/// The steps that train a discriminator of K equal heads, on random features, for the benchmarks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <addloss/addloss.hpp>
#include <addloss/heads/head_stack.hpp>

namespace bench {

/// Floats at a multiple of 64 bytes, not touched: those of a workspace first take memory in a step,
/// so that what a step takes can be seen from outside.
class untouched_floats {
 public:
  explicit untouched_floats(std::int64_t size)
      : size_(static_cast<std::size_t>(size)),
        data_(static_cast<float*>(::operator new(size_ * sizeof(float), alignment))) {}

  [[nodiscard]] float* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::span<float> all() const { return {data(), size_}; }
  /// Part k of `parts` equal ones.
  [[nodiscard]] float* part(int k, int parts) const {
    return data() + size_ / static_cast<std::size_t>(parts) * static_cast<std::size_t>(k);
  }

 private:
  static constexpr std::align_val_t alignment{64};
  struct release {
    void operator()(float* p) const { ::operator delete(p, alignment); }
  };
  std::size_t size_;
  std::unique_ptr<float, release> data_;
};

struct head_case {
  std::int64_t batch = 8;
  std::int64_t channels = 384;
  std::int64_t length = 197;
  std::int64_t condition_size = 768;
  int heads = 1;
  int threads = 1;
  addloss::convolution_method method = addloss::convolution_method::automatic;
  addloss::weight_normalisation normalisation = addloss::weight_normalisation::none;
};

enum class step {
  logits,  ///< of the fakes
  generator,  ///< with the gradient of the fakes' features
  discriminator,  ///< reals and fakes with R1, and the gradient of all parameters
  real_side,  ///< the reals' part of it: the passes of the first head, with no head_stack around
  adversarial  ///< the same without R1
};

/// Reals, fakes, conditions and the gradients of a step are open to be written and read.
class head_steps {
 public:
  explicit head_steps(head_case const& settings)
      : settings_(settings),
        stack_(addloss::projected_heads<float>(
            std::vector<addloss::head_settings>(static_cast<std::size_t>(settings.heads),
                                                {.channels = settings.channels,
                                                 .condition_sizes = {settings.condition_size},
                                                 .method = settings.method}),
            settings.normalisation)),
        shapes_(static_cast<std::size_t>(settings.heads),
                {settings.batch, settings.channels, settings.length}),
        one_side_(stack_[0], shapes_[0]),
        parameters(stack_.parameter_count()),
        gradients(stack_.parameter_count()),
        state(stack_.state_count()),
        real(settings.heads * shapes_[0].size()),
        fake(settings.heads * shapes_[0].size()),
        feature_gradients(settings.heads * shapes_[0].size()),
        condition(settings.batch * settings.condition_size),
        logits(settings.heads * settings.batch * settings.length),
        workspace_(largest_workspace()) {
    stack_.initialise(1, parameters.all(), state.all());
    using addloss::initialise;
    using addloss::standard_normal;
    initialise(standard_normal{}, {.seed = 2, .index = 0}, real.all());
    initialise(standard_normal{}, {.seed = 2, .index = 1}, fake.all());
    initialise(standard_normal{}, {.seed = 2, .index = 2}, condition.all());
  }

  [[nodiscard]] auto const& stack() const { return stack_; }

  /// Of all heads, in bytes.
  [[nodiscard]] std::int64_t workspace_bytes(step which) const {
    return static_cast<std::int64_t>(sizeof(float)) * workspace_floats(which);
  }

  /// Multiplications and additions of all heads' convolutions in direct form, which is nearly all.
  [[nodiscard]] double direct_operations(step which) const { return operations(which, 9); }
  /// Those of the matrix products that are done: fewer by Toom-Cook's method.
  [[nodiscard]] double done_operations(step which) const {
    using toom_cook = addloss::detail::toom_cook<float>;
    addloss::conv1d<float> const of_residual{settings_.channels, settings_.channels, 9,
                                             settings_.method};
    if (!of_residual.by_toom_cook(shapes_[0])) return direct_operations(which);
    std::int64_t const tiles = (settings_.length + toom_cook::step - 1) / toom_cook::step;
    return operations(which, static_cast<double>(toom_cook::points * tiles) /
                                 static_cast<double>(settings_.length));
  }

  /// Returns the loss; of the discriminator, with its penalty.
  double run(step which, double gamma = 1e-5) {
    switch (which) {
      case step::logits: run_logits(); return 0;
      case step::generator: return run_generator();
      case step::adversarial: return one_side_step(std::nullopt);
      case step::real_side: return one_side_step(addloss::r1{.gamma = gamma});
      default: return run_discriminator(gamma);
    }
  }

  /// One power iteration; nothing without spectral normalisation.
  void update_state() {
    stack_.update_state(context(), std::span<float const>(parameters.all()), state.all());
  }

 private:
  using stack_type = decltype(addloss::projected_heads<float>({}));
  using head_type = stack_type::head_type;

  /// Where the passes of one head over one side have their memory, one after the other.
  struct one_side {
    addloss::layer_sizes sizes;
    std::int64_t features;
    std::int64_t logits;

    one_side(head_type const& head, addloss::feature_shape shape)
        : sizes(head.sizes(shape)), features(shape.size()), logits(shape.batch * shape.length) {}
    [[nodiscard]] std::int64_t first_order() const {
      return sizes.workspace + sizes.saved + 2 * logits;
    }
    [[nodiscard]] std::int64_t second_order() const {
      return first_order() + features + sizes.saved_bar + sizes.saved_dot + logits;
    }
  };

  /// Each of y, x_bar, y_dot and of each term of w_bar counts once: that of kernel 9, with `taps`
  /// multiplications for an output and input channel, and that of kernel 1.
  [[nodiscard]] double operations(step which, double taps) const {
    double const tokens = static_cast<double>(settings_.batch * settings_.length);
    double const square = static_cast<double>(settings_.channels * settings_.channels);
    double const unit = 2 * tokens * square * settings_.heads;
    switch (which) {
      case step::logits: return unit * (1 * taps + 1);
      case step::generator: return unit * (2 * taps + 2);
      case step::adversarial: return unit * (3 * taps + 2);
      case step::real_side: return unit * (6 * taps + 5);
      default: return unit * (9 * taps + 7);
    }
  }

  [[nodiscard]] std::int64_t workspace_floats(step which) const {
    switch (which) {
      case step::logits: return stack_.logits_workspace(shapes_);
      case step::generator: return stack_.generator_workspace(shapes_);
      case step::adversarial: return one_side_.first_order();
      case step::real_side: return one_side_.second_order();
      default: return stack_.discriminator_workspace(shapes_);
    }
  }
  [[nodiscard]] std::int64_t largest_workspace() const {
    std::int64_t largest = 0;
    for (step const which : {step::logits, step::generator, step::discriminator, step::real_side}) {
      std::int64_t const size = workspace_floats(which);
      if (size > largest) largest = size;
    }
    return largest;
  }

  void run_logits() {
    auto const features = views<float const>(fake);
    auto const conditions = condition_list();
    std::vector<addloss::rows<float>> out;
    for (int k = 0; k < settings_.heads; ++k) {
      out.emplace_back(
          addloss::view(logits.part(k, settings_.heads), settings_.batch, settings_.length));
    }
    stack_.logits(context(), std::span<float const>(parameters.all()),
                  std::span<float const>(state.all()), {features, conditions}, out,
                  workspace_.all());
  }

  double run_generator() {
    auto const features = views<float const>(fake);
    auto const conditions = condition_list();
    auto const gradient = views<float>(feature_gradients);
    return stack_
        .generator_step(context(), loss_, std::span<float const>(parameters.all()),
                        std::span<float const>(state.all()), {features, conditions}, gradient,
                        workspace_.all())
        .loss;
  }

  double run_discriminator(double gamma) {
    auto const real_features = views<float const>(real);
    auto const fake_features = views<float const>(fake);
    auto const conditions = condition_list();
    addloss::discriminator_options options;
    options.real_penalty = addloss::r1{.gamma = gamma};
    return stack_
        .discriminator_step(context(), loss_, std::span<float const>(parameters.all()),
                            std::span<float const>(state.all()), {real_features, conditions},
                            {fake_features, conditions}, {gradients.all()}, workspace_.all(),
                            options)
        .total;
  }

  /// The hinge loss of the reals, and the penalty if there is one, with the gradient of all
  /// parameters: what head_stack does for one side of one head.
  double one_side_step(std::optional<addloss::r1> const& penalty) {
    using addloss::rows, addloss::view;
    head_type const& head = stack_[0];
    auto const conditions = condition_list();
    addloss::cpu_context const ctx = context();
    addloss::layer_sizes const& sizes = one_side_.sizes;
    std::int64_t const count = one_side_.logits;
    for (float& number : gradients.all()) number = 0;

    addloss::layer_pass<float> pass;
    pass.shape = shapes_[0];
    pass.w = parameters.data();
    pass.x = real.data();
    pass.conditions = conditions;
    pass.workspace = workspace_.data();
    pass.saved = pass.workspace + sizes.workspace;
    pass.y = pass.saved + sizes.saved;
    float* const y_bar = pass.y + count;
    head.forward(ctx, pass);

    double loss = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      auto const hinge = loss_.loss.discriminator(pass.y[i], 1.0F, 1 / static_cast<float>(count));
      loss += static_cast<double>(hinge.value) / static_cast<double>(count);
      y_bar[i] = hinge.grad;
    }
    pass.y_bar = y_bar;
    pass.w_bar = gradients.data();
    if (!penalty) {
      head.backward(ctx, pass);
      return loss;
    }

    addloss::layer_pass<float> first = pass;
    float* const ones = y_bar + count;
    for (std::int64_t i = 0; i < count; ++i) ones[i] = 1;
    first.y_bar = ones;
    first.w_bar = nullptr;
    first.x_bar = ones + count;
    first.saved_bar = first.x_bar + one_side_.features;
    first.saved_dot = first.saved_bar + sizes.saved_bar;
    head.backward(ctx, first);

    double value = 0;
    auto const [batch, channels, length] = pass.shape;
    rows<float const> const gradient[] = {
        view(std::as_const(first.x_bar), batch, channels, length)};
    rows<float> const direction[] = {view(first.x_bar, batch, channels, length)};
    value_and_grad(ctx, penalty->on<float>(gradient), value, {.features = direction});

    pass.x_dot = first.x_bar;
    pass.y_dot_bar = ones;
    pass.saved_bar = first.saved_bar;
    pass.saved_dot = first.saved_dot;
    head.tangent(ctx, pass);
    head.tangent_backward(ctx, pass);
    return loss + value;
  }

  [[nodiscard]] addloss::cpu_context context() const { return {.threads = settings_.threads}; }
  /// A tensor [B, C, L] for each head.
  template <class T>
  [[nodiscard]] std::vector<addloss::rows<T>> views(untouched_floats const& x) const {
    std::vector<addloss::rows<T>> result;
    for (int k = 0; k < settings_.heads; ++k) {
      T* const first = x.part(k, settings_.heads);
      result.emplace_back(
          addloss::view(first, settings_.batch, settings_.channels, settings_.length));
    }
    return result;
  }
  [[nodiscard]] std::vector<addloss::condition<float>> condition_list() const {
    return {{settings_.condition_size, condition.data(), nullptr}};
  }

  head_case settings_;
  stack_type stack_;
  std::vector<addloss::feature_shape> shapes_;
  one_side one_side_;
  addloss::adversarial<addloss::hinge> loss_;

 public:
  untouched_floats parameters, gradients, state;
  untouched_floats real, fake, feature_gradients;  ///< [heads][B, C, L]
  untouched_floats condition;
  untouched_floats logits;  ///< [heads][B, L]

 private:
  untouched_floats workspace_;
};

}  // namespace bench
