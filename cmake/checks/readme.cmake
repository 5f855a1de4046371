# SPDX-License-Identifier: MIT
# The region [step] of the first example stands in README.md word for word, so that the README
# compiles.
include(${CONFIG})
file(READ ${source_dir}/examples/01_add_step.cpp example)
file(READ ${source_dir}/README.md readme)
string(REGEX MATCH "  // \\[step\\]\n(.*)  // \\[step\\]\n" region "${example}")
set(region "${CMAKE_MATCH_1}")
string(REGEX REPLACE "\n  " "\n" region "\n${region}")
string(LENGTH "${region}" length)
if(length LESS 200)
  message(FATAL_ERROR "examples/01_add_step.cpp has no region [step]")
endif()
string(FIND "${readme}" "${region}" place)
if(place EQUAL -1)
  message(FATAL_ERROR "README.md does not quote the region [step] of examples/01_add_step.cpp:\n"
                      "${region}")
endif()
