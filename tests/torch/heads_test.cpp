// SPDX-License-Identifier: MIT
#include <addloss/torch/heads.hpp>

#include <ATen/ATen.h>
#include <torch/serialize.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"
#include "torch/differences.hpp"

namespace {

using namespace addloss;
using heads_of_double = torch_heads<double>;

at::Tensor numbers(at::IntArrayRef shape, double phase) {
  std::int64_t size = 1;
  for (std::int64_t const extent : shape) size *= extent;
  return at::sin(0.7 * at::arange(size, at::kDouble) + phase).view(shape);
}

std::vector<head_settings> const settings = {
    {.channels = 3, .kernel = 3, .condition_sizes = {2}, .width = 4},
    {.channels = 2, .kernel = 3, .condition_sizes = {2}, .width = 4}};
adversarial<non_saturating> const loss;

/// Features of both heads, the second a map.
std::vector<at::Tensor> features(double phase) {
  return {numbers({2, 3, 6}, phase), numbers({2, 2, 2, 4}, phase + 1)};
}
std::vector<at::Tensor> conditions() { return {numbers({2, 2}, 5)}; }

}  // namespace

TEST_CASE("the module's steps are those of the heads, bit for bit") {
  heads_of_double module(settings, 7);
  auto const& stack = module.stack();
  cpu_context const ctx;
  auto const buffer = [](std::int64_t size) {
    return std::vector<double>(static_cast<std::size_t>(size));
  };
  auto weights = buffer(stack.parameter_count());
  auto state = buffer(stack.state_count());
  auto gradient = weights;
  stack.initialise(7, weights, state);
  stack.update_state(ctx, weights, state);
  module.update_state();

  auto const real = features(0);
  auto const fake = features(2);
  auto const given = conditions();
  condition<double> const in{2, given[0].data_ptr<double>()};
  auto const rows_of = [](std::vector<at::Tensor> const& maps) {
    return std::vector<rows<double const>>{view(maps[0].data_ptr<double>(), 2, 3, 6),
                                           view(maps[1].data_ptr<double>(), 2, 2, 8)};
  };
  auto const real_rows = rows_of(real);
  auto const fake_rows = rows_of(fake);
  feature_shape const shapes[] = {{2, 3, 6}, {2, 2, 8}};
  discriminator_options const options{.real_penalty = r1{.gamma = 0.1}};
  auto memory = buffer(stack.discriminator_workspace(shapes, options));
  auto const expected =
      stack.discriminator_step(ctx, loss, weights, state, {real_rows, {&in, 1}},
                               {fake_rows, {&in, 1}}, {.values = gradient}, memory, options);
  discriminator_terms terms;
  auto const got = module.discriminator(loss, real, fake, given, options, &terms);
  got.backward();
  CHECK(got.item<double>() == expected.total);
  CHECK(terms.penalty.item<double>() == expected.penalty);
  CHECK(terms.adversarial.item<double>() == expected.adversarial);
  CHECK(terms.non_finite.item<std::int64_t>() == 0);
  CHECK(expected.penalty > 0);
  CHECK(at::equal(module.parameters()[0].grad(), at::tensor(gradient, at::kDouble)));

  auto logits = buffer(2 * 6 + 2 * 8);
  rows<double> const out[] = {view(logits.data(), 2, 6), view(logits.data() + 12, 2, 8)};
  stack.logits(ctx, weights, state, {real_rows, {&in, 1}}, out, memory);
  auto const maps = module.logits(real, given);
  CHECK(
      at::equal(at::cat({maps[0].flatten(), maps[1].flatten()}), at::tensor(logits, at::kDouble)));
}

