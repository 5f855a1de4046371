// SPDX-License-Identifier: MIT
// Runs tests that need a GPU. Status 77 where there is none: skipped.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "cuda/run_tests.hpp"

int main(int count, char** values) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU: skipped");
    return 77;
  }
  return run_tests(count, values);
}
