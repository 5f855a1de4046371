// SPDX-License-Identifier: MIT
/// Shares independent pieces of work out to the threads of a CPU context.
#pragma once

#include <cstdint>

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// Elements below which a second thread costs more (about 2 us to wake it) than it saves.
inline constexpr std::int64_t parallel_elements = 1 << 15;

/// A call that stays one: inlined into a loop of one thread and into a loop of several, a body is
/// compiled twice, and g++ does not fuse the same multiplications and additions in both.
template <class Body>
#if defined(__clang__)
__attribute__((noinline))
#elif defined(__GNUC__)
__attribute__((noinline, noclone))
#endif
void call_task(Body const& body, std::int64_t i) {
  body(i);
}

/// body(0), ..., body(tasks - 1) on up to `threads` threads. Same bits for any number of threads
/// where the tasks write different memory.
template <class Body>
void each_task([[maybe_unused]] int threads, std::int64_t tasks, Body const& body) {
#if defined(_OPENMP)
  if (threads > 1 && tasks > 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t i = 0; i < tasks; ++i) call_task(body, i);
    return;
  }
#endif
  for (std::int64_t i = 0; i < tasks; ++i) call_task(body, i);
}

/// The same, by one thread where the `elements` that are read are not worth a second one.
template <class Body>
void each_task(cpu_context const& ctx, std::int64_t tasks, std::int64_t elements,
               Body const& body) {
  each_task(elements >= parallel_elements ? ctx.threads : 1, tasks, body);
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
