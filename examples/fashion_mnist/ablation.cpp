// SPDX-License-Identifier: MIT
// Reruns in small tables 1b, 1c, 1d and 1f of the paper: what the heads are conditioned on, the
// student's first weights, the terms of the loss, the steps of the teacher. Each row is a few
// trainings of other seeds; rows that tables share are trained once.
//
// Finished trainings are in ablation.csv: a second call goes on where the first one ended. A row
// counts where all settings are the same; after changes of the code itself, begin a new folder.
// Source of the directions: Sauer, Lorenz, Blattmann, Rombach, Adversarial Diffusion Distillation,
// 2023, table 1.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "data.hpp"
#include "distil.hpp"
#include "evaluator.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "whole_file.hpp"

namespace {

struct options {
  std::int64_t steps = 300;
  std::int64_t seeds = 3;
  std::int64_t images = 2000;
  int threads = 2;
  std::string data = demo::default_folder;
  std::string weights = DEMO_WEIGHTS;
  std::string out = "ablation";
};

/// A row of a table: what differs from the defaults of distill, and what the paper saw.
struct variant {
  std::string name;
  demo::distil_options settings;
  std::string paper;
};

struct ablation_table {
  std::string title;
  std::string paper;
  std::vector<variant> rows;
};

std::vector<ablation_table> all_tables(demo::distil_options const& base) {
  auto const with = [&](auto demo::distil_options::*option, auto value) {
    auto result = base;
    result.*option = value;
    return result;
  };
  auto const condition = [&](char const* value) {
    return with(&demo::distil_options::condition, value);
  };
  auto const loss = [&](char const* value, char const* weighting) {
    auto result = with(&demo::distil_options::loss, value);
    result.weighting = weighting;
    return result;
  };
  auto const teacher_steps = [&](std::int64_t value) {
    return with(&demo::distil_options::teacher_steps, value);
  };
  return {
      {"1b: what the heads are conditioned on",
       "Text helps, the image helps more, both are best.",
       {{"none", condition("none"), "worst"},
        {"class", condition("class"), "better (text in place of the class)"},
        {"image", condition("image"), "better than text"},
        {"class and image", condition("both"), "best"}}},
      {"1c: first weights of the student",
       "The pretrained weights are essential.",
       {{"the teacher's", with(&demo::distil_options::init, "teacher"), "best"},
        {"random", with(&demo::distil_options::init, "random"), "fails"}}},
      {"1d: terms of the loss",
       "Distillation alone fails (with which weights is not told); together with the adversarial "
       "loss it helps. Exponential weights give the lowest FID, SDS and NFSD better images and "
       "alignment with the text.",
       {{"adversarial", loss("adversarial", "exponential"), "worse than with exponential"},
        {"distillation, exponential", loss("distillation", "exponential"), "fails"},
        {"distillation, SDS", loss("distillation", "sds"), "fails"},
        {"distillation, NFSD", loss("distillation", "nfsd"), "fails"},
        {"both, exponential", loss("both", "exponential"), "lowest FID"},
        {"both, SDS", loss("both", "sds"), "higher FID"},
        {"both, NFSD", loss("both", "nfsd"), "higher FID"}}},
      {"1f: steps of the teacher",
       "More steps give no better students.",
       {{"1", teacher_steps(1), "as good as more"},
        {"2", teacher_steps(2), "no better"},
        {"4", teacher_steps(4), "no better"}}}};
}

/// FID and accuracy by 1, 2 and 4 steps; not a number where training diverged.
struct run_result {
  std::array<double, 3> fid{};
  std::array<double, 3> accuracy{};
  double seconds = 0;
};
constexpr std::array<std::int64_t, 3> sampling_steps = {1, 2, 4};

std::vector<std::string> split(std::string const& line) {
  std::vector<std::string> result;
  std::istringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) result.push_back(cell);
  return result;
}

/// The finished trainings and their file: settings, then results, separated by commas.
class finished_runs {
 public:
  finished_runs(std::string path, std::string settings_header)
      : path_(std::move(path)), header_(std::move(settings_header)) {
    for (auto const steps : sampling_steps) header_ += ",fid_" + std::to_string(steps);
    for (auto const steps : sampling_steps) header_ += ",accuracy_" + std::to_string(steps);
    header_ += ",seconds";
    if (std::filesystem::exists(path_)) read();
    demo::require_writable(path_);
  }

  [[nodiscard]] run_result const* find(std::string const& settings) const {
    auto const found = results_.find(settings);
    return found == results_.end() ? nullptr : &found->second;
  }

  void add(std::string const& settings, run_result const& result) {
    results_[settings] = result;
    std::string text = header_ + "\n";
    for (auto const& [key, r] : results_) {
      text += key;
      for (auto const& numbers : {r.fid, r.accuracy}) {
        for (double const x : numbers) (text += ',') += number(x);
      }
      ((text += ',') += number(r.seconds)) += '\n';
    }
    demo::write_file(path_, text);
  }

