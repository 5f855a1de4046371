// SPDX-License-Identifier: MIT
#define ADDLOSS_TEST_ON_GPU
#include "losses/r1_test.cpp"  // NOLINT(bugprone-suspicious-include): the same bodies
