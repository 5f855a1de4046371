// EXPECT: (deleted|delete)
// SPDX-License-Identifier: MIT
/// A view of a schedule's levels that would be gone before it is read.
#include <addloss/schedule/discrete.hpp>

double use() {
#ifdef ADDLOSS_EXPECT_COMPILES
  auto const schedule = addloss::scaled_linear_schedule();
  auto const table = schedule.table();
#else
  auto const table = addloss::scaled_linear_schedule().table();
#endif
  return table.at(0).alpha;
}
