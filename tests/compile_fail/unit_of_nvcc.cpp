// EXPECT: include <addloss/cuda.cuh> in place of <addloss/addloss.hpp>
// SPDX-License-Identifier: MIT
/// The CPU's headers in a unit that nvcc compiles, which says so by this macro.
#ifndef ADDLOSS_EXPECT_COMPILES
#define __CUDACC__
#define __host__
#define __device__
#endif
#include <addloss/addloss.hpp>
