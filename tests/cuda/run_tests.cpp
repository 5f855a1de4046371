// SPDX-License-Identifier: MIT
#include "cuda/run_tests.hpp"

#define CATCH_CONFIG_RUNNER
#include "catch.hpp"

int run_tests(int count, char** values) { return Catch::Session().run(count, values); }
