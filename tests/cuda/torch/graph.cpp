// SPDX-License-Identifier: MIT
// A step of LibTorch with heads and losses on a GPU, captured as a CUDA graph: nothing in it waits,
// or reads what lies there. For a LibTorch that is built for CUDA.
#include <addloss/torch/heads.hpp>
#include <addloss/torch/losses.hpp>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <addloss/schedule/discrete.hpp>

#include "catch.hpp"
#include "cuda/torch/on_gpu.hpp"

namespace {

using namespace addloss;

std::vector<head_settings> const settings = {{.channels = 6, .kernel = 3},
                                             {.channels = 4, .kernel = 5}};
adversarial<non_saturating> const loss;

tensors features(double phase) {
  return on(gpu, {numbers({4, 6, 7}, phase), numbers({4, 4, 2, 3}, phase + 1)});
}

/// What a step reads, at addresses that stay.
struct step_inputs {
  tensors real = features(0);
  tensors fake = features(1);
  at::Tensor student = numbers({4, 3, 5}, 2).to(gpu);
  at::Tensor target = numbers({4, 3, 5}, 3).to(gpu);
  at::Tensor times = at::tensor({10, 300, 500, 900}, at::kLong).to(gpu);

  void fill(double phase) {
    for (std::size_t k = 0; k < 2; ++k) {
      real[k].copy_(features(phase)[k]);
      fake[k].copy_(features(phase + 1)[k]);
    }
    student.copy_(numbers({4, 3, 5}, phase + 2));
    times.copy_(at::tensor({900, 20, 700, 50}, at::kLong));
  }
};

/// Values and gradients of both sides.
tensors step(torch_heads<>& heads, torch_schedule const& schedule, step_inputs const& in) {
  heads.update_state();
  at::Tensor const weights = heads.parameters()[0];
  discriminator_terms terms;
  auto const total = heads.discriminator(loss, in.real, in.fake, {}, {}, &terms);
  tensors result = torch::autograd::grad({total}, {weights});

  tensors x = on(gpu, in.fake);
  x.push_back(in.student.detach().clone());
  for (at::Tensor const& tensor : x) tensor.requires_grad_();
  auto const distilled = torch_loss::distil(distillation<>{}, schedule, x[2], in.target, in.times);
  auto const generator = heads.generator(loss, {x[0], x[1]}) + 2.5 * distilled;
  for (auto const& gradient : torch::autograd::grad({generator}, x)) result.push_back(gradient);
  result.insert(result.end(), {total, generator, terms.penalty, heads.logits(in.real)[1]});
  return result;
}

}  // namespace

TEST_CASE("a step on a GPU is captured, and replayed with other numbers") {
  torch_heads<> heads(settings, 7);
  heads.to(gpu);
  torch_schedule const schedule(scaled_linear_schedule(), gpu);
  auto const state = heads.buffers()[0].clone();
  step_inputs in;
  // Whatever is not on this stream is no part of the graph.
  c10::cuda::CUDAStreamGuard const stream(c10::cuda::getStreamFromPool());
  c10::cuda::device_synchronize();
  // CUDA loads a kernel when it is first launched.
  step(heads, schedule, in);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  auto const captured = step(heads, schedule, in);
  graph.capture_end();

  in.fill(4);
  heads.buffers()[0].copy_(state);
  auto const expected = on(at::kCPU, step(heads, schedule, in));
  heads.buffers()[0].copy_(state);
  graph.replay();
  auto const got = on(at::kCPU, captured);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO("number " << i);
    double const largest = expected[i].abs().max().item<double>();
    CHECK(largest > 0);
    CHECK((got[i] - expected[i]).abs().max().item<double>() <= 1e-4 * largest);
  }
}
