// SPDX-License-Identifier: MIT
/// ADD on a GPU without a framework: all of a step is enqueued on one stream and reads what changes
/// from step to step from the GPU's memory, so that one CUDA graph is the whole training loop.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <addloss/cuda.cuh>

#include "networks.cuh"

namespace demo {

struct trainer_settings {
  int batch = 256;
  int hidden = 512;
  std::uint64_t seed = 1;
  float copy_rate = 1e-3F;  ///< of the student's copy of the teacher
  float student_rate = 5e-4F;
  float head_rate = 4e-3F;
};

/// What a step works with; on the GPU, and written by begin_step.
struct step_state {
  enum use { image_numbers, student_times, student_noise, teacher_times, teacher_noise, uses };
  std::uint32_t step = 0;  ///< of this step
  std::uint32_t next = 0;
  double lambda = 0;
  addloss::random_key key[uses];
};

/// The losses of a step, then their sums over the steps since a report.
struct step_losses {
  double total_d, hinge, penalty, total_g, adversarial, distillation;
};
inline constexpr int loss_count = 6;

/// The numbers that a step draws: images, timesteps. One block.
template <class Sampler>
__global__ void __launch_bounds__(block_threads)
    begin_step(Sampler taus, std::uint64_t seed, std::int64_t images, int batch, step_state* state,
               std::int64_t* numbers, std::int64_t* student_t, std::int64_t* teacher_t) {
  std::uint32_t const step = state->next;
  __syncthreads();
  auto const key = [&](step_state::use use) {
    return addloss::random_key{seed, step, static_cast<std::uint32_t>(use)};
  };
  if (threadIdx.x == 0) {
    state->step = step;
    state->next = step + 1;
    // The teacher leads at first, when the heads know nothing.
    state->lambda = 2.5 + 7.5 * exp(-static_cast<double>(step) / 200);
    for (int use = 0; use < step_state::uses; ++use) {
      state->key[use] = key(static_cast<step_state::use>(use));
    }
  }
  addloss::uniform_timesteps const times;
  for (auto b = threadIdx.x; b < static_cast<unsigned>(batch); b += block_threads) {
    auto const bits = addloss::philox4x32_10(key(step_state::image_numbers), b, 0).word[0];
    numbers[b] = static_cast<std::int64_t>(bits) % images;
    student_t[b] = taus.draw(key(step_state::student_times), b);
    teacher_t[b] = times.draw(key(step_state::teacher_times), b);
  }
}

struct gather_images {
  float const* images;
  std::int64_t const* numbers;
  float* out;
  __device__ void operator()(std::int64_t i) const {
    out[i] = images[numbers[i / image_pixels] * image_pixels + i % image_pixels];
  }
};

/// Adam without a mean of the gradients, as usual against a discriminator, and the mean of the
/// parameters over the last steps. The gradient is 0 then.
struct adam_step {
  static constexpr float decay = 0.99F;
  static constexpr float longest_mean = 0.999F;
  step_state const* state;
  float rate;
  float* w;
  float* w_bar;
  float* squares;
  float* mean;
  __device__ void operator()(std::int64_t i) const {
    float const square = squares[i] = decay * squares[i] + (1 - decay) * w_bar[i] * w_bar[i];
    auto const steps = static_cast<float>(state->step + 1);
    float const unbiased = square / (1 - powf(decay, steps));
    w[i] -= rate * w_bar[i] / (sqrtf(unbiased) + 1e-8F);
    w_bar[i] = 0;
    mean[i] += (w[i] - mean[i]) * (1 - fminf(longest_mean, steps / (steps + 10)));
  }
};

struct add_losses {
  double const* from;
  double* to;
  __device__ void operator()(std::int64_t i) const { to[i] += from[i]; }
};

/// Parameters, their gradients, and what is kept of both over the steps.
struct trained_parameters {
  device_array<float> values;
  device_array<float> gradient;
  device_array<float> squares;
  device_array<float> mean;

