// SPDX-License-Identifier: MIT
#include "everything.hpp"

int version_seen_by_other_unit();

int main() { return version_seen_by_other_unit() == ADDLOSS_VERSION_MINOR ? 0 : 1; }
