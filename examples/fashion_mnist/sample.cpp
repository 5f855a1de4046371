// SPDX-License-Identifier: MIT
// Draws images with the weights of a student or a teacher, one column a class.
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "data.hpp"
#include "denoiser.hpp"
#include "image_shape.hpp"
#include "network.hpp"
#include "png.hpp"
#include "sampling.hpp"
#include "whole_file.hpp"

namespace {

struct options {
  std::string weights;
  std::string kind = "student";
  demo::sampler_settings sampling{.steps = 4, .threads = 2};
  std::vector<std::string> classes = {"all"};
  int per_class = 4;
  std::string out = "sheet.png";
};

std::string name_of(int c) { return demo::class_names[static_cast<std::size_t>(c)]; }

/// Classes by number or name; "all" are all of them.
std::vector<int> numbers_of(std::vector<std::string> const& classes) {
  std::vector<int> result;
  for (std::string const& text : classes) {
    auto const before = result.size();
    for (int c = 0; c < demo::class_count; ++c) {
      if (text == "all" || text == std::to_string(c) || text == name_of(c)) result.push_back(c);
    }
    if (result.size() > before) continue;
    std::string names;
    for (auto const* name : demo::class_names) names += std::string(", ") + name;
    throw std::runtime_error("--classes: expected all, 0 to 9" + names + "; found " + text);
  }
  return result;
}

void run(options const& o) {
  demo::require_writable(o.out);
  std::vector<int> const columns = numbers_of(o.classes);
  demo::parameters weights(demo::denoiser().parts(), 0);
  demo::load_parameters(o.weights, weights);

  std::vector<int> labels;
  for (int i = 0; i < o.per_class; ++i) labels.insert(labels.end(), columns.begin(), columns.end());
  demo::image_sampler sampler(weights);
  auto const images = o.kind == "teacher" ? sampler.teacher(labels, o.sampling)
                                          : sampler.student(labels, o.sampling);

  std::vector<std::string> names;
  for (int const c : columns) names.push_back(name_of(c));
  std::vector<std::string> const rows(static_cast<std::size_t>(o.per_class));
  demo::save_png(o.out, demo::image_sheet(images, rows, names));
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Draws images of Fashion-MNIST");
  app.option_defaults()->always_capture_default();
  app.add_option("--weights", o.weights, "safetensors file of a student or a teacher")->required();
  app.add_option("--kind", o.kind, "how to sample")->check(CLI::IsMember({"student", "teacher"}));
  app.add_option("--steps", o.sampling.steps, "of sampling")->check(CLI::Range(1, 1000));
  auto const* const guidance =
      app.add_option("--guidance", o.sampling.guidance, "of a teacher; 1: none");
  app.add_option("--classes", o.classes, "all, or some by number or name")->delimiter(',');
  app.add_option("--per-class", o.per_class, "images")->check(CLI::Range(1, 1000));
  app.add_option("--seed", o.sampling.seed, "of the noise");
  app.add_option("--threads", o.sampling.threads, "the images do not depend on it")
      ->check(CLI::Range(1, 256));
  app.add_option("--out", o.out, "PNG file");
  CLI11_PARSE(app, argc, argv);
  try {
    if (o.kind == "student" && guidance->count() > 0) {
      throw std::runtime_error("--guidance: a student has none");
    }
    run(o);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "sample: %s\n", e.what());
    return 1;
  }
}
