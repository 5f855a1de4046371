// SPDX-License-Identifier: MIT
/// Where the tests of losses and noising run: on the CPU, or, the same bodies compiled by nvcc with
/// ADDLOSS_TEST_ON_GPU (tests/cuda/*_test.cu), on a GPU. There they leave out what is about SIMD
/// registers, and sweeps whose kernels differ in a formula alone, which takes minutes to compile.
/// With ADDLOSS_TEST_FEW_KERNELS (a simulator makes each anew) a type, a reduction, a formula and a
/// side are there at least once, but not `each_with_each`.
#pragma once

#if defined(ADDLOSS_TEST_ON_GPU)
#include "cuda/unified_context.cuh"
using test_context = unified_context;
inline constexpr bool on_gpu = true;
#else
#include <addloss/cpu/executor.hpp>
using test_context = addloss::cpu_context;
inline constexpr bool on_gpu = false;
#endif

#if defined(ADDLOSS_TEST_FEW_KERNELS)
inline constexpr bool each_with_each = false;
#else
inline constexpr bool each_with_each = true;
#endif
