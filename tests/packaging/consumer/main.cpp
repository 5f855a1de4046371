// SPDX-License-Identifier: MIT
#include <addloss/version.hpp>

static_assert(__cplusplus >= 202002L, "addloss::addloss asks for C++20 by itself");

int main() { return ADDLOSS_VERSION_MAJOR == 0 ? 0 : 1; }
