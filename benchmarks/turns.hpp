// SPDX-License-Identifier: MIT
/// Measures a piece of code against limits that run in turns with it, many times a second: whatever
/// slows the machine down for a while slows both, and their ratio stays.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <benchmark/benchmark.h>

#include "allocations.hpp"
#include "limits.hpp"

namespace bench {

/// Memory for `size` elements at a multiple of 64 bytes. Filled with numbers of both signs below 2,
/// none of them 0: read as floats, none is then subnormal, which could slow the limits down. Arrays
/// of another `start` hold other numbers.
template <class T>
class aligned_array {
 public:
  explicit aligned_array(std::int64_t size, std::int64_t start = 0)
      : lines_(static_cast<std::size_t>(size) / per_line + 1) {
    for (std::int64_t i = 0; i < size; ++i) {
      data()[i] = T((static_cast<float>((i + start) * 37 % 64) - 31.5F) / 16);
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

/// Seconds for one of `calls` calls. Half as many before them, untimed, leave the caches as they
/// do: after streaming stores one call does not.
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

/// How many calls take about 0.2 ms, which is one turn; at least one.
template <class Function>
std::int64_t calls_in_turn(Function const& function) {
  constexpr double seconds_per_turn = 2e-4;
  double seconds_of_one = seconds_per_call(1, function);
  if (seconds_of_one > 10 * seconds_per_turn) return 1;
  for (int i = 0; i < 2; ++i) {
    seconds_of_one = std::min(seconds_of_one, seconds_per_call(1, function));
  }
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds_per_turn / seconds_of_one));
}

/// The loop of a benchmark (register it with UseManualTime): some calls of `ours`, some of each
/// limit, and again, in turns of about one length, so that they are disturbed alike.
template <class Ours, class... Limits>
outcome<sizeof...(Limits)> take_turns(benchmark::State& state, Ours const& ours,
                                      Limits const&... limits) {
  std::int64_t const calls = calls_in_turn(ours);
  [[maybe_unused]] std::array<std::int64_t, sizeof...(Limits)> const calls_of_limit{
      calls_in_turn(limits)...};
  std::vector<double> times;
  std::array<std::vector<double>, sizeof...(Limits)> shares;
  while (state.KeepRunningBatch(calls)) {
    double const seconds = seconds_per_call(calls, ours);
    state.SetIterationTime(seconds * static_cast<double>(calls));
    times.push_back(seconds);
    std::size_t i = 0;
    ((shares[i].push_back(seconds_per_call(calls_of_limit[i], limits) / seconds), ++i), ...);
  }
  outcome<sizeof...(Limits)> result{median(times), {}};
  for (std::size_t i = 0; i < sizeof...(Limits); ++i) result.share[i] = median(shares[i]);
  state.counters["median_us"] = 1e6 * result.seconds;
  std::int64_t const before = allocations_so_far();
  ours();
  state.counters["allocations"] = static_cast<double>(allocations_so_far() - before);
  return result;
}

/// `bytes`: each tensor counted once, read or written.
inline void report_speed(benchmark::State& state, double seconds, std::int64_t elements,
                         std::int64_t bytes) {
  state.counters["elements/s"] = static_cast<double>(elements) / seconds;
  state.counters["bytes/s"] = static_cast<double>(bytes) / seconds;
}

/// Of a call bound by arithmetic. `operations`: multiplications and additions, by the definition of
/// what is computed. `done`: those that are done, where a method does fewer. `share`: the time of
/// limits::multiply_adds by that of the call.
inline void report_arithmetic(benchmark::State& state, double seconds, double operations,
                              double done, double share, int threads = 1) {
  double const peak = limits::multiply_adds() / (share * seconds);
  state.counters["GFLOPs"] = 1e-9 * operations / seconds;
  state.counters["peak_GFLOPs"] = 1e-9 * peak;
  state.counters["limit"] = done / seconds / peak / threads;
}

/// What a call wrote: a tensor, and the largest difference that rounding explains, by its largest
/// element.
struct written {
  std::span<float const> numbers;
  double tolerance = 1e-6;
};
inline written numbers_of(aligned_array<float>& array, std::int64_t size) {
  return {{array.data(), static_cast<std::size_t>(size)}};
}

/// Whether a peer writes what ours does; else the benchmark ends with an error. `value` is what
/// both calls return: peers sum in float, n positive terms to within n 2^-24 of the sum.
template <class Ours, class Peer>
bool same_results(benchmark::State& state, char const* name, Ours const& ours, Peer const& peer,
                  std::span<written const> outputs) {
  double const value = ours();
  std::vector<std::vector<float>> expected;
  for (written const& output : outputs) {
    expected.emplace_back(output.numbers.begin(), output.numbers.end());
  }
  double const value_of_peer = peer();
  std::size_t terms = 1;
  for (written const& output : outputs) terms = std::max(terms, output.numbers.size());
  double const tolerance = std::max(1e-5, std::ldexp(static_cast<double>(terms), -24));
  bool same = std::abs(value_of_peer - value) <= tolerance * std::abs(value);
  std::size_t i = 0;
  for (written const& output : outputs) {
    double largest = 0;
    double difference = 0;  // NaN where a number is
    for (std::size_t n = 0; n < output.numbers.size(); ++n) {
      auto const number = static_cast<double>(expected[i][n]);
      largest = std::max(largest, std::abs(number));
      double const distance = std::abs(static_cast<double>(output.numbers[n]) - number);
      if (!(distance <= difference)) difference = distance;
    }
    same = same && difference <= output.tolerance * largest;
    ++i;
  }
  if (!same) state.SkipWithError((std::string(name) + " gives other results").c_str());
  return same;
}

/// A call of a peer with these arguments; empty where there is none.
template <class Function, class... Arguments>
std::function<double()> call_of(Function* function, Arguments... arguments) {
  if (function == nullptr) return {};
  return [=] {
    if constexpr (std::is_void_v<decltype(function(arguments...))>) {
      function(arguments...);
      return 0.0;
    } else {
      return function(arguments...);
    }
  };
}

/// Calls of the peers, each empty where there is none.
struct peer_calls {
  std::function<double()> eigen{};
  std::function<double()> xtensor{};
  std::function<void()> clear{};  ///< sets to 0 what a call, ours or a peer's, adds to
};

/// take_turns of ours and the limits with the peers, once their results were found to be the same.
template <class Ours, class... Limits>
outcome<sizeof...(Limits) + 2> take_turns_with_peers(benchmark::State& state,
                                                     peer_calls const& calls,
                                                     std::span<written const> outputs,
                                                     Ours const& ours, Limits const&... limits) {
  auto const from_zero = [&](auto const& call) {
    return [&] {
      if (calls.clear) calls.clear();
      return call();
    };
  };
  auto const same = [&](char const* name, std::function<double()> const& call) {
    return !call || same_results(state, name, from_zero(ours), from_zero(call), outputs);
  };
  if (!same("eigen", calls.eigen) || !same("xtensor", calls.xtensor)) return {};
  auto const timed = [](std::function<double()> const& call) {
    return [&call] {
      if (call) call();
    };
  };
  auto const result = take_turns(state, ours, limits..., timed(calls.eigen), timed(calls.xtensor));
  if (calls.eigen) state.counters["eigen"] = result.share[sizeof...(Limits)];
  if (calls.xtensor) state.counters["xtensor"] = result.share[sizeof...(Limits) + 1];
  return result;
}

}  // namespace bench
