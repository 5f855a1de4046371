// SPDX-License-Identifier: MIT
#define ADDLOSS_TEST_ON_GPU
#include "losses/evaluate_test.cpp"  // NOLINT(bugprone-suspicious-include): the same bodies
