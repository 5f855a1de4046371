// SPDX-License-Identifier: MIT
// One whole ADD step, discriminator side and student side, on a batch of real images.
//
// The library does what is between the region marks, which README.md quotes. The networks are the
// user's own; here they are stand-ins small enough to differentiate by hand: a Gaussian denoiser as
// student and teacher, image patches as frozen features, and linear discriminator heads.
#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "fashion_mnist/data.hpp"

namespace {

constexpr std::size_t batch = 32;
constexpr std::size_t pixels = demo::image_pixels;
constexpr std::size_t head_count = 2;
constexpr std::size_t channels = 16;  // a patch of 4 x 4 pixels
constexpr std::size_t tokens = 49;  // 7 x 7 patches

using image_view = addloss::tensor_view<float, 4>;

/// A batch of images [B, 1, 28, 28].
struct image_batch {
  std::vector<float> data = std::vector<float>(batch * pixels);
  image_view view() { return addloss::view(data.data(), batch, 1, 28, 28); }
};

/// One tensor a head, of `size` numbers a sample, in the form that the losses take.
struct head_tensors {
  std::vector<std::vector<float>> data;

  explicit head_tensors(std::size_t size) : data(head_count, std::vector<float>(batch * size)) {}
  std::vector<addloss::rows<float>> rows() {
    std::vector<addloss::rows<float>> result;
    for (auto& tensor : data) {
      result.emplace_back(addloss::view(tensor.data(), batch, tensor.size() / batch));
    }
    return result;
  }
  std::vector<addloss::rows<float const>> read() {
    auto const written = rows();
    return {written.begin(), written.end()};
  }
};

/// The best guess at x_0 were pixels independent and normal with these moments.
struct gaussian_denoiser {
  double mean;
  double variance;
  addloss::schedule_table<> schedule;

  void operator()(image_view x_t, std::vector<std::int64_t> const& timesteps,
                  image_view x_0) const {
    for (std::size_t b = 0; b < batch; ++b) {
      auto const [alpha, sigma] = schedule.at(timesteps[b]);
      double const gain = alpha * variance / (alpha * alpha * variance + sigma * sigma);
      for (std::size_t i = b * pixels; i < (b + 1) * pixels; ++i) {
        x_0.data[i] = static_cast<float>(mean + gain * (x_t.data[i] - alpha * mean));
      }
    }
  }
};

/// Discriminator heads that are linear in the patches: D_k[b, l] = sum_c w_k[c] F[b, c, l].
struct linear_heads {
  std::vector<std::vector<float>> weight;

  void logits(image_view images, head_tensors& result) const {
    each([&](std::size_t k, std::size_t c, std::size_t token, std::size_t pixel) {
      result.data[k][token] =
          (c == 0 ? 0 : result.data[k][token]) + weight[k][c] * images.data[pixel];
    });
  }
  /// d (sum_l D_k) / d F, [B, C, L]: what R1 penalises. A linear head has it from its weights.
  void feature_gradients(head_tensors& result) const {
    for (std::size_t k = 0; k < head_count; ++k) {
      for (std::size_t i = 0; i < result.data[k].size(); ++i) {
        result.data[k][i] = weight[k][i / tokens % channels];
      }
    }
  }
  /// Adds the gradient with respect to the images, given that with respect to the logits.
  void backward(head_tensors const& logit_gradients, image_view image_gradient) const {
    each([&](std::size_t k, std::size_t c, std::size_t token, std::size_t pixel) {
      image_gradient.data[pixel] += weight[k][c] * logit_gradients.data[k][token];
    });
  }

