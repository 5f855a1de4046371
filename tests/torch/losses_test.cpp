// SPDX-License-Identifier: MIT
#include <addloss/torch/losses.hpp>

#include <ATen/ATen.h>
#include <ATen/DLConvertor.h>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <addloss/adapters/dlpack.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/testing/conformance.hpp>
#include <addloss/weighting/uniform.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "torch/differences.hpp"

namespace {

namespace tl = addloss::torch_loss;
using namespace addloss;

constexpr double tolerance = 1e-8;  // of central differences in double

at::Tensor numbers(at::IntArrayRef shape, double phase, at::ScalarType type = at::kDouble) {
  std::int64_t size = 1;
  for (std::int64_t const extent : shape) size *= extent;
  return at::sin(0.7 * at::arange(size, at::kDouble) + phase).view(shape).to(type);
}

/// Logits of two heads that are no kink of any loss.
std::vector<at::Tensor> logits(double phase) {
  return {1.7 * numbers({3, 5}, phase), 1.7 * numbers({3, 2}, phase + 1)};
}

template <class... T>
std::vector<at::Tensor> list(T const&... tensors) {
  return {tensors...};
}
std::vector<at::Tensor> joined(std::vector<at::Tensor> first,
                               std::vector<at::Tensor> const& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}
at::TensorList first_half(std::vector<at::Tensor> const& all) {
  return at::TensorList(all).slice(0, all.size() / 2);
}
at::TensorList second_half(std::vector<at::Tensor> const& all) {
  return at::TensorList(all).slice(all.size() / 2);
}

template <class Function>
void check_derivatives(Function const& f, std::vector<at::Tensor> const& inputs) {
  CHECK(differences::of_value(f, inputs) < tolerance);
  CHECK(differences::of_gradient(f, inputs) < tolerance);
}

bool same_bits(at::Tensor const& a, at::Tensor const& b) { return at::equal(a, b); }

discrete_schedule const& stable_diffusion() {
  static discrete_schedule const schedule = scaled_linear_schedule();
  return schedule;
}

}  // namespace

TEST_CASE("distillation has the value and the gradient of the library, bit for bit") {
  auto const type = GENERATE(at::kFloat, at::kDouble);
  auto const student = numbers({3, 2, 4, 5}, 0, type).requires_grad_();
  auto const target = numbers({3, 2, 4, 5}, 1, type);
  auto const t = at::tensor({10, 500, 900}, at::kLong);
  auto const schedule = stable_diffusion().table();
  distillation<> const loss;
  auto const got = tl::distil(loss, schedule, student, target, t);
  got.backward();
  auto const compare = [&]<class T>(T value) {
    auto const gradient = at::empty_like(student);
    value_and_grad(cpu_context{},
                   loss(schedule, from_torch<T const, 4>(student), from_torch<T const, 4>(target),
                        from_torch<std::int64_t const, 1>(t)),
                   value, from_torch<T, 4>(gradient));
    CHECK(got.item<T>() == value);
    CHECK(same_bits(student.grad(), gradient));
  };
  type == at::kFloat ? compare(0.0F) : compare(0.0);
}

TEMPLATE_TEST_CASE("the curvature of a functor follows from its derivative", "", squared, absolute,
                   pseudo_huber, relativistic) {
  TestType loss;
  if constexpr (std::same_as<TestType, pseudo_huber>) loss.c = 0.5;
  for (double const d : {-1.3, -0.2, 0.4, 2.1}) {
    double const numeric = (loss(d + 1e-5).grad - loss(d - 1e-5).grad) / 2e-5;
    auto const slope = at::full({}, loss(d).grad, at::kDouble);
    CHECK(tl::detail::curvature(loss, slope).template item<double>() ==
          Approx(numeric).margin(1e-9));
  }
}

TEMPLATE_TEST_CASE("so does that of a loss of logits", "", hinge, non_saturating, least_squares,
                   wasserstein) {
  TestType const loss;
  for (double const label : {1.0, -1.0}) {
    for (double const z : {-1.3, -0.2, 0.4, 2.1}) {
      double const above = loss.discriminator(z + 1e-5, label, 1.0).grad;
      double const below = loss.discriminator(z - 1e-5, label, 1.0).grad;
      auto const slope = at::full({}, loss.discriminator(z, label, 1.0).grad, at::kDouble);
      CHECK(tl::detail::curvature(loss, slope).template item<double>() ==
            Approx((above - below) / 2e-5).margin(1e-9));
    }
  }
}

