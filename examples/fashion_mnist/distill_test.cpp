// SPDX-License-Identifier: MIT
// Distillation as a whole: losses fall; runs that are interrupted, or have more threads, end with
// the same bits; what is wrong with a checkpoint, its log or the disk is said, and nothing is lost.
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "catch.hpp"
#include "data.hpp"
#include "distil.hpp"
#include "evaluator.hpp"
#include "image_shape.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "step_table.hpp"
#include "temporary_directory.hpp"
#include "trainer.hpp"
#include "whole_file.hpp"

namespace {

std::string const weights = DEMO_WEIGHTS;

/// What an error says, or "no error".
std::string message_of(std::function<void()> const& call) {
  try {
    call();
  } catch (std::exception const& e) {
    return e.what();
  }
  return "no error";
}

std::string read_back(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

demo::pretrained const& given() {
  static demo::pretrained const result(weights);
  return result;
}

/// In place of the data set, images that the teacher draws.
demo::images const& some_images() {
  static demo::images const result = [] {
    demo::images drawn;
    drawn.count = 40;
    drawn.labels = demo::balanced_classes(drawn.count);
    demo::image_sampler sampler(given().teacher);
    drawn.pixels = sampler.teacher(drawn.labels, {.steps = 4, .guidance = 1.5, .threads = 2});
    return drawn;
  }();
  return result;
}

demo::evaluator const& judging() {
  static demo::evaluator const result(weights + "/evaluator.safetensors", some_images(), 1);
  return result;
}

/// A run of seconds, with a checkpoint in its midst.
demo::distil_options short_run(std::string const& out) {
  demo::distil_options o;
  o.steps = 7;
  o.batch = 4;
  o.threads = 1;
  o.evaluate_every = 2;
  o.curve_images = 4;
  o.save_every = 4;
  o.out = out;
  return o;
}

demo::distilled distil(demo::distil_options const& o,
                       std::function<void(demo::step_taken const&)> const& show = {}) {
  return demo::distil(o, given(), some_images(), &judging(), show);
}

/// Ends a run, as if by a crash, after so many steps.
std::string crash_after(demo::distil_options const& o, std::int64_t steps) {
  return message_of([&] {
    distil(o, [&](demo::step_taken const& taken) {
      if (taken.steps == steps) throw std::runtime_error("crash");
    });
  });
}

/// Names and bytes of the files in a folder.
std::map<std::string, std::string> files_of(std::string const& folder) {
  std::map<std::string, std::string> result;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) {
    result[entry.path().filename().string()] = read_back(entry.path().string());
  }
  return result;
}

/// The names of files that differ, so that a failed check does not print megabytes.
std::vector<std::string> difference(std::map<std::string, std::string> a,
                                    std::map<std::string, std::string> const& b) {
  std::vector<std::string> result;
  for (auto const& [name, bytes] : b) {
    if (!a.contains(name) || a[name] != bytes) result.push_back(name);
    a.erase(name);
  }
  for (auto const& [name, bytes] : a) result.push_back(name);
  return result;
}
std::vector<std::string> const none;

/// While it lives, no file can grow beyond so many bytes: it stands in for a full disk.
struct file_limit {
  rlimit before{};
  void (*handler)(int) = std::signal(SIGXFSZ, SIG_IGN);
  explicit file_limit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before);
    rlimit small = before;
    small.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  file_limit(file_limit const&) = delete;
  file_limit& operator=(file_limit const&) = delete;
  ~file_limit() {
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
  }
};

}  // namespace

TEST_CASE("losses fall") {
  demo::distil_options o;
  o.batch = 5;
  o.threads = 2;
  std::span<float const> const real(some_images().pixels.data(), 5 * demo::image_pixels);
  auto const labels = demo::balanced_classes(5);
  // The same step again and again: of the same images, timesteps and noise.
  auto const repeat = [&](auto const& value) {
    auto const student = demo::make_trainer(o, given());
    std::vector<double> result;
    for (int i = 0; i < 12; ++i) result.push_back(value(student->step(1001, real, labels, 0)));
    return result;
  };
  SECTION("of distillation, by a twentieth and more") {
    o.loss = "distillation";
    std::tie(o.weighting, o.teacher_steps) =
        GENERATE(table<std::string, std::int64_t>({{"exponential", 1}, {"sds", 2}, {"nfsd", 1}}));
    auto const loss = repeat([](auto const& r) { return r.distillation; });
    CAPTURE(o.weighting, o.teacher_steps, loss.front(), loss.back());
    CHECK(loss.back() < 0.95 * loss.front());
  }
  SECTION("of the heads, by a fiftieth and more") {
    o.loss = "adversarial";
    std::tie(o.condition, o.paper) =
        GENERATE(table<std::string, bool>({{"none", false}, {"both", false}, {"both", true}}));
    auto const loss = repeat([](auto const& r) { return r.discriminator; });
    CAPTURE(o.condition, o.paper, loss.front(), loss.back());
    CHECK(loss.front() == Approx(10).epsilon(0.1));  // 2 for each of 5 heads
    CHECK(loss.back() < 0.98 * loss.front());
  }
}

