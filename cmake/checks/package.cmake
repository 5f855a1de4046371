# SPDX-License-Identifier: MIT
# The consumer project in tests/packaging gets the library in one of three ways (HOW), and runs.
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

set(consumer ${source_dir}/tests/packaging/consumer)
set(dir ${hygiene_dir}/${HOW})
file(REMOVE_RECURSE ${dir})
file(MAKE_DIRECTORY ${dir})

if(HOW STREQUAL "copied_headers")
  # Copied, so that nothing is found through its place in the source tree.
  file(COPY ${include_dir} DESTINATION ${dir})
  check_run("compiling the consumer" ${compiler} ${flags} -I${dir}/include ${consumer}/main.cpp -o
            ${dir}/consumer)
  check_run("running the consumer" ${dir}/consumer)
  return()
endif()

if(HOW STREQUAL "find_package")
  check_run("installing" ${CMAKE_COMMAND} --install ${build_dir} --prefix ${dir}/prefix)
  # What was installed is what is in the source tree.
  file(GLOB_RECURSE installed RELATIVE ${dir}/prefix/include ${dir}/prefix/include/*)
  file(GLOB_RECURSE written RELATIVE ${include_dir} ${include_dir}/*)
  if(NOT "${installed}" STREQUAL "${written}")
    check_fail("installed headers:\n${installed}\nheaders in the source tree:\n${written}")
  endif()
  set(location -DCMAKE_PREFIX_PATH=${dir}/prefix)
else()
  set(location -DADDLOSS_SOURCE_DIR=${source_dir})
endif()

list(JOIN flags " " flags_text)
string(REPLACE "-std=c++20" "" flags_text "${flags_text}")
check_run(
  "configuring the consumer"
  ${CMAKE_COMMAND}
  -G ${generator}
  -S ${consumer}
  -B ${dir}/build
  -DCMAKE_MAKE_PROGRAM=${make_program}
  -DCMAKE_CXX_COMPILER=${compiler}
  -DCMAKE_CXX_FLAGS=${flags_text}
  -DHOW=${HOW}
  -DEXPECTED_VERSION=${version}
  ${location})
check_run("building the consumer" ${CMAKE_COMMAND} --build ${dir}/build)
check_run("running the consumer" ${dir}/build/consumer)
