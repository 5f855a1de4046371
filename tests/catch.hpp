// SPDX-License-Identifier: MIT
#pragma once

/// An exception in an assertion ends its test. Without this each has a handler of its own.
#define CATCH_CONFIG_FAST_COMPILE

/// Catch2 under one name: version 3 splits its header and its namespace, version 2 does not.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