 private:
  /// Visits every channel of every token: `token` counts through [B, L], `pixel` through [B, 784].
  template <class Visit>
  static void each(Visit const& visit) {
    for (std::size_t k = 0; k < head_count; ++k) {
      for (std::size_t token = 0; token < batch * tokens; ++token) {
        std::size_t const patch = token % tokens;
        std::size_t const corner = token / tokens * pixels + patch / 7 * 4 * 28 + patch % 7 * 4;
        for (std::size_t c = 0; c < channels; ++c) {
          visit(k, c, token, corner + c / 4 * 28 + c % 4);
        }
      }
    }
  }
};

linear_heads random_heads() {
  linear_heads heads{{head_count, std::vector<float>(channels)}};
  for (std::size_t k = 0; k < head_count; ++k) {
    for (std::size_t c = 0; c < channels; ++c) {
      heads.weight[k][c] = 0.2F * addloss::normal_at({.seed = 7}, static_cast<std::uint32_t>(k), c);
    }
  }
  return heads;
}

int run(std::string const& folder) {
  using namespace addloss;
  image_batch images;
  images.data = demo::read_images(folder, "train", batch).pixels;
  image_batch noisy;
  image_batch generated;
  image_batch teachers;
  image_batch gradient;
  auto const real = images.view();
  auto const x_t = noisy.view();
  auto const fake = generated.view();
  auto const target = teachers.view();
  auto const fake_gradient = gradient.view();

  auto const stable_diffusion = scaled_linear_schedule();
  gaussian_denoiser const student{-0.43, 0.5, stable_diffusion.table()};
  gaussian_denoiser const teacher{-0.43, 0.4, stable_diffusion.table()};
  linear_heads const heads = random_heads();
  head_tensors real_logits(tokens);
  head_tensors fake_logits(tokens);
  head_tensors real_logits_gradient(tokens);
  head_tensors fake_logits_gradient(tokens);
  head_tensors features_gradient(channels * tokens);
  head_tensors cotangent(channels * tokens);
  std::vector<std::int64_t> t(batch);
  std::vector<head_statistics> health(head_count);
  std::uint32_t const step = 0;
  double loss_d = 0;
  double hinge_term = 0;
  double r1_term = 0;
  double loss_g = 0;
  double adversarial_term = 0;
  double distillation_term = 0;

  // [step]
  cpu_context const ctx{.threads = 2};
  auto const schedule = stable_diffusion.table();
  add_practical<> const objective{.lambda = 2.5, .penalty = {.gamma = 1e-5}};
  auto const key = [&](std::uint32_t stream) { return random_key{42, step, stream}; };

  // The student denoises x_s = alpha_s x_0 + sigma_s eps, s drawn from tau_1 .. tau_4.
  sample_timesteps(student_timesteps::trailing(4), key(0), t);
  add_noise(ctx, schedule, real, t, normal_noise{key(1)}, x_t);
  student(x_t, t, fake);

  // Discriminator: hinge loss of all heads, R1 on their input features, health statistics.
  heads.logits(real, real_logits);
  heads.logits(fake, fake_logits);
  heads.feature_gradients(features_gradient);
  auto const real_read = real_logits.read(), fake_read = fake_logits.read();
  auto const features_read = features_gradient.read();
  auto const real_out = real_logits_gradient.rows(), fake_out = fake_logits_gradient.rows();
  auto const cotangent_out = cotangent.rows();
  value_and_grad(
      ctx, objective.discriminator<float>(real_read, fake_read, features_read),
      discriminator_values<double>{.total = loss_d, .adversarial = hinge_term, .penalty = r1_term},
      {.logits = {.real = real_out, .fake = fake_out}, .cotangents = {.features = cotangent_out}},
      {.statistics = health});

  // Student: what the heads say, and what the teacher makes of the student's image at a random t.
  sample_timesteps(uniform_timesteps{}, key(2), t);
  add_noise(ctx, schedule, fake, t, normal_noise{key(3)}, x_t);
  teacher(x_t, t, target);
  auto const distilled = objective.distillation(schedule, fake, target, t);
  value_and_grad(
      ctx, objective.student<float>(fake_read, distilled),
      student_values<double>{
          .total = loss_g, .adversarial = adversarial_term, .distillation = distillation_term},
      {.logits = {.fake = fake_out}, .student = fake_gradient});
  // Into the image; from there your framework goes on to the student's weights.
  heads.backward(fake_logits_gradient, fake_gradient);
  // [step]

  double norm = 0;
  for (float const g : gradient.data) norm += static_cast<double>(g) * g;
  std::printf("One ADD step on %zu Fashion-MNIST images, %zu heads\n\n", batch, head_count);
  std::printf("discriminator  hinge         %12.6f\n", hinge_term);
  std::printf("               gamma R1      %12.6f\n", r1_term);
  std::printf("               total         %12.6f\n", loss_d);
  std::printf("student        adversarial   %12.6f\n", adversarial_term);
  std::printf("               distillation  %12.6f  (lambda %.1f)\n", distillation_term,
              objective.lambda.get());
  std::printf("               total         %12.6f\n", loss_g);
  std::printf("               |gradient|^2  %12.6f\n\n", norm);
  for (std::size_t k = 0; k < head_count; ++k) {
    auto const& [real_side, fake_side] = health[k];
    std::printf(
        "head %zu  real: mean %+.3f, %3.0f %% positive, %3.0f %% active"
        "   fake: mean %+.3f, %3.0f %% positive, %3.0f %% active\n",
        k, real_side.mean, 100 * real_side.positive, 100 * real_side.active, fake_side.mean,
        100 * fake_side.positive, 100 * fake_side.active);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : demo::default_folder);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
