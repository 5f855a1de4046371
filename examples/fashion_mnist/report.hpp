// SPDX-License-Identifier: MIT
/// What is shown of teacher and student: a table of FID, accuracy and time, a sheet of images,
/// curves of the losses and of the FID.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data.hpp"
#include "evaluator.hpp"
#include "sampling.hpp"
#include "step_table.hpp"

namespace demo {

using seconds_clock = std::chrono::steady_clock;
inline double seconds_since(seconds_clock::time_point start) {
  return std::chrono::duration<double>(seconds_clock::now() - start).count();
}

/// 0, 1 .. 9, 0, 1 ..: n classes, each as often as the others.
std::vector<int> balanced_classes(std::int64_t n);

/// A line of the table: a way to draw images, and how it does.
struct table_row {
  std::string name;
  evaluation judged;
  double seconds_an_image = 0;
};

/// Draws `n` images and judges them; only the drawing is timed.
table_row judge_student(evaluator const& judging, std::int64_t n, image_sampler& sampler,
                        sampler_settings const& s);
table_row judge_teacher(evaluator const& judging, std::int64_t n, image_sampler& sampler,
                        sampler_settings const& s);

void print_table(std::span<table_row const> rows);

void save_table(std::string const& path, std::span<table_row const> rows);

/// One column a class; rows of real images, of the teacher's by 1, 4 and 25 guided steps, of the
/// student's by 1, 2 and 4, two each.
void save_sample_sheet(std::string const& path, images const& test, image_sampler& teacher,
                       double guidance, image_sampler& student, int threads);

/// Means over `width` values about each.
std::vector<double> smoothed(std::span<double const> y, std::int64_t width);

/// A plot each for L_G, L_distill, L_D and the gap between the logits of reals and fakes: every
/// step's value, and a running mean over it.
void save_loss_curves(std::string const& path, step_table const& log);

/// FID after so many steps of training, by 1, 2 and 4 steps of sampling.
void save_fid_curves(std::string const& path, step_table const& curve, std::int64_t images);

}  // namespace demo
