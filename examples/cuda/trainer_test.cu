// SPDX-License-Identifier: MIT
// The gradients of the CUDA trainer against differences of its losses, and that steps repeat.
#include "trainer.cuh"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

std::vector<float> numbers(std::size_t count, unsigned seed, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> result(count);
  for (float& x : result) x = normal(random);
  return result;
}

demo::trainer_settings const settings{.batch = 3, .hidden = 20};
std::vector<float> const& images() {
  static auto const result = numbers(std::size_t{5} * demo::image_pixels, 1, 0.7F);
  return result;
}

/// Goes up to the gradients.
void start(demo::trainer& trainer, std::vector<float> const& student,
           std::vector<float> const& heads) {
  trainer.student().values.write(student);
  trainer.heads().values.write(heads);
  trainer.begin();
  trainer.generate();
  trainer.teach();
  trainer.judge();
  trainer.evaluate();
  trainer.backward();
}

/// The derivative of `loss` along random directions in `of`, by differences and by the gradient.
/// What the teacher says is a constant.
void check_gradient(demo::trainer& trainer, demo::trained_parameters& of,
                    double demo::step_losses::*loss, double step, double tolerance) {
  auto const gradient = of.gradient.read();
  auto const place = of.values.read();
  double squares = 0;
  for (float const g : gradient) squares += static_cast<double>(g) * static_cast<double>(g);
  for (unsigned seed = 10; seed < 12; ++seed) {
    auto const direction = numbers(place.size(), seed, 1);
    double expected = 0;
    for (std::size_t i = 0; i < place.size(); ++i) {
      expected += static_cast<double>(gradient[i]) * static_cast<double>(direction[i]);
    }
    auto const loss_at = [&](double distance) {
      auto moved = place;
      for (std::size_t i = 0; i < moved.size(); ++i) {
        moved[i] += static_cast<float>(distance) * direction[i];
      }
      of.values.write(moved);
      trainer.generate();
      trainer.judge();
      trainer.evaluate();
      return trainer.last_losses().*loss;
    };
    double const difference = (loss_at(step) - loss_at(-step)) / (2 * step);
    CAPTURE(seed, expected, difference, std::sqrt(squares));
    // A random direction goes along the gradient by about its norm.
    CHECK(std::abs(difference - expected) < tolerance * std::sqrt(squares));
  }
  of.values.write(place);
}

}  // namespace

TEST_CASE("the trainer's gradients are those of its losses") {
  demo::trainer trainer(nullptr, settings, images());
  auto const student = numbers(trainer.student().values.size(), 2, 0.05F);
  auto const heads = numbers(trainer.heads().values.size(), 3, 0.3F);
  start(trainer, student, heads);
  // A step so small that no unit of a head changes its side: R1 jumps there.
  check_gradient(trainer, trainer.heads(), &demo::step_losses::total_d, 1e-4, 5e-3);
  // What its units' kinks add falls with the step: 2.2 % of the norm at 1e-4, 0.8 % here.
  check_gradient(trainer, trainer.student(), &demo::step_losses::total_g, 3e-5, 1.5e-2);
  // Without heads there are no kinks.
  trainer.student().gradient.write(std::vector<float>(student.size()));
  start(trainer, student, std::vector<float>(heads.size()));
  check_gradient(trainer, trainer.student(), &demo::step_losses::total_g, 1e-3, 1e-3);
}

TEST_CASE("each step draws its own images, timesteps and noise, and lambda falls") {
  demo::trainer trainer(nullptr, settings, images());
  trainer.step();
  auto const first = trainer.state();
  auto const fakes = trainer.generated();
  trainer.step();
  auto const second = trainer.state();
  CHECK(first.step == 0);
  CHECK(second.step == 1);
  CHECK(second.key[demo::step_state::student_noise].step == 1);
  CHECK(first.lambda == 10);
  CHECK(second.lambda < first.lambda);
  CHECK(trainer.generated() != fakes);
}

TEST_CASE("the student learns to copy the teacher, and ADD begins where it ends") {
  demo::trainer trainer(nullptr, settings, images());
  double losses[3];
  for (double& loss : losses) {
    trainer.begin_distillation();  // the same draws each time
    trainer.copy_step();
    loss = trainer.last_losses().distillation;
  }
  CHECK(losses[1] < losses[0]);
  CHECK(losses[2] < losses[1]);
  CHECK(trainer.take_losses().distillation == Approx(losses[0] + losses[1] + losses[2]));

  auto const copy = trainer.student().values.read();
  CHECK(trainer.student().mean.read() != copy);
  CHECK(trainer.student().squares.read() != std::vector<float>(copy.size()));
  trainer.begin_distillation();
  CHECK(trainer.student().values.read() == copy);
  CHECK(trainer.student().mean.read() == copy);
  CHECK(trainer.student().squares.read() == std::vector<float>(copy.size()));
  trainer.step();
  CHECK(trainer.state().step == 0);
  CHECK(trainer.student().values.read() != copy);
}

TEST_CASE("samples are drawn from the same noise in each number of steps, by the mean student") {
  demo::trainer trainer(nullptr, settings, images());
  // Grey, at first.
  CHECK(trainer.sample(1) == std::vector<float>(std::size_t{3} * demo::image_pixels));
  auto const student = numbers(trainer.student().values.size(), 2, 0.05F);
  trainer.student().mean.write(student);
  auto const one = trainer.sample(1);
  CHECK(one == trainer.sample(1));
  CHECK(one != trainer.sample(2));
  trainer.student().values.write(student);
  trainer.student().mean.write(std::vector<float>(student.size()));
  CHECK(trainer.sample(1) == std::vector<float>(one.size()));
}

TEST_CASE("the same seed trains to the same bits") {
  std::vector<float> trained[2];
  for (auto& values : trained) {
    demo::trainer trainer(nullptr, settings, images());
    for (int step = 0; step < 2; ++step) trainer.step();
    values = trainer.student().values.read();
    CHECK(trainer.non_finite() == std::vector<std::int64_t>{0, 0});
  }
  CHECK(trained[0] == trained[1]);
  CHECK(trained[0] != demo::student_network(3, 20).initial_parameters(settings.seed));
}
