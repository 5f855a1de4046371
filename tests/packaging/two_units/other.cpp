// SPDX-License-Identifier: MIT
#include "everything.hpp"

int version_seen_by_other_unit();

int version_seen_by_other_unit() { return ADDLOSS_VERSION_MINOR; }
