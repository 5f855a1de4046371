# SPDX-License-Identifier: MIT
# What every program of this project shares. Nothing here reaches a user of addloss::addloss.

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_RUNTIME_OUTPUT_DIRECTORY)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endif()

set(ADDLOSS_STRICT_WARNINGS
    -Wall
    -Wextra
    -Wpedantic
    -Wconversion
    -Wsign-conversion
    -Wshadow
    -Werror)

# addloss_own_options(<target>): strict warnings, addloss, and OpenMP and Eigen where they were found.
function(addloss_own_options name)
  target_link_libraries(${name} PRIVATE addloss::addloss)
  foreach(optional IN ITEMS OpenMP::OpenMP_CXX Eigen3::Eigen)
    if(TARGET ${optional})
      target_link_libraries(${name} PRIVATE ${optional})
    endif()
  endforeach()
  target_compile_options(${name} PRIVATE ${ADDLOSS_STRICT_WARNINGS})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

# addloss_own_program(<name> <source>...): an executable with these.
function(addloss_own_program name)
  add_executable(${name} ${ARGN})
  addloss_own_options(${name})
endfunction()

# addloss_cannot_run(<target> <reason>): a target that says why there is nothing to run.
function(addloss_cannot_run target reason)
  add_custom_target(
    ${target}
    COMMAND ${CMAKE_COMMAND} -E echo "${reason}"
    COMMAND ${CMAKE_COMMAND} -E false
    VERBATIM)
endfunction()
