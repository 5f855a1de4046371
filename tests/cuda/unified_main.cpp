// SPDX-License-Identifier: MIT
// Runs tests written for the CPU in memory that a GPU reads too: operator new takes managed memory,
// and the tests run in a thread whose stack lies there. Status 77 where there is no GPU: skipped.
#include <cuda_runtime_api.h>
#include <pthread.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "cuda/inside_cuda.hpp"
#include "cuda/run_tests.hpp"

namespace {

/// Before each block: where it came from, and the alignment of what follows.
struct alignas(16) block_header {
  bool managed;
};

/// Set after the tests: the runtime may be gone before the last static object is.
bool ended = false;

void* allocate(std::size_t size) {
  void* memory = nullptr;
  bool managed = false;
  if (!inside_cuda && !ended) {
    cuda_scope const scope;
    managed = cudaMallocManaged(&memory, size + sizeof(block_header)) == cudaSuccess;
  }
  if (!managed) memory = std::malloc(size + sizeof(block_header));
  if (memory == nullptr) return nullptr;
  auto* const header = ::new (memory) block_header{managed};
  return header + 1;
}

void release(void* memory) {
  if (memory == nullptr) return;
  auto* const header = static_cast<block_header*>(memory) - 1;
  if (!header->managed) {
    std::free(header);
    return;
  }
  if (ended) return;
  cuda_scope const scope;
  static_cast<void>(cudaFree(header));
}

struct arguments {
  int count;
  char** values;
  int status;
};

void* run(void* memory) {
  auto* const in = static_cast<arguments*>(memory);
  in->status = run_tests(in->count, in->values);
  return nullptr;
}

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
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU: skipped");
    return 77;
  }
  constexpr std::size_t stack_size = std::size_t{16} << 20;
  void* stack = nullptr;
  auto const take_stack = [&] {
    cuda_scope const scope;
    return cudaMallocManaged(&stack, stack_size);
  };
  if (take_stack() != cudaSuccess) {
    std::puts("no managed memory");
    return 1;
  }
  pthread_attr_t attributes;
  pthread_t thread;
  arguments in{count, values, 1};
  if (pthread_attr_init(&attributes) != 0 ||
      pthread_attr_setstack(&attributes, stack, stack_size) != 0 ||
      pthread_create(&thread, &attributes, run, &in) != 0 || pthread_join(thread, nullptr) != 0) {
    std::puts("no thread");
    return 1;
  }
  ended = true;
  return in.status;
}
