// SPDX-License-Identifier: MIT
// The code of the losses in losses.cpp.
#include <addloss/cuda/device_loss.cuh>
#include <addloss/losses/distance.hpp>
#include <addloss/schedule/flow.hpp>

namespace {

using namespace addloss;

add_device_code<float> const of_float;
device_code<per_sample, target_distillation<distillation<exponential, pseudo_huber>, rectified_flow,
                                            double, double, device_space>> const of_double;

}  // namespace
