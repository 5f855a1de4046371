// SPDX-License-Identifier: MIT
// The code of the operators' losses on a GPU, for tensors of OPERATORS_TYPE: a unit a type, so that
// they compile side by side.
#include <addloss/cuda/device_loss.cuh>
#include <addloss/losses/paired.hpp>

#include "policies.hpp"

namespace {

using namespace addloss;
using operators::any_policy;
using operators::any_weighting;
using levels = schedule_table<device_space>;

template <class T, class Weighting, class Prediction>
using from_teacher =
    teacher_distillation<distillation<Weighting>, Prediction, levels, T, T, device_space>;

template <class T>
using losses_of = device_code<
    mean, bound_adversarial<true, any_policy, mean, sum, T, device_space>,
    bound_adversarial<false, any_policy, mean, sum, T, device_space>,
    bound_pair<relativistic, mean, sum, T, device_space>,
    bound_pair<squared, sum, sum, T, device_space>, bound_r1<T, device_space>,
    target_distillation<distillation<any_weighting>, levels, T, T, device_space>,
    from_teacher<T, any_weighting, epsilon_prediction>,
    from_teacher<T, any_weighting, v_prediction>, from_teacher<T, any_weighting, sample_prediction>,
    from_teacher<T, any_weighting, flow_prediction>, from_teacher<T, nfsd, epsilon_prediction>>;

losses_of<OPERATORS_TYPE> const of_type;

}  // namespace
