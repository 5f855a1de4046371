# SPDX-License-Identifier: MIT
# Each header of one directory (ROOM; "top" for those directly in addloss/) must compile alone,
# included twice, without a warning.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

check_headers(headers)
set(checked 0)
set(failures "")
foreach(header IN LISTS headers)
  if(header MATCHES "^addloss/([^/]+)/")
    set(room ${CMAKE_MATCH_1})
  else()
    set(room top)
  endif()
  if(NOT room STREQUAL ROOM)
    continue()
  endif()
  string(MAKE_C_IDENTIFIER ${header} unit)
  set(unit ${hygiene_dir}/headers/${unit}.cpp)
  file(WRITE ${unit} "#include <${header}>\n#include <${header}>\n")
  check_flags(options ${header})
  execute_process(
    COMMAND ${compiler} ${options} ${strict_warnings} -fsyntax-only ${unit}
    RESULT_VARIABLE status
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output)
  math(EXPR checked "${checked} + 1")
  if(NOT status EQUAL 0)
    string(APPEND failures "${header} does not compile alone:\n${output}\n")
  endif()
endforeach()

if(failures)
  check_fail("${failures}")
endif()
message("${checked} headers compile alone")