TEST_CASE("distillation from a target is differentiated twice") {
  auto const target = numbers({3, 2, 2}, 1);
  auto const t = at::tensor({0.1, 0.9, 0.5}, at::kDouble);
  distillation<exponential, pseudo_huber> const loss{.distance = {.c = 0.5}};
  check_derivatives(
      [&](auto const& x) { return tl::distil(loss, rectified_flow{}, x[0], target, t); },
      list(numbers({3, 2, 2}, 0)));
  check_derivatives(
      [&](auto const& x) {
        return tl::distil<per_sample>(loss, rectified_flow{}, x[0], target, t);
      },
      list(numbers({3, 2, 2}, 0)));
}

TEST_CASE("distillation from the teacher is that from its target") {
  auto const schedule = stable_diffusion().table();
  auto const t = at::tensor({10, 500, 900}, at::kLong);
  auto const student = numbers({3, 4}, 0).requires_grad_();
  tl::teacher said{.noise = numbers({3, 4}, 1),
                   .conditional = numbers({3, 4}, 2),
                   .unconditional = numbers({3, 4}, 3),
                   .guidance_scale = 3};
  std::vector<double> alphas;
  std::vector<double> sigmas;
  for (std::int64_t const time : {10, 500, 900}) {
    alphas.push_back(schedule.at(time).alpha);
    sigmas.push_back(schedule.at(time).sigma);
  }
  auto const alpha = at::tensor(alphas, at::kDouble).view({3, 1});
  auto const sigma = at::tensor(sigmas, at::kDouble).view({3, 1});
  auto const x_t = (alpha * student + sigma * said.noise).detach();
  auto const p = said.unconditional + 3 * (said.conditional - said.unconditional);
  auto const check = [&](auto prediction, at::Tensor const& target) {
    distillation<> const loss;
    student.mutable_grad() = at::Tensor();
    auto const got = tl::distil(loss, prediction, schedule, student, said, t);
    got.backward();
    auto const gradient = student.grad().clone();
    student.mutable_grad() = at::Tensor();
    auto const expected = tl::distil(loss, schedule, student, target, t);
    expected.backward();
    CHECK(got.template item<double>() == Approx(expected.template item<double>()).epsilon(1e-12));
    CHECK(at::allclose(gradient, student.grad(), 1e-10, 1e-13));
  };
  check(epsilon_prediction{}, (x_t - sigma * p) / alpha);
  check(v_prediction{}, alpha * x_t - sigma * p);
  check(sample_prediction{}, p);
  // The others' targets move with the student, which no difference of losses shows.
  said.unconditional = at::Tensor();
  said.guidance_scale = 1;
  check_derivatives(
      [&](auto const& x) {
        return tl::distil(distillation<>{}, sample_prediction{}, schedule, x[0], said, t);
      },
      list(numbers({3, 4}, 0)));
}

TEST_CASE("adversarial losses are differentiated twice") {
  adversarial<non_saturating, sum> const loss;
  check_derivatives([&](auto const& in) { return tl::generator(loss, in); }, logits(0));
  check_derivatives(
      [&](auto const& in) { return tl::discriminator(loss, first_half(in), second_half(in)); },
      joined(logits(0), logits(2)));
  check_derivatives([&](auto const& in) { return tl::generator<per_sample>(adversarial<>{}, in); },
                    logits(0));
}

TEST_CASE("losses of pairs are differentiated twice") {
  paired<> const loss;
  auto const both = joined(logits(0), logits(2));
  check_derivatives(
      [&](auto const& in) { return tl::generator(loss, first_half(in), second_half(in)); }, both);
  check_derivatives(
      [&](auto const& in) { return tl::discriminator(loss, first_half(in), second_half(in)); },
      both);
  check_derivatives(
      [&](auto const& in) {
        return tl::penalty(approximate_r1<>{.lambda = 3}, first_half(in), second_half(in));
      },
      both);
  // The fakes of a generator come first.
  auto const real = list(at::full({2, 1}, -3.0));
  auto const fake = list(at::full({2, 1}, 3.0));
  CHECK(tl::generator(loss, real, fake).item<double>() < 0.01);
  CHECK(tl::discriminator(loss, real, fake).item<double>() > 5);
}

