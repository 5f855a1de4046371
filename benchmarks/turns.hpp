// SPDX-License-Identifier: MIT
/// Measures a piece of code against limits that run in turns with it, many times a second: whatever
/// slows the machine down for a while slows both, and their ratio stays.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

namespace bench {

/// Memory for `size` elements at a multiple of 64 bytes. Filled with numbers of both signs below 2,
/// none of them 0: read as floats, none is then subnormal, which could slow the limits down.
template <class T>
class aligned_array {
 public:
  explicit aligned_array(std::int64_t size)
      : lines_(static_cast<std::size_t>(size) / per_line + 1) {
    for (std::int64_t i = 0; i < size; ++i) {
      data()[i] = T((static_cast<float>(i * 37 % 64) - 31.5F) / 16);
    }
  }
  [[nodiscard]] T* data() { return lines_[0].elements; }
  /// The same bytes as floats, which is what the limits work on.
  [[nodiscard]] float* floats() { return reinterpret_cast<float*>(lines_.data()); }

 private:
  static constexpr std::size_t per_line = 64 / sizeof(T);
  struct alignas(64) line {
    T elements[per_line];
  };
  std::vector<line> lines_;
};

/// Seconds for one of `calls` calls. Half as many before them, untimed, leave the caches as they do:
/// after streaming stores one call does not.
template <class Function>
double seconds_per_call(std::int64_t calls, Function const& function) {
  using clock = std::chrono::steady_clock;
  for (std::int64_t i = 0; i < (calls + 1) / 2; ++i) function();
  auto const start = clock::now();
  for (std::int64_t i = 0; i < calls; ++i) {
    function();
    benchmark::ClobberMemory();
  }
  std::chrono::duration<double> const elapsed = clock::now() - start;
  return elapsed.count() / static_cast<double>(calls);
}

inline double median(std::vector<double> numbers) {
  auto const middle = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
  std::nth_element(numbers.begin(), middle, numbers.end());
  return *middle;
}

/// Medians over the turns.
template <std::size_t Limits>
struct outcome {
  double seconds;  ///< of one call of ours
  std::array<double, Limits> share;  ///< time of each limit divided by ours: 1 is as fast
};

/// The loop of a benchmark (register it with UseManualTime): some calls of `ours`, as many of each
/// limit, and again.
template <class Ours, class... Limits>
outcome<sizeof...(Limits)> take_turns(benchmark::State& state, Ours const& ours,
                                      Limits const&... limits) {
  constexpr double seconds_per_turn = 2e-4;
  double const seconds_of_one =
      std::min({seconds_per_call(1, ours), seconds_per_call(1, ours), seconds_per_call(1, ours)});
  auto const calls =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds_per_turn / seconds_of_one));
  std::vector<double> times;
  std::array<std::vector<double>, sizeof...(Limits)> shares;
  while (state.KeepRunningBatch(calls)) {
    double const seconds = seconds_per_call(calls, ours);
    state.SetIterationTime(seconds * static_cast<double>(calls));
    times.push_back(seconds);
    std::size_t i = 0;
    (shares[i++].push_back(seconds_per_call(calls, limits) / seconds), ...);
  }
  outcome<sizeof...(Limits)> result{median(times), {}};
  for (std::size_t i = 0; i < sizeof...(Limits); ++i) result.share[i] = median(shares[i]);
  state.counters["median_us"] = 1e6 * result.seconds;
  return result;
}

}  // namespace bench
