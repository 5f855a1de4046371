// SPDX-License-Identifier: MIT
// FID, accuracy and time of images that a student or a teacher draws.
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "data.hpp"
#include "denoiser.hpp"
#include "evaluator.hpp"
#include "network.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "whole_file.hpp"

namespace {

struct options {
  std::string weights;
  std::string kind = "student";
  std::vector<std::int64_t> steps = {1, 2, 4};
  demo::sampler_settings sampling{.threads = 2};
  std::int64_t images = 2000;
  std::string data = demo::default_folder;
  std::string evaluator = DEMO_WEIGHTS "/evaluator.safetensors";
  std::string csv;
};

void run(options const& o) {
  if (!o.csv.empty()) demo::require_writable(o.csv);
  demo::parameters weights(demo::denoiser().parts(), 0);
  demo::load_parameters(o.weights, weights);
  demo::evaluator const judging(o.evaluator, demo::read_images(o.data, "t10k"), o.sampling.threads);

  demo::image_sampler sampler(weights);
  std::vector<demo::table_row> table;
  for (std::int64_t const steps : o.steps) {
    demo::sampler_settings s = o.sampling;
    s.steps = steps;
    table.push_back(o.kind == "teacher" ? demo::judge_teacher(judging, o.images, sampler, s)
                                        : demo::judge_student(judging, o.images, sampler, s));
  }
  demo::print_table(table);
  if (!o.csv.empty()) demo::save_table(o.csv, table);
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Judges the images that a student or a teacher draws");
  app.option_defaults()->always_capture_default();
  app.add_option("--weights", o.weights, "safetensors file of a student or a teacher")->required();
  app.add_option("--kind", o.kind, "how to sample")->check(CLI::IsMember({"student", "teacher"}));
  app.add_option("--steps", o.steps, "of sampling: one or more numbers")
      ->delimiter(',')
      ->check(CLI::Range(1, 1000));
  auto const* const guidance =
      app.add_option("--guidance", o.sampling.guidance, "of a teacher; 1: none");
  app.add_option("--images", o.images, "to judge by")->check(CLI::Range(2, 1000000));
  app.add_option("--seed", o.sampling.seed, "of the noise");
  app.add_option("--threads", o.sampling.threads, "the images do not depend on it")
      ->check(CLI::Range(1, 256));
  app.add_option("--data", o.data, "folder of the gzipped IDX files");
  app.add_option("--evaluator", o.evaluator, "weights of the judge");
  app.add_option("--csv", o.csv, "file for the table");
  CLI11_PARSE(app, argc, argv);
  try {
    if (o.kind == "student" && guidance->count() > 0) {
      throw std::runtime_error("--guidance: a student has none");
    }
    run(o);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "evaluate: %s\n", e.what());
    return 1;
  }
}
