// SPDX-License-Identifier: MIT
#define ADDLOSS_TEST_ON_GPU
#include "noising/few_step_test.cpp"  // NOLINT(bugprone-suspicious-include): the same bodies
