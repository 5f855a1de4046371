// SPDX-License-Identifier: MIT
// The losses as operators of PyTorch, torch.ops.addloss.*, for tensors on the CPU: with autograd,
// and with shapes for meta tensors. losses.py loads them.
//
// `levels` [T, 2] (Double) are alpha and sigma of each timestep; timesteps are Long.
#include <addloss/schedule/discrete.hpp>
#include <addloss/torch/losses.hpp>

#include <torch/library.h>

#include <cstdint>
#include <string>

namespace {

namespace tl = addloss::torch_loss;
using at::Tensor;

addloss::schedule_table<> schedule(Tensor const& levels) {
  auto const view = addloss::from_torch<double const, 2>(levels, "levels");
  if (view.extents[1] != 2 || !levels.is_contiguous()) {
    addloss::detail::fail("addloss", "levels", "contiguous numbers [T, 2]",
                          addloss::detail::bracketed(view.extents, 2));
  }
  static_assert(sizeof(addloss::noise_level) == 2 * sizeof(double));
  return {reinterpret_cast<addloss::noise_level const*>(view.data), view.extents[0]};
}

/// Calls `body` with the loss of logits of that name.
template <class Body>
Tensor with_policy(std::string const& name, Body const& body) {
  if (name == "hinge") return body(addloss::adversarial<addloss::hinge>{});
  if (name == "non_saturating") return body(addloss::adversarial<addloss::non_saturating>{});
  addloss::detail::fail("addloss", "policy", "hinge or non_saturating", name.c_str());
}

Tensor distillation(Tensor const& student, Tensor const& target, Tensor const& timesteps,
                    Tensor const& levels, double grad_scale) {
  return tl::distil(addloss::distillation<>{}, schedule(levels), student, target, timesteps,
                    {.grad_scale = grad_scale});
}

Tensor distillation_from_v(Tensor const& student, Tensor const& noise, Tensor const& conditional,
                           Tensor const& unconditional, double guidance_scale,
                           Tensor const& timesteps, Tensor const& levels, double grad_scale) {
  return tl::distil(addloss::distillation<>{}, addloss::v_prediction{}, schedule(levels), student,
                    {.noise = noise,
                     .conditional = conditional,
                     .unconditional = unconditional,
                     .guidance_scale = guidance_scale},
                    timesteps, {.grad_scale = grad_scale});
}

Tensor generator(at::TensorList fake, std::string const& policy, double grad_scale) {
  return with_policy(policy, [&](auto const& loss) {
    return tl::generator(loss, fake, {.grad_scale = grad_scale});
  });
}

Tensor discriminator(at::TensorList real, at::TensorList fake, std::string const& policy,
                     double grad_scale) {
  return with_policy(policy, [&](auto const& loss) {
    return tl::discriminator(loss, real, fake, {.grad_scale = grad_scale});
  });
}

Tensor r1(at::TensorList feature_gradients, double gamma, double grad_scale) {
  return tl::penalty(addloss::r1{.gamma = gamma}, feature_gradients, {.grad_scale = grad_scale});
}

/// What the loss of such a tensor looks like.
Tensor meta_loss(Tensor const& of) {
  auto const type = of.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::empty({}, of.options().dtype(type));
}

void register_kernels(torch::Library& library) {
  library.impl("distillation", distillation);
  library.impl("distillation_from_v", distillation_from_v);
  library.impl("generator", generator);
  library.impl("discriminator", discriminator);
  library.impl("r1", r1);
}

void register_shapes(torch::Library& library) {
  library.impl("distillation",
               [](Tensor const& student, Tensor const& /*target*/, Tensor const& /*timesteps*/,
                  Tensor const& /*levels*/, double /*grad_scale*/) { return meta_loss(student); });
  library.impl(
      "distillation_from_v",
      [](Tensor const& student, Tensor const& /*noise*/, Tensor const& /*conditional*/,
         Tensor const& /*unconditional*/, double /*guidance_scale*/, Tensor const& /*timesteps*/,
         Tensor const& /*levels*/, double /*grad_scale*/) { return meta_loss(student); });
  library.impl("generator", [](at::TensorList fake, std::string const& /*policy*/,
                               double /*grad_scale*/) { return meta_loss(fake[0]); });
  library.impl("discriminator",
               [](at::TensorList /*real*/, at::TensorList fake, std::string const& /*policy*/,
                  double /*grad_scale*/) { return meta_loss(fake[0]); });
  library.impl("r1", [](at::TensorList feature_gradients, double /*gamma*/, double /*grad_scale*/) {
    return meta_loss(feature_gradients[0]);
  });
}

}  // namespace

TORCH_LIBRARY(addloss, library) {
  library.def(
      "distillation(Tensor student, Tensor target, Tensor timesteps, Tensor levels, "
      "float grad_scale=1) -> Tensor");
  library.def(
      "distillation_from_v(Tensor student, Tensor noise, Tensor conditional, "
      "Tensor unconditional, float guidance_scale, Tensor timesteps, Tensor levels, "
      "float grad_scale=1) -> Tensor");
  library.def("generator(Tensor[] fake, str policy, float grad_scale=1) -> Tensor");
  library.def(
      "discriminator(Tensor[] real, Tensor[] fake, str policy, float grad_scale=1) -> Tensor");
  library.def("r1(Tensor[] feature_gradients, float gamma, float grad_scale=1) -> Tensor");
}

// The functions have autograd within: with it and without it they are called alike.
TORCH_LIBRARY_IMPL(addloss, CPU, library) { register_kernels(library); }
TORCH_LIBRARY_IMPL(addloss, AutogradCPU, library) { register_kernels(library); }
// Of meta tensors, the loss requires no gradient.
TORCH_LIBRARY_IMPL(addloss, Meta, library) { register_shapes(library); }
TORCH_LIBRARY_IMPL(addloss, AutogradMeta, library) { register_shapes(library); }
