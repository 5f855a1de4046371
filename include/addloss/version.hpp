// SPDX-License-Identifier: MIT
/// Version of the library; the build system reads it from here, so it is written down once.
#pragma once

#define ADDLOSS_VERSION_MAJOR 0
#define ADDLOSS_VERSION_MINOR 1
#define ADDLOSS_VERSION_PATCH 0
