// SPDX-License-Identifier: MIT
/// Counts what a benchmark program allocates.
#pragma once

#include <cstdint>

namespace bench {

/// Calls of operator new by this thread so far.
std::int64_t allocations_so_far();

}  // namespace bench
