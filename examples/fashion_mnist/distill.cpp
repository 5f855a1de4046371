// SPDX-License-Identifier: MIT
// The main job: distils the pretrained teacher into a student that draws images in 1 to 4 steps,
// and shows what came out. The method itself is add_trainer::step.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "add_trainer.hpp"
#include "data.hpp"
#include "evaluator.hpp"
#include "network.hpp"
#include "png.hpp"
#include "sampling.hpp"
#include "whole_file.hpp"

namespace {

using namespace demo;
using seconds_clock = std::chrono::steady_clock;

struct options {
  std::string loss = "both";
  std::string weighting = "exponential";
  std::string condition = "class";
  std::string init = "teacher";
  std::int64_t teacher_steps = 1;
  std::int64_t steps = 900;
  std::int64_t batch = 32;
  std::int64_t images = 2000;  // to evaluate
  std::int64_t evaluate_every = 0;
  std::int64_t save_every = 200;
  std::uint64_t seed = 1;
  int threads = 2;
  double lambda = 5;
  bool paper = false;
  bool resume = false;
  std::string data = default_folder;
  std::string weights = DEMO_WEIGHTS;
  std::string out = "demo";
};

double seconds_since(seconds_clock::time_point start) {
  return std::chrono::duration<double>(seconds_clock::now() - start).count();
}

template <class Network>
parameters read_weights(options const& o, char const* name) {
  parameters result(Network().parts(), 0);
  load_parameters(o.weights + "/" + name + ".safetensors", result);
  return result;
}

add_settings settings_of(options const& o) {
  add_settings s;
  s.batch = o.batch;
  s.seed = o.seed;
  s.threads = o.threads;
  s.lambda = o.lambda;
  s.adversarial = o.loss != "distillation";
  s.distillation = o.loss != "adversarial";
  s.teacher_steps = o.teacher_steps;
  s.class_condition = o.condition == "class" || o.condition == "both";
  s.image_condition = o.condition == "image" || o.condition == "both";
  if (o.weighting == "sds") s.distance = addloss::distillation<addloss::sds>{};
  if (o.weighting == "nfsd") s.distance = addloss::distillation<addloss::nfsd>{};
  if (o.paper) {
    s.taus = addloss::student_timesteps::trailing(4);
    s.penalty = {.gamma = 1e-5};
    s.lambda = 2.5;
    s.class_condition = s.image_condition = true;
  }
  return s;
}

/// A balanced list of classes.
std::vector<int> balanced_classes(std::int64_t n) {
  std::vector<int> result(count_of(n));
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<int>(i % class_count);
  return result;
}

struct row {
  std::string name;
  evaluation judged;
  double seconds_an_image;
};

/// Draws images and judges them.
template <class Draw>
row judge(std::string const& name, evaluator const& judging, std::int64_t n, Draw const& draw) {
  auto const labels = balanced_classes(n);
  auto const start = seconds_clock::now();
  auto const images = draw(labels);
  double const seconds = seconds_since(start);
  return {name, judging.evaluate(images, labels), seconds / static_cast<double>(n)};
}

/// Loads a checkpoint, or leaves everything as it is and says why not.
template <class Trainer>
std::int64_t resume_from(std::string const& path, options const& o, Trainer& trainer) {
  loaded_contents contents;
  trainer.add_to(contents);
  auto const metadata = contents.load(path);
  auto const expect = [&](char const* name, std::string const& wanted) {
    auto const found = metadata.find(name);
    std::string const got = found == metadata.end() ? "none" : found->second;
    if (got != wanted) {
      throw std::runtime_error(path + ": made with --" + name + " " + got + ", not " + wanted);
    }
  };
  expect("loss", o.loss);
  expect("weighting", o.weighting);
  expect("condition", o.condition);
  expect("seed", std::to_string(o.seed));
  expect("batch", std::to_string(o.batch));
  expect("steps", std::to_string(o.steps));
  return std::stoll(metadata.at("step"));
}

/// The picture of the result: rows of real images, of the teacher's and of the student's.
void save_sheet(options const& o, images const& test, image_sampler& teacher,
                image_sampler& student, double guidance) {
  std::vector<int> const labels = balanced_classes(class_count);
  std::vector<std::string> row_names;
  std::vector<float> all;
  auto const append = [&](std::string const& name, std::vector<float> const& drawn) {
    row_names.push_back(name);
    all.insert(all.end(), drawn.begin(), drawn.end());
  };
  std::vector<float> real;
  for (int c = 0; c < class_count; ++c) {
    auto const found = std::find(test.labels.begin(), test.labels.end(), c);
    auto const first = test.pixels.begin() + (found - test.labels.begin()) * image_pixels;
    real.insert(real.end(), first, first + image_pixels);
  }
  append("real", real);
  for (std::int64_t const steps : {1, 4, 25}) {
    append("teacher " + std::to_string(steps),
           teacher.teacher(labels, {.steps = steps, .guidance = guidance, .threads = o.threads}));
  }
  for (std::int64_t const steps : {1, 2, 4}) {
    append("student " + std::to_string(steps),
           student.student(labels, {.steps = steps, .threads = o.threads}));
    append("", student.student(labels, {.steps = steps, .seed = 8, .threads = o.threads}));
  }
  std::vector<std::string> const columns(class_names.begin(), class_names.end());
  save_png(o.out + "/samples.png", image_sheet(all, row_names, columns));
}

template <class Heads>
void run(options const& o, Heads heads) {
  std::filesystem::create_directories(o.out);
  images const train = read_images(o.data, "train");
  images const test = read_images(o.data, "t10k");
  parameters const teacher = read_weights<denoiser>(o, "teacher");
  parameters const features = read_weights<feature_network>(o, "features");
  evaluator const judging(o.weights + "/evaluator.safetensors", test, o.threads);
  add_settings const settings = settings_of(o);
  add_trainer<Heads> trainer(
      settings, std::move(heads), teacher, features,
      o.init == "teacher" ? teacher : parameters(denoiser().parts(), o.seed));

  std::string const checkpoint = o.out + "/checkpoint.safetensors";
  std::string const log_path = o.out + "/log.csv";
  std::int64_t first = 0;
  std::string log = "step,generator,distillation,discriminator,penalty,gap,active,non_finite\n";
  if (o.resume) {
    first = resume_from(checkpoint, o, trainer);
    std::printf("%s: goes on after step %lld\n", checkpoint.c_str(), static_cast<long long>(first));
  }
  auto const save = [&](std::int64_t step) {
    saved_contents contents;
    trainer.add_to(contents);
    contents.save(checkpoint, {{"step", std::to_string(step)},
                               {"loss", o.loss},
                               {"weighting", o.weighting},
                               {"condition", o.condition},
                               {"seed", std::to_string(o.seed)},
                               {"batch", std::to_string(o.batch)},
                               {"steps", std::to_string(o.steps)}});
    write_file(log_path, log);
  };

  batch_order order(train.count, o.batch, o.seed);
  std::vector<float> real(count_of(o.batch * image_pixels));
  std::vector<int> classes(count_of(o.batch));
  auto const evaluate = [&](std::int64_t step) {
    image_sampler sampler(trainer.student());
    for (std::int64_t const steps : {1, 2, 4}) {
      row const r = judge("", judging, o.images, [&](auto const& labels) {
        return sampler.student(labels, {.steps = steps, .threads = o.threads});
      });
      std::printf("  step %lld: %lld-step student FID %.1f, accuracy %.2f\n",
                  static_cast<long long>(step), static_cast<long long>(steps), r.judged.fid,
                  r.judged.accuracy);
    }
  };

  auto const start = seconds_clock::now();
  double shown = -1;
  double training = 0;
  for (std::int64_t step = first; step < o.steps; ++step) {
    auto const step_start = seconds_clock::now();
    gather(train, order.at(step), real, classes);
    double const progress = static_cast<double>(step) / static_cast<double>(o.steps);
    add_report const r = trainer.step(step, real, classes, progress);
    training += seconds_since(step_start);
    if (r.non_finite > 0 || !std::isfinite(r.distillation) || !std::isfinite(r.generator)) {
      throw std::runtime_error("step " + std::to_string(step) + ": the loss is not finite");
    }
    char line[256];
    std::snprintf(line, sizeof line, "%lld,%g,%g,%g,%g,%g,%g,%lld\n", static_cast<long long>(step),
                  r.generator, r.distillation, r.discriminator, r.penalty, r.gap, r.active,
                  static_cast<long long>(r.non_finite));
    log += line;
    double const each = training / static_cast<double>(step - first + 1);
    if (double const now = seconds_since(start); now - shown > 2 || step + 1 == o.steps) {
      shown = now;
      std::printf(
          "step %lld of %lld  L_G %.3f  L_distill %.4f  L_D %.3f  gap %.2f  active %.2f  "
          "%.3f s a step  %.0f s left\n",
          static_cast<long long>(step + 1), static_cast<long long>(o.steps), r.generator,
          r.distillation, r.discriminator, r.gap, r.active, each,
          each * static_cast<double>(o.steps - step - 1));
      std::fflush(stdout);
    }
    if (o.save_every > 0 && (step + 1) % o.save_every == 0) save(step + 1);
    if (o.evaluate_every > 0 && (step + 1) % o.evaluate_every == 0) evaluate(step + 1);
  }
  save(o.steps);
  save_parameters(o.out + "/student.safetensors", trainer.student(),
                  {{"steps", std::to_string(o.steps)}, {"seed", std::to_string(o.seed)}});
  if (o.images == 0) return;

  image_sampler teacher_sampler(teacher);
  image_sampler student_sampler(trainer.student());
  std::vector<row> table;
  for (std::int64_t const steps : {1, 2, 4, 25}) {
    for (double const guidance : {1.0, settings.guidance}) {
      if (steps == 1 && guidance != 1) continue;
      table.push_back(
          judge("teacher, " + std::to_string(steps) + (steps == 1 ? " step" : " steps") +
                    (guidance == 1 ? "" : ", guided"),
                judging, o.images, [&](auto const& labels) {
                  return teacher_sampler.teacher(
                      labels, {.steps = steps, .guidance = guidance, .threads = o.threads});
                }));
    }
  }
  for (std::int64_t const steps : {1, 2, 4}) {
    table.push_back(judge("student, " + std::to_string(steps) + (steps == 1 ? " step" : " steps"),
                          judging, o.images, [&](auto const& labels) {
                            return student_sampler.student(labels,
                                                           {.steps = steps, .threads = o.threads});
                          }));
  }
  save_sheet(o, test, teacher_sampler, student_sampler, settings.guidance);
  std::printf("\n%-26s %8s %9s %14s\n", "", "FID", "accuracy", "ms an image");
  std::string results = "sampler,fid,accuracy,ms_an_image\n";
  for (row const& r : table) {
    std::printf("%-26s %8.1f %9.3f %14.3f\n", r.name.c_str(), r.judged.fid, r.judged.accuracy,
                1e3 * r.seconds_an_image);
    results += "\"" + r.name + "\"," + std::to_string(r.judged.fid) + "," +
               std::to_string(r.judged.accuracy) + "," + std::to_string(1e3 * r.seconds_an_image) +
               "\n";
  }
  write_file(o.out + "/results.csv", results);
  std::printf("\n%lld steps in %.0f s; images in %s/samples.png\n",
              static_cast<long long>(o.steps - first), training, o.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Distils a diffusion model into a student of 1 to 4 steps.");
  app.add_option("--loss", o.loss, "what the student minimises")
      ->check(CLI::IsMember({"adversarial", "distillation", "both"}))
      ->capture_default_str();
  app.add_option("--weighting", o.weighting, "c(t) of the distillation loss")
      ->check(CLI::IsMember({"exponential", "sds", "nfsd"}))
      ->capture_default_str();
  app.add_option("--condition", o.condition, "what the heads are conditioned on")
      ->check(CLI::IsMember({"none", "class", "image", "both"}))
      ->capture_default_str();
  app.add_option("--init", o.init, "first weights of the student")
      ->check(CLI::IsMember({"teacher", "random"}))
      ->capture_default_str();
  app.add_option("--teacher-steps", o.teacher_steps, "steps of the teacher for its target")
      ->check(CLI::IsMember({1, 2, 4}))
      ->capture_default_str();
  app.add_option("--steps", o.steps, "of training")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", o.batch)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lambda", o.lambda, "weight of the distillation loss")->capture_default_str();
  app.add_option("--seed", o.seed)->capture_default_str();
  app.add_option("--threads", o.threads)->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--images", o.images, "images to evaluate; 0: none")->capture_default_str();
  app.add_option("--evaluate-every", o.evaluate_every, "steps; 0: only at the end");
  app.add_option("--save-every", o.save_every, "steps between checkpoints")->capture_default_str();
  app.add_option("--data", o.data, "folder of the gzipped IDX files")->capture_default_str();
  app.add_option("--weights", o.weights, "folder of the pretrained networks")
      ->capture_default_str();
  app.add_option("--out", o.out, "folder of all that is written")->capture_default_str();
  app.add_flag("--paper", o.paper, "heads, timesteps and weights as in the paper");
  app.add_flag("--resume", o.resume, "go on from the checkpoint in --out");
  CLI11_PARSE(app, argc, argv);
  try {
    add_settings const settings = settings_of(o);
    if (o.paper) {
      run(o, addloss::projected_heads<float>(head_list(settings)));
    } else {
      run(o, group_norm_heads(settings));
    }
  } catch (std::exception const& e) {
    std::fprintf(stderr, "distill: %s\n", e.what());
    return 1;
  }
}
