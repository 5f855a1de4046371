// SPDX-License-Identifier: MIT
// Saving and loading a file of 6 MB, the size of a head. The limit writes as much to a file and on
// to the disk, or reads it; one call at a time, as disks are.
#include <addloss/heads/safetensors.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../tests/temporary_directory.hpp"
#include "turns.hpp"

namespace {

namespace add = addloss;

constexpr std::int64_t size = 384 * 384 * 10;
constexpr std::size_t bytes = 4 * size;

struct file {
  file(std::string const& path, int flags) : descriptor(::open(path.c_str(), flags, 0600)) {}
  file(file const&) = delete;
  file& operator=(file const&) = delete;
  ~file() { ::close(descriptor); }
  int descriptor;
};

/// `transfer`: the limit; says whether it was done.
template <class Ours, class Transfer>
void measure(benchmark::State& state, Ours const& ours, Transfer const& transfer) {
  bool whole = true;
  auto const [seconds, share] =
      bench::take_turns(state, ours, [&] { whole = transfer() && whole; });
  bench::report_speed(state, seconds, size, static_cast<std::int64_t>(bytes));
  state.counters["limit"] = share[0];
  if (!whole) state.SkipWithError("the file of the limit was not transferred as a whole");
}

void save(benchmark::State& state) {
  temporary_directory const directory;
  std::vector<float> values(size, 1);
  std::array<std::int64_t, 1> const shape{size};
  std::array const tensors{add::saved_tensor("weight", shape, values.data())};
  measure(
      state, [&] { add::save_safetensors(directory.file(), tensors); },
      [&] {
        file const to(directory.file("limit"), O_WRONLY | O_CREAT | O_TRUNC);
        return ::write(to.descriptor, values.data(), bytes) == static_cast<ssize_t>(bytes) &&
               ::fsync(to.descriptor) == 0;
      });
}

void load(benchmark::State& state) {
  temporary_directory const directory;
  std::vector<float> values(size, 1);
  std::array<std::int64_t, 1> const shape{size};
  add::save_safetensors(directory.file(),
                        std::array{add::saved_tensor("weight", shape, values.data())});
  std::array const tensors{add::loaded_tensor("weight", shape, values.data())};
  measure(
      state, [&] { add::load_safetensors(directory.file(), tensors); },
      [&] {
        file const from(directory.file(), O_RDONLY);
        return ::read(from.descriptor, values.data(), bytes) == static_cast<ssize_t>(bytes);
      });
}

BENCHMARK(save)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(load)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
