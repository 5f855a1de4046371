// SPDX-License-Identifier: MIT
#pragma once

/// Catch2 under one name: version 3 splits its header and its namespace, version 2 does not.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