 private:
  static std::string number(double x) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", x);
    return text;
  }

  void read() {
    std::ifstream file(path_, std::ios::binary);
    std::string line;
    if (!std::getline(file, line) || line != header_) {
      throw std::runtime_error(path_ + ": expected the header '" + header_ + "', found '" +
                               line.substr(0, 200) + "'");
    }
    std::size_t const columns = split(header_).size();
    while (std::getline(file, line)) {
      auto const cells = split(line);
      std::vector<double> values;
      if (cells.size() == columns) {
        for (auto cell = cells.end() - 7; cell != cells.end(); ++cell) {
          char* end = nullptr;
          values.push_back(std::strtod(cell->c_str(), &end));
          if (cell->empty() || *end != '\0') values.clear();
        }
      }
      if (values.size() != 7) {
        throw std::runtime_error(path_ + ": expected " + std::to_string(columns) +
                                 " cells, seven numbers last, found '" + line.substr(0, 200) + "'");
      }
      run_result r;
      std::copy_n(values.begin(), 3, r.fid.begin());
      std::copy_n(values.begin() + 3, 3, r.accuracy.begin());
      r.seconds = values.back();
      std::string settings = line;
      for (int i = 0; i < 7; ++i) settings.resize(settings.rfind(','));
      results_[settings] = r;
    }
  }

  std::string path_;
  std::string header_;
  std::map<std::string, run_result> results_;
};

/// The settings of a training as a row of the file, and the names of the columns.
std::pair<std::string, std::string> row_of(demo::distil_options const& settings,
                                           demo::pretrained const& given, std::int64_t images) {
  std::string names;
  std::string values;
  for (auto const& [name, value] : demo::identity_of(settings, given)) {
    names += (name.starts_with("--") ? name.substr(2) : name) + ",";
    values += value + ",";
  }
  return {names + "images", values + std::to_string(images)};
}

/// Mean and standard deviation over the seeds.
std::string spread(std::vector<double> const& values, int digits) {
  double mean = 0;
  for (double const x : values) mean += x / static_cast<double>(values.size());
  double variance = 0;
  for (double const x : values) {
    variance += (x - mean) * (x - mean) / static_cast<double>(values.size() - 1);
  }
  if (!std::isfinite(mean)) return "diverged";
  char text[64];
  if (values.size() < 2) {
    std::snprintf(text, sizeof text, "%.*f", digits, mean);
  } else {
    std::snprintf(text, sizeof text, "%.*f ± %.*f", digits, mean, digits, std::sqrt(variance));
  }
  return text;
}

class ablation {
 public:
  explicit ablation(options const& o)
      : o_(o),
        train_(demo::read_images(o.data, "train")),
        given_(o.weights),
        judging_(o.weights + "/evaluator.safetensors", demo::read_images(o.data, "t10k"),
                 o.threads) {
    std::filesystem::create_directories(o.out);
    base_.steps = o.steps;
    base_.threads = o.threads;
  }

  void run() {
    finished_runs finished(o_.out + "/ablation.csv", row_of(base_, given_, o_.images).first);
    std::vector<std::pair<std::string, variant>> todo;
    auto const tables = all_tables(base_);
    for (std::int64_t seed = 1; seed <= o_.seeds; ++seed) {
      for (auto const& table : tables) {
        for (variant row : table.rows) {
          auto const key = key_of(row.settings, seed);
          bool const known = finished.find(key) != nullptr ||
                             std::any_of(todo.begin(), todo.end(),
                                         [&](auto const& other) { return other.first == key; });
          if (known) continue;
          row.settings.seed = static_cast<std::uint64_t>(seed);
          row.name = table.title.substr(0, 2) + ", " + row.name + ", seed " + std::to_string(seed);
          todo.emplace_back(key, std::move(row));
        }
      }
    }
    start_ = demo::seconds_clock::now();
    for (std::size_t i = 0; i < todo.size(); ++i) {
      auto const& [key, row] = todo[i];
      finished.add(key, train_and_judge(row, i, todo.size()));
    }
    demo::write_file(o_.out + "/ablation.md", markdown(tables, finished));
    std::printf("%s/ablation.md\n", o_.out.c_str());
  }

 private:
  [[nodiscard]] std::string key_of(demo::distil_options settings, std::int64_t seed) const {
    settings.seed = static_cast<std::uint64_t>(seed);
    return row_of(settings, given_, o_.images).second;
  }

