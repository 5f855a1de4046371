// SPDX-License-Identifier: MIT
#include <addloss/heads/head_file.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"
#include "temporary_directory.hpp"

namespace {

using namespace addloss;

std::string contents(std::string const& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}
void write(std::string const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::vector<head_settings> const settings = {
    {.channels = 3, .kernel = 3, .condition_sizes = {4}, .width = 2},
    {.channels = 5, .kernel = 9, .condition_sizes = {4}, .width = 6}};

/// A stack with its buffers, full of numbers that are all different.
template <class T>
struct model {
  using stack_type = decltype(projected_heads<T>(settings));
  stack_type stack;
  std::vector<T> w;
  std::vector<T> state;

  explicit model(std::vector<head_settings> const& heads = settings,
                 weight_normalisation normalisation = weight_normalisation::spectral)
      : stack(projected_heads<T>(heads, normalisation)),
        w(static_cast<std::size_t>(stack.parameter_count())),
        state(static_cast<std::size_t>(stack.state_count())) {
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = T(1) / static_cast<T>(i + 1);
    for (std::size_t i = 0; i < state.size(); ++i) state[i] = T(-1) / static_cast<T>(i + 1);
  }
  [[nodiscard]] bool same_as(model const& other) const {
    return same(w, other.w) && same(state, other.state);
  }
  void clear() {
    w.assign(w.size(), T(7));
    state.assign(state.size(), T(8));
  }
  void save(std::string const& path, safetensors_metadata const& metadata = {}) const {
    save_heads(path, stack, w, state, metadata);
  }
  safetensors_metadata load(std::string const& path, load_options options = {}) {
    return load_heads(path, stack, w, state, options);
  }

 private:
  static bool same(std::vector<T> const& a, std::vector<T> const& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
  }
};

/// What loading says; memory must be as it was where that is an error.
template <class T>
std::string load_error(model<T> into, std::string const& path, load_options options = {}) {
  into.clear();
  auto const before = into;
  std::string result = error_of([&] { into.load(path, options); });
  if (result != "no error" && !into.same_as(before)) return "written to in spite of: " + result;
  return result;
}

}  // namespace

TEMPLATE_TEST_CASE("heads come back from a file bit for bit", "", float, double) {
  temporary_directory const place;
  model<TestType> saved;
  saved.w[3] = std::numeric_limits<TestType>::quiet_NaN();
  saved.w[4] = -TestType(0);
  saved.state[1] = -std::numeric_limits<TestType>::infinity();
  saved.save(place.file(), {{"step", "1000"}});
  model<TestType> loaded;
  loaded.clear();
  CHECK(loaded.load(place.file()) == safetensors_metadata{{"step", "1000"}});
  CHECK(loaded.same_as(saved));

  model<TestType> const plain(settings, weight_normalisation::none);
  plain.save(place.file());
  model<TestType> again(settings, weight_normalisation::none);
  again.clear();
  CHECK(again.load(place.file()).empty());
  CHECK(again.same_as(plain));
}

TEST_CASE("each part is a tensor of its own name and shape") {
  temporary_directory const place;
  model<float> const m;
  m.save(place.file());
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;
  auto const check = [&](std::string const& name, std::vector<std::int64_t> const& shape,
                         float const* first) {
    CAPTURE(name);
    std::int64_t count = 1;
    for (std::int64_t const extent : shape) count *= extent;
    std::vector<float> numbers(static_cast<std::size_t>(count));
    loaded_tensor const wanted[] = {{name, shape, numbers.data()}};
    CHECK(error_of([&] { load_safetensors(place.file(), wanted, {.allow_extra = true}); }) ==
          "no error");
    CHECK(numbers == std::vector<float>(first, first + count));
    ++tensors;
    bytes += 4 * count;
  };
  for (int i = 0; i < m.stack.parameters(); ++i) {
    auto const part = m.stack.parameter(i);
    check(part.name, {part.extents, part.extents + part.rank}, m.w.data() + part.offset);
  }
  CHECK(std::string(m.stack.parameter(0).name) == "0.first.conv.weight");
  auto const second = m.state.data() + m.stack.state_offset(1);
  check("0.first.conv.u", {3}, m.state.data());
  check("0.first.conv.v", {3}, m.state.data() + 3);
  check("0.residual.conv.u", {3}, m.state.data() + 6);
  check("0.residual.conv.v", {9}, m.state.data() + 9);
  check("0.classifier.u", {2}, m.state.data() + 18);
  check("0.classifier.v", {3}, m.state.data() + 20);
  check("1.first.conv.u", {5}, second);
  check("1.first.conv.v", {5}, second + 5);
  check("1.residual.conv.u", {5}, second + 10);
  check("1.residual.conv.v", {45}, second + 15);
  check("1.classifier.u", {6}, second + 60);
  check("1.classifier.v", {5}, second + 66);
  CHECK(tensors == m.stack.parameters() + 12);
  CHECK(bytes == 4 * (m.stack.parameter_count() + m.stack.state_count()));
}

TEST_CASE("a file of other heads is refused by the name of the tensor") {
  temporary_directory const place;
  model<float> const m;
  m.save(place.file());
  CHECK(load_error(model<float>(), place.file()) == "no error");

  auto other = settings;
  other[1].channels = 6;
  CHECK(load_error(model<float>(other), place.file()) ==
        "load_safetensors: 1.first.conv.weight (expected F32 [6, 6, 1], got F32 [5, 5, 1])");
  other = settings;
  other[1].kernel = 3;
  CHECK(load_error(model<float>(other), place.file()) ==
        "load_safetensors: 1.residual.conv.weight (expected F32 [5, 5, 3], got F32 [5, 5, 9])");
  other = settings;
  other[0].condition_sizes.push_back(2);
  CHECK(load_error(model<float>(other), place.file()) ==
        "load_safetensors: 0.classifier.condition1.weight (expected F32 [2, 2], got no such "
        "tensor)");
  other = settings;
  other.push_back(settings[0]);
  CHECK(load_error(model<float>(other), place.file()) ==
        "load_safetensors: 2.first.conv.weight (expected F32 [3, 3, 1], got no such tensor)");
  // Fewer heads: the first by name of those that are too many.
  other.resize(1);
  CHECK(load_error(model<float>(other), place.file()) ==
        "load_safetensors: 1.classifier.bias (expected no such tensor, got one in the file)");
  CHECK(load_error(model<float>(other), place.file(), {.allow_extra = true}) == "no error");
  CHECK(load_error(model<double>(), place.file()) ==
        "load_safetensors: 0.first.conv.weight (expected F64 [3, 3, 1], got F32 [3, 3, 1])");

  model<float> const plain(settings, weight_normalisation::none);
  CHECK(load_error(plain, place.file()) ==
        "load_safetensors: 0.classifier.u (expected no such tensor, got one in the file)");
  CHECK(load_error(plain, place.file(), {.allow_extra = true}) == "no error");
  plain.save(place.file());
  CHECK(load_error(model<float>(), place.file()) ==
        "load_safetensors: 0.first.conv.u (expected F32 [3], got no such tensor)");
}

TEST_CASE("files that are cut, of something else or not there are refused") {
  temporary_directory const place;
  model<double> const m;
  m.save(place.file());
  std::string const whole = contents(place.file());
  for (std::size_t const size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    CAPTURE(size);
    write(place.file(), whole.substr(0, size));
    CHECK(load_error(m, place.file()).starts_with("load_safetensors: "));
  }
  write(place.file(), "a text of more than eight characters");
  CHECK(load_error(m, place.file()).starts_with("load_safetensors: " + place.file()));
  std::int64_t const two[] = {2};
  float const numbers[] = {1, 2};
  saved_tensor const foreign[] = {{"embedding", two, numbers}};
  save_safetensors(place.file(), foreign);
  CHECK(load_error(m, place.file()) ==
        "load_safetensors: 0.first.conv.weight (expected F64 [3, 3, 1], got no such tensor)");
  CHECK(load_error(m, place.path + "/none") == "load_safetensors: " + place.path +
                                                   "/none (expected a readable file, got No such "
                                                   "file or directory)");
}

TEST_CASE("saving that fails leaves the old file as it is") {
  temporary_directory const place;
  model<double> const old;
  old.save(place.file());
  std::string const before = contents(place.file());
  model<double> other;
  other.w[0] = 5;

  // A disk that is full, played by a limit on the size of files.
  auto const handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  rlimit const small{1024, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string const full = error_of([&] { other.save(place.file()); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  std::string const start =
      "save_safetensors: " + place.file() + " (expected a writable file, got ";
  CHECK(full.starts_with(start));
  CHECK(contents(place.file()) == before);

  // A directory that cannot be written to; root can write to every one.
  std::filesystem::permissions(
      place.path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  std::string const locked = error_of([&] { other.save(place.file()); });
  std::filesystem::permissions(place.path, std::filesystem::perms::owner_all);
  if (::geteuid() != 0) {
    CHECK(locked == start + "Permission denied)");
    CHECK(contents(place.file()) == before);
  }
  auto const files = std::filesystem::directory_iterator(place.path);
  CHECK(std::distance(begin(files), end(files)) == 1);
  CHECK(error_of([&] {
          other.save(place.path + "/none/x");
        }).starts_with("save_safetensors: " + place.path + "/none/x (expected a writable file"));
}

TEST_CASE("buffers of another size are refused") {
  temporary_directory const place;
  model<float> m;
  std::string const expected = std::to_string(m.w.size());
  CHECK(error_of([&] { save_heads(place.file(), m.stack, std::span(m.w).first(3), m.state); }) ==
        "save_heads: parameters (expected " + expected + " numbers, got 3)");
  CHECK(error_of([&] { save_heads(place.file(), m.stack, m.w, {}); }) ==
        "save_heads: state (expected " + std::to_string(m.state.size()) + " numbers, got 0)");
  CHECK(!std::filesystem::exists(place.file()));
  m.save(place.file());
  CHECK(error_of([&] { load_heads(place.file(), m.stack, std::span(m.w).first(3), m.state); }) ==
        "load_heads: parameters (expected " + expected + " numbers, got 3)");
  CHECK(error_of([&] { load_heads(place.file(), m.stack, m.w, {}); }) ==
        "load_heads: state (expected " + std::to_string(m.state.size()) + " numbers, got 0)");
}
