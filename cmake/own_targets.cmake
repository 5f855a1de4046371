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
    -Wold-style-cast
    -Wcast-align
    -Wformat=2
    -Wextra-semi
    -Wundef
    -Wnon-virtual-dtor
    -Woverloaded-virtual
    -Wzero-as-null-pointer-constant
    -Werror)

# addloss_own_options(<target>): strict warnings, addloss, and OpenMP and Eigen where there are.
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

# addloss_torch_device_code(<target> <unit.cu> [<definition>...]): has <target>, which uses
# LibTorch, compute losses and heads on a GPU too, where there is nvcc and a LibTorch for CUDA.
function(addloss_torch_device_code target unit)
  if(NOT ADDLOSS_TORCH_CUDA)
    return()
  endif()
  # nvcc is not to see LibTorch's headers.
  string(MAKE_C_IDENTIFIER "${target}_device_code${ARGN}" code)
  add_library(${code} OBJECT ${unit})
  target_link_libraries(${code} PRIVATE addloss::cuda)
  target_compile_options(${code} PRIVATE -Werror=all-warnings)
  target_compile_definitions(${code} PRIVATE ${ARGN})
  set_target_properties(${code} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${code}>)
  target_compile_definitions(${target} PRIVATE ADDLOSS_TORCH_CUDA)
endfunction()
