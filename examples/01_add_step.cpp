// SPDX-License-Identifier: MIT
// One whole ADD step, discriminator side and student side, on a batch of real images.
//
// The library does what is between the region marks. The networks are the user's own; here they are
// stand-ins small enough to differentiate by hand: a Gaussian denoiser as student and teacher, image
// patches as frozen features, and linear discriminator heads.
#include <addloss/addloss.hpp>

#include <cstdio>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "fashion_mnist.hpp"

namespace {

constexpr std::int64_t batch = 32;
constexpr std::int64_t pixels = fashion_mnist::pixels;
constexpr std::int64_t heads = 2;
constexpr std::int64_t channels = 16;  // a patch of 4 x 4 pixels
constexpr std::int64_t tokens = 49;    // 7 x 7 patches

/// The best guess at x_0 were pixels independent and normal with these moments.
struct gaussian_denoiser {
  double mean;
  double variance;

  void operator()(std::vector<float> const& x_t, std::vector<std::int64_t> const& timesteps,
                  addloss::schedule_table<> schedule, std::vector<float>& x_0) const {
    for (std::size_t b = 0; b < timesteps.size(); ++b) {
      auto const [alpha, sigma] = schedule.at(timesteps[b]);
      double const gain = alpha * variance / (alpha * alpha * variance + sigma * sigma);
      for (std::size_t i = b * pixels; i < (b + 1) * pixels; ++i) {
        x_0[i] = static_cast<float>(mean + gain * (x_t[i] - alpha * mean));
      }
    }
  }
};

/// Channel c of token l of the patch features is one pixel.
std::size_t pixel_of(std::int64_t channel, std::int64_t token) {
  std::int64_t const row = token / 7 * 4 + channel / 4;
  std::int64_t const column = token % 7 * 4 + channel % 4;
  return static_cast<std::size_t>(row * 28 + column);
}

/// A discriminator head that is linear in its features: logits[b, l] = sum_c w_c F[b, c, l].
struct linear_head {
  std::vector<float> weight = std::vector<float>(channels);

  [[nodiscard]] std::vector<float> logits(std::vector<float> const& images) const {
    std::vector<float> result(batch * tokens);
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t l = 0; l < tokens; ++l) {
        float sum = 0;
        for (std::int64_t c = 0; c < channels; ++c) {
          sum += weight[static_cast<std::size_t>(c)] *
                 images[static_cast<std::size_t>(b * pixels) + pixel_of(c, l)];
        }
        result[static_cast<std::size_t>(b * tokens + l)] = sum;
      }
    }
    return result;
  }

  /// d (sum_l D) / d F, [B, C, L]: what R1 penalises.
  [[nodiscard]] std::vector<float> feature_gradient() const {
    std::vector<float> result(batch * channels * tokens);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = weight[i / tokens % channels];
    return result;
  }

  /// Adds the gradient with respect to the images, given that with respect to the logits.
  void add_image_gradient(std::vector<float> const& logit_gradient,
                          std::vector<float>& image_gradient) const {
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t l = 0; l < tokens; ++l) {
        for (std::int64_t c = 0; c < channels; ++c) {
          image_gradient[static_cast<std::size_t>(b * pixels) + pixel_of(c, l)] +=
              weight[static_cast<std::size_t>(c)] *
              logit_gradient[static_cast<std::size_t>(b * tokens + l)];
        }
      }
    }
  }
};

