// SPDX-License-Identifier: MIT
// One kernel of every kind, for tools that look at machine code: no register may be spilled, no
// local memory used, and rows must be read and written 16 bytes at a time. Never run.
#include <addloss/cuda.cuh>

namespace every_kernel {

using namespace addloss;

using levels = schedule_table<device_space>;

template <class Loss, class Reduction>
using pass_of = decltype(std::declval<Loss const&>().template pass<Reduction>(
    "", typename Loss::template values<float>{}, {}, {}));

template <class T>
using from_target = pass_of<target_distillation<distillation<>, levels, T, T, device_space>, mean>;
template <class T, class Prediction = v_prediction, class Weighting = exponential>
using from_teacher =
    pass_of<teacher_distillation<distillation<Weighting>, Prediction, levels, T, T, device_space>,
            mean>;
template <class T, class Distance>
using robust =
    pass_of<target_distillation<distillation<sds, Distance>, levels, T, T, device_space>, mean>;
template <class X, class Noise, class Out>
using noising = detail::combination_pass<detail::forward_coefficients, levels, X, Noise, Out>;
template <class T, class Loss, bool Generator>
using logits = pass_of<bound_adversarial<Generator, Loss, mean, sum, T, device_space>, mean>;
template <class T>
using pairs = pass_of<bound_pair<relativistic, mean, sum, T, device_space>, mean>;
template <class T>
using penalty = pass_of<bound_r1<T, device_space>, mean>;

template <class Pass, bool Generated = false>
void const* kernel() {
  return reinterpret_cast<void const*>(&cuda::run_pass<Pass, Generated>);
}

/// Referring to a kernel instantiates it.
void const* all(int which) {
  void const* const kernels[] = {
      kernel<from_target<float>>(),
      kernel<from_target<half>>(),
      kernel<from_target<double>>(),
      kernel<robust<float, pseudo_huber>>(),
      kernel<from_teacher<float>>(),
      kernel<from_teacher<float>, true>(),
      kernel<from_teacher<bfloat16>>(),
      kernel<from_teacher<half>, true>(),
      kernel<from_teacher<half, epsilon_prediction, nfsd>>(),
      kernel<noising<float, detail::stored<float>, float>>(),
      kernel<noising<float, detail::generated_operand, float>>(),
      kernel<noising<half, detail::generated_operand, half>>(),
      kernel<noising<double, detail::stored<double>, double>>(),
      kernel<detail::step_pass<ancestral, float, float>>(),
      kernel<logits<float, hinge, false>>(),
      kernel<logits<bfloat16, hinge, true>>(),
      kernel<logits<float, non_saturating, false>>(),
      kernel<logits<double, non_saturating, false>>(),
      kernel<pairs<float>>(),
      kernel<pairs<half>>(),
      kernel<penalty<float>>(),
      kernel<penalty<bfloat16>>(),
  };
  return kernels[which];
}

}  // namespace every_kernel
