# SPDX-License-Identifier: MIT
# Shared by the check scripts.
cmake_minimum_required(VERSION 3.25)
include(${CONFIG})

set(include_dir ${source_dir}/include)

# check_fail(<text>): ends the check. message(FATAL_ERROR) would break the lines of the text anew.
function(check_fail text)
  message("${text}")
  message(FATAL_ERROR "The check failed for the reason above.")
endfunction()

# check_headers(<variable>): all public headers that can be compiled here, relative to include/.
function(check_headers variable)
  file(GLOB_RECURSE found RELATIVE ${include_dir} ${include_dir}/addloss/*.hpp)
  set(headers)
  foreach(header IN LISTS found)
    string(REGEX REPLACE "^addloss/" "" name ${header})
    if(DEFINED missing_for_${name})
      message("left out: ${header}, because ${missing_for_${name}} was not found")
    else()
      list(APPEND headers ${header})
    endif()
  endforeach()
  if(NOT headers)
    check_fail("no header found in ${include_dir}/addloss")
  endif()
  set(${variable} "${headers}" PARENT_SCOPE)
endfunction()

# check_flags(<variable> <header>...): compile options for a unit that includes these headers.
function(check_flags variable)
  set(all ${flags} -I${include_dir})
  foreach(header IN LISTS ARGN)
    string(REGEX REPLACE "^addloss/" "" name ${header})
    list(APPEND all ${flags_of_${name}})
  endforeach()
  set(${variable} "${all}" PARENT_SCOPE)
endfunction()

# check_run(<what> <command>...): runs the command; a failure ends the check.
function(check_run what)
  execute_process(
    COMMAND ${ARGN}
    RESULT_VARIABLE status
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    check_fail("${what} failed (${status})\n${command}\n${output}")
  endif()
endfunction()