  explicit trained_parameters(std::vector<float> const& initial)
      : values(initial), gradient(initial.size()), squares(initial.size()), mean(initial) {}
  /// As if training began with the values of now.
  void restart() {
    squares.write(std::vector<float>(squares.size()));
    mean.write(values.read());
  }
  void update(cudaStream_t stream, step_state const* state, float rate) const {
    each(stream, static_cast<std::int64_t>(values.size()),
         adam_step{state, rate, values.data(), gradient.data(), squares.data(), mean.data()});
  }
};

class trainer {
  // First, as the types of some are deduced.
  [[nodiscard]] std::size_t batch() const { return static_cast<std::size_t>(settings_.batch); }
  [[nodiscard]] std::size_t pixels() const { return batch() * image_pixels; }
  [[nodiscard]] std::int64_t pixel_count() const { return static_cast<std::int64_t>(pixels()); }
  [[nodiscard]] auto view_of(device_array<float> const& images) const {
    return addloss::view<addloss::device_space>(images.data(), batch(), image_pixels);
  }
  [[nodiscard]] auto times(device_array<std::int64_t> const& t) const {
    return addloss::view<addloss::device_space>(t.data(), batch());
  }
  [[nodiscard]] addloss::normal_noise_at noise(step_state::use use) const {
    return {&state_.data()->key[use]};
  }

  /// Lambda is what begin_step writes.
  [[nodiscard]] addloss::add_practical<> objective() const {
    return {.lambda = addloss::number_at{&state_.data()->lambda}, .penalty = {.gamma = 0.5}};
  }
  [[nodiscard]] auto student_loss() const {
    auto const objective = this->objective();
    return objective.student<float>(
        fake_logits_,
        objective.distillation(schedule_, view_of(fake_), view_of(target_), times(teacher_t_)));
  }
  [[nodiscard]] auto copy_loss() const {
    return addloss::distillation<addloss::uniform>{}(schedule_, view_of(fake_), view_of(target_),
                                                     times(student_t_));
  }
  [[nodiscard]] auto discriminator_loss() const {
    return objective().discriminator<float, addloss::device_space>(real_logits_, fake_logits_,
                                                                   features_bar_);
  }

 public:
  static constexpr std::size_t head_count = 3;

  /// `images` [count, 784].
  trainer(cudaStream_t stream, trainer_settings const& settings, std::vector<float> const& images)
      : stream_(stream),
        settings_(settings),
        host_schedule_(addloss::scaled_linear_schedule()),
        levels_(std::vector<addloss::noise_level>(
            host_schedule_.table().levels,
            host_schedule_.table().levels + host_schedule_.table().size)),
        schedule_{levels_.data(), host_schedule_.size()},
        images_(images),
        network_(settings.batch, settings.hidden),
        teacher_(images, images_.data(), settings.batch),
        heads_{patch_head(settings.batch, 7), patch_head(settings.batch, 14),
               patch_head(settings.batch, image_side)},
        student_(network_.initial_parameters(settings.seed)),
        head_parameters_(initial_heads()),
        state_(1),
        numbers_(batch()),
        student_t_(batch()),
        teacher_t_(batch()),
        real_(pixels()),
        x_t_(pixels()),
        fake_(pixels()),
        target_(pixels()),
        fake_bar_(pixels()),
        memory_(memory_numbers()),
        losses_(2),
        health_(head_count),
        non_finite_(2) {
    for (std::size_t k = 0; k < head_count; ++k) make_head(k);
    context_.stream = stream_;
    context_.bytes = addloss::workspace_bytes(copy_loss(), student_loss(), discriminator_loss());
    workspace_.emplace(context_.bytes);
    context_.workspace = workspace_->data();
    addloss::zero_workspace(context_);
  }

  /// Enqueues a step towards a copy of the teacher, which a student of ADD begins as: it learns
  /// what the teacher makes of its x_s.
  void copy_step() {
    begin();
    generate();
    teacher_(stream_, schedule_, x_t_.data(), student_t_.data(), target_.data());
    addloss::value_and_grad(context_, copy_loss(),
                            addloss::view<addloss::device_space>(&losses_.data()->distillation),
                            view_of(fake_bar_), {.non_finite = non_finite_.data()});
    add_up_losses();
    backward_student();
    student_.update(stream_, state_.data(), settings_.copy_rate);
  }
  /// Ends the steps above.
  void begin_distillation() {
    student_.restart();
    state_.write(std::vector<step_state>(1));
  }
  /// Enqueues a step of ADD.
  void step() {
    begin();
    generate();
    teach();
    judge();
    evaluate();
    backward();
    update();
  }

  // The parts of a step, in order.

