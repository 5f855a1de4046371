// SPDX-License-Identifier: MIT
// torch/losses.hpp on tensors of a GPU: value and derivatives are those of the same tensors on the
// CPU.
#include <addloss/torch/losses.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>

#include "catch.hpp"
#include "cuda/torch/on_gpu.hpp"
#include "error_of.hpp"

namespace {

namespace tl = addloss::torch_loss;
using namespace addloss;

/// Value and gradients of f, with the inputs on `device`; second derivatives of the sum of the
/// gradients' squares where they are asked for.
template <class Function>
tensors derivatives(Function const& f, at::Device device, tensors const& inputs, bool twice) {
  tensors const in = on(device, inputs);
  for (at::Tensor const& input : in) input.requires_grad_();
  at::Tensor const value = f(device, in);
  CHECK(value.device() == device);
  at::Tensor const total = value.dim() == 0 ? 3 * value : (value * value).sum();
  tensors result = torch::autograd::grad({total}, in, {}, twice, twice);
  for (at::Tensor const& gradient : result) CHECK(gradient.device() == device);
  if (twice) {
    at::Tensor norm = at::zeros_like(total);
    for (at::Tensor const& gradient : result) norm = norm + gradient.square().sum();
    auto const second = torch::autograd::grad({norm}, in);
    result.insert(result.end(), second.begin(), second.end());
  }
  result.push_back(value);
  return on(at::kCPU, result);
}

/// `tolerance`: what the fusing of multiplications and additions makes.
void check_same(tensors const& got, tensors const& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("number " << i);
    CHECK(got[i].strides() == expected[i].strides());
    CHECK(at::isfinite(got[i]).all().item<bool>());
    CHECK(expected[i].abs().max().item<double>() > 0);
    CHECK(at::allclose(got[i], expected[i], tolerance, tolerance));
  }
}
template <class Function>
void check_as_on_cpu(Function const& f, tensors const& inputs, bool twice = false,
                     double tolerance = 1e-6) {
  check_same(derivatives(f, gpu, inputs, twice), derivatives(f, at::kCPU, inputs, twice),
             tolerance);
}

tensors logits(double phase) { return {numbers({3, 5}, phase), numbers({3, 2}, phase + 1)}; }
tensors joined(tensors first, tensors const& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}
at::TensorList first_half(tensors const& all) {
  return at::TensorList(all).slice(0, all.size() / 2);
}
at::TensorList second_half(tensors const& all) { return at::TensorList(all).slice(all.size() / 2); }

discrete_schedule const& levels() {
  static discrete_schedule const result = scaled_linear_schedule();
  return result;
}
at::Tensor times() { return at::tensor({10, 500, 900}, at::kLong); }

}  // namespace

TEST_CASE("distillation from a target, on a GPU") {
  auto const f = [](at::Device device, tensors const& in) {
    return tl::distil(distillation<>{}, torch_schedule(levels(), device), in[0],
                      numbers({3, 2, 4, 5}, 1).to(device), times().to(device));
  };
  check_as_on_cpu(f, {numbers({3, 2, 4, 5}, 0)}, true);
}

TEST_CASE("distillation of channels_last, on a GPU") {
  auto const last = at::MemoryFormat::ChannelsLast;
  auto const f = [&](at::Device device, tensors const& in) {
    return tl::distil(distillation<>{}, torch_schedule(levels(), device), in[0],
                      numbers({3, 2, 4, 5}, 1).contiguous(last).to(device), times().to(device));
  };
  check_as_on_cpu(f, {numbers({3, 2, 4, 5}, 0).contiguous(last)});
}

TEST_CASE("distillation from the teacher, on a GPU") {
  bool const generated = GENERATE(false, true);
  auto const f = [&](at::Device device, tensors const& in) {
    tl::teacher said{.conditional = numbers({3, 70}, 2).to(device),
                     .unconditional = numbers({3, 70}, 3).to(device),
                     .guidance_scale = 3};
    if (generated) {
      said.generated = normal_noise{{1, 2, 3}};
    } else {
      said.noise = numbers({3, 70}, 1).to(device);
    }
    return tl::distil(distillation<>{}, v_prediction{}, torch_schedule(levels(), device), in[0],
                      said, times().to(device));
  };
  check_as_on_cpu(f, {numbers({3, 70}, 0)}, true);
}

TEST_CASE("one number a sample, and weights of a continuous time, on a GPU") {
  distillation<exponential, pseudo_huber> const loss{.distance = {.c = 0.5}};
  auto const f = [&](at::Device device, tensors const& in) {
    return tl::distil<per_sample>(loss, rectified_flow{}, in[0],
                                  numbers({3, 4}, 1, at::kDouble).to(device),
                                  at::tensor({0.1, 0.9, 0.5}, at::kDouble).to(device));
  };
  check_as_on_cpu(f, {numbers({3, 4}, 0, at::kDouble)}, true, 1e-12);
}

TEST_CASE("adversarial losses, on a GPU") {
  check_as_on_cpu(
      [](at::Device /*device*/, tensors const& in) { return tl::generator(adversarial<>{}, in); },
      logits(0));
  check_as_on_cpu(
      [](at::Device /*device*/, tensors const& in) {
        return tl::discriminator(adversarial<>{}, first_half(in), second_half(in));
      },
      joined(logits(0), logits(2)));
}