  run_result train_and_judge(variant const& row, std::size_t number, std::size_t count) {
    auto const start = demo::seconds_clock::now();
    double shown = -10;
    run_result result;
    try {
      auto const student = demo::make_trainer(row.settings, given_);
      demo::train_student(row.settings, train_, *student, 0, [&](demo::step_taken const& taken) {
        double const now = demo::seconds_since(start);
        if (now - shown < 10) return;
        shown = now;
        // Judging takes about a tenth of the time of training.
        double const done = static_cast<double>(number) +
                            0.9 * static_cast<double>(taken.steps) / static_cast<double>(o_.steps);
        std::printf("%zu of %zu (%s): step %lld of %lld, about %.0f s left\n", number + 1, count,
                    row.name.c_str(), static_cast<long long>(taken.steps),
                    static_cast<long long>(o_.steps),
                    demo::seconds_since(start_) * (static_cast<double>(count) / done - 1));
        std::fflush(stdout);
      });
      demo::image_sampler sampler(student->student());
      for (std::size_t i = 0; i < sampling_steps.size(); ++i) {
        auto const judged = demo::judge_student(judging_, o_.images, sampler,
                                                {.steps = sampling_steps[i], .threads = o_.threads})
                                .judged;
        result.fid[i] = judged.fid;
        result.accuracy[i] = judged.accuracy;
      }
    } catch (demo::diverged const& e) {
      std::printf("%s: %s\n", row.name.c_str(), e.what());
      result.fid.fill(std::numeric_limits<double>::quiet_NaN());
      result.accuracy = result.fid;
    }
    result.seconds = demo::seconds_since(start);
    std::printf("%zu of %zu (%s): FID %.1f, %.1f, %.1f; accuracy %.2f, %.2f, %.2f; %.0f s\n",
                number + 1, count, row.name.c_str(), result.fid[0], result.fid[1], result.fid[2],
                result.accuracy[0], result.accuracy[1], result.accuracy[2], result.seconds);
    std::fflush(stdout);
    return result;
  }

  [[nodiscard]] std::string markdown(std::vector<ablation_table> const& tables,
                                     finished_runs const& finished) const {
    std::string text = "Students after " + std::to_string(o_.steps) + " steps of " +
                       std::to_string(base_.batch) + " images, drawing with 1, 2 and 4 steps; " +
                       std::to_string(o_.images) + " images are judged.";
    if (o_.seeds > 1) {
      text += " Mean ± standard deviation of " + std::to_string(o_.seeds) + " seeds.";
    }
    text +=
        " In bold: the defaults, the same trainings in each table. \"Paper\" is what Sauer et al. "
        "2023 report in their table 1, of FID after one step on photographs.\n";
    auto const default_key = key_of(base_, 1);
    for (auto const& table : tables) {
      text += "\n### " + table.title + "\n\nPaper: " + table.paper +
              "\n\n| | FID, 1 step | FID, 2 steps | FID, 4 steps | accuracy, 1 step | accuracy, 2 "
              "steps | accuracy, 4 steps | paper |\n|---|---|---|---|---|---|---|---|\n";
      for (variant const& row : table.rows) {
        bool const is_default = key_of(row.settings, 1) == default_key;
        text += is_default ? "| **" : "| ";
        text += row.name + (is_default ? "** | " : " | ");
        for (auto const numbers : {&run_result::fid, &run_result::accuracy}) {
          for (std::size_t i = 0; i < sampling_steps.size(); ++i) {
            std::vector<double> values;
            for (std::int64_t seed = 1; seed <= o_.seeds; ++seed) {
              values.push_back((finished.find(key_of(row.settings, seed))->*numbers)[i]);
            }
            text += spread(values, numbers == &run_result::fid ? 1 : 3) + " | ";
          }
        }
        text += row.paper + " |\n";
      }
    }
    return text;
  }

  options o_;
  demo::distil_options base_;
  demo::images train_;
  demo::pretrained given_;
  demo::evaluator judging_;
  demo::seconds_clock::time_point start_;
};

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app("Reruns in small tables 1b, 1c, 1d and 1f of the paper");
  app.option_defaults()->always_capture_default();
  app.add_option("--steps", o.steps, "of each training")->check(CLI::PositiveNumber);
  app.add_option("--seeds", o.seeds, "trainings a row: seeds 1, 2, ...")
      ->check(CLI::PositiveNumber);
  app.add_option("--images", o.images, "images to judge each way of sampling by")
      ->check(CLI::Range(2, 100000));
  app.add_option("--threads", o.threads, "the result does not depend on it")
      ->check(CLI::Range(1, 256));
  app.add_option("--data", o.data, "folder of the gzipped IDX files");
  app.add_option("--weights", o.weights, "folder of the pretrained networks");
  app.add_option("--out", o.out, "folder of ablation.csv and ablation.md");
  CLI11_PARSE(app, argc, argv);
  try {
    ablation(o).run();
  } catch (std::exception const& e) {
    std::fprintf(stderr, "ablation: %s\n", e.what());
    return 1;
  }
}