  /// Real images, timesteps, keys and lambda.
  void begin() {
    begin_step<<<1, block_threads, 0, stream_>>>(
        addloss::student_timesteps::trailing(4), settings_.seed,
        static_cast<std::int64_t>(images_.size()) / image_pixels, settings_.batch, state_.data(),
        numbers_.data(), student_t_.data(), teacher_t_.data());
    check("begin_step", cudaPeekAtLastError());
    each(stream_, pixel_count(), gather_images{images_.data(), numbers_.data(), real_.data()});
  }
  /// The student denoises x_s = alpha_s x_0 + sigma_s eps, s drawn from tau_1 .. tau_4.
  void generate() {
    addloss::add_noise(context_, schedule_, view_of(real_), times(student_t_),
                       noise(step_state::student_noise), view_of(x_t_));
    network_.forward(stream_, student_.values.data(), x_t_.data(), student_t_.data(), fake_.data());
  }
  /// What the teacher makes of the student's image at a random t: a constant.
  void teach() {
    addloss::add_noise(context_, schedule_, view_of(fake_), times(teacher_t_),
                       noise(step_state::teacher_noise), view_of(x_t_));
    teacher_(stream_, schedule_, x_t_.data(), teacher_t_.data(), target_.data());
  }
  /// Logits of both sides, and the gradients that R1 penalises.
  void judge() {
    for (std::size_t k = 0; k < head_count; ++k) {
      heads_[k].forward(stream_, head(head_parameters_.values, k), real_.data(), fake_.data(),
                        tensors_[k].logits.data());
      heads_[k].feature_gradient(stream_, head(head_parameters_.values, k),
                                 tensors_[k].features_bar.data());
    }
  }
  /// Both objectives, and their gradients with respect to logits, feature gradients and images.
  void evaluate() {
    using addloss::device_space;
    step_losses* const to = losses_.data();
    auto const scalar = [](double& x) { return addloss::view<device_space>(&x); };
    addloss::value_and_grad(
        context_, discriminator_loss(),
        addloss::discriminator_values<double, device_space>{.total = scalar(to->total_d),
                                                            .adversarial = scalar(to->hinge),
                                                            .penalty = scalar(to->penalty)},
        {.logits = {.real = real_logits_bar_, .fake = fake_logits_bar_},
         .cotangents = {.features = cotangents_}},
        {.non_finite = non_finite_.data(), .statistics = {health_.data(), head_count}});
    addloss::value_and_grad(
        context_, student_loss(),
        addloss::student_values<double, device_space>{.total = scalar(to->total_g),
                                                      .adversarial = scalar(to->adversarial),
                                                      .distillation = scalar(to->distillation)},
        {.logits = {.fake = generator_bar_}, .student = view_of(fake_bar_)},
        {.non_finite = non_finite_.data() + 1});
    add_up_losses();
  }
  /// From there to the parameters.
  void backward() {
    for (std::size_t k = 0; k < head_count; ++k) {
      float const* const w = head(head_parameters_.values, k);
      heads_[k].backward_parameters(stream_, w, tensors_[k].logits_bar.data(),
                                    tensors_[k].features_bar.data(), memory_.data(),
                                    head(head_parameters_.gradient, k));
      heads_[k].backward_images(stream_, w, tensors_[k].generator_bar.data(), fake_bar_.data());
    }
    backward_student();
  }
  void update() {
    head_parameters_.update(stream_, state_.data(), settings_.head_rate);
    student_.update(stream_, state_.data(), settings_.student_rate);
  }

  // What came out, once the GPU is done.

  [[nodiscard]] step_losses last_losses() const { return losses_.read()[0]; }
  /// Sums since they were last taken.
  step_losses take_losses() {
    auto losses = losses_.read();
    step_losses const result = losses[1];
    losses[1] = {};
    losses_.write(losses);
    return result;
  }
  [[nodiscard]] std::vector<addloss::head_statistics> health() const { return health_.read(); }
  [[nodiscard]] step_state state() const { return state_.read()[0]; }
  /// Of both objectives, in the last step.
  [[nodiscard]] std::vector<std::int64_t> non_finite() const { return non_finite_.read(); }
  [[nodiscard]] std::vector<float> generated() const { return fake_.read(); }
  [[nodiscard]] trained_parameters& student() { return student_; }
  [[nodiscard]] trained_parameters& heads() { return head_parameters_; }