TEST_CASE("each way to train takes steps") {
  temporary_directory const folder;
  demo::distil_options const base = short_run(folder.path);
  std::vector<demo::distil_options> all;
  auto const add = [&](auto demo::distil_options::*option, auto value) {
    all.push_back(base);
    all.back().*option = value;
  };
  for (char const* weighting : {"sds", "nfsd"}) add(&demo::distil_options::weighting, weighting);
  for (char const* terms : {"adversarial", "distillation"}) add(&demo::distil_options::loss, terms);
  for (char const* read : {"none", "image", "both"}) add(&demo::distil_options::condition, read);
  for (int const steps : {2, 4}) add(&demo::distil_options::teacher_steps, steps);
  add(&demo::distil_options::init, "random");
  add(&demo::distil_options::paper, true);
  for (demo::distil_options& o : all) {
    CAPTURE(o.weighting, o.loss, o.condition, o.teacher_steps, o.init, o.paper);
    o.steps = 2;
    std::int64_t taken = 0;
    auto const student = demo::make_trainer(o, given());
    CHECK(message_of([&] {
            demo::train_student(o, some_images(), *student, 0,
                                [&](demo::step_taken const&) { ++taken; });
          }) == "no error");
    CHECK(taken == 2);
    CHECK(student->student().values != given().teacher.values);
  }
}

TEST_CASE("NFSD leaves out the timestep that has no signal") {
  // A seed whose first batch would draw it.
  demo::distil_options o = short_run("");
  o.loss = "distillation";
  o.weighting = "nfsd";
  o.batch = 32;
  o.steps = 1;
  o.seed = 0;
  auto const draws_last = [&] {
    for (std::uint32_t b = 0; b < 32; ++b) {
      if (addloss::uniform_timesteps{}.draw({o.seed, 0, 2}, b) == 999) return true;
    }
    return false;
  };
  while (!draws_last()) ++o.seed;
  auto const student = demo::make_trainer(o, given());
  CHECK(message_of([&] {
          demo::train_student(o, some_images(), *student, 0, [](demo::step_taken const&) {});
        }) == "no error");
}

TEST_CASE("a run that was interrupted ends with the same bits, as one with more threads does") {
  bool const paper = GENERATE(false, true);
  temporary_directory const whole;
  auto o = short_run(whole.path);
  o.paper = paper;
  distil(o);
  auto const expected = files_of(whole.path);
  REQUIRE(expected.size() == 4);
  CHECK(expected.at("log.csv").starts_with("step,generator,distillation,"));
  CHECK(std::count(expected.at("log.csv").begin(), expected.at("log.csv").end(), '\n') == 1 + 7);
  CHECK(std::count(expected.at("fid.csv").begin(), expected.at("fid.csv").end(), '\n') == 1 + 4);

  temporary_directory const resumed;
  o.out = resumed.path;
  REQUIRE(crash_after(o, 6) == "crash");
  CHECK(difference(files_of(resumed.path), expected).size() == 4);
  // Rows of steps after the checkpoint, which are to come again.
  std::ofstream(resumed.file("log.csv"), std::ios::app) << "4,1,2,3,4,5,6\n6,1,2,3,4,5,6\n";
  std::ofstream(resumed.file("fid.csv"), std::ios::app) << "6,1,2,3,4,5,6\n";
  o.resume = true;
  auto const result = distil(o);
  CHECK(result.steps == 3);
  CHECK(result.log.column("step") == std::vector<double>{0, 1, 2, 3, 4, 5, 6});
  CHECK(result.curve.column("step") == std::vector<double>{0, 2, 4, 6});
  CHECK(difference(files_of(resumed.path), expected) == none);
  // Finished, it has nothing to do.
  CHECK(distil(o).steps == 0);
  CHECK(difference(files_of(resumed.path), expected) == none);

  temporary_directory const parallel;
  o.out = parallel.path;
  o.resume = false;
  o.threads = 2;
  distil(o);
  CHECK(difference(files_of(parallel.path), expected) == none);
}