TEST_CASE("statistics and the count of non-finite logits are written") {
  head_statistics statistics[2];
  std::int64_t non_finite = 7;
  auto fake = logits(0);
  fake[1] = fake[1].clone();
  fake[1][0][1] = std::nan("");
  fake[0].requires_grad_();
  auto const value =
      tl::generator(adversarial<>{}, fake, {.non_finite = &non_finite, .statistics = statistics});
  CHECK(std::isnan(value.item<double>()));
  CHECK(non_finite == 1);
  CHECK(statistics[0].fake.mean == Approx(fake[0].mean().item<double>()));
  CHECK(statistics[1].fake.non_finite == 1);
}

namespace {

/// A discriminator of one's own: features [B, 3, 4] -> logits [B, 4], with curvature.
at::Tensor own_head(at::Tensor const& features, at::Tensor const& weight) {
  return at::tanh(features * weight).sum(1);
}

}  // namespace

TEST_CASE("R1 is differentiated through the user's network") {
  r1 const loss{.gamma = 0.3, .interval = 2};
  auto const f = [&](std::vector<at::Tensor> const& weights) {
    auto const features = list(numbers({2, 3, 4}, 0).requires_grad_());
    return tl::penalty(loss, {own_head(features[0], weights[0])}, features);
  };
  auto const weights = list(numbers({3, 1}, 1));
  check_derivatives(f, weights);
  check_derivatives([&](auto const& gradients) { return tl::penalty(loss, gradients); }, logits(0));
  // The formula, by plain operations.
  auto const weight = weights[0].clone().requires_grad_();
  auto const features = numbers({2, 3, 4}, 0).requires_grad_();
  auto const g =
      torch::autograd::grad({own_head(features, weight).sum()}, {features}, {}, true, true)[0];
  auto const expected = 0.3 * 2 * g.square().sum({1, 2}).mean();
  auto const own = weights[0].clone().requires_grad_();
  auto const got = f({own});
  CHECK(got.template item<double>() == Approx(expected.template item<double>()).epsilon(1e-12));
  expected.backward();
  got.backward();
  CHECK(at::allclose(own.grad(), weight.grad(), 1e-12, 1e-14));
}

TEST_CASE("objectives are the sums of their terms") {
  add_practical<> const objective{.lambda = 2.5, .penalty = {.gamma = 0.1}};
  auto const target = numbers({3, 4}, 1);
  auto const t = at::tensor({0.1, 0.9, 0.5}, at::kDouble);
  auto const f = [&](std::vector<at::Tensor> const& in) {
    auto const distilled = tl::distil(objective.distillation, rectified_flow{}, in[0], target, t);
    return tl::student(objective, {in[1]}, distilled);
  };
  auto const in = list(numbers({3, 4}, 0), numbers({3, 5}, 2));
  check_derivatives(f, in);
  auto const distilled =
      tl::distil(objective.distillation, rectified_flow{}, in[0], target, t).item<double>();
  auto const generated = tl::generator(objective.adversarial, {in[1]}).item<double>();
  CHECK(f(in).item<double>() == Approx(generated + 2.5 * distilled));

  auto const step = [&](std::vector<at::Tensor> const& weights) {
    auto const features = list(numbers({2, 3, 4}, 0).requires_grad_());
    auto const real = list(own_head(features[0], weights[0]));
    auto const fake = list(own_head(numbers({2, 3, 4}, 1), weights[0]));
    return tl::discriminator(objective, real, fake, features);
  };
  check_derivatives(step, list(numbers({3, 1}, 1)));
}

TEST_CASE("an objective counts what is not finite in both of its terms") {
  auto features = numbers({2, 3, 4}, 1);
  features[1][2][3] = 0;  // where the square root is 0, and its slope infinite
  features = features.abs().requires_grad_();
  auto const real = list(features.sqrt().sum(1));
  auto fake = list(numbers({2, 4}, 1));
  fake[0][0][0] = std::nan("");
  fake[0][1][2] = std::nan("");
  std::int64_t non_finite = 7;
  auto const value =
      tl::discriminator(add_practical<>{}, real, fake, {features}, {.non_finite = &non_finite});
  CHECK(std::isnan(value.item<double>()));
  CHECK(non_finite == 3);
}

TEMPLATE_TEST_CASE("half types, and the scale that keeps their gradients", "", at::Half,
                   at::BFloat16) {
  auto const type = c10::CppTypeToScalarType<TestType>::value;
  auto const student = numbers({2, 64}, 0, type).requires_grad_();
  auto const target = numbers({2, 64}, 1, type);
  auto const t = at::tensor({0.5, 0.9}, at::kDouble);
  auto const exact = student.detach().to(at::kDouble).requires_grad_();
  double const scale = 1 << 20;
  auto const gradient_of = [&](at::Tensor const& x, at::Tensor const& y) {
    auto const loss = 1e-6 * tl::distil(distillation<>{}, rectified_flow{}, x, y, t,
                                        {.grad_scale = scale * 1e-6});
    (loss * scale).backward();
    return x.grad();
  };
  auto const expected = gradient_of(exact, target.to(at::kDouble));
  CHECK(gradient_of(student, target).scalar_type() == type);
  CHECK(at::allclose(student.grad().to(at::kDouble), expected, 0.01, 1e-4));
  CHECK(tl::distil(distillation<>{}, rectified_flow{}, student, target, t).scalar_type() ==
        at::kFloat);
}

