// SPDX-License-Identifier: MIT
// Runs tests written for the CPU in memory that a GPU reads too: while they run, operator new takes
// managed memory, and their stack lies there. (Only the stack: a thread whose descriptor lay there
// too could not wait, as the kernel of the operating system refuses futexes in such memory.)
// Static objects of the tests have theirs there too. Status 77 where there is no GPU: skipped.
#include <cuda_runtime_api.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory_resource>
#include <new>

#include "cuda/inside_cuda.hpp"
#include "cuda/run_tests.hpp"

namespace {

constexpr std::size_t stack_size = std::size_t{16} << 20;
constexpr std::size_t heap_size = std::size_t{256} << 20;

/// Blocks from a piece of managed memory that was taken in one call. Large ones are not used again.
class managed_heap {
 public:
  managed_heap(void* memory, std::size_t size)
      : memory_(memory, size, std::pmr::null_memory_resource()),
        blocks_({.max_blocks_per_chunk = 8, .largest_required_pool_block = std::size_t{1} << 20},
                &memory_) {}
  void* allocate(std::size_t size) { return blocks_.allocate(size); }
  void release(void* block, std::size_t size) { blocks_.deallocate(block, size); }

 private:
  std::pmr::monotonic_buffer_resource memory_;
  std::pmr::unsynchronized_pool_resource blocks_;
};

/// From the first static object on to the end of the tests; null without a GPU. Other threads than
/// theirs (those of the runtime) take none of it.
thread_local managed_heap* heap = nullptr;
/// The tests' stack, and behind it their heap; null without managed memory.
char* managed = nullptr;
bool started = false;

void start() {
  started = true;
  cuda_scope const scope;
  int devices = 0;
  void* memory = nullptr;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
      cudaMallocManaged(&memory, stack_size + heap_size) != cudaSuccess) {
    return;
  }
  managed = static_cast<char*>(memory);
  // Never destroyed: static objects of the tests give their blocks back after main.
  alignas(managed_heap) static unsigned char room[sizeof(managed_heap)];
  heap = ::new (room) managed_heap(managed + stack_size, heap_size);
}

/// Before each block: where it came from, and the alignment of what follows.
struct alignas(16) block_header {
  managed_heap* owner;
  std::size_t size;
};

void* allocate(std::size_t size) {
  size += sizeof(block_header);
  if (!started) start();
  managed_heap* const owner = inside_cuda ? nullptr : heap;
  void* const memory = owner != nullptr ? owner->allocate(size) : std::malloc(size);
  if (memory == nullptr) return nullptr;
  return ::new (memory) block_header{owner, size} + 1;
}

void release(void* memory) {
  if (memory == nullptr) return;
  auto* const header = static_cast<block_header*>(memory) - 1;
  if (header->owner == nullptr) {
    std::free(header);
  } else {
    header->owner->release(header, header->size);
  }
}

/// What passes between main and the tests' stack.
struct {
  int count;
  char** values;
  int status = 1;
  ucontext_t main;
  ucontext_t tests;
} run;

void run_on_stack() { run.status = run_tests(run.count, run.values); }

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* const memory = allocate(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const& /*tag*/) noexcept {
  return allocate(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { release(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { release(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::nothrow_t const&) noexcept {
  release(memory);
}

int main(int count, char** values) {
  int devices = 0;
  {
    cuda_scope const scope;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) devices = 0;
  }
  if (devices == 0) {
    std::puts("no GPU: skipped");
    return 77;
  }
  if (managed == nullptr) {
    std::puts("no managed memory");
    return 1;
  }
  run.count = count;
  run.values = values;
  if (getcontext(&run.tests) != 0) {
    std::puts("no context");
    return 1;
  }
  run.tests.uc_stack = {.ss_sp = managed, .ss_flags = 0, .ss_size = stack_size};
  run.tests.uc_link = &run.main;
  makecontext(&run.tests, run_on_stack, 0);
  static_cast<void>(swapcontext(&run.main, &run.tests));
  heap = nullptr;
  return run.status;
}