int run(std::string const& folder) {
  namespace add = addloss;
  std::vector<float> const real =
      fashion_mnist::read_images(folder + "/train-images-idx3-ubyte.gz", batch);
  gaussian_denoiser const network{-0.43, 0.5};
  std::vector<linear_head> head(heads);
  for (std::size_t k = 0; k < heads; ++k) {
    for (std::size_t c = 0; c < channels; ++c) {
      head[k].weight[c] = 0.2F * add::normal_at({.seed = 7}, static_cast<std::uint32_t>(k), c);
    }
  }
  auto const image_view = [](auto& images) { return add::view(images.data(), batch, 1, 28, 28); };

  // [step]
  add::cpu_context const ctx{.threads = 2};
  auto const schedule = add::scaled_linear_schedule();  // Stable Diffusion's
  auto const tau = add::student_timesteps::trailing(4);
  enum stream : std::uint32_t { student_time, student_noise, teacher_time, teacher_noise };
  auto const key = [step = 0U](stream use) {
    return add::random_key{.seed = 42, .step = step, .stream = use};
  };

  // The student denoises x_s = alpha_s x_0 + sigma_s eps, s drawn from tau.
  std::vector<std::int64_t> s(batch);
  std::vector<float> x_s(real.size());
  std::vector<float> student(real.size());
  add::sample_timesteps(tau, key(student_time), s);
  add::add_noise(ctx, schedule.table(), image_view(real), add::view(s.data(), batch),
                 add::normal_noise{key(student_noise)}, image_view(x_s));
  network(x_s, s, schedule.table(), student);
  // [step]

  std::vector<std::vector<float>> real_logits(heads);
  std::vector<std::vector<float>> fake_logits(heads);
  std::vector<std::vector<float>> real_gradient(heads, std::vector<float>(batch * tokens));
  std::vector<std::vector<float>> fake_gradient = real_gradient;
  std::vector<std::vector<float>> feature_gradient(heads);
  std::vector<add::rows<float const>> real_rows;
  std::vector<add::rows<float const>> fake_rows;
  std::vector<add::rows<float const>> feature_rows;
  std::vector<add::rows<float>> real_out;
  std::vector<add::rows<float>> fake_out;
  for (std::size_t k = 0; k < heads; ++k) {
    real_logits[k] = head[k].logits(real);
    fake_logits[k] = head[k].logits(student);
    feature_gradient[k] = head[k].feature_gradient();
    real_rows.emplace_back(add::view(real_logits[k].data(), batch, tokens));
    fake_rows.emplace_back(add::view(fake_logits[k].data(), batch, tokens));
    feature_rows.emplace_back(add::view(feature_gradient[k].data(), batch, channels, tokens));
    real_out.emplace_back(add::view(real_gradient[k].data(), batch, tokens));
    fake_out.emplace_back(add::view(fake_gradient[k].data(), batch, tokens));
  }

  // [discriminator]
  // Hinge loss of all heads with its gradients and statistics, and R1 on the real features.
  add::adversarial<add::hinge> const adversarial;
  std::vector<add::head_statistics> statistics(heads);
  double hinge = 0;
  double r1 = 0;
  add::value_and_grad(ctx, adversarial.discriminator<float>(real_rows, fake_rows), hinge,
                      {.real = real_out, .fake = fake_out}, {.statistics = statistics});
  add::value(ctx, add::r1{.gamma = 1e-5}.on<float>(feature_rows), r1);
  // [discriminator]

  // [student]
  // L_G through the heads, and the teacher's opinion of the student's image at a random t.
  double generator = 0;
  add::value_and_grad(ctx, adversarial.generator<float>(fake_rows), generator,
                      {.fake = fake_out});
  std::vector<float> gradient(real.size());
  for (std::size_t k = 0; k < heads; ++k) {
    head[k].add_image_gradient(fake_gradient[k], gradient);
  }

  std::vector<std::int64_t> t(batch);
  std::vector<float> x_t(real.size());
  std::vector<float> target(real.size());
  add::sample_timesteps(add::uniform_timesteps{}, key(teacher_time), t);
  add::add_noise(ctx, schedule.table(), image_view(student), add::view(t.data(), batch),
                 add::normal_noise{key(teacher_noise)}, image_view(x_t));
  network(x_t, t, schedule.table(), target);

  double constexpr lambda = 2.5;
  double distillation = 0;
  add::value_and_grad(ctx,
                      add::distillation<add::exponential>{}(schedule.table(), image_view(student),
                                                            image_view(target),
                                                            add::view(t.data(), batch)),
                      distillation, add::accumulate(image_view(gradient)),
                      {.grad_scale = lambda});
  // [student]

  double norm = 0;
  for (float const g : gradient) norm += static_cast<double>(g) * g;
  std::printf("One ADD step on %lld Fashion-MNIST images, %lld heads\n\n",
              static_cast<long long>(batch), static_cast<long long>(heads));
  std::printf("discriminator  hinge         %12.6f\n", hinge);
  std::printf("               gamma R1      %12.6f\n", r1);
  std::printf("               total         %12.6f\n", hinge + r1);
  std::printf("student        adversarial   %12.6f\n", generator);
  std::printf("               distillation  %12.6f  (lambda %.1f)\n", distillation, lambda);
  std::printf("               total         %12.6f\n", generator + lambda * distillation);
  std::printf("               |gradient|^2  %12.6f\n\n", norm);
  for (std::size_t k = 0; k < heads; ++k) {
    auto const& [real_side, fake_side] = statistics[k];
    std::printf("head %zu  real: mean %+.3f, %3.0f %% positive, %3.0f %% active"
                "   fake: mean %+.3f, %3.0f %% positive, %3.0f %% active\n",
                k, real_side.mean, 100 * real_side.positive, 100 * real_side.active,
                fake_side.mean, 100 * fake_side.positive, 100 * fake_side.active);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : fashion_mnist::default_folder);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