TEST_CASE("a checkpoint of other settings, damaged or without its log is refused") {
  temporary_directory const folder;
  std::string const path = folder.file("checkpoint.safetensors");
  auto const good = short_run(folder.path);
  REQUIRE(crash_after(good, 4) == "crash");
  auto const before = files_of(folder.path);
  auto const resumed = [&](auto const& change) {
    auto o = good;
    o.resume = true;
    change(o);
    return crash_after(o, o.steps);
  };
  auto const with = [&](auto demo::distil_options::*option, auto value) {
    return resumed([&](auto& o) { o.*option = value; });
  };
  using options = demo::distil_options;
  std::string const expected = path + ": expected --";
  CHECK(with(&options::loss, "adversarial") == expected + "loss adversarial, found both");
  CHECK(with(&options::weighting, "sds") == expected + "weighting sds, found exponential");
  CHECK(with(&options::condition, "image") == expected + "condition image, found class");
  CHECK(with(&options::init, "random") == expected + "init random, found teacher");
  CHECK(with(&options::teacher_steps, 4) == expected + "teacher-steps 4, found 1");
  CHECK(with(&options::steps, 10) == expected + "steps 10, found 7");
  CHECK(with(&options::batch, 5) == expected + "batch 5, found 4");
  CHECK(with(&options::lambda, 2.5) == expected + "lambda 2.5, found 5");
  CHECK(with(&options::paper, true) == expected + "paper yes, found no");
  CHECK(with(&options::seed, 2U) == expected + "seed 2, found 1");
  CHECK(difference(files_of(folder.path), before) == none);

  auto const damaged = [&](char const* name, std::string const& bytes) {
    demo::write_file(folder.file(name), bytes);
    auto message = resumed([](auto&) {});
    auto now = files_of(folder.path);
    CHECK(now[name] == bytes);  // left as it was
    demo::write_file(folder.file(name), before.at(name));
    return message;
  };
  std::string const bytes = before.at("checkpoint.safetensors");
  for (std::size_t const size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    CAPTURE(size);
    CHECK(damaged("checkpoint.safetensors", bytes.substr(0, size)).find(path) != std::string::npos);
  }
  auto const place = bytes.find("\"steps taken\":\"4\"");
  REQUIRE(place != std::string::npos);
  for (char const digit : {'x', '-'}) {
    auto other = bytes;
    other[place + 15] = digit;
    CHECK(damaged("checkpoint.safetensors", other) ==
          path + ": expected 0 to 7 steps taken, found " + digit);
  }
  demo::save_parameters(path, given().teacher);
  CHECK(resumed([](auto&) {}) == expected + "loss both, found nothing");
  std::filesystem::remove(path);
  CHECK(resumed([](auto&) {}).find(path) != std::string::npos);
  demo::write_file(path, bytes);

  std::string const log = before.at("log.csv");
  std::string const log_path = folder.file("log.csv");
  CHECK(damaged("log.csv", log.substr(0, log.rfind("\n3,") + 1)) ==
        log_path + ": expected 4 steps before the checkpoint, found 3");
  CHECK(damaged("log.csv", "step,loss\n") ==
        log_path +
            ": expected the header 'step,generator,distillation,discriminator,penalty,gap,active', "
            "found 'step,loss'");
  std::filesystem::remove(log_path);
  CHECK(resumed([](auto&) {}) == log_path + ": cannot be read");
  demo::write_file(log_path, log);
  CHECK(difference(files_of(folder.path), before) == none);
}

TEST_CASE("a full disk leaves the old checkpoint, from which the run goes on") {
  temporary_directory const whole;
  distil(short_run(whole.path));

  temporary_directory const folder;
  auto o = short_run(folder.path);
  std::string const path = folder.file("checkpoint.safetensors");
  REQUIRE(crash_after(o, 4) == "crash");
  auto before = files_of(folder.path);
  o.resume = true;
  {
    file_limit const full(1 << 20);  // room for the log, not for a checkpoint
    auto const message = message_of([&] { distil(o); });
    CHECK(message ==
          "save_safetensors: " + path + " (expected a writable file, got File too large)");
    auto now = files_of(folder.path);
    CHECK(now.size() == 3);  // no remains of a file
    CHECK((now["checkpoint.safetensors"] == before["checkpoint.safetensors"]));
  }
  before = files_of(folder.path);
  {
    file_limit const full(100);
    CHECK(message_of([&] { distil(o); }) ==
          folder.file("log.csv") + ": cannot be written (File too large)");
    CHECK(difference(files_of(folder.path), before) == none);
  }
  distil(o);
  CHECK(difference(files_of(folder.path), files_of(whole.path)) == none);
}

