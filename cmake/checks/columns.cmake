# SPDX-License-Identifier: MIT
# No line of the sources goes beyond 100 columns. clang-format keeps code there, not comments, where
# formulas are laid out by hand.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

set(pattern)
foreach(directory IN ITEMS include tests benchmarks examples cmake)
  foreach(kind IN ITEMS hpp cuh cpp cu cmake)
    list(APPEND pattern ${source_dir}/${directory}/*.${kind})
  endforeach()
endforeach()
file(GLOB_RECURSE sources RELATIVE ${source_dir} ${pattern})

string(REPEAT "." 101 too_long)
set(failures "")
foreach(source IN LISTS sources)
  file(STRINGS ${source_dir}/${source} lines REGEX "^${too_long}")
  foreach(line IN LISTS lines)
    string(APPEND failures "${source}: ${line}\n")
  endforeach()
endforeach()

if(failures)
  check_fail("Lines beyond 100 columns:\n${failures}")
endif()
list(LENGTH sources count)
message("${count} files keep within 100 columns")
