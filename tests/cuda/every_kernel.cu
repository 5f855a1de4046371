// SPDX-License-Identifier: MIT
// One kernel of every kind, for tools that look at machine code: no register may be spilled, no
// local memory used, and the rows of a pass must be read and written 16 bytes at a time. Never run.
#include <addloss/cuda.cuh>
#include <addloss/cuda_heads.cuh>

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

template <class Body>
void const* body() {
  return reinterpret_cast<void const*>(&cuda::run_body<Body>);
}
template <class F, int Each = 1>
void const* elements() {
  return body<cuda::element_tasks<F, Each>>();
}
template <class F>
void const* rows_of() {
  return body<cuda::row_tasks<F>>();
}
template <class T, cuda::norm_step Step>
void const* norm() {
  return body<cuda::normalise<T, Step>>();
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
      body<cuda::product_tile<float, float>>(),
      body<cuda::product_tile<float, bfloat16>>(),
      body<cuda::product_tile<double, double>>(),
      body<cuda::transpose_tile<float>>(),
      norm<float, cuda::norm_step::forward>(),
      norm<float, cuda::norm_step::backward>(),
      norm<float, cuda::norm_step::tangent>(),
      norm<float, cuda::norm_step::tangent_backward>(),
      norm<double, cuda::norm_step::tangent_backward>(),
      elements<cuda::add_norm_parameters<float>>(),
      rows_of<cuda::unfold_row<float>>(),
      rows_of<cuda::pad_row<float, bfloat16>>(),
      rows_of<cuda::unpad_row<float>>(),
      elements<cuda::pack_weight<float, bfloat16>>(),
      elements<cuda::add_taps<float>>(),
      elements<cuda::transform_input<float>>(),
      elements<cuda::transform_gradient<float>>(),
      elements<cuda::transform_output<float>>(),
      elements<cuda::transform_weight<float>>(),
      elements<cuda::add_weight_gradient<float>>(),
      elements<cuda::transform_input<double>>(),
      elements<cuda::transform_output<double>>(),
      body<cuda::column_pieces<float, cuda::column_entry<float>>>(),
      elements<cuda::add_pieces<float>>(),
      rows_of<cuda::modulate<float>>(),
      elements<cuda::combine_channels<float>>(),
      rows_of<cuda::contract_token<float>>(),
      rows_of<cuda::expand_token<float>>(),
      body<cuda::column_pieces<float, cuda::channel_gradient<float, true>>>(),
      rows_of<cuda::sum_tokens<float>>(),
      elements<cuda::classifier_gradient<float>>(),
      rows_of<cuda::modulation_gradient<float>>(),
      elements<cuda::condition_weight_gradient<float>>(),
      elements<cuda::condition_bias_gradient<float>>(),
      elements<cuda::condition_gradient<float>>(),
      body<cuda::column_pieces<float, cuda::spectral_column<float>>>(),
      body<cuda::row_dots<float, double>>(),
      body<cuda::normalise_vector<float>>(),
      body<cuda::divide_row<float>>(),
      body<cuda::divide_backward_row<float>>(),
      elements<detail::leaky_element<float>, 4>(),
      elements<detail::leaky_slope<float>, 4>(),
      elements<detail::skip_elements<float>, 4>(),
  };
  return kernels[which];
}

}  // namespace every_kernel