TEST_CASE("statistics of heads are written to the GPU") {
  auto fake = logits(0);
  fake[1][0][1] = std::nan("");
  auto const memory = at::zeros({1024}, at::TensorOptions(at::kByte).device(gpu));
  auto* const statistics = reinterpret_cast<head_statistics*>(memory.data_ptr());
  auto* const non_finite = reinterpret_cast<std::int64_t*>(statistics + 2);
  auto const value = tl::generator(adversarial<>{}, on(gpu, fake),
                                   {.non_finite = non_finite, .statistics = {statistics, 2}});
  CHECK(std::isnan(value.item<double>()));
  auto const there = memory.to(at::kCPU);
  auto const* const got = reinterpret_cast<head_statistics const*>(there.data_ptr());
  CHECK(got[0].fake.mean == Approx(fake[0].mean().item<double>()));
  CHECK(got[1].fake.non_finite == 1);
  CHECK(*reinterpret_cast<std::int64_t const*>(got + 2) == 1);
}

TEST_CASE("R1 goes through the user's network, on a GPU") {
  auto const f = [](at::Device device, tensors const& weights) {
    auto const features = numbers({2, 3, 4}, 0).to(device).requires_grad_();
    auto const head = at::tanh(features * weights[0]).sum(1);
    return tl::penalty(r1{.gamma = 0.3, .interval = 2}, {head}, {features});
  };
  check_as_on_cpu(f, {numbers({3, 1}, 1)});
}

TEST_CASE("objectives, on a GPU") {
  add_practical<> const objective{.lambda = 2.5, .penalty = {.gamma = 0.1}};
  check_as_on_cpu(
      [&](at::Device device, tensors const& in) {
        auto const distilled = tl::distil(objective.distillation, torch_schedule(levels(), device),
                                          in[0], numbers({3, 4}, 1).to(device), times().to(device));
        return tl::student(objective, {in[1]}, distilled);
      },
      {numbers({3, 4}, 0), numbers({3, 5}, 2)});
}

TEST_CASE("what a GPU cannot be given is refused by name") {
  auto const x = numbers({3, 4}, 0);
  auto const there = x.to(gpu);
  torch_schedule const schedule(levels(), gpu);
  auto const error = [&](auto const& with, at::Tensor const& student, at::Tensor const& target,
                         at::Tensor const& timesteps) {
    return error_of([&] { tl::distil(distillation<>{}, with, student, target, timesteps); });
  };
  CHECK(error(schedule, there, x, times().to(gpu)) ==
        "rows_from_torch: target (expected a tensor on cuda:0, got one on cpu)");
  CHECK(error(schedule, there, there, times()) ==
        "rows_from_torch: timesteps (expected a tensor on cuda:0, got one on cpu)");
  CHECK(error(torch_schedule(levels()), x, there, times()) ==
        "rows_from_torch: target (expected a tensor on the CPU, got one on cuda:0)");
  CHECK(error(schedule, x, x, times()) ==
        "distil: schedule (expected levels on cpu, got levels on cuda:0)");
  CHECK(error(levels().table(), there, there, times().to(gpu)) ==
        "distil: schedule (expected a torch_schedule on cuda:0, got a table elsewhere)");
  // There need not be such a GPU.
  at::Device const second(at::kCUDA, 1);
  at::Tensor const other = at::for_blob(there.data_ptr(), there.sizes())
                               .options(there.options().device(second))
                               .target_device(second)
                               .make_tensor();
  CHECK(error(schedule, there, other, times().to(gpu)) ==
        "rows_from_torch: target (expected a tensor on cuda:0, got one on cuda:1)");
  auto const last = at::MemoryFormat::ChannelsLast;
  auto const image = numbers({3, 2, 4, 4}, 0).to(gpu);
  CHECK(error(schedule, image, image.contiguous(last), times().to(gpu)) ==
        "workspace_bytes: target (expected the memory order of student, stride 16 on axis 1, got "
        "stride 1)");
  double const gamma = 1;
  CHECK(error_of([&] { tl::penalty(r1{.gamma = number_at{&gamma}}, {there}); }) ==
        "penalty: gamma (expected a number by value, got one in memory)");
}

TEST_CASE("losses without code for the GPU are refused") {
  auto const half = numbers({3, 4}, 0).to(at::kHalf).to(gpu);
  auto const error = error_of([&] { tl::generator(adversarial<>{}, {half}); });
  INFO(error);
  CHECK(error.find("loss (expected a device_code of it (cuda/device_loss.cuh), got none [") !=
        std::string::npos);
  CHECK(error.find("hinge") != std::string::npos);
}

TEST_CASE("timesteps written after forward have no second derivative") {
  auto const student = numbers({3, 4}, 0).to(gpu).requires_grad_();
  auto const timesteps = times().to(gpu);
  auto const loss = tl::distil(distillation<>{}, torch_schedule(levels(), gpu), student,
                               numbers({3, 4}, 1).to(gpu), timesteps);
  timesteps.fill_(3);
  CHECK_THROWS_WITH(torch::autograd::grad({loss}, {student}, {}, true, true),
                    Catch::Contains("timesteps (expected what they were in forward"));
}
