// SPDX-License-Identifier: MIT
#include "cuda/replay.hpp"

#include <stdexcept>

namespace {

void check(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}

}  // namespace

int const replay::count = 10000;

replay::replay(cudaStream_t stream, std::function<void()> const& calls) : stream_(stream) {
  // CUDA loads a kernel when it is first launched, which is better done outside a capture.
  calls();
  check(cudaStreamSynchronize(stream));
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  calls();
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&graph_, graph, 0));
  check(cudaGraphDestroy(graph));
}
replay::~replay() { cudaGraphExecDestroy(graph_); }
void replay::operator()() const { check(cudaGraphLaunch(graph_, stream_)); }