TEST_CASE("losses of the heads are differentiated") {
  heads_of_double module(settings);
  module.update_state();
  auto const given = conditions();
  CHECK(differences::of_value([&](auto const& in) { return module.generator(loss, in, given); },
                              features(0)) < 1e-7);

  // With respect to the parameters, R1 at the reals and the fakes included.
  at::Tensor weights = module.parameters()[0];
  discriminator_options const options{.real_penalty = r1{.gamma = 0.1},
                                      .fake_penalty = r1{.gamma = 0.2}};
  auto const total = [&] {
    return module.discriminator(loss, features(0), features(2), given, options);
  };
  total().backward();
  auto const gradient = weights.grad();
  torch::NoGradGuard const no_grad;
  auto* const w = weights.data_ptr<double>();
  double largest = 0;
  for (std::int64_t i = 0; i < weights.numel(); ++i) {
    double const before = w[i];
    w[i] = before + 1e-5;
    double const above = total().item<double>();
    w[i] = before - 1e-5;
    double const below = total().item<double>();
    w[i] = before;
    double const exact = gradient[i].item<double>();
    double const error = std::abs((above - below) / 2e-5 - exact) / std::max(1.0, std::abs(exact));
    largest = std::max(largest, error);
  }
  CHECK(largest < 1e-7);
}

TEST_CASE("the upstream gradient and the gradient scale multiply") {
  heads_of_double module(settings);
  auto const gradient_of = [&](double upstream, double scale) {
    auto fake = features(0);
    for (auto& map : fake) map.requires_grad_();
    (upstream * module.generator(loss, fake, conditions(), {.grad_scale = scale})).backward();
    return fake[1].grad();
  };
  CHECK(at::allclose(gradient_of(3, 1), 3 * gradient_of(1, 1)));
  CHECK(at::allclose(gradient_of(3, 3), 3 * gradient_of(1, 1)));
}

TEST_CASE("parameters and state are saved and loaded") {
  auto const saved = std::make_shared<heads_of_double>(settings, 1);
  auto const loaded = std::make_shared<heads_of_double>(settings, 2);
  saved->update_state();
  std::stringstream stream;
  torch::save(saved, stream);
  torch::load(loaded, stream);
  CHECK(at::equal(saved->logits(features(0), conditions())[0],
                  loaded->logits(features(0), conditions())[0]));
}

TEST_CASE("what the heads cannot take is refused by name") {
  heads_of_double module(settings);
  auto const error = [&](std::vector<at::Tensor> const& maps,
                         std::vector<at::Tensor> const& given) {
    return error_of([&] { static_cast<void>(module.logits(maps, given)); });
  };
  CHECK(error({numbers({2, 3}, 0)}, conditions()) ==
        "torch_heads: features[0] (expected shape [B, C, L] or [B, C, H, W], got rank 2)");
  CHECK(error({numbers({2, 3, 2, 4}, 0).slice(3, 0, 2), numbers({2, 2, 4}, 0)}, conditions()) ==
        "torch_heads: features[0] (expected a contiguous tensor, got one with strides)");
  CHECK(error({numbers({2, 3, 4}, 0)}, conditions()).find("expected 2 heads") != std::string::npos);
  CHECK(error({numbers({2, 3, 4}, 0), numbers({2, 2, 4}, 0).to(at::kFloat)}, conditions()) ==
        "rows_from_torch: features (expected Double, got Float)");
  CHECK(error(features(0), {numbers({3, 2}, 0)}) ==
        "torch_heads: conditions[0] (expected a contiguous tensor, one row a sample, that requires "
        "no gradient, got 3 rows)");
  auto fake = features(0);
  fake[0].requires_grad_();
  CHECK(error_of([&] {
          module.generator(loss, {fake[0], at::Tensor()}, conditions());
        }) == "torch_heads: fake[1] (expected shape [B, C, L] or [B, C, H, W], got none)");
  auto const value = module.generator(loss, fake, conditions());
  CHECK_THROWS_WITH(torch::autograd::grad({value}, {fake[0]}, {}, true, true),
                    Catch::Contains("expected one derivative, got two"));
}

TEST_CASE("heads that were moved to where they do not run are refused") {
  heads_of_double module(settings);
  module.to(at::kFloat);
  auto const refused = [](std::string const& error) {
    return error.starts_with("torch_heads: ") && error.ends_with(" (expected Double, got Float)");
  };
  CHECK(refused(error_of([&] { module.update_state(); })));
  CHECK(refused(
      error_of([&] { static_cast<void>(module.generator(loss, features(0), conditions())); })));
}
