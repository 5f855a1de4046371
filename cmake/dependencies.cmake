# SPDX-License-Identifier: MIT
# Looks for what this project's own tests, examples and benchmarks use. The library needs none.

# addloss_missing(<STATUS|FATAL_ERROR> <package> <consequence>): one line, and the way out.
function(addloss_missing severity package consequence)
  message(${severity} "addloss: ${package} not found, ${consequence}; ./cmake/setup.sh installs it")
endfunction()

option(ADDLOSS_OPENMP "Use OpenMP in the tests, examples and benchmarks, if it is found" ON)
if(ADDLOSS_OPENMP)
  find_package(OpenMP QUIET COMPONENTS CXX)
  if(NOT TARGET OpenMP::OpenMP_CXX)
    addloss_missing(STATUS "OpenMP for ${CMAKE_CXX_COMPILER_ID}"
                    "so everything runs on one thread (clang needs setup.sh --lint)")
  endif()
endif()

# No version: Eigen 5 refuses a request for 3.
find_package(Eigen3 QUIET CONFIG)
find_package(xtensor QUIET CONFIG)

# Headers that include a third party's, or whose tests do: the header (below include/addloss) and
# the target that brings what it needs. Where it is missing, neither header nor its test is
# compiled.
# Every header that is not listed must compile with the standard library alone.
set(ADDLOSS_HEADER_NEEDS
    "adapters/eigen.hpp         Eigen3::Eigen"
    "adapters/eigen_tensor.hpp  Eigen3::Eigen"
    "adapters/xtensor.hpp       xtensor"
    "adapters/dlpack.hpp        dlpack::dlpack"
    "adapters/torch.hpp         torch"
    "torch/device.hpp           torch"
    "torch/fused.hpp            torch"
    "torch/heads.hpp            torch"
    "torch/losses.hpp           torch"
    "torch/schedule.hpp         torch")
find_package(dlpack QUIET CONFIG)
if(TARGET dlpack AND NOT TARGET dlpack::dlpack)
  add_library(dlpack::dlpack ALIAS dlpack)
endif()

option(ADDLOSS_TORCH "Test and show what works on LibTorch's tensors" OFF)
if(ADDLOSS_TORCH)
  # Runs on every GPU since Turing, and is the quickest to build.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75-virtual)
  endif()
  set(architectures ${CMAKE_CUDA_ARCHITECTURES})
  find_package(Torch QUIET)
  if(NOT TARGET torch)
    message(FATAL_ERROR "addloss: LibTorch not found, which ADDLOSS_TORCH needs; "
                        "./cmake/setup.sh --with-torch installs it, or put the folder "
                        "share/cmake of your own into CMAKE_PREFIX_PATH")
  endif()
  # One for CUDA sets flags for units that nvcc compiles: ours have nothing of LibTorch, and
  # addloss::cuda asks for C++20 as every CMake understands.
  unset(CMAKE_CUDA_STANDARD)
  unset(CMAKE_CUDA_STANDARD_REQUIRED)
  unset(CMAKE_CUDA_FLAGS)
  set(CMAKE_CUDA_ARCHITECTURES ${architectures})
  if(TARGET torch_cuda)
    include(CheckLanguage)
    check_language(CUDA)
    if(ADDLOSS_CUDA AND CMAKE_CUDA_COMPILER)
      enable_language(CUDA)
      set(ADDLOSS_TORCH_CUDA ON)
    else()
      message(STATUS "addloss: no nvcc, or ADDLOSS_CUDA is off, so the examples compute losses and "
                     "heads of LibTorch's tensors on the CPU alone; install the CUDA Toolkit and "
                     "configure with -DADDLOSS_CUDA=ON")
    endif()
  endif()
else()
  message(STATUS "addloss: ADDLOSS_TORCH is off, so what works on LibTorch's tensors is neither "
                 "tested nor shown; the preset torch does, after ./cmake/setup.sh --with-torch")
endif()

# addloss_header_need(<header> <variable>): the target that this header needs, or nothing.
function(addloss_header_need header variable)
  set(${variable} "" PARENT_SCOPE)
  foreach(row IN LISTS ADDLOSS_HEADER_NEEDS)
    string(REGEX REPLACE " +" ";" row "${row}")
    list(GET row 0 name)
    if(name STREQUAL header)
      list(GET row 1 target)
      set(${variable} ${target} PARENT_SCOPE)
    endif()
  endforeach()
endfunction()
