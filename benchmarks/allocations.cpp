// SPDX-License-Identifier: MIT
#include "allocations.hpp"

#include "../tests/count_allocations.hpp"

namespace bench {

std::int64_t allocations_so_far() { return allocations; }

}  // namespace bench
