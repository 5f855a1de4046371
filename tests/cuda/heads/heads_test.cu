// SPDX-License-Identifier: MIT
// One unit: the tests share their kernels, which take long to compile.
#include "cuda/heads/head_stack_test.cu"  // NOLINT(bugprone-suspicious-include)
#include "cuda/heads/layers_test.cu"  // NOLINT(bugprone-suspicious-include)
#if defined(ADDLOSS_GOLDEN_HEADS)
#include "cuda/heads/goldens_test.cu"  // NOLINT(bugprone-suspicious-include)
#endif
