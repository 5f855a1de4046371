// SPDX-License-Identifier: MIT
#pragma once

/// Catch2's own main, without the name: compiled once for all programs here.
int run_tests(int count, char** values);
