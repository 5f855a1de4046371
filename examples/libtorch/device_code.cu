// SPDX-License-Identifier: MIT
// The code of the trainer's losses and heads on a GPU.
#include <addloss/cuda/device_loss.cuh>
#include <addloss/cuda/heads/cublas_product.cuh>
#include <addloss/cuda/heads/device_heads.cuh>
#include <addloss/losses/adversarial.hpp>
#include <addloss/weighting/snr.hpp>

namespace {

using namespace addloss;

add_device_code<float> const of_the_student;
device_code<mean, target_distillation<distillation<snr>, schedule_table<device_space>, float, float,
                                      device_space>> const of_the_teacher;
device_heads_code<float, cublas_product<>, adversarial<>> const of_the_heads;

}  // namespace