TEST_CASE("files and folders that are not there are named before any work") {
  temporary_directory const folder;
  CHECK(message_of([&] {
          demo::pretrained const missing(folder.path);
        }).find(folder.file("teacher.safetensors")) != std::string::npos);
  demo::write_file(folder.file("file"), "x");
  auto o = short_run(folder.file("file") + "/out");
  int steps = 0;
  CHECK(message_of([&] { distil(o, [&](demo::step_taken const&) { ++steps; }); }).find(o.out) !=
        std::string::npos);
  CHECK(steps == 0);
}

TEST_CASE("a table of steps comes back from its file") {
  temporary_directory const folder;
  std::string const path = folder.file("table.csv");
  demo::step_table table({"a", "b"});
  table.add(0, {0.1, 1.0 / 3});
  table.add(5, {-1e-30, 12345678});
  table.add(1000000, {std::nan(""), 2});
  table.save(path);
  CHECK(read_back(path) == "step,a,b\n0,0.1,0.333333333\n5,-1e-30,12345678\n1000000,nan,2\n");
  demo::step_table back({"a", "b"});
  back.read(path, 2000000);
  back.save(folder.file("again.csv"));
  CHECK(read_back(folder.file("again.csv")) == read_back(path));
  back.read(path, 1000000);
  CHECK(back.column("step") == std::vector<double>{0, 5});
  CHECK(back.column("b") == std::vector<double>{0.333333333, 12345678});
  back.read(path, 0);
  CHECK(back.rows() == 0);
  CHECK(message_of([&] { table.add(1, {1}); }) == "step_table: expected 2 values, got 1");
  CHECK(message_of([&] { static_cast<void>(table.column("c")); }) == "step_table: no column c");

  auto const reading = [&](std::string const& text) {
    demo::write_file(path, text);
    demo::step_table into({"a", "b"});
    into.add(3, {4, 5});
    auto const message = message_of([&] { into.read(path, 100); });
    CHECK(into.column("step") == std::vector<double>{3});  // unchanged
    return message;
  };
  std::string const expected = path + ": expected ";
  CHECK(reading("") == expected + "the header 'step,a,b', found ''");
  CHECK(reading("step,b,a\n") == expected + "the header 'step,a,b', found 'step,b,a'");
  CHECK(reading("step,a,b\n0,1\n") == expected + "3 numbers in line 2, found '0,1'");
  CHECK(reading("step,a,b\n0,1,2\n1,1,\n") == expected + "3 numbers in line 3, found '1,1,'");
  CHECK(reading("step,a,b\n0,1,2x\n") == expected + "3 numbers in line 2, found '0,1,2x'");
  CHECK(reading("step,a,b\n0,1,2\n0,1,2\n") ==
        expected + "a step after the one before in line 3, found '0,1,2'");
  CHECK(reading("step,a,b\nnan,1,2\n") ==
        expected + "a step after the one before in line 2, found 'nan,1,2'");
}

TEST_CASE("curves and table are written") {
  temporary_directory const folder;
  demo::step_table log({"generator", "distillation", "discriminator", "gap"});
  demo::step_table curve({"fid_1", "fid_2", "fid_4"});
  for (int i = 0; i < 100; ++i) {
    log.add(i, {std::sin(i), 0, 10.0 - i, 0.01 * i});
    if (i % 20 == 0) curve.add(i, {100.0 - i, 50, 20});
  }
  demo::save_loss_curves(folder.file("losses.svg"), log);
  demo::save_fid_curves(folder.file("fid.svg"), curve, 10);
  auto const losses = read_back(folder.file("losses.svg"));
  CHECK(losses.find("viewBox=\"0 0 1440 840\"") != std::string::npos);
  CHECK(losses.find("L_D of the heads") != std::string::npos);
  CHECK(losses.find("L_distill") == std::string::npos);  // it was 0
  auto const fid = read_back(folder.file("fid.svg"));
  CHECK(fid.find("FID of 10 images") != std::string::npos);
  CHECK(fid.find("<circle") != std::string::npos);
  CHECK(demo::smoothed(std::vector<double>{0, 3, 6, 0}, 3) == std::vector<double>{1.5, 3, 3, 3});
  CHECK(demo::smoothed(std::vector<double>{7, 1}, 1) == std::vector<double>{7, 1});

  std::vector<demo::table_row> const table = {{"teacher, 25 steps", {7.25, 0.9}, 0.0125}};
  demo::save_table(folder.file("table.csv"), table);
  CHECK(read_back(folder.file("table.csv")) ==
        "sampler,fid,accuracy,ms_an_image\n\"teacher, 25 steps\",7.250,0.9000,12.5000\n");
}
