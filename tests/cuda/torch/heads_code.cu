// SPDX-License-Identifier: MIT
// The code of the heads in heads.cpp: by cuBLAS where it can run.
#include <addloss/cuda/heads/device_heads.cuh>
#include <addloss/losses/adversarial.hpp>
#if defined(ADDLOSS_TEST_CUBLAS)
#include <addloss/cuda/heads/cublas_product.cuh>
#endif

namespace {

using namespace addloss;

#if defined(ADDLOSS_TEST_CUBLAS)
using product = cublas_product<>;
#else
using product = tiled_product<>;
#endif
device_heads_code<float, product, adversarial<non_saturating>> const of_float;

}  // namespace
