// SPDX-License-Identifier: MIT
/// Measures calls on a GPU by CUDA events, in turns with copies from and to its memory.
///
/// Large tensors come in several sets that take turns, so that none is in the L2 cache when its turn
/// comes; small ones stay in it, as in training, where something has just written them.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/replay.hpp"
#include "turns.hpp"

namespace bench {

namespace add = addloss;

inline constexpr std::int64_t mebibyte = 1 << 20;

/// Sets together take four times what any GPU so far has as L2 cache: 50 MiB, and some more.
inline constexpr std::int64_t uncached_bytes = 256 * mebibyte;

template <class T>
__global__ void fill(T* to, std::int64_t size, std::int64_t start) {
  std::int64_t const threads = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += threads) {
    to[i] = T((static_cast<float>((i + start) * 37 % 64) - 31.5F) / 16);
  }
}

/// Memory of the GPU with numbers of both signs below 2, others for another `start`; `offset` elements
/// beyond an address divisible by 256.
template <class T>
class device_numbers {
 public:
  explicit device_numbers(std::int64_t size, std::int64_t offset = 0, std::int64_t start = 0)
      : offset_(offset) {
    void* memory = nullptr;
    add::cuda::check("cudaMalloc",
                     cudaMalloc(&memory, static_cast<std::size_t>(size + offset) * sizeof(T)));
    memory_.reset(static_cast<T*>(memory));
    fill<<<256, 256>>>(data(), size, start);
    add::cuda::check("fill", cudaDeviceSynchronize());
  }
  [[nodiscard]] T* data() const { return memory_.get() + offset_; }

 private:
  struct deleter {
    void operator()(T* memory) const { cudaFree(memory); }
  };
  std::unique_ptr<T, deleter> memory_;
  std::int64_t offset_;
};

