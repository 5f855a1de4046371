# SPDX-License-Identifier: MIT
# The checks of the library as a package, as ctest entries with the label hygiene. Each one is a
# script in cmake/checks that reads the configuration written here.

# Compile options for the header that needs a target: its include directories, as system ones so
# that its own warnings do not count, and without those the compiler searches anyway.
function(addloss_include_flags target variable)
  set(flags)
  if(TARGET ${target})
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    foreach(directory IN LISTS directories)
      if(IS_DIRECTORY "${directory}" AND NOT directory IN_LIST
                                         CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
        list(APPEND flags -isystem ${directory})
      endif()
    endforeach()
  endif()
  set(${variable} "${flags}" PARENT_SCOPE)
endfunction()

set(needs)
foreach(row IN LISTS ADDLOSS_HEADER_NEEDS)
  string(REGEX REPLACE " .*" "" header "${row}")
  addloss_header_need(${header} need)
  if(TARGET ${need})
    addloss_include_flags(${need} flags)
    string(APPEND needs "set(flags_of_${header} \"${flags}\")\n")
  else()
    string(APPEND needs "set(missing_for_${header} ${need})\n")
  endif()
endforeach()

separate_arguments(own_flags UNIX_COMMAND "${CMAKE_CXX_FLAGS}")
set(hygiene_dir ${PROJECT_BINARY_DIR}/hygiene)
file(
  CONFIGURE
  OUTPUT ${hygiene_dir}/config.cmake
  CONTENT
    [[
set(source_dir "@PROJECT_SOURCE_DIR@")
set(build_dir "@PROJECT_BINARY_DIR@")
set(hygiene_dir "@hygiene_dir@")
set(version "@PROJECT_VERSION@")
set(compiler "@CMAKE_CXX_COMPILER@")
set(generator "@CMAKE_GENERATOR@")
set(make_program "@CMAKE_MAKE_PROGRAM@")
set(flags "-std=c++20;@own_flags@")
set(strict_warnings "@ADDLOSS_STRICT_WARNINGS@")
@needs@]]
  @ONLY)

# addloss_hygiene_test(<name> <script> [<variable> <value>]...)
function(addloss_hygiene_test name script)
  set(definitions)
  while(ARGN)
    list(POP_FRONT ARGN variable value)
    list(APPEND definitions -D${variable}=${value})
  endwhile()
  add_test(NAME hygiene.${name}
           COMMAND ${CMAKE_COMMAND} -DCONFIG=${hygiene_dir}/config.cmake ${definitions} -P
                   ${PROJECT_SOURCE_DIR}/cmake/checks/${script})
  # The compilers' messages are read, so they must be in English.
  set_tests_properties(hygiene.${name} PROPERTIES LABELS hygiene ENVIRONMENT LC_ALL=C)
endfunction()

set(rooms top)
set(needed)
set(everything)
foreach(header IN LISTS addloss_headers)
  cmake_path(RELATIVE_PATH header BASE_DIRECTORY ${PROJECT_SOURCE_DIR}/include/addloss)
  addloss_header_need(${header} need)
  if(header MATCHES "\\.hpp$" AND ("${need}" STREQUAL "" OR TARGET ${need}))
    string(APPEND everything "#include <addloss/${header}>\n")
    list(APPEND needed ${need})
    if(header MATCHES "^([^/]+)/")
      list(APPEND rooms ${CMAKE_MATCH_1})
    endif()
  endif()
endforeach()

# One entry per directory of headers, so that they run side by side.
list(REMOVE_DUPLICATES rooms)
foreach(room IN LISTS rooms)
  addloss_hygiene_test(headers.${room} headers.cmake ROOM ${room})
endforeach()

# Two units that include every header: a function or variable that should have been inline is
# defined twice otherwise, and they do not link.
file(CONFIGURE OUTPUT ${hygiene_dir}/two_units/everything.hpp CONTENT "${everything}" @ONLY)
set(units ${PROJECT_SOURCE_DIR}/tests/packaging/two_units)
addloss_own_program(addloss_two_units ${units}/main.cpp ${units}/other.cpp)
target_link_libraries(addloss_two_units PRIVATE ${needed})
target_include_directories(addloss_two_units PRIVATE ${hygiene_dir}/two_units)
add_test(NAME hygiene.two_units COMMAND addloss_two_units)
set_tests_properties(hygiene.two_units PROPERTIES LABELS hygiene)

addloss_hygiene_test(macros macros.cmake)
addloss_hygiene_test(include_directions include_directions.cmake)
addloss_hygiene_test(columns columns.cmake)
addloss_hygiene_test(readme readme.cmake)
addloss_hygiene_test(package.copied_headers package.cmake HOW copied_headers)
addloss_hygiene_test(package.fetch_content package.cmake HOW fetch_content)
if(ADDLOSS_INSTALL)
  addloss_hygiene_test(package.find_package package.cmake HOW find_package)
endif()
