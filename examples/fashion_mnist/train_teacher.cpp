// SPDX-License-Identifier: MIT
// Trains what ADD takes as given: the teacher, a class-conditional denoiser with v-prediction; the
// feature network of the discriminator, a classifier; and what judges the images, another one.
//
// All with AdamW and a learning rate that falls to 0; the first two with clipped gradients and an
// exponential moving average of the parameters, which is what is saved.
#include <CLI/CLI.hpp>

#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "data.hpp"
#include "denoiser.hpp"
#include "evaluator.hpp"
#include "feature_network.hpp"
#include "image_shape.hpp"
#include "network.hpp"
#include "optimiser.hpp"
#include "sampling.hpp"

namespace {

struct options {
  std::string network;
  double seconds = 600;
  std::int64_t steps = 0;  // 0: as many as there is time for
  std::int64_t batch = 128;
  std::uint64_t seed = 1;
  int threads = 2;
  std::string out;
  std::string data = demo::default_folder;
};

struct recipe {
  double rate;
  double weight_decay;
  double beta2 = 0.99;
  double clip = 1;
  double average = 0.999;  // 0: none
  std::int64_t warm_up = 200;
};

/// Uses of random numbers within a step, which follow from these values.
enum stream : std::uint32_t {
  noise = 0,
  timestep = 1,
  dropped_class = 2,
  shift = 4,
  dropped_feature = 0x64726f70
};

/// Element `element` of a few uniform numbers in [0, 1) a sample.
double uniform(options const& o, std::int64_t step, stream use, std::int64_t sample,
               int element = 0) {
  addloss::random_key const key{o.seed, static_cast<std::uint32_t>(step), use};
  auto const block = addloss::philox4x32_10(key, static_cast<std::uint32_t>(sample), 0);
  return block.word[element] * 0x1p-32;
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The loop of all: gradient_of(step, weights, gradient) gives the loss. Returns the parameters, or
/// their average, which are also in the file o.out; until the end, those of every thousandth step
/// are in o.out + ".part", so that a disk without room shows at once and little is lost.
template <class Gradient>
demo::parameters train(options const& o, recipe const& r, demo::part_list const& parts,
                       Gradient const& gradient_of) {
  using clock = std::chrono::steady_clock;
  demo::parameters weights(parts, o.seed);
  demo::parameters average = weights;
  demo::parameters const& result = r.average > 0 ? average : weights;
  demo::adam adam(weights.values.size(), {.beta2 = r.beta2, .weight_decay = r.weight_decay});
  std::vector<float> gradient(weights.values.size());
  auto const start = clock::now();
  auto const elapsed = [&] { return std::chrono::duration<double>(clock::now() - start).count(); };
  auto const save = [&](std::string const& path, std::int64_t step) {
    demo::save_parameters(path, result,
                          {{"network", o.network},
                           {"steps", std::to_string(step)},
                           {"batch", std::to_string(o.batch)},
                           {"seed", std::to_string(o.seed)},
                           {"minutes", std::to_string(elapsed() / 60)}});
  };
  std::string const part_path = o.out + ".part";
  save(part_path, 0);

  double running = 0;
  double shown = 0;
  for (std::int64_t step = 0;; ++step) {
    double const now = elapsed();
    double const progress =
        o.steps > 0 ? static_cast<double>(step) / static_cast<double>(o.steps) : now / o.seconds;
    if (progress >= 1) {
      save(o.out, step);
      std::remove(part_path.c_str());
      std::printf("%s: %lld steps, %.1f minutes, saved as %s\n", o.network.c_str(),
                  static_cast<long long>(step), now / 60, o.out.c_str());
      return result;
    }
    double const loss = gradient_of(step, weights, std::span<float>(gradient));
    if (!std::isfinite(loss)) throw std::runtime_error("the loss is not finite; lower the rate");
    double const factor = demo::clip_factor(demo::global_norm(gradient, o.threads), r.clip);
    double const rate = r.rate * demo::warm_up(step, r.warm_up) * demo::linear_decay(progress);
    adam.step(weights.values, gradient, rate, factor, o.threads);
    if (r.average > 0) {
      demo::update_average(average.values, weights.values, demo::average_decay(step, r.average),
                           o.threads);
    }

    running = step == 0 ? loss : 0.99 * running + 0.01 * loss;
    if (elapsed() - shown > 5) {
      shown = elapsed();
      double const left = progress > 0 ? now * (1 - progress) / progress : 0;
      std::printf("step %6lld  %3.0f %%  loss %.5f  %.3f s a step  %.0f s left\n",
                  static_cast<long long>(step + 1), 100 * progress, running,
                  shown / static_cast<double>(step + 1), left);
      std::fflush(stdout);
    }
    if (step % 1000 == 999) save(part_path, step + 1);
  }
}

/// The batch of a denoiser, and the loss mean (v(x_t, t, y) - v)^2 with v = alpha eps - sigma x_0.
struct denoising_batch {
  std::vector<float> x_0, x_t, target, v, v_bar;
  std::vector<std::int64_t> t;
  std::vector<int> y;
  std::vector<double> losses;  // of the slices

  explicit denoising_batch(std::int64_t batch)
      : x_0(at(batch * demo::image_pixels)),
        x_t(x_0.size()),
        target(x_0.size()),
        v(x_0.size()),
        v_bar(x_0.size()),
        t(at(batch)),
        y(at(batch)),
        losses(at(demo::slice_count(batch))) {}

  [[nodiscard]] std::int64_t size() const { return std::ssize(t); }

  /// Timesteps spread evenly from a random start: less noisy losses than independent ones.
  void spread_timesteps(double start, std::int64_t timesteps) {
    for (std::size_t b = 0; b < t.size(); ++b) {
      t[b] =
          static_cast<std::int64_t>((static_cast<double>(b) + start) *
                                    static_cast<double>(timesteps) / static_cast<double>(t.size()));
    }
  }

  void add_noise(options const& o, addloss::schedule_table<> const& schedule, std::int64_t step) {
    addloss::cpu_context const ctx{.threads = o.threads};
    addloss::normal_noise const eps{{o.seed, static_cast<std::uint32_t>(step), noise}};
    auto const image = [&](std::vector<float>& memory) {
      return addloss::view(memory.data(), t.size(), at(demo::image_pixels));
    };
    addloss::add_noise(ctx, schedule, image(x_0), t, eps, image(x_t));
    addloss::velocity(ctx, schedule, image(x_0), t, eps, image(target));
  }

  /// Loss of a slice, and its gradient.
  void compare(demo::slice const& s) {
    std::int64_t const first = s.first * demo::image_pixels;
    std::int64_t const count = s.samples * demo::image_pixels;
    auto const all = static_cast<float>(x_0.size());
    auto bar = demo::as_row(v_bar.data() + first, count);
    bar = demo::as_row(v.data() + first, count) - demo::as_row(target.data() + first, count);
    losses[at(s.number)] = static_cast<double>(bar.square().sum() / all);
    bar *= 2 / all;
  }
  [[nodiscard]] double loss() const { return std::accumulate(losses.begin(), losses.end(), 0.0); }
};

void train_denoiser(options const& o) {
  auto const images = demo::read_images(o.data, "train");
  auto const discrete = demo::diffusion_schedule();
  auto const schedule = discrete.table();
  demo::denoiser const network;
  demo::batch_order order(images.count, o.batch, o.seed);
  denoising_batch batch(o.batch);
  std::array<demo::denoiser::slice_activations<float>, demo::lanes> activations;
  demo::lane_gradients<float> gradients;

  auto const average = train(
      o, {.rate = 1.5e-3, .weight_decay = 0.01}, network.parts(),
      [&](std::int64_t step, demo::parameters const& w, std::span<float> gradient) {
        demo::gather(images, order.at(step), batch.x_0, batch.y);
        for (std::int64_t b = 0; b < o.batch; ++b) {
          // Classifier-free guidance needs the unconditional prediction, too.
          if (uniform(o, step, dropped_class, b) < 0.1) batch.y[at(b)] = demo::no_class;
        }
        batch.spread_timesteps(uniform(o, step, timestep, 0), discrete.size());
        batch.add_noise(o, schedule, step);
        demo::denoiser_batch<float> const in{batch.x_t, batch.t, batch.y};
        demo::each_slice(
            o.batch, o.threads, [&](int lane) { gradients.start(lane, network.parameter_count()); },
            [&](demo::slice const& s) {
              auto& mine = activations[static_cast<std::size_t>(s.lane)];
              network.forward_slice(w.values.data(), in, s, mine, batch.v.data());
              batch.compare(s);
              network.backward_slice<float>(w.values.data(), batch.v_bar.data(), s, mine,
                                            gradients.data(s.lane), nullptr);
            });
        gradients.sum(gradient, o.threads);
        return batch.loss();
      });

  auto const test = demo::read_images(o.data, "t10k", 2000);
  denoising_batch check(test.count);
  check.x_0 = test.pixels;
  check.y = test.labels;
  check.spread_timesteps(0.5, discrete.size());
  check.add_noise(o, schedule, 0);
  demo::denoiser::activations<float> memory;
  network.predict<float>(average, {check.x_t, check.t, check.y}, memory, check.v, o.threads);
  demo::each_slice(
      check.size(), o.threads, [](int) {}, [&](demo::slice const& s) { check.compare(s); });
  std::printf("loss on %lld test images: %.5f\n", static_cast<long long>(test.count), check.loss());
}

/// An image of the classifier's training: moved by up to a pixel each way. Not noisy ones: a
/// network that learns to overlook noise cannot show the heads the noise of generated images.
void augment(options const& o, std::int64_t step, std::int64_t sample, float* image) {
  std::array<float, demo::image_pixels> const original = [&] {
    std::array<float, demo::image_pixels> copy{};
    std::copy_n(image, demo::image_pixels, copy.begin());
    return copy;
  }();
  auto const moved = [&](int element) {
    return static_cast<std::int64_t>(3 * uniform(o, step, shift, sample, element)) - 1;
  };
  std::int64_t const down = moved(0);
  std::int64_t const right = moved(1);
  for (std::int64_t y = 0; y < demo::image_side; ++y) {
    for (std::int64_t x = 0; x < demo::image_side; ++x) {
      std::int64_t const from_y = y - down;
      std::int64_t const from_x = x - right;
      bool const inside =
          from_y >= 0 && from_y < demo::image_side && from_x >= 0 && from_x < demo::image_side;
      image[y * demo::image_side + x] =
          inside ? original[at(from_y * demo::image_side + from_x)] : -1.0F;
    }
  }
}

/// -log softmax(logits)[label], divided by `all`, and its gradient.
double cross_entropy(float const* logits, int label, float all, float* logits_bar) {
  constexpr std::int64_t n = demo::class_count;
  auto const z = demo::as_row(logits, n);
  auto bar = demo::as_row(logits_bar, n);
  float const largest = z.maxCoeff();
  bar = (z - largest).exp();
  float const sum = bar.sum();
  bar /= sum * all;
  logits_bar[label] -= 1 / all;
  return static_cast<double>((std::log(sum) + largest - logits[label]) / all);
}

void train_features(options const& o) {
  auto const images = demo::read_images(o.data, "train");
  demo::feature_network const network;
  demo::batch_order order(images.count, o.batch, o.seed);
  std::vector<float> x(at(o.batch * demo::image_pixels));
  std::vector<int> y(at(o.batch));
  std::vector<float> logits(at(o.batch * demo::class_count));
  std::vector<float> logits_bar(logits.size());
  std::vector<double> losses(at(o.batch));
  std::array<demo::feature_network::slice_activations<float>, demo::lanes> activations;
  demo::lane_gradients<float> gradients;

  auto const average = train(
      o, {.rate = 2e-3, .weight_decay = 0.05}, network.parts(),
      [&](std::int64_t step, demo::parameters const& w, std::span<float> gradient) {
        demo::gather(images, order.at(step), x, y);
        demo::each_slice(
            o.batch, o.threads, [&](int lane) { gradients.start(lane, network.parameter_count()); },
            [&](demo::slice const& s) {
              auto& mine = activations[static_cast<std::size_t>(s.lane)];
              for (std::int64_t b = s.first; b < s.first + s.samples; ++b) {
                augment(o, step, b, x.data() + b * demo::image_pixels);
              }
              network.forward_slice(w.values.data(), x.data(), s, mine, logits.data());
              for (std::int64_t b = s.first; b < s.first + s.samples; ++b) {
                losses[at(b)] = cross_entropy(logits.data() + b * demo::class_count, y[at(b)],
                                              static_cast<float>(o.batch),
                                              logits_bar.data() + b * demo::class_count);
              }
              network.backward_slice<float>(w.values.data(), logits_bar.data(), {}, s, mine,
                                            gradients.data(s.lane), nullptr);
            });
        gradients.sum(gradient, o.threads);
        return std::accumulate(losses.begin(), losses.end(), 0.0);
      });

  auto const test = demo::read_images(o.data, "t10k");
  std::vector<float> test_logits(at(test.count * demo::class_count));
  demo::each_slice(
      test.count, o.threads, [](int) {},
      [&](demo::slice const& s) {
        network.forward_slice(average.values.data(), test.pixels.data(), s,
                              activations[static_cast<std::size_t>(s.lane)], test_logits.data());
      });
  std::int64_t correct = 0;
  for (std::int64_t b = 0; b < test.count; ++b) {
    std::int64_t best = 0;
    demo::as_row(test_logits.data() + b * demo::class_count, demo::class_count).maxCoeff(&best);
    if (best == test.labels[at(b)]) ++correct;
  }
  std::printf("accuracy on %lld test images: %.2f %%\n", static_cast<long long>(test.count),
              100 * static_cast<double>(correct) / static_cast<double>(test.count));
}

/// Factors of dropout: 0 or 1 / (1 - rate).
void draw_dropout(options const& o, std::int64_t step, double rate, std::span<float> keep) {
  constexpr auto features = static_cast<std::size_t>(demo::image_classifier::feature_count);
  addloss::random_key const key{o.seed, static_cast<std::uint32_t>(step), dropped_feature};
  auto const kept = static_cast<float>(1 / (1 - rate));
  for (std::size_t i = 0; i < keep.size(); i += 4) {
    auto const block = addloss::philox4x32_10(key, static_cast<std::uint32_t>(i / features),
                                              static_cast<std::uint32_t>(i % features / 4));
    for (std::size_t j = 0; j < 4; ++j) keep[i + j] = block.word[j] * 0x1p-32 < rate ? 0.0F : kept;
  }
}

void train_evaluator(options const& o) {
  auto const images = demo::read_images(o.data, "train");
  demo::image_classifier const network;
  demo::batch_order order(images.count, o.batch, o.seed);
  std::vector<float> x(at(o.batch * demo::image_pixels));
  std::vector<int> y(at(o.batch));
  std::vector<float> keep(at(o.batch * demo::image_classifier::feature_count));
  std::vector<float> logits_bar(at(o.batch * demo::class_count));
  demo::image_classifier::activations<float> activations;

  auto const weights =
      train(o,
            {.rate = 1e-3,
             .weight_decay = 0.01,
             .beta2 = 0.999,
             .clip = std::numeric_limits<double>::infinity(),
             .average = 0,
             .warm_up = 100},
            network.parts(),
            [&](std::int64_t step, demo::parameters const& w, std::span<float> gradient) {
              demo::gather(images, order.at(step), x, y);
              draw_dropout(o, step, 0.3, keep);
              network.forward<float>(w, x, keep, activations, o.threads);
              double const loss = demo::cross_entropy<float>(activations.logits, y, logits_bar);
              network.backward<float>(w, x, keep, logits_bar, activations, gradient, o.threads);
              return loss;
            });

  auto const test = demo::read_images(o.data, "t10k");
  demo::evaluator const judge(weights, test, o.threads);
  std::printf("accuracy on %lld test images: %.2f %%\n", static_cast<long long>(test.count),
              100 * judge.evaluate(test.pixels, test.labels).accuracy);
  std::span<float const> const some(images.pixels.data(), at(2000 * demo::image_pixels));
  std::printf("FID of 2000 training images: %.3f\n",
              judge.evaluate(some, std::span(images.labels).first(2000)).fid);
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Trains the teacher, the feature network or the judge of the Fashion-MNIST example");
  app.add_option("--network", o.network, "what to train")
      ->required()
      ->check(CLI::IsMember({"denoiser", "features", "evaluator"}));
  auto* const seconds = app.add_option("--seconds", o.seconds, "how long to train")
                            ->check(CLI::PositiveNumber)
                            ->capture_default_str();
  app.add_option("--steps", o.steps, "how many steps to train: the same bits each time")
      ->check(CLI::PositiveNumber)
      ->excludes(seconds);
  app.add_option("--batch", o.batch, "images a step")
      ->check(CLI::Range(1, 60000))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of all random numbers")->capture_default_str();
  app.add_option("--threads", o.threads, "the result does not depend on it")
      ->check(CLI::Range(1, demo::lanes))
      ->capture_default_str();
  app.add_option("--out", o.out, "safetensors file to write")->required();
  app.add_option("--data", o.data, "folder of the Fashion-MNIST files")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    if (o.network == "denoiser") train_denoiser(o);
    if (o.network == "features") train_features(o);
    if (o.network == "evaluator") train_evaluator(o);
    return 0;
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
