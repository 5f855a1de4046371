// SPDX-License-Identifier: MIT
// torch/heads.hpp on a GPU: what the same module gives on the CPU.
#include <addloss/torch/heads.hpp>

#include <ATen/Context.h>
#include <torch/serialize.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cuda/torch/on_gpu.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

std::vector<head_settings> const settings = {
    {.channels = 6, .kernel = 3, .condition_sizes = {3, 2}, .width = 4, .virtual_batch = 2},
    {.channels = 4, .kernel = 5, .condition_sizes = {3, 2}, .width = 4}};
adversarial<non_saturating> const loss;

/// Features of both heads, the second a map.
tensors features(double phase) {
  return {numbers({4, 6, 7}, phase), numbers({4, 4, 2, 3}, phase + 1)};
}
tensors conditions() { return {numbers({4, 3}, 5), numbers({4, 2}, 6)}; }

/// A module there, with the numbers of one here.
torch_heads<> module_on(at::Device device, weight_normalisation norm, std::uint64_t seed = 7) {
  torch_heads<> module(settings, seed, norm);
  module.to(device);
  module.update_state();
  return module;
}

/// All that a module gives, and the gradients of three times its losses.
tensors outputs(at::Device device, weight_normalisation norm) {
  auto module = module_on(device, norm);
  auto const real = on(device, features(0));
  auto const fake = on(device, features(2));
  auto const given = on(device, conditions());
  for (at::Tensor const& map : fake) map.requires_grad_();

  tensors result = module.logits(real, given);
  at::Tensor const generator = module.generator(loss, fake, given, {.grad_scale = 2});
  (3 * generator).backward();
  result.insert(result.end(), {generator, fake[0].grad(), fake[1].grad()});

  discriminator_terms terms;
  discriminator_options const options{.real_penalty = r1{.gamma = 0.3},
                                      .fake_penalty = r1{.gamma = 0.2}};
  at::Tensor const total = module.discriminator(loss, real, fake, given, options, &terms);
  (3 * total).backward();
  result.insert(result.end(), {total, terms.adversarial, terms.penalty,
                               module.parameters()[0].grad(), module.buffers()[0]});
  CHECK(terms.non_finite.item<std::int64_t>() == 0);
  {
    torch::NoGradGuard const no_grad;
    CHECK(at::equal(module.generator(loss, fake, given).to(at::kCPU), generator.to(at::kCPU)));
  }
  for (at::Tensor const& tensor : result) CHECK(tensor.device() == device);
  return on(at::kCPU, result);
}

/// Memory of the GPU for `Value`s, zeros.
template <class Value>
at::Tensor memory_for(std::int64_t count) {
  return at::zeros({count * static_cast<std::int64_t>(sizeof(Value))},
                   at::TensorOptions(at::kByte).device(gpu));
}

}  // namespace

TEST_CASE("heads on a GPU give what they give on the CPU") {
  auto const norm = GENERATE(weight_normalisation::spectral, weight_normalisation::none);
  auto const got = outputs(gpu, norm);
  auto const expected = outputs(at::kCPU, norm);
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("number " << i);
    CHECK(got[i].sizes() == expected[i].sizes());
    CHECK(got[i].scalar_type() == expected[i].scalar_type());
    if (expected[i].numel() == 0) continue;
    double const largest = expected[i].abs().max().item<double>();
    CHECK(largest > 0);
    CHECK((got[i] - expected[i]).abs().max().item<double>() <= 1e-4 * largest);
  }
}

TEST_CASE("heads go to a GPU and back as they are") {
  torch_heads<> module(settings, 3);
  auto const before = on(at::kCPU, {module.parameters()[0].clone(), module.buffers()[0].clone()});
  auto const logits = module.logits(features(0), conditions())[1];
  module.to(gpu);
  CHECK(module.parameters()[0].is_cuda());
  CHECK(module.buffers()[0].is_cuda());
  auto const there = module.logits(on(gpu, features(0)), on(gpu, conditions()))[1];
  CHECK(there.device() == gpu);
  module.to(at::kCPU);
  CHECK(at::equal(module.parameters()[0], before[0]));
  CHECK(at::equal(module.buffers()[0], before[1]));
  CHECK(at::equal(module.logits(features(0), conditions())[1], logits));
}

TEST_CASE("heads on a GPU are saved and loaded") {
  auto const saved = std::make_shared<torch_heads<>>(settings, 1);
  auto const loaded = std::make_shared<torch_heads<>>(settings, 2);
  saved->to(gpu);
  saved->update_state();
  std::stringstream stream;
  torch::save(saved, stream);
  torch::load(loaded, stream, at::kCPU);
  CHECK(at::equal(loaded->parameters()[0], saved->parameters()[0].to(at::kCPU)));
  CHECK(at::equal(loaded->buffers()[0], saved->buffers()[0].to(at::kCPU)));
}

