# SPDX-License-Identifier: MIT
# Regions of programs stand in README.md word for word, so that the README compiles.
include(${CONFIG})
file(READ ${source_dir}/README.md readme)

# check_region(<file> <name>): what lies between two lines "  // [<name>]".
function(check_region file name)
  file(READ ${source_dir}/${file} program)
  string(REGEX MATCH "  // \\[${name}\\]\n(.*)  // \\[${name}\\]\n" region "${program}")
  set(region "${CMAKE_MATCH_1}")
  string(REGEX REPLACE "\n  " "\n" region "\n${region}")
  string(LENGTH "${region}" length)
  if(length LESS 200)
    message(FATAL_ERROR "${file} has no region [${name}]")
  endif()
  string(FIND "${readme}" "${region}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "README.md does not quote the region [${name}] of ${file}:\n${region}")
  endif()
endfunction()

check_region(examples/01_add_step.cpp step)
check_region(tests/cuda/executor_test.cu gpu)
