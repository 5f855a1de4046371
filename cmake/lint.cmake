# SPDX-License-Identifier: MIT
# Targets that read the sources without building them: check-format, fix-format, check-tidy.

# Versions break lines differently, so check-format takes the one that .clang-format is for, or
# none. Debian 12 and Ubuntu 24.04 both have it.
find_program(ADDLOSS_CLANG_FORMAT NAMES clang-format-16)
find_program(ADDLOSS_CLANG_TIDY NAMES clang-tidy-14 clang-tidy)

file(
  GLOB_RECURSE
  own_sources
  CONFIGURE_DEPENDS
  include/*.hpp
  include/*.cuh
  tests/*.hpp
  tests/*.cuh
  tests/*.cpp
  tests/*.cu
  benchmarks/*.hpp
  benchmarks/*.cuh
  benchmarks/*.cpp
  benchmarks/*.cu
  examples/*.hpp
  examples/*.cuh
  examples/*.cpp
  examples/*.cu)

if(ADDLOSS_CLANG_FORMAT)
  add_custom_target(
    check-format
    COMMAND ${ADDLOSS_CLANG_FORMAT} --dry-run -Werror ${own_sources}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    COMMENT "clang-format --dry-run on the sources in include, tests, benchmarks and examples"
    VERBATIM)
  add_custom_target(
    fix-format
    COMMAND ${ADDLOSS_CLANG_FORMAT} -i ${own_sources}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    COMMENT "clang-format -i on the sources in include, tests, benchmarks and examples"
    VERBATIM)
else()
  addloss_cannot_run(check-format "clang-format-16 not found: run ./cmake/setup.sh --lint")
  addloss_cannot_run(fix-format "clang-format-16 not found: run ./cmake/setup.sh --lint")
endif()

if(NOT ADDLOSS_CLANG_TIDY)
  addloss_cannot_run(check-tidy "clang-tidy not found: run ./cmake/setup.sh --lint")
  return()
endif()

# A header is a template library: clang-tidy reads it through the units that include it. Reading
# every test would take many minutes, so these must do: all headers at once, and the programs that
# users copy from. One target for each unit, so that they run side by side.
set(tidy_flags -std=c++20 -I${PROJECT_SOURCE_DIR}/include)
foreach(target IN ITEMS Eigen3::Eigen xtensor dlpack::dlpack)
  addloss_include_flags(${target} flags)
  list(APPEND tidy_flags ${flags})
endforeach()

set(everything "")
foreach(header IN LISTS addloss_headers)
  cmake_path(RELATIVE_PATH header BASE_DIRECTORY ${PROJECT_SOURCE_DIR}/include/addloss)
  addloss_header_need(${header} need)
  # LibTorch 1.13's headers are not C++20 to clang.
  if(header MATCHES "\\.hpp$" AND ("${need}" STREQUAL "" OR TARGET ${need})
     AND NOT "${need}" STREQUAL "torch")
    string(APPEND everything "#include <addloss/${header}>\n")
  endif()
endforeach()
file(WRITE ${PROJECT_BINARY_DIR}/lint/every_header.cpp "${everything}")
file(GLOB tidy_programs CONFIGURE_DEPENDS examples/*.cpp)
add_custom_target(check-tidy)
foreach(unit IN LISTS tidy_programs ITEMS ${PROJECT_BINARY_DIR}/lint/every_header.cpp)
  cmake_path(GET unit STEM name)
  add_custom_target(
    check-tidy-${name}
    COMMAND
      ${ADDLOSS_CLANG_TIDY} --quiet --config-file=${PROJECT_SOURCE_DIR}/.clang-tidy
      "--header-filter=^${PROJECT_SOURCE_DIR}/include/addloss/" ${unit} -- ${tidy_flags}
    COMMENT "clang-tidy on ${name}.cpp"
    VERBATIM)
  add_dependencies(check-tidy check-tidy-${name})
endforeach()
