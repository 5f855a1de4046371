// SPDX-License-Identifier: MIT
/// The kernel of all that is no pass, heads above all: tasks that blocks take in turn.
///
/// A body is a struct with `threads`, its threads a block, and `operator()(task)`, which the whole
/// block runs. What a task writes depends on its number alone, so that results are the same bits
/// for any number of blocks. Bodies that use shared memory leave it with a barrier.
#pragma once

#include <cstdint>

#include <addloss/cuda/context.cuh>
#include <addloss/cuda/launch.cuh>

namespace addloss::cuda {

template <class Body>
__global__ void __launch_bounds__(Body::threads) run_body(Body body, std::int64_t tasks) {
  wait_for_earlier_kernels();
  for (std::int64_t task = blockIdx.x; task < tasks; task += gridDim.x) body(task);
}

/// Enqueues the tasks [0, tasks) on the context's stream.
template <class Body>
void run_tasks(cuda_context const& ctx, std::int64_t tasks, Body const& body) {
  if (tasks <= 0) return;
  launch_kernel<run_body<Body>>(ctx, tasks, Body::threads, body, tasks);
}

/// f(i) for elements: `Each` a thread, 256 apart.
template <class F, int Each>
struct element_tasks {
  static constexpr int threads = 256;
  F f;
  std::int64_t size;

  __device__ void operator()(std::int64_t task) const {
    std::int64_t const first = task * (threads * Each) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < Each; ++i) {
      if (first + i * threads < size) f(first + i * threads);
    }
  }
};
/// `Each` = 1: for a few elements that take long, sums among them.
template <int Each = 4, class F>
void run_elements(cuda_context const& ctx, std::int64_t size, F const& f) {
  constexpr std::int64_t piece = element_tasks<F, Each>::threads * Each;
  run_tasks(ctx, (size + piece - 1) / piece, element_tasks<F, Each>{f, size});
}

/// f(row, lane) for rows: the 32 lanes of a warp share one.
template <class F>
struct row_tasks {
  static constexpr int threads = 256;
  static constexpr int rows_of_task = threads / 32;
  F f;
  std::int64_t rows;

  __device__ void operator()(std::int64_t task) const {
    std::int64_t const row = task * rows_of_task + threadIdx.x / 32;
    if (row < rows) f(row, static_cast<int>(threadIdx.x % 32));
  }
};
template <class F>
void run_rows(cuda_context const& ctx, std::int64_t rows, F const& f) {
  constexpr std::int64_t each = row_tasks<F>::rows_of_task;
  run_tasks(ctx, (rows + each - 1) / each, row_tasks<F>{f, rows});
}

}  // namespace addloss::cuda