TEST_CASE("second derivatives are those of the loss, whatever the gradient scale") {
  double const scale = 1 << 16;
  auto const t = at::tensor({0.5, 0.9}, at::kDouble);
  distillation<exponential, pseudo_huber> const loss{.distance = {.c = 0.5}};
  auto const target = numbers({2, 6}, 1);
  check_derivatives(
      [&](auto const& x) {
        return tl::distil(loss, rectified_flow{}, x[0], target, t, {.grad_scale = scale});
      },
      list(numbers({2, 6}, 0)));
  check_derivatives(
      [&](auto const& in) {
        return tl::discriminator(paired<>{}, first_half(in), second_half(in),
                                 {.grad_scale = scale});
      },
      joined(logits(0), logits(2)));
  // Without the scale 1.5e-5, of which a half type keeps a few digits.
  auto const x = numbers({2, 1 << 15}, 0, at::kHalf).requires_grad_();
  auto const y = numbers({2, 1 << 15}, 1, at::kHalf);
  auto const value = tl::distil(distillation<>{}, rectified_flow{}, x, y, t, {.grad_scale = scale});
  auto const first = torch::autograd::grad({scale * value}, {x}, {}, true, true)[0];
  CHECK(first.scalar_type() == at::kHalf);
  auto const second = torch::autograd::grad({first.sum()}, {x})[0];
  CHECK(second[0][0].item<double>() == Approx(0.5 * 2 / (1 << 16) * scale).epsilon(1e-3));
}

TEST_CASE("channels_last goes, if all tensors agree") {
  auto const last = at::MemoryFormat::ChannelsLast;
  auto const student = numbers({2, 3, 4, 4}, 0).contiguous(last).requires_grad_();
  auto const target = numbers({2, 3, 4, 4}, 1);
  auto const t = at::tensor({0.5, 0.9}, at::kDouble);
  auto const loss_of = [&](at::Tensor const& x, at::Tensor const& y) {
    return tl::distil(distillation<>{}, rectified_flow{}, x, y, t);
  };
  loss_of(student, target.contiguous(last)).backward();
  CHECK(student.grad().is_contiguous(last));
  auto const rows = student.detach().contiguous().requires_grad_();
  loss_of(rows, target).backward();
  CHECK(same_bits(rows.grad(), student.grad().contiguous()));
  CHECK(error_of([&] { loss_of(student, target); }) ==
        "value_and_grad: target (expected the memory order of student, stride 1 on axis 1, got "
        "stride 16)");
}

TEST_CASE("a schedule in a tensor is the table of it") {
  auto const x = numbers({2, 4}, 0);
  auto const y = numbers({2, 4}, 1);
  auto const t = at::tensor({10, 900}, at::kLong);
  auto const loss_of = [&](auto const& schedule) {
    return tl::distil(distillation<>{}, schedule, x, y, t);
  };
  torch_schedule const levels(stable_diffusion());
  auto const expected = loss_of(stable_diffusion().table());
  CHECK(same_bits(loss_of(levels), expected));
  CHECK(same_bits(loss_of(torch_schedule(levels.levels())), expected));

  auto const refused = [](at::Tensor const& tensor) {
    return error_of([&] { torch_schedule const schedule(tensor); });
  };
  CHECK(refused(at::Tensor()) ==
        "torch_schedule: levels (expected a tensor, got an undefined one)");
  CHECK(refused(levels.levels().flatten()) ==
        "torch_schedule: levels (expected contiguous numbers [T,2], got [2000])");
  CHECK(refused(levels.levels().t().contiguous().t()) ==
        "torch_schedule: levels (expected contiguous numbers [T,2], got [1000,2])");
  CHECK(error_of([&] { loss_of(torch_schedule(levels.levels().to(at::kFloat))); }) ==
        "from_torch: levels (expected Double, got Float)");
}