template <class T>
class device_copy_of {
 public:
  explicit device_copy_of(std::vector<T> const& values)
      : memory_(static_cast<std::int64_t>(values.size() * sizeof(T))) {
    add::cuda::check("cudaMemcpy", cudaMemcpy(memory_.data(), values.data(),
                                              values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(memory_.data()); }

 private:
  device_numbers<unsigned char> memory_;
};

/// A stream and a workspace.
class device {
 public:
  explicit device(std::size_t bytes) : workspace_(static_cast<std::int64_t>(bytes) + 16) {
    add::cuda::check("cudaStreamCreate", cudaStreamCreate(&ctx_.stream));
    ctx_.workspace = workspace_.data();
    ctx_.bytes = bytes;
    // Before the first call, of which those that need none have none.
    if (bytes > 0) add::zero_workspace(ctx_);
  }
  device(device const&) = delete;
  device& operator=(device const&) = delete;
  ~device() { cudaStreamDestroy(ctx_.stream); }
  [[nodiscard]] add::cuda_context const& context() const { return ctx_; }

 private:
  device_numbers<unsigned char> workspace_;
  add::cuda_context ctx_;
};

class stopwatch {
 public:
  explicit stopwatch(cudaStream_t stream) : stream_(stream) {
    for (cudaEvent_t& event : events_) add::cuda::check("cudaEventCreate", cudaEventCreate(&event));
  }
  stopwatch(stopwatch const&) = delete;
  stopwatch& operator=(stopwatch const&) = delete;
  ~stopwatch() {
    for (cudaEvent_t const event : events_) cudaEventDestroy(event);
  }
  /// From one event to the next; `run` enqueues what is measured.
  template <class Function>
  double seconds(Function const& run) {
    add::cuda::check("cudaEventRecord", cudaEventRecord(events_[0], stream_));
    run();
    add::cuda::check("cudaEventRecord", cudaEventRecord(events_[1], stream_));
    add::cuda::check("cudaEventSynchronize", cudaEventSynchronize(events_[1]));
    float milliseconds = 0;
    add::cuda::check("cudaEventElapsedTime",
                     cudaEventElapsedTime(&milliseconds, events_[0], events_[1]));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t events_[2] = {};
};

/// What is called and what it moves.
struct device_calls {
  /// Calls captured together and replayed as a graph; 0: single calls.
  std::int64_t graph = 0;
  std::int64_t bytes = 0;  ///< read and written by a call
};

/// A peer that gives the value of a loss alone, in memory of the GPU: in turns with ours, once both gave
/// the same for set 0.
struct device_peer {
  char const* name = "";
  std::function<void(std::int64_t)> call{};  ///< for set i; empty where there is none
  std::vector<float const*> parts{};  ///< whose sum is its value
  double const* ours = nullptr;
};

/// Whether a peer gives the value of `ours`, up to rounding; else the benchmark ends with an error.
template <class Ours>
bool same_value(benchmark::State& state, cudaStream_t stream, Ours const& ours,
                device_peer const& peer) {
  auto const fetch = [](auto const* from) {
    std::remove_cvref_t<decltype(*from)> result;
    add::cuda::check("cudaMemcpy",
                     cudaMemcpy(&result, from, sizeof result, cudaMemcpyDeviceToHost));
    return static_cast<double>(result);
  };
  ours(0);
  peer.call(0);
  add::cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(stream));
  double const value = fetch(peer.ours);
  double total = 0;
  for (float const* const part : peer.parts) total += fetch(part);
  bool const same = std::abs(total - value) <= 1e-5 * std::abs(value);
  if (!same) state.SkipWithError((std::string(peer.name) + " gives another value").c_str());
  return same;
}

/// How many sets of tensors of `bytes` are to take turns.
inline std::int64_t sets_of(std::int64_t bytes) {
  return bytes < 16 * mebibyte ? 1 : uncached_bytes / bytes + 1;
}

/// The loop of a benchmark (register it with `settings`): a turn is some calls `ours(set)`, and where
/// tensors are large a copy of `copied_bytes` by `copy(set)`, as often. `sets`: how many there are.
template <class Ours, class Copy>
void take_device_turns(benchmark::State& state, cudaStream_t stream, device_calls const& what,
                       std::int64_t sets, Ours const& ours, std::int64_t copied_bytes,
                       Copy const& copy, device_peer const& peer = {}) {
  if (peer.call && !same_value(state, stream, ours, peer)) return;
  bool const large = what.bytes >= 16 * mebibyte;
  std::int64_t const each = what.graph > 0 ? what.graph : 1;
  std::int64_t const calls = sets * (large ? 6 : 240) / each;
  stopwatch clock(stream);
  std::unique_ptr<replay> captured;
  if (what.graph > 0) {
    captured = std::make_unique<replay>(stream, [&] {
      for (std::int64_t i = 0; i < each; ++i) ours(i % sets);
    });
  }
  auto const run = [&] {
    for (std::int64_t i = 0; i < calls; ++i) captured ? (*captured)() : ours(i % sets);
  };
  auto const run_copies = [&] {
    for (std::int64_t i = 0; i < calls; ++i) copy(i % sets);
  };
  run();
  if (large) run_copies();
  std::vector<double> times;
  std::vector<double> shares;
  std::vector<double> times_of_peer;
  for (auto const& turn : state) {
    static_cast<void>(turn);
    double const seconds = clock.seconds(run) / static_cast<double>(calls * each);
    state.SetIterationTime(seconds);
    times.push_back(seconds);
    if (peer.call) {
      double const of_peer = clock.seconds([&] {
        for (std::int64_t i = 0; i < calls; ++i) peer.call(i % sets);
      });
      times_of_peer.push_back(of_peer / static_cast<double>(calls) / seconds);
    }
    if (large) {
      double const copying = clock.seconds(run_copies) / static_cast<double>(calls);
      shares.push_back(static_cast<double>(what.bytes) / seconds /
                       (static_cast<double>(2 * copied_bytes) / copying));
    }
  }
  if (peer.call) state.counters[peer.name] = median(times_of_peer);
  double const seconds = median(times);
  state.counters["median_us"] = 1e6 * seconds;
  state.counters["GB/s"] = 1e-9 * static_cast<double>(what.bytes) / seconds;
  if (large) {
    state.counters["copy"] = median(shares);
    state.counters["target"] = 0.9;
  } else {
    state.counters["target_us"] = what.graph > 0 ? 4 : 8;
  }
}

/// Copies within the memory of the GPU.
inline void copy_on_device(cudaStream_t stream, void* to, void const* from, std::int64_t bytes) {
  add::cuda::check("cudaMemcpyAsync", cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes),
                                                      cudaMemcpyDeviceToDevice, stream));
}

/// A fixed number of turns: medians of so many are steady, and no time is lost on finding it.
inline void settings(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(15);
}

}  // namespace bench
