// SPDX-License-Identifier: MIT
// Trains the classifier that judges images (evaluator.hpp), writes its weights, and says how often
// it is right on the test images and which FID real training images have.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <addloss/core/philox.hpp>

#include "data.hpp"
#include "evaluator.hpp"
#include "image_shape.hpp"
#include "optimiser.hpp"
#include "whole_file.hpp"

namespace {

struct settings {
  std::string folder = demo::default_folder;
  std::string file = "evaluator.safetensors";
  std::int64_t steps = 4000;
  double seconds = 0;
  std::int64_t batch = 128;
  std::uint64_t seed = 1;
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  double rate = 1e-3;
  double weight_decay = 0.01;
  double dropout = 0.3;
};

/// Factors of dropout: a pure function of (seed, step, sample, element).
void draw_dropout(settings const& s, std::int64_t step, std::span<float> keep) {
  constexpr std::uint32_t stream = 0x64726f70;  // "drop"
  addloss::random_key const key{s.seed, static_cast<std::uint32_t>(step), stream};
  constexpr auto features = static_cast<std::size_t>(demo::image_classifier::feature_count);
  auto const kept = static_cast<float>(1 / (1 - s.dropout));
  for (std::size_t i = 0; i < keep.size(); i += 4) {
    auto const block = addloss::philox4x32_10(key, static_cast<std::uint32_t>(i / features),
                                              static_cast<std::uint32_t>(i % features / 4));
    for (std::size_t j = 0; j < 4; ++j) {
      keep[i + j] = block.word[j] * 0x1p-32 < s.dropout ? 0.0F : kept;
    }
  }
}

int run(settings const& s) {
  demo::require_writable(s.file);
  demo::images const train = demo::read_images(s.folder, "train");
  demo::images const test = demo::read_images(s.folder, "t10k");
  demo::image_classifier const classifier;
  demo::parameters weights(classifier.parts(), s.seed);
  demo::adam optimiser(weights.values.size(), {.beta2 = 0.999, .weight_decay = s.weight_decay});
  demo::image_classifier::activations<float> a;
  demo::batch_order order(train.count, s.batch, s.seed);

  auto const batch = static_cast<std::size_t>(s.batch);
  std::vector<float> pixels(batch * demo::image_pixels);
  std::vector<int> labels(batch);
  std::vector<float> keep(batch * demo::image_classifier::feature_count);
  std::vector<float> logits_bar(batch * demo::class_count);
  std::vector<float> gradient(weights.values.size());
  auto const start = std::chrono::steady_clock::now();
  auto const elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  double loss = 0;  // a running mean
  std::int64_t step = 0;
  for (;; ++step) {
    double const progress = s.seconds > 0
                                ? elapsed() / s.seconds
                                : static_cast<double>(step) / static_cast<double>(s.steps);
    if (progress >= 1) break;
    demo::gather(train, order.at(step), pixels, labels);
    draw_dropout(s, step, keep);
    classifier.forward<float>(weights, pixels, keep, a, s.threads);
    double const now = demo::cross_entropy<float>(a.logits, labels, logits_bar);
    loss = step == 0 ? now : 0.99 * loss + 0.01 * now;
    classifier.backward<float>(weights, pixels, keep, logits_bar, a, gradient, s.threads);
    double const rate = s.rate * demo::warm_up(step, 100) * demo::linear_decay(progress);
    optimiser.step(weights.values, gradient, rate, 1, s.threads);
    if (step % 50 == 0) {
      double const left = progress > 0 ? elapsed() * (1 - progress) / progress : 0;
      std::fprintf(stderr, "\rstep %6lld  loss %.4f  %4.0f s left ", static_cast<long long>(step),
                   loss, left);
    }
  }
  std::fprintf(stderr, "\n");
  demo::save_parameters(s.file, weights,
                        {{"seed", std::to_string(s.seed)}, {"steps", std::to_string(step)}});
  std::printf("%lld steps of %lld in %.0f s, loss %.4f: %s\n", static_cast<long long>(step),
              static_cast<long long>(s.batch), elapsed(), loss, s.file.c_str());

  demo::evaluator const judge(weights, test, s.threads);
  std::printf("test images: accuracy %.4f\n", judge.evaluate(test.pixels, test.labels).accuracy);
  std::span<float const> const some(train.pixels.data(), std::size_t{2000} * demo::image_pixels);
  auto const floor = judge.evaluate(some, std::span<int const>(train.labels).first(2000));
  std::printf("2000 training images: FID %.3f, accuracy %.4f\n", floor.fid, floor.accuracy);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app("Trains the classifier that judges images of Fashion-MNIST");
  app.add_option("--data", s.folder, "folder of the gzipped IDX files")->capture_default_str();
  app.add_option("--out", s.file, "file of the weights")->capture_default_str();
  auto* const steps = app.add_option("--steps", s.steps, "steps of the optimiser");
  steps->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seconds", s.seconds, "time instead of steps")
      ->check(CLI::PositiveNumber)
      ->excludes(steps);
  app.add_option("--batch", s.batch, "images a step")->capture_default_str();
  app.add_option("--seed", s.seed)->capture_default_str();
  app.add_option("--threads", s.threads)->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--rate", s.rate, "learning rate at the start")->capture_default_str();
  app.add_option("--weight-decay", s.weight_decay)->capture_default_str();
  app.add_option("--dropout", s.dropout)->check(CLI::Range(0.0, 0.9))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return run(s);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
