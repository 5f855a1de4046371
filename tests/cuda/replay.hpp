// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

/// Calls that are repeated on a stream. In replay_graph.cpp by a CUDA graph that captured them; in
/// replay_calls.cpp, where the CUDA runtime is a simulator's without graphs, by making them again.
class replay {
 public:
  static int const count;  ///< how often tests repeat them

  replay(cudaStream_t stream, std::function<void()> const& calls);
  ~replay();
  replay(replay const&) = delete;
  replay& operator=(replay const&) = delete;
  void operator()() const;

 private:
  cudaStream_t stream_;
  std::function<void()> calls_;
  cudaGraphExec_t graph_ = nullptr;
};
