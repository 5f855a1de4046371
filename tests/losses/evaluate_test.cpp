// SPDX-License-Identifier: MIT
#include <addloss/losses/evaluate.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/weighting/uniform.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "test_context.hpp"

namespace {

using namespace addloss;

constexpr std::size_t batch = 3;
constexpr std::size_t size = 4;

struct problem {
  std::vector<float> student = {1, 2, 3, 4, 0, 0, 0, 0, -1, -1, 2, 2};
  std::vector<float> target = std::vector<float>(batch * size);
  std::vector<std::int64_t> t = {1, 2, 3};
  discrete_schedule schedule = scaled_linear_schedule();

  auto loss() const {
    return distillation<uniform, squared, sum>{}(
        schedule.table(), view(student.data(), batch, size), view(target.data(), batch, size), t);
  }
};
using loss_type = decltype(problem().loss());

static_assert(bound_loss<loss_type>);
static_assert(!bound_loss<int>);
static_assert(value_output<float&, loss_type>);
static_assert(value_output<double&, loss_type>);
static_assert(value_output<std::vector<double>&, loss_type>);
static_assert(value_output<sum_and_count<double>&, loss_type>);
static_assert(!value_output<half&, loss_type>);
static_assert(!value_output<int&, loss_type>);
static_assert(!value_output<tensor_view<float, 2>, loss_type>);
static_assert(!value_output<tensor_view<float, 0, device_space>, loss_type>);
static_assert(!value_output<float const&, loss_type>);

test_context const ctx;

}  // namespace

TEST_CASE("reductions over the batch") {
  problem const p;
  double total = 0;
  value<sum>(ctx, p.loss(), total);
  CHECK(total == 40);
  float average = 0;
  value(ctx, p.loss(), average);
  CHECK(average == Approx(40.0 / 3));
  std::vector<float> samples(batch);
  value<per_sample>(ctx, p.loss(), samples);
  CHECK(samples == std::vector<float>{30, 0, 10});
}

TEST_CASE("sum and count give the mean over ranks") {
  problem const p;
  sum_and_count<double> totals{-1, -1};
  std::vector<float> gradient(batch * size);
  value_and_grad<sum>(ctx, p.loss(), totals, view(gradient.data(), batch, size));
  CHECK(totals.sum == 40);
  CHECK(totals.count == 3);
  CHECK(gradient[3] == 8);
  CHECK(error_of([&] { value<mean>(ctx, p.loss(), totals); }) ==
        "value: value (expected a scalar, got a sum_and_count, which the reduction sum writes)");
}

TEST_CASE("grad and value_and_grad agree, and value writes no gradient") {
  problem const p;
  std::vector<float> one(batch * size, -5);
  std::vector<float> two(batch * size, -5);
  double loss = 0;
  grad(ctx, p.loss(), view(one.data(), batch, size));
  value_and_grad(ctx, p.loss(), loss, view(two.data(), batch, size));
  CHECK(one == two);
  CHECK(one[3] == Approx(8.0F / 3));
}

TEST_CASE("a value of the wrong kind is refused, and nothing is written") {
  problem const p;
  std::vector<float> gradient(batch * size, -5);
  auto const before = gradient;
  auto const place = view(gradient.data(), batch, size);
  std::vector<float> samples(batch, -5);
  float scalar = -5;
  CHECK(error_of([&] { value_and_grad(ctx, p.loss(), samples, place); }) ==
        "value_and_grad: value (expected a scalar (the losses of single samples are per_sample), "
        "got [3])");
  CHECK(error_of([&] { value_and_grad<per_sample>(ctx, p.loss(), scalar, place); }) ==
        "value_and_grad: value (expected shape [3], one number a sample, got a scalar)");
  std::vector<float> too_few(2, -5);
  CHECK(error_of([&] { value_and_grad<per_sample>(ctx, p.loss(), too_few, place); }) ==
        "value_and_grad: value (expected shape [3], one number a sample, got [2])");
  tensor_view<float, 0> const null;
  CHECK(error_of([&] { value_and_grad(ctx, p.loss(), null, place); }) ==
        "value_and_grad: value (expected memory, got a null pointer)");
#if !defined(ADDLOSS_TEST_ON_GPU)
  CHECK(error_of([&] { value(cpu_context{.threads = 0}, p.loss(), scalar); }) ==
        "cpu_context: threads (expected at least 1, got 0)");
#endif
  CHECK(gradient == before);
  CHECK(samples == std::vector<float>(batch, -5));
  CHECK(scalar == -5);
}

TEST_CASE("options left out cost nothing and write nothing") {
  problem const p;
  std::int64_t bad = 77;
  float loss = 0;
  value(ctx, p.loss(), loss, {.non_finite = &bad});
  CHECK(bad == 0);
}
