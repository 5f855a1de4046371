# SPDX-License-Identifier: MIT
# CASE must not compile, for the reason it names: see tests/compile_fail/CMakeLists.txt.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

# Read as text: a list of lines would break at semicolons and square brackets.
file(READ ${CASE} text)
if(NOT text MATCHES "^// EXPECT: ([^\n]+)\n")
  check_fail("${CASE}: the first line must be '// EXPECT: <regular expression>'")
endif()
set(expected "${CMAKE_MATCH_1}")
set(case_flags)
if(text MATCHES "^[^\n]*\n// FLAGS: ([^\n]+)\n")
  separate_arguments(case_flags UNIX_COMMAND "${CMAKE_MATCH_1}")
endif()
if(NOT text MATCHES "ADDLOSS_EXPECT_COMPILES")
  check_fail("${CASE}: there is no variant without the mistake (ADDLOSS_EXPECT_COMPILES)")
endif()

check_headers(headers)
check_flags(options ${headers})
set(command ${compiler} ${options} ${case_flags} -fsyntax-only)

check_run("compiling the variant without the mistake" ${command} -DADDLOSS_EXPECT_COMPILES ${CASE})

execute_process(
  COMMAND ${command} ${CASE}
  RESULT_VARIABLE status
  OUTPUT_VARIABLE output
  ERROR_VARIABLE output)
if(status EQUAL 0)
  check_fail("${CASE} compiles, but must not")
endif()
if(NOT "${output}" MATCHES "${expected}")
  check_fail("${CASE} is refused, but the message does not match '${expected}':\n${output}")
endif()