TEST_CASE("what options of heads lead to is in the memory of the GPU") {
  auto module = module_on(gpu, weight_normalisation::spectral);
  auto real = features(0);
  auto fake = features(2);
  auto const given = on(gpu, conditions());
  auto const statistics = memory_for<head_statistics>(2);
  auto const non_finite = memory_for<std::int64_t>(1);
  auto const numbers = at::full({3}, 0.3, at::TensorOptions(at::kDouble).device(gpu));
  auto* const first = static_cast<double*>(numbers.data_ptr());
  auto* const there = static_cast<head_statistics*>(statistics.data_ptr());

  discriminator_terms by_value, in_memory;
  discriminator_options const options{.real_penalty = r1{.gamma = 0.3}};
  module.discriminator(loss, on(gpu, real), on(gpu, fake), given, options, &by_value);
  module.discriminator(
      loss, on(gpu, real), on(gpu, fake), given,
      {.real_penalty = r1{.gamma = number_at{first}}, .real_penalties = {first + 1, 2}},
      &in_memory);
  CHECK(in_memory.penalty.item<double>() == by_value.penalty.item<double>());
  auto const penalties = numbers.to(at::kCPU);
  CHECK(0.3 * (penalties[1] + penalties[2]).item<double>() ==
        Approx(by_value.penalty.item<double>()));

  fake[1][3][0][0][0] = std::nan("");
  auto const value = module.generator(
      loss, on(gpu, fake), given,
      {.non_finite = static_cast<std::int64_t*>(non_finite.data_ptr()), .statistics = {there, 2}});
  CHECK(std::isnan(value.item<double>()));
  auto const bytes = statistics.to(at::kCPU);
  auto const* const got = static_cast<head_statistics const*>(bytes.data_ptr());
  CHECK(got[0].fake.non_finite == 0);
  CHECK(got[0].fake.mean != 0);
  // A norm over the batch spreads it.
  CHECK(got[1].fake.non_finite == 4 * 6);
  CHECK(non_finite.to(at::kCPU).view(at::kLong).item<std::int64_t>() == 4 * 6);
  real[0][0][0][0] = std::nan("");
  discriminator_terms terms;
  module.discriminator(loss, on(gpu, real), on(gpu, features(2)), given, {}, &terms);
  CHECK(std::isnan(terms.penalty.item<double>()));
  CHECK(terms.non_finite.item<std::int64_t>() > 0);
}

TEST_CASE("what heads on a GPU cannot be given is refused by name") {
  auto module = module_on(gpu, weight_normalisation::spectral);
  auto const error = [&](tensors const& maps, tensors const& given) {
    return error_of([&] { static_cast<void>(module.logits(maps, given)); });
  };
  auto const maps = on(gpu, features(0));
  auto const given = on(gpu, conditions());
  CHECK(error({maps[0], features(0)[1]}, given) ==
        "rows_from_torch: features (expected a tensor on cuda:0, got one on cpu)");
  CHECK(error(maps, conditions()) ==
        "from_torch: conditions (expected a tensor on cuda:0, got one on cpu)");
  CHECK(error({maps[0], maps[1].transpose(2, 3)}, given) ==
        "torch_heads: features[1] (expected a contiguous tensor, got one with strides)");
  CHECK(error({maps[0].transpose(1, 2).contiguous().transpose(1, 2), maps[1]}, given) ==
        "head_stack::logits: features[0] (expected row-major memory without gaps, got strides "
        "[42,1,6])");
  CHECK(error({maps[0]}, given).find("expected 2 heads, got 1") != std::string::npos);
  CHECK(error({maps[0], maps[1].to(at::kDouble)}, given) ==
        "rows_from_torch: features (expected Float, got Double)");
  head_statistics one;
  CHECK(error_of([&] {
          module.generator(loss, maps, given, {.statistics = {&one, 1}});
        }).find("statistics (expected 2 heads") != std::string::npos);

  torch_heads<> here(settings);
  CHECK(error_of([&] { static_cast<void>(here.logits(maps, given)); }) ==
        "rows_from_torch: features (expected a tensor on the CPU, got one on cuda:0)");
  module.buffers()[0].set_data(module.buffers()[0].to(at::kCPU));
  CHECK(error(maps, given) == "torch_heads: state (expected a tensor on cuda:0, got one on cpu)");
}

TEST_CASE("heads on a GPU are in full float where LibTorch may take TF32") {
  auto module = module_on(gpu, weight_normalisation::none);
  auto const logits = [&] { return module.logits(on(gpu, features(0)), on(gpu, conditions()))[0]; };
  auto const expected = logits();
  struct precision {
    explicit precision(char const* name) { at::globalContext().setFloat32MatmulPrecision(name); }
    ~precision() { at::globalContext().setFloat32MatmulPrecision("highest"); }
  } const high("high");
  CHECK(at::globalContext().allowTF32CuBLAS());
  CHECK(at::equal(logits().to(at::kCPU), expected.to(at::kCPU)));
}

TEST_CASE("heads without code for the GPU are refused") {
  auto module = module_on(gpu, weight_normalisation::spectral);
  std::string const start =
      "torch_heads: heads (expected a device_heads_code of them (cuda/heads/device_heads.cuh), got "
      "none [";
  auto error = error_of([&] {
    static_cast<void>(
        module.generator(adversarial<wasserstein>{}, on(gpu, features(0)), on(gpu, conditions())));
  });
  INFO(error);
  CHECK(error.starts_with(start));
  CHECK(error.find("wasserstein") != std::string::npos);
  torch_heads<double> other(settings);
  other.to(gpu);
  error = error_of([&] { other.update_state(); });
  CHECK(error.starts_with(start));
  CHECK(error.find("double") != std::string::npos);
}
