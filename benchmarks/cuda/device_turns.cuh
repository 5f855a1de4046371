// SPDX-License-Identifier: MIT
/// Measures calls on a GPU by CUDA events, in turns with copies within its memory and with launches
/// of nothing.
///
/// Large tensors come in several sets that take turns, so that none is in the L2 cache when its
/// turn comes; small ones stay in it, as in training, where something has just written them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/replay.hpp"
#include "turns.hpp"

namespace bench {

namespace add = addloss;

inline constexpr std::int64_t mebibyte = 1 << 20;

/// Of a call, from which on its tensors are large.
inline constexpr std::int64_t large_bytes = 16 * mebibyte;
/// Sets together take five times the L2 cache of an H100 or H200.
inline constexpr std::int64_t uncached_bytes = 256 * mebibyte;

template <class T>
__global__ void fill(T* to, std::int64_t size, std::int64_t start) {
  std::int64_t const threads = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += threads) {
    to[i] = T((static_cast<float>((i + start) * 37 % 64) - 31.5F) / 16);
  }
}

/// Memory of the GPU with numbers of both signs below 2, others for another `start`; `offset`
/// elements beyond an address divisible by 256.
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

/// The noise levels of a schedule, and a timestep for each sample of a batch.
class device_schedule {
 public:
  explicit device_schedule(std::int64_t samples)
      : levels_(levels_of(add::scaled_linear_schedule())),
        timesteps_(std::vector<std::int64_t>(static_cast<std::size_t>(samples), 500)),
        samples_(samples) {}
  [[nodiscard]] add::schedule_table<add::device_space> table() const {
    return {levels_.data(), 1000};
  }
  [[nodiscard]] auto timesteps() const {
    return add::view<add::device_space>(timesteps_.data(), samples_);
  }

 private:
  static std::vector<add::noise_level> levels_of(add::discrete_schedule const& schedule) {
    return {schedule.table().levels, schedule.table().levels + 1000};
  }
  device_copy_of<add::noise_level> levels_;
  device_copy_of<std::int64_t> timesteps_;
  std::int64_t samples_;
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

/// A call, and what it does.
struct device_calls {
  /// Calls captured together and replayed as a graph; 0: single calls.
  std::int64_t graph = 0;
  std::int64_t sets = 1;  ///< of tensors, which take turns
  std::int64_t elements = 0;
  std::int64_t bytes = 0;  ///< read and written, each tensor counted once
  int launches = 1;  ///< of kernels
};

/// What else does as much, in turns with ours. With `parts`, the value of a loss alone, in memory
/// of the GPU: it must be ours for set 0.
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
  return bytes < large_bytes ? 1 : uncached_bytes / bytes + 1;
}

/// Calls of one kind, some a turn.
class device_turns {
 public:
  /// `call(set)` enqueues one.
  device_turns(cudaStream_t stream, device_calls const& what,
               std::function<void(std::int64_t)> call)
      : call_(std::move(call)),
        sets_(what.sets),
        each_(what.graph > 0 ? what.graph : 1),
        repeats_(
            std::max<std::int64_t>(1, what.sets * (what.bytes < large_bytes ? 240 : 6) / each_)),
        clock_(stream) {
    if (what.graph > 0) {
      graph_ = std::make_unique<replay>(stream, [this] {
        for (std::int64_t i = 0; i < each_; ++i) call_(i % sets_);
      });
    }
    run();
  }
  device_turns(device_turns const&) = delete;
  device_turns& operator=(device_turns const&) = delete;
  ~device_turns() = default;

  void take() {
    seconds_.push_back(clock_.seconds([&] { run(); }) / static_cast<double>(repeats_ * each_));
  }
  /// Of one call, for each turn.
  [[nodiscard]] std::vector<double> const& seconds() const { return seconds_; }

 private:
  void run() const {
    for (std::int64_t i = 0; i < repeats_; ++i) graph_ ? (*graph_)() : call_(i % sets_);
  }

  std::function<void(std::int64_t)> call_;
  std::int64_t sets_, each_, repeats_;
  stopwatch clock_;
  std::unique_ptr<replay> graph_;
  std::vector<double> seconds_;
};

/// What a launch in the library's manner takes at least.
template <class = void>
__global__ void nothing() {
  add::cuda::wait_for_earlier_kernels();
}

/// The loop of a benchmark (register it with `settings`): a turn is some calls `ours(set)`, then as
/// many of each limit and the peer, in the same manner. Limits: a copy within the GPU's memory that
/// reads and writes as many bytes; where tensors are small, as many launches of a kernel that does
/// nothing.
template <class Ours>
void take_device_turns(benchmark::State& state, cudaStream_t stream, device_calls const& what,
                       Ours const& ours, device_peer const& peer = {}) {
  if (!peer.parts.empty() && !same_value(state, stream, ours, peer)) return;
  bool const large = what.bytes >= large_bytes;
  std::int64_t const copied = what.bytes / 8;  // floats
  std::int64_t const stride = (copied + 63) / 64 * 64;
  device_numbers<float> const from(what.sets * stride);
  device_numbers<float> const to(what.sets * stride);
  add::cuda_context const ctx{.stream = stream};

  device_turns calls(stream, what, ours);
  std::map<std::string, device_turns> others;
  others.try_emplace("copy", stream, what, [&](std::int64_t i) {
    add::cuda::check("cudaMemcpyAsync",
                     cudaMemcpyAsync(to.data() + i * stride, from.data() + i * stride,
                                     static_cast<std::size_t>(copied) * sizeof(float),
                                     cudaMemcpyDeviceToDevice, stream));
  });
  if (!large) {
    others.try_emplace("launch", stream, what, [&](std::int64_t /*set*/) {
      for (int i = 0; i < what.launches; ++i) {
        add::cuda::launch_kernel<nothing<>>(ctx, 1, add::cuda::threads);
      }
    });
  }
  if (peer.call) others.try_emplace(peer.name, stream, what, peer.call);

  for (auto const& turn : state) {
    static_cast<void>(turn);
    calls.take();
    state.SetIterationTime(calls.seconds().back());
    for (auto& [name, other] : others) other.take();
  }
  for (auto const& [name, other] : others) {
    std::vector<double> ratios = other.seconds();
    for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] /= calls.seconds()[i];
    state.counters[name] = median(std::move(ratios));
  }
  double const seconds = median(calls.seconds());
  state.counters["median_us"] = 1e6 * seconds;
  report_speed(state, seconds, what.elements, what.bytes);
  std::int64_t const before = allocations_so_far();
  ours(0);
  state.counters["allocations"] = static_cast<double>(allocations_so_far() - before);
  if (large) {
    state.counters["copy_at_least"] = 0.9;
  } else if (what.launches == 1) {
    state.counters["median_us_at_most"] = what.graph > 0 ? 4 : 8;
  }
}

/// A fixed number of turns: medians of so many are steady, and no time is lost on finding it.
inline void settings(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(15);
}

/// Elements of a sample.
inline constexpr std::int64_t latent = 4 * 64 * 64;
inline constexpr std::int64_t image = 3 * 512 * 512;

/// Arguments: B, elements of a sample, calls in a graph.
inline void image_settings(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"", "", "graph"});
  settings(benchmark);
}
inline void latents(benchmark::internal::Benchmark* benchmark) {
  for (int const graph : {0, 1, 20}) benchmark->Args({8, latent, graph});
  image_settings(benchmark);
}
inline void images(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({48, image, 0});
  image_settings(benchmark);
}

}  // namespace bench
