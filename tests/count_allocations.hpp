// SPDX-License-Identifier: MIT
/// Counts what is allocated, by replacing operator new for a whole test program: at most one of its
/// sources may include this.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace {
/// Allocations of this thread, counted by the operators below.
thread_local std::int64_t allocations = 0;
}  // namespace

// Not inlined: g++ would see free() of memory from operator new in the vectors, and warn.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const& /*tag*/) noexcept {
  ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
// The array forms of the standard library call these.
