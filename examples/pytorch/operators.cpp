// SPDX-License-Identifier: MIT
// The losses as operators of PyTorch, torch.ops.addloss.*: losses.py loads them, and says what they
// compute. tracing.hpp gives each its autograd, its casts under autocast, and its shapes for meta
// and fake tensors; device_code.cu has what runs on a GPU.
//
// `levels` [T, 2] (Double) are alpha and sigma of each timestep; timesteps are Long. All tensors of
// a call lie on one device.
#include <addloss/torch/losses.hpp>
#include <addloss/torch/schedule.hpp>

#include <torch/library.h>

#include <string>
#include <utility>

#include "policies.hpp"
#include "tracing.hpp"

namespace tl = addloss::torch_loss;
using at::Tensor;

namespace operators {

/// The second derivative, which torch/losses.hpp asks for.
static Tensor curvature(any_policy const& any, Tensor const& slope) {
  return any.visit([&](auto policy) { return tl::detail::curvature(policy, slope); });
}

}  // namespace operators

namespace {

using operators::any_policy;
using operators::any_weighting;
// std::optional, or what older versions have instead.
using optional_tensor = decltype(std::declval<c10::IValue const&>().toOptional<Tensor>());

addloss::adversarial<any_policy> adversarial_of(std::string const& name) {
  using policies = any_policy::name;
  if (name == "hinge") return {{policies::hinge}};
  if (name == "non_saturating") return {{policies::non_saturating}};
  if (name == "least_squares") return {{policies::least_squares}};
  if (name == "wasserstein") return {{policies::wasserstein}};
  addloss::detail::fail("addloss", "policy", "hinge, non_saturating, least_squares or wasserstein",
                        name.c_str());
}

/// Calls `body` with the prediction type of that name.
template <class Body>
Tensor with_prediction(std::string const& name, Body const& body) {
  if (name == "epsilon") return body(addloss::epsilon_prediction{});
  if (name == "v") return body(addloss::v_prediction{});
  if (name == "x0") return body(addloss::sample_prediction{});
  if (name == "flow") return body(addloss::flow_prediction{});
  addloss::detail::fail("addloss", "prediction", "epsilon, v, x0 or flow", name.c_str());
}

addloss::distillation<any_weighting> distillation_of(std::string const& name) {
  using weightings = any_weighting::name;
  if (name == "uniform") return {{weightings::uniform}};
  if (name == "exponential") return {{weightings::exponential}};
  // From a target; from predictions nfsd is a type of its own.
  if (name == "sds" || name == "nfsd") return {{weightings::sds}};
  if (name == "snr") return {{weightings::snr}};
  if (name == "min_snr") return {{weightings::min_snr}};
  addloss::detail::fail("addloss", "weighting", "uniform, exponential, sds, nfsd, snr or min_snr",
                        name.c_str());
}

Tensor distillation(Tensor const& student, Tensor const& target, Tensor const& timesteps,
                    Tensor const& levels, std::string const& weighting, double grad_scale) {
  return tl::distil(distillation_of(weighting), addloss::torch_schedule(levels), student, target,
                    timesteps, {.grad_scale = grad_scale});
}

Tensor distillation_from_teacher(Tensor const& student, Tensor const& conditional,
                                 optional_tensor const& unconditional,
                                 optional_tensor const& negative, optional_tensor const& noise,
                                 Tensor const& timesteps, Tensor const& levels,
                                 std::string const& prediction, std::string const& weighting,
                                 double guidance_scale, double grad_scale) {
  tl::teacher const said{.noise = noise.value_or(Tensor()),
                         .conditional = conditional,
                         .unconditional = unconditional.value_or(Tensor()),
                         .negative = negative.value_or(Tensor()),
                         .guidance_scale = guidance_scale};
  auto const distil = [&](auto const& loss, auto type) {
    return tl::distil(loss, type, addloss::torch_schedule(levels), student, said, timesteps,
                      {.grad_scale = grad_scale});
  };
  if (weighting == "nfsd") {
    if (prediction != "epsilon") {
      addloss::detail::fail("addloss", "prediction", "epsilon, as the weighting is nfsd",
                            prediction.c_str());
    }
    return distil(addloss::distillation<addloss::nfsd>{}, addloss::epsilon_prediction{});
  }
  return with_prediction(prediction,
                         [&](auto type) { return distil(distillation_of(weighting), type); });
}

Tensor generator(at::TensorList fake, std::string const& policy, double grad_scale) {
  return tl::generator(adversarial_of(policy), fake, {.grad_scale = grad_scale});
}

Tensor discriminator(at::TensorList real, at::TensorList fake, std::string const& policy,
                     double grad_scale) {
  return tl::discriminator(adversarial_of(policy), real, fake, {.grad_scale = grad_scale});
}

Tensor relativistic_generator(at::TensorList real, at::TensorList fake, double grad_scale) {
  return tl::generator(addloss::paired<>{}, real, fake, {.grad_scale = grad_scale});
}

Tensor relativistic_discriminator(at::TensorList real, at::TensorList fake, double grad_scale) {
  return tl::discriminator(addloss::paired<>{}, real, fake, {.grad_scale = grad_scale});
}

Tensor r1(at::TensorList feature_gradients, double gamma, double grad_scale) {
  return tl::penalty(addloss::r1{.gamma = gamma}, feature_gradients, {.grad_scale = grad_scale});
}

Tensor approximate_r1(at::TensorList logits, at::TensorList perturbed, double weight,
                      double grad_scale) {
  return tl::penalty(addloss::approximate_r1<>{.lambda = weight}, logits, perturbed,
                     {.grad_scale = grad_scale});
}

struct definition {
  char const* name;
  char const* arguments;
};

/// Differentiated are the first argument and every list; the last one is grad_scale.
constexpr definition definitions[] = {
    {"distillation",
     "Tensor student, Tensor target, Tensor timesteps, Tensor levels, str weighting, "
     "float grad_scale=1"},
    {"distillation_from_teacher",
     "Tensor student, Tensor conditional, Tensor? unconditional, Tensor? negative, Tensor? noise, "
     "Tensor timesteps, Tensor levels, str prediction, str weighting, float guidance_scale, "
     "float grad_scale=1"},
    {"generator", "Tensor[] fake, str policy, float grad_scale=1"},
    {"discriminator", "Tensor[] real, Tensor[] fake, str policy, float grad_scale=1"},
    {"relativistic_generator", "Tensor[] real, Tensor[] fake, float grad_scale=1"},
    {"relativistic_discriminator", "Tensor[] real, Tensor[] fake, float grad_scale=1"},
    {"r1", "Tensor[] feature_gradients, float gamma, float grad_scale=1"},
    {"approximate_r1", "Tensor[] logits, Tensor[] perturbed, float weight, float grad_scale=1"},
};

/// Functions that LibTorch differentiates, on whatever device their tensors lie.
void register_kernels(torch::Library& library) {
  library.impl("distillation", distillation);
  library.impl("distillation_from_teacher", distillation_from_teacher);
  library.impl("generator", generator);
  library.impl("discriminator", discriminator);
  library.impl("relativistic_generator", relativistic_generator);
  library.impl("relativistic_discriminator", relativistic_discriminator);
  library.impl("r1", r1);
  library.impl("approximate_r1", approximate_r1);
}

}  // namespace

TORCH_LIBRARY(addloss, library) {
  for (definition const& op : definitions) tracing::define(library, op.name, op.arguments);
}

TORCH_LIBRARY_IMPL(addloss, CPU, library) { register_kernels(library); }
#if defined(ADDLOSS_TORCH_CUDA)
TORCH_LIBRARY_IMPL(addloss, CUDA, library) { register_kernels(library); }
#endif

TORCH_LIBRARY_IMPL(addloss, Autograd, library) {
  for (definition const& op : definitions) tracing::register_autograd(library, op.name);
}
TORCH_LIBRARY_IMPL(addloss, AutocastCPU, library) {
  for (definition const& op : definitions) tracing::register_casts(library, op.name);
}
TORCH_LIBRARY_IMPL(addloss, AutocastCUDA, library) {
  for (definition const& op : definitions) tracing::register_casts(library, op.name);
}
TORCH_LIBRARY_IMPL(addloss, CompositeExplicitAutograd, library) {
  for (definition const& op : definitions) tracing::register_gradients(library, op.name);
}
TORCH_LIBRARY_IMPL(addloss, Meta, library) {
  for (definition const& op : definitions) tracing::register_shapes(library, op.name);
}
