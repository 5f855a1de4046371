// SPDX-License-Identifier: MIT
// The main job: distils the pretrained teacher into a student that draws images in 1 to 4 steps,
// and shows what came out. The method itself is add_trainer::step, the loop about it is in
// distil.hpp.
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "data.hpp"
#include "distil.hpp"
#include "evaluator.hpp"
#include "report.hpp"
#include "sampling.hpp"

namespace {

struct options : demo::distil_options {
  std::int64_t images = 2000;  // of the table
  std::string data = demo::default_folder;
  std::string weights = DEMO_WEIGHTS;
};

/// A line now and then.
class progress_line {
 public:
  explicit progress_line(std::int64_t steps) : steps_(steps) {}

  void operator()(demo::step_taken const& taken) {
    ++count_;
    seconds_ += taken.seconds;
    if (seconds_ - shown_ < 2 && taken.steps < steps_) return;
    shown_ = seconds_;
    double const each = seconds_ / static_cast<double>(count_);
    auto const& r = taken.report;
    std::printf(
        "step %lld of %lld  L_G %.3f  L_distill %.4f  L_D %.3f  gap %.2f  active %.2f  "
        "%.3f s a step  %.0f s left\n",
        static_cast<long long>(taken.steps), static_cast<long long>(steps_), r.generator,
        r.distillation, r.discriminator, r.gap, r.active, each,
        each * static_cast<double>(steps_ - taken.steps));
    std::fflush(stdout);
  }

 private:
  std::int64_t steps_;
  std::int64_t count_ = 0;
  double seconds_ = 0;
  double shown_ = -2;
};

void run(options const& o) {
  demo::images const train = demo::read_images(o.data, "train");
  demo::images const test = demo::read_images(o.data, "t10k");
  demo::pretrained const given(o.weights);
  demo::evaluator const judging(o.weights + "/evaluator.safetensors", test, o.threads);

  auto const result = demo::distil(o, given, train, &judging, progress_line(o.steps));

  demo::save_loss_curves(o.out + "/losses.svg", result.log);
  if (result.curve.rows() > 0) {
    demo::save_fid_curves(o.out + "/fid.svg", result.curve, o.curve_images);
  }
  demo::image_sampler teacher(given.teacher);
  demo::image_sampler student(result.student);
  double const guidance = demo::settings_of(o).guidance;
  demo::save_sample_sheet(o.out + "/samples.png", test, teacher, guidance, student, o.threads);
  std::printf("%lld steps in %.0f s; images, curves and log in %s\n",
              static_cast<long long>(result.steps), result.seconds, o.out.c_str());
  if (o.images == 0) return;

  std::vector<demo::table_row> table;
  auto const add_teacher = [&](std::int64_t steps, double scale) {
    table.push_back(demo::judge_teacher(judging, o.images, teacher,
                                        {.steps = steps, .guidance = scale, .threads = o.threads}));
  };
  for (std::int64_t const steps : {1, 2, 4}) {
    add_teacher(steps, 1);
    add_teacher(steps, guidance);
  }
  add_teacher(25, guidance);
  for (std::int64_t const steps : {1, 2, 4}) {
    table.push_back(
        demo::judge_student(judging, o.images, student, {.steps = steps, .threads = o.threads}));
  }
  demo::print_table(table);
  demo::save_table(o.out + "/results.csv", table);
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Distils a diffusion model into a student of 1 to 4 steps");
  app.option_defaults()->always_capture_default();
  app.add_option("--loss", o.loss, "what the student minimises")
      ->check(CLI::IsMember({"adversarial", "distillation", "both"}));
  app.add_option("--weighting", o.weighting, "c(t) of the distillation loss")
      ->check(CLI::IsMember({"exponential", "sds", "nfsd"}));
  app.add_option("--condition", o.condition, "what the heads are conditioned on")
      ->check(CLI::IsMember({"none", "class", "image", "both"}));
  app.add_option("--init", o.init, "first weights of the student")
      ->check(CLI::IsMember({"teacher", "random"}));
  app.add_option("--teacher-steps", o.teacher_steps, "steps of the teacher for its target")
      ->check(CLI::IsMember({1, 2, 4}));
  app.add_option("--steps", o.steps, "of training")->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "images a step")->check(CLI::Range(1, 60000));
  app.add_option("--lambda", o.lambda, "weight of the distillation loss")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--paper", o.paper, "heads and weights as in the paper");
  app.add_option("--seed", o.seed, "of all random numbers");
  app.add_option("--threads", o.threads, "the result does not depend on it")
      ->check(CLI::Range(1, 256));
  app.add_option("--images", o.images, "images to judge each way of sampling by; 0: none")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--evaluate-every", o.evaluate_every, "steps between points of fid.svg; 0: none")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--curve-images", o.curve_images, "images of such a point")
      ->check(CLI::Range(2, 100000));
  app.add_option("--save-every", o.save_every, "steps between checkpoints; 0: only at the end")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--resume", o.resume, "go on from the checkpoint in --out");
  app.add_option("--data", o.data, "folder of the gzipped IDX files");
  app.add_option("--weights", o.weights, "folder of the pretrained networks");
  app.add_option("--out", o.out, "folder of all that is written");
  CLI11_PARSE(app, argc, argv);
  try {
    run(o);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "distill: %s\n", e.what());
    return 1;
  }
}