  /// A batch of images, drawn from noise in `steps` steps.
  [[nodiscard]] std::vector<float> sample(int steps) {
    auto const student = [&](auto const& x_t, std::int64_t t, auto const& x_0) {
      student_t_.write(std::vector<std::int64_t>(batch(), t));
      network_.forward(stream_, student_.mean.data(), x_t.data, student_t_.data(), x_0.data);
    };
    addloss::sample_few_steps(addloss::re_noise{}, context_, host_schedule_.table(),
                              addloss::student_timesteps::trailing(steps),
                              {.seed = settings_.seed, .stream = 300}, student, view_of(x_t_),
                              view_of(fake_));
    return fake_.read();
  }

 private:
  /// What the losses read and write of a head.
  struct head_tensors {
    device_array<float> logits, logits_bar, generator_bar, features_bar;
  };
  using read_rows = std::vector<addloss::rows<float const, addloss::device_space>>;
  using written_rows = std::vector<addloss::rows<float, addloss::device_space>>;

  void add_up_losses() {
    each(stream_, loss_count, add_losses{&losses_.data()[0].total_d, &losses_.data()[1].total_d});
  }
  void backward_student() {
    network_.backward(stream_, student_.values.data(), fake_.data(), fake_bar_.data(),
                      memory_.data(), student_.gradient.data());
  }
  void make_head(std::size_t k) {
    auto const tokens = static_cast<std::size_t>(heads_[k].tokens());
    auto const channels = static_cast<std::size_t>(heads_[k].channels());
    std::size_t const logits = batch() * tokens;
    tensors_.push_back({device_array<float>(2 * logits), device_array<float>(2 * logits),
                        device_array<float>(logits), device_array<float>(logits * channels)});
    auto const matrix_of = [&](float* data, std::size_t columns) {
      return addloss::view<addloss::device_space>(data, batch(), columns);
    };
    head_tensors const& own = tensors_.back();
    real_logits_.emplace_back(matrix_of(own.logits.data(), tokens));
    fake_logits_.emplace_back(matrix_of(own.logits.data() + logits, tokens));
    real_logits_bar_.emplace_back(matrix_of(own.logits_bar.data(), tokens));
    fake_logits_bar_.emplace_back(matrix_of(own.logits_bar.data() + logits, tokens));
    generator_bar_.emplace_back(matrix_of(own.generator_bar.data(), tokens));
    // The cotangents take the place of the gradients.
    features_bar_.emplace_back(matrix_of(own.features_bar.data(), tokens * channels));
    cotangents_.emplace_back(matrix_of(own.features_bar.data(), tokens * channels));
  }

  /// The part of a head in a buffer of all heads.
  [[nodiscard]] float* head(device_array<float> const& all, std::size_t k) const {
    std::size_t first = 0;
    for (std::size_t before = 0; before < k; ++before) first += heads_[before].parameter_count();
    return all.data() + first;
  }
  [[nodiscard]] std::vector<float> initial_heads() const {
    std::vector<float> result;
    for (auto const& one : heads_) {
      auto const own = one.initial_parameters(settings_.seed);
      result.insert(result.end(), own.begin(), own.end());
    }
    return result;
  }
  [[nodiscard]] std::size_t memory_numbers() const {
    std::size_t most = slice_numbers(settings_.batch, network_.parameter_count());
    for (auto const& one : heads_) most = std::max(most, one.memory_numbers());
    return most;
  }

  cudaStream_t stream_;
  trainer_settings settings_;
  addloss::discrete_schedule host_schedule_;
  device_array<addloss::noise_level> levels_;
  levels schedule_;
  device_array<float> images_;
  student_network network_;
  ideal_denoiser teacher_;
  std::array<patch_head, head_count> heads_;
  trained_parameters student_, head_parameters_;

  device_array<step_state> state_;
  device_array<std::int64_t> numbers_, student_t_, teacher_t_;
  device_array<float> real_, x_t_, fake_, target_, fake_bar_, memory_;
  device_array<step_losses> losses_;
  device_array<addloss::head_statistics> health_;
  device_array<std::int64_t> non_finite_;
  std::vector<head_tensors> tensors_;
  read_rows real_logits_, fake_logits_, features_bar_;
  written_rows real_logits_bar_, fake_logits_bar_, generator_bar_, cotangents_;
  std::optional<device_array<unsigned char>> workspace_;
  addloss::cuda_context context_;
};

}  // namespace demo
