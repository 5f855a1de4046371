// SPDX-License-Identifier: MIT
#include "distil.hpp"

#include <zlib.h>
#include <addloss/addloss.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "add_trainer.hpp"
#include "data.hpp"
#include "denoiser.hpp"
#include "evaluator.hpp"
#include "image_shape.hpp"
#include "network.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "step_table.hpp"
#include "trainer.hpp"
#include "whole_file.hpp"

namespace demo {

add_settings settings_of(distil_options const& o) {
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
    s.penalty = {.gamma = 1e-5};
    s.lambda = 2.5;
    s.class_condition = s.image_condition = true;
  }
  return s;
}

pretrained::pretrained(std::string const& folder) {
  load_parameters(folder + "/teacher.safetensors", teacher);
  load_parameters(folder + "/features.safetensors", features);
}

std::unique_ptr<trainer> make_trainer(distil_options const& o, pretrained const& given) {
  networks begin{given.teacher, given.features,
                 o.init == "teacher" ? given.teacher : parameters(denoiser().parts(), o.seed)};
  auto const settings = settings_of(o);
  return o.paper ? paper_trainer(settings, std::move(begin))
                 : group_norm_trainer(settings, std::move(begin));
}

run_identity identity_of(distil_options const& o, pretrained const& given) {
  auto const settings = settings_of(o);
  auto const text = [](double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.9g", value);
    return std::string(digits);
  };
  std::string timesteps;
  for (std::int64_t i = 0; i < settings.taus.size(); ++i) {
    if (i > 0) timesteps += ' ';
    timesteps += std::to_string(settings.taus[i]) + ":" + text(settings.taus.probability(i));
  }
  auto const checksum = [](parameters const& p) {
    auto const bytes = std::as_bytes(std::span(p.values));
    char digits[16];
    std::snprintf(
        digits, sizeof digits, "%08lx",
        crc32(0, reinterpret_cast<Bytef const*>(bytes.data()), static_cast<uInt>(bytes.size())));
    return std::string(digits);
  };
  return {{"--loss", o.loss},
          {"--weighting", o.weighting},
          {"--condition", o.condition},
          {"--init", o.init},
          {"--teacher-steps", std::to_string(o.teacher_steps)},
          {"--steps", std::to_string(o.steps)},
          {"--batch", std::to_string(o.batch)},
          {"--lambda", text(o.lambda)},
          {"--paper", o.paper ? "yes" : "no"},
          {"--seed", std::to_string(o.seed)},
          {"teacher", checksum(given.teacher)},
          {"features", checksum(given.features)},
          {"guidance", text(settings.guidance)},
          {"rates", text(settings.student_rate) + " to " + text(settings.student_rate_end) +
                        " and " + text(settings.head_rate)},
          {"average", text(settings.average)},
          {"r1", text(settings.penalty.gamma.get()) + " every " +
                     std::to_string(settings.penalty.interval)},
          {"timesteps", timesteps}};
}

void train_student(distil_options const& o, images const& train, trainer& student,
                   std::int64_t first, std::function<void(step_taken const&)> const& after) {
  batch_order order(train.count, o.batch, o.seed);
  std::vector<float> real(count_of(o.batch * image_pixels));
  std::vector<int> labels(count_of(o.batch));
  for (std::int64_t step = first; step < o.steps; ++step) {
    auto const start = seconds_clock::now();
    gather(train, order.at(step), real, labels);
    double const progress = static_cast<double>(step) / static_cast<double>(o.steps);
    add_report const r = student.step(step, real, labels, progress);
    if (r.non_finite > 0 || !std::isfinite(r.distillation) || !std::isfinite(r.generator)) {
      throw diverged("step " + std::to_string(step) + ": the loss is not finite");
    }
    after(step_taken{step + 1, r, seconds_since(start)});
  }
}

void checkpoint::save(trainer& student, std::int64_t steps) const {
  saved_contents contents;
  student.add_to(contents);
  addloss::safetensors_metadata metadata(identity_.begin(), identity_.end());
  metadata["steps taken"] = std::to_string(steps);
  contents.save(path_, metadata);
}

std::int64_t checkpoint::load(trainer& student, std::int64_t most) const {
  // Before the tensors, whose sizes depend on the options.
  auto const found = loaded_contents().load(path_, {.allow_extra = true});
  auto const value = [&](std::string const& name) {
    auto const place = found.find(name);
    return place == found.end() ? std::string("nothing") : place->second;
  };
  for (auto const& [name, expected] : identity_) {
    if (value(name) == expected) continue;
    throw std::runtime_error(path_ + ": expected " + name + " " + expected + ", found " +
                             value(name));
  }
  std::string const text = value("steps taken");
  std::int64_t steps = -1;
  auto const [stop, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc{} || stop != text.data() + text.size() || steps < 0 || steps > most) {
    throw std::runtime_error(path_ + ": expected 0 to " + std::to_string(most) +
                             " steps taken, found " + text);
  }
  loaded_contents contents;
  student.add_to(contents);
  contents.load(path_);
  return steps;
}

distilled distil(distil_options const& o, pretrained const& given, images const& train,
                 evaluator const* judging, std::function<void(step_taken const&)> const& show) {
  std::filesystem::create_directories(o.out);
  checkpoint const kept(o.out + "/checkpoint.safetensors", identity_of(o, given));
  std::string const log_path = o.out + "/log.csv";
  std::string const curve_path = o.out + "/fid.csv";
  require_writable(log_path);
  step_table log({"generator", "distillation", "discriminator", "penalty", "gap", "active"});
  step_table curve({"fid_1", "accuracy_1", "fid_2", "accuracy_2", "fid_4", "accuracy_4"});
  auto const student = make_trainer(o, given);

  std::int64_t first = 0;
  if (o.resume) {
    first = kept.load(*student, o.steps);
    log.read(log_path, first);
    if (log.rows() != first) {
      throw std::runtime_error(log_path + ": expected " + std::to_string(first) +
                               " steps before the checkpoint, found " + std::to_string(log.rows()));
    }
    curve.read(curve_path, first + 1);
  }
  // The checkpoint last: what it goes on from is then there, whenever the run may end.
  auto const save = [&](std::int64_t steps) {
    log.save(log_path);
    curve.save(curve_path);
    kept.save(*student, steps);
  };
  auto const evaluate = [&](std::int64_t steps) {
    if (judging == nullptr || o.evaluate_every < 1 || steps % o.evaluate_every != 0) return;
    image_sampler sampler(student->student());
    std::vector<double> found;
    for (std::int64_t const n : {1, 2, 4}) {
      auto const [fid, accuracy] =
          judge_student(*judging, o.curve_images, sampler, {.steps = n, .threads = o.threads})
              .judged;
      found.insert(found.end(), {fid, accuracy});
    }
    curve.add(steps, found);
  };

  double seconds = 0;
  if (first == 0) evaluate(0);
  train_student(o, train, *student, first, [&](step_taken const& taken) {
    add_report const& r = taken.report;
    seconds += taken.seconds;
    log.add(taken.steps - 1,
            {r.generator, r.distillation, r.discriminator, r.penalty, r.gap, r.active});
    evaluate(taken.steps);
    if (taken.steps == o.steps || (o.save_every > 0 && taken.steps % o.save_every == 0)) {
      save(taken.steps);
    }
    if (show) show(taken);
  });
  save_parameters(o.out + "/student.safetensors", student->student(),
                  {{"network", "student"},
                   {"steps", std::to_string(o.steps)},
                   {"seed", std::to_string(o.seed)}});
  return {student->student(), std::move(log), std::move(curve), o.steps - first, seconds};
}

}  // namespace demo