TEST_CASE("what cannot be evaluated is refused by name") {
  auto const x = numbers({2, 4}, 0);
  auto const t = at::tensor({0.5, 0.9}, at::kDouble);
  auto const error = [&](at::Tensor const& student, at::Tensor const& target,
                         at::Tensor const& times) {
    return error_of(
        [&] { tl::distil(distillation<>{}, rectified_flow{}, student, target, times); });
  };
  CHECK(error(x, x.to(at::kFloat), t) == "rows_from_torch: target (expected Double, got Float)");
  CHECK(error(x.to(at::kLong), x, t) ==
        "distil: student (expected Float, Double, Half or BFloat16, got Long)");
  CHECK(error(x, at::Tensor(), t) ==
        "rows_from_torch: target (expected a tensor, got an undefined one)");
  CHECK(error(x, at::empty({2, 4}, at::TensorOptions(at::kDouble).device(at::kMeta)), t) ==
        "rows_from_torch: target (expected a tensor on the CPU, got one on meta)");
  CHECK(error(x, x.to_sparse(), t) ==
        "rows_from_torch: target (expected a tensor whose memory holds its elements, got a sparse "
        "one)");
  CHECK(error(x, x, t.to(at::kLong)) == "rows_from_torch: timesteps (expected Double, got Long)");
  CHECK(error(x.t().contiguous().t(), x, t).find("axes 1.. without gaps") != std::string::npos);
  CHECK(error(x[0][0], x, t) == "rows_from_torch: student (expected rank 1 to 8, got rank 0)");
  CHECK(error_of([&] { tl::generator(adversarial<>{}, {}); }) ==
        "generator: fake (expected 1 to 32 heads, got 0)");
  CHECK(error_of([&] { tl::penalty(r1{.gamma = -1}, {x}); }) ==
        "penalty: gamma (expected a number >= 0, got -1)");
  CHECK(error_of([&] { tl::penalty(approximate_r1<>{.lambda = -1}, {x}, {x}); }) ==
        "penalty: lambda (expected a number >= 0, got -1)");
  CHECK(error_of([&] { tl::penalty(r1{}, {at::Tensor()}, {x}); }) ==
        "penalty: logits (expected a tensor, got an undefined one)");
  auto const logits = x.detach().requires_grad_();
  CHECK(error_of([&] { tl::generator(adversarial<>{}, {logits}, {.grad_scale = 0}); }) ==
        "value_and_grad: grad_scale (expected a finite number other than 0, got 0)");
  CHECK(error_of([&] { from_torch<double, 3>(x, "images"); }) ==
        "from_torch: images (expected rank 3, got rank 2)");
}

TEST_CASE("third derivatives are refused where they are not 0") {
  auto const x = numbers({2, 4}, 0).requires_grad_();
  auto const y = tl::generator(adversarial<non_saturating, sum>{}, {x});
  auto const first = torch::autograd::grad({y}, {x}, {}, true, true)[0];
  auto const second = torch::autograd::grad({first.sum()}, {x}, {}, true, true)[0];
  CHECK_THROWS_WITH(torch::autograd::grad({second.sum()}, {x}, {}, true, true),
                    Catch::Contains("at most two derivatives"));
}

TEST_CASE("views lie where their tensors do") {
  auto tensor = at::empty({2, 3, 4}, at::kFloat).transpose(1, 2);
  auto view = from_torch<float, 3>(tensor);
  CHECK(addloss::testing::check_view(view, [&](auto i, auto j, auto k) {
          return tensor[i][j][k].template data_ptr<float>();
        }).elements == 24);
  auto const halves = at::empty({2, 3}, at::kHalf);
  static_assert(std::same_as<decltype(addloss::view(halves.data_ptr<at::Half>(), 2, 3)),
                             tensor_view<addloss::half, 2>>);
  CHECK(static_cast<void*>(from_torch<addloss::half, 2>(halves).data) == halves.data_ptr());
}

TEST_CASE("what LibTorch exports by DLPack lies where its tensor does") {
  auto const tensor = at::empty({2, 3, 4}, at::kDouble).transpose(1, 2);
  dlpack_ptr<DLManagedTensor> const exported(at::toDLPack(tensor));
  auto const view = from_dlpack<double const, 3>(*exported, "exported");
  CHECK(addloss::testing::check_view(view, [&](auto i, auto j, auto k) {
          return tensor[i][j][k].template data_ptr<double>();
        }).elements == 24);
  CHECK(error_of([&] { from_dlpack<float const, 3>(*exported, "exported"); }) ==
        "from_dlpack: exported (expected float32, got float64)");
}
