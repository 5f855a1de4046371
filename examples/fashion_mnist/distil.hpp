// SPDX-License-Identifier: MIT
/// The loop about add_trainer::step: options, batches, log, curve, checkpoints.
///
/// A run writes to its folder `out`
///   checkpoint.safetensors   all that changes, and the options that made it
///   log.csv                  what each step told
///   fid.csv                  FID and accuracy of the student now and then
///   student.safetensors      at the end
/// A run that goes on from its checkpoint ends with the same bits as one that was not interrupted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "add_trainer.hpp"
#include "data.hpp"
#include "denoiser.hpp"
#include "evaluator.hpp"
#include "feature_network.hpp"
#include "network.hpp"
#include "step_table.hpp"
#include "trainer.hpp"

namespace demo {

struct distil_options {
  std::string loss = "both";  ///< or adversarial, distillation
  std::string weighting = "exponential";  ///< or sds, nfsd
  std::string condition = "class";  ///< of the heads; or none, image, both
  std::string init = "teacher";  ///< or random
  std::int64_t teacher_steps = 1;
  std::int64_t steps = 750;
  std::int64_t batch = 32;
  double lambda = 5;
  bool paper = false;  ///< heads and weights as in the paper
  std::uint64_t seed = 1;
  int threads = 2;
  std::int64_t evaluate_every = 250;  ///< steps between points of the FID's curve; 0: none
  std::int64_t curve_images = 500;
  std::int64_t save_every = 200;  ///< steps between checkpoints; 0: only at the end
  bool resume = false;
  std::string out = "demo";
};

add_settings settings_of(distil_options const& o);

/// What distillation takes as given.
struct pretrained {
  parameters teacher{denoiser().parts(), 0};
  parameters features{feature_network().parts(), 0};

  explicit pretrained(std::string const& folder);
};

std::unique_ptr<trainer> make_trainer(distil_options const& o, pretrained const& given);

/// Names and values of all that decides the result, but for the data and the code: runs that agree
/// in them do the same. Those that begin with "--" are options of the program distill.
using run_identity = std::vector<std::pair<std::string, std::string>>;
run_identity identity_of(distil_options const& o, pretrained const& given);

/// A step that was taken.
struct step_taken {
  std::int64_t steps = 0;  ///< taken now, this one counted
  add_report report;
  double seconds = 0;
};

/// What a loss that is not finite raises.
struct diverged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Takes the steps first ... o.steps - 1 on batches of `train`; after each, after(step_taken).
void train_student(distil_options const& o, images const& train, trainer& student,
                   std::int64_t first, std::function<void(step_taken const&)> const& after);

/// What is kept of a run to go on from.
class checkpoint {
 public:
  checkpoint(std::string path, run_identity identity)
      : path_(std::move(path)), identity_(std::move(identity)) {}

  void save(trainer& student, std::int64_t steps) const;
  /// Gives the number of steps taken. On an error `student` is as it was.
  std::int64_t load(trainer& student, std::int64_t most) const;

 private:
  std::string path_;
  run_identity identity_;
};

struct distilled {
  parameters student;
  step_table log;
  step_table curve;
  std::int64_t steps = 0;  ///< of this run alone
  double seconds = 0;  ///< they took
};

/// Distils a student. `judging` draws the curve of the FID, if there is one to be. `show` is called
/// after every step.
distilled distil(distil_options const& o, pretrained const& given, images const& train,
                 evaluator const* judging, std::function<void(step_taken const&)> const& show);

}  // namespace demo
