// SPDX-License-Identifier: MIT
/// Makes the code of losses for cuda/device_loss.hpp, in a unit that nvcc compiles.
///
///   namespace {
///   addloss::add_device_code<float> const of_float;
///   addloss::device_code<addloss::mean, addloss::target_distillation<...>> const of_mine;
///   }
/// Such an object tells the rest of the program of the code when the program starts (where symbols
/// are hidden, the rest of its shared library). Link its unit as it is, as nothing refers to it:
/// from a static library the linker would not take it. A loss of a type is a kernel of its own,
/// which takes seconds to compile: name what you use.
#pragma once

#include <cstddef>
#include <cstdint>

#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/device_loss.hpp>
#include <addloss/cuda/executor.cuh>
#include <addloss/cuda/tasks.cuh>
#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/r1.hpp>
#include <addloss/noising/prediction.hpp>
#include <addloss/reduce/policies.hpp>
#include <addloss/schedule/discrete.hpp>

namespace addloss {
namespace cuda {

/// c(t) of a sample.
template <class Weighting, class Schedule>
struct sample_weight {
  Weighting weighting;
  Schedule schedule;
  typename Schedule::time_type const* timesteps;
  std::int64_t stride;
  double* out;

  __device__ void operator()(std::int64_t b) const {
    out[b] = weighting.at(schedule.at(timesteps[b * stride]));
  }
};

template <class Loss>
void write_weights(void* stream, Loss const& loss, double* out) {
  using schedule_type = decltype(Loss::schedule);
  cuda_context const ctx{.stream = static_cast<cudaStream_t>(stream)};
  sample_weight<typename decltype(Loss::loss)::weighting_type, schedule_type> const body{
      loss.loss.weighting, loss.schedule, loss.timesteps.data, loss.timesteps.row_stride, out};
  run_elements<1>(ctx, loss.timesteps.count, body);
}

template <class Reduction, class Loss>
void evaluate_in(void* stream, void* workspace, std::size_t bytes, Loss const& loss,
                 typename device_loss<Reduction, Loss>::values const& value,
                 typename Loss::gradients const& gradients, typename Loss::options const& options) {
  cuda_context const ctx{
      .stream = static_cast<cudaStream_t>(stream), .workspace = workspace, .bytes = bytes};
  zero_workspace(ctx);
  addloss::detail::evaluate<Reduction>("value_and_grad", ctx, loss, value, gradients, options);
}

}  // namespace cuda

/// Makes the code of `Losses`, bound types in device_space, reduced by `Reduction`.
template <batch_reduction Reduction, bound_loss... Losses>
class device_code {
 public:
  device_code() { (link<Losses>(), ...); }

 private:
  template <class Loss>
  static void link() {
    static constexpr auto weights = [] {
      if constexpr (requires(Loss loss) { loss.timesteps; }) {
        return &cuda::write_weights<Loss>;
      } else {
        return nullptr;
      }
    }();
    static constexpr device_loss<Reduction, Loss> code{
        [](Loss const& loss) { return workspace_bytes(loss); }, &cuda::evaluate_in<Reduction, Loss>,
        weights};
    device_loss<Reduction, Loss>::linked = &code;
  }
};

/// What ADD needs of tensors of type `T`: the hinge of both sides, R1, and distillation by a
/// discrete schedule, from a target and from a teacher's v-prediction.
template <storage_scalar T>
using add_device_code = device_code<
    mean, bound_adversarial<true, hinge, mean, sum, T, device_space>,
    bound_adversarial<false, hinge, mean, sum, T, device_space>, bound_r1<T, device_space>,
    target_distillation<distillation<>, schedule_table<device_space>, T, T, device_space>,
    teacher_distillation<distillation<>, v_prediction, schedule_table<device_space>, T, T,
                         device_space>>;

}  // namespace addloss
