// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data.hpp"
#include "evaluator.hpp"
#include "image_shape.hpp"
#include "png.hpp"
#include "sampling.hpp"
#include "step_table.hpp"
#include "svg.hpp"
#include "whole_file.hpp"

namespace demo {
namespace {

std::string name_of(std::string const& sampler, sampler_settings const& s) {
  return sampler + ", " + std::to_string(s.steps) + (s.steps == 1 ? " step" : " steps") +
         (s.guidance == 1 ? "" : ", guided");
}

template <class Draw>
table_row judge(std::string name, evaluator const& judging, std::int64_t n, Draw const& draw) {
  auto const labels = balanced_classes(n);
  auto const start = seconds_clock::now();
  auto const drawn = draw(labels);
  double const seconds = seconds_since(start);
  return {std::move(name), judging.evaluate(drawn, labels), seconds / static_cast<double>(n)};
}

}  // namespace

std::vector<int> balanced_classes(std::int64_t n) {
  std::vector<int> result(count_of(n));
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<int>(i % class_count);
  return result;
}

table_row judge_student(evaluator const& judging, std::int64_t n, image_sampler& sampler,
                        sampler_settings const& s) {
  return judge(name_of("student", s), judging, n,
               [&](auto const& labels) { return sampler.student(labels, s); });
}
table_row judge_teacher(evaluator const& judging, std::int64_t n, image_sampler& sampler,
                        sampler_settings const& s) {
  return judge(name_of("teacher", s), judging, n,
               [&](auto const& labels) { return sampler.teacher(labels, s); });
}

void print_table(std::span<table_row const> rows) {
  std::printf("\n%-26s %8s %9s %12s\n", "", "FID", "accuracy", "ms an image");
  for (table_row const& r : rows) {
    std::printf("%-26s %8.1f %9.3f %12.3f\n", r.name.c_str(), r.judged.fid, r.judged.accuracy,
                1e3 * r.seconds_an_image);
  }
}

void save_table(std::string const& path, std::span<table_row const> rows) {
  std::string text = "sampler,fid,accuracy,ms_an_image\n";
  for (table_row const& r : rows) {
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "%.3f,%.4f,%.4f", r.judged.fid, r.judged.accuracy,
                  1e3 * r.seconds_an_image);
    text += "\"" + r.name + "\"," + numbers + "\n";
  }
  write_file(path, text);
}

void save_sample_sheet(std::string const& path, images const& test, image_sampler& teacher,
                       double guidance, image_sampler& student, int threads) {
  std::vector<int> const labels = balanced_classes(class_count);
  std::vector<std::string> names;
  std::vector<float> all;
  auto const append = [&](std::string const& name, std::span<float const> drawn) {
    names.push_back(name);
    all.insert(all.end(), drawn.begin(), drawn.end());
  };
  std::vector<float> real(labels.size() * image_pixels, 1.0F);
  for (std::size_t c = 0; c < labels.size(); ++c) {
    auto const found = std::find(test.labels.begin(), test.labels.end(), labels[c]);
    if (found == test.labels.end()) continue;
    std::copy_n(test.pixels.begin() + (found - test.labels.begin()) * image_pixels, image_pixels,
                real.data() + c * image_pixels);
  }
  append("real", real);
  for (std::int64_t const steps : {1, 4, 25}) {
    sampler_settings const s{.steps = steps, .guidance = guidance, .threads = threads};
    append("teacher " + std::to_string(steps), teacher.teacher(labels, s));
  }
  for (std::int64_t const steps : {1, 2, 4}) {
    sampler_settings s{.steps = steps, .threads = threads};
    append("student " + std::to_string(steps), student.student(labels, s));
    ++s.seed;
    append("", student.student(labels, s));
  }
  std::vector<std::string> const columns(class_names.begin(), class_names.end());
  save_png(path, image_sheet(all, names, columns));
}

std::vector<double> smoothed(std::span<double const> y, std::int64_t width) {
  std::int64_t const n = std::ssize(y);
  std::vector<double> result;
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t const first = std::max<std::int64_t>(0, i - width / 2);
    std::int64_t const last = std::min(n, i + width / 2 + 1);
    double sum = 0;
    for (std::int64_t j = first; j < last; ++j) sum += y[static_cast<std::size_t>(j)];
    result.push_back(sum / static_cast<double>(last - first));
  }
  return result;
}

void save_loss_curves(std::string const& path, step_table const& log) {
  std::vector<line_plot> plots;
  auto const add = [&](char const* column, char const* title, char const* colour) {
    auto const y = log.column(column);
    if (std::all_of(y.begin(), y.end(), [](double v) { return v == 0; })) return;  // not in use
    auto const x = log.column("step");
    std::int64_t const width = std::max<std::int64_t>(1, log.rows() / 40);
    plots.push_back({.title = title,
                     .horizontal = {.label = "step"},
                     .lines = {{"", x, y, colour, 0.3}, {"", x, smoothed(y, width), colour}}});
  };
  add("generator", "L_G of the student", "#1f6fb4");
  add("distillation", "L_distill, without lambda", "#3a9a48");
  add("discriminator", "L_D of the heads", "#d9542b");
  add("gap", "logits of reals minus those of fakes", "#8e5aa8");
  save_svg(path, plots, 2);
}

void save_fid_curves(std::string const& path, step_table const& curve, std::int64_t images) {
  line_plot plot{.title = "FID of " + std::to_string(images) + " images of the student",
                 .horizontal = {.label = "steps of training"},
                 .vertical = {.label = "FID", .scale = axis_scale::logarithmic}};
  for (std::string const steps : {"1", "2", "4"}) {
    plot.lines.push_back({steps + (steps == "1" ? " step" : " steps"), curve.column("step"),
                          curve.column("fid_" + steps)});
  }
  save_svg(path, plot);
}

}  // namespace demo
