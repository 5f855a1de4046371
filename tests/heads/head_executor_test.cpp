// SPDX-License-Identifier: MIT
#include <addloss/heads/head_executor.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <addloss/addloss.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/stack_case.hpp"

namespace {

using namespace addloss;

struct context_without_heads {
  using space = host_space;
};
static_assert(head_context<cpu_context>);
static_assert(!head_context<context_without_heads>);
static_assert(!head_context<int>);

using on_cpu = head_executor<cpu_context>;

struct count_visits {
  int* visits;
  void operator()(std::int64_t i) const { ++visits[i]; }
};

}  // namespace

TEST_CASE("each element is visited once, by any number of threads") {
  for (std::int64_t const size : {0, 1, 4095, 4096, 4097, 100000}) {
    for (int const threads : {1, 3}) {
      std::vector<int> visits(static_cast<std::size_t>(size) + 1);
      on_cpu::each_element({.threads = threads}, size, count_visits{visits.data()});
      std::vector<int> expected(visits.size(), 1);
      expected.back() = 0;
      CHECK(visits == expected);
    }
  }
}

TEST_CASE("features stay where they are on the CPU") {
  double x = 0;
  double memory = 1;
  double const* const read = on_cpu::read_features<double>({}, {1, 1, 1}, &x, &memory);
  CHECK(read == &x);
  CHECK(on_cpu::gradient_memory(&x, &memory) == &x);
  CHECK(on_cpu::feature_numbers({2, 3, 4}) == 0);
}

TEST_CASE("a step writes its losses where it is told, as those that it returns") {
  auto c = stack_tests::three_in_double();
  discriminator_options const options{.real_penalty = r1{.gamma = 0.3},
                                      .fake_penalty = r1{.gamma = 0.2}};
  auto const returned = c.discriminator(adversarial<>{}, options);
  auto const w_bar = c.w_bar;
  stack_tests::numbers<double> workspace(
      stack_tests::at(c.stack.discriminator_workspace(c.shapes(), options)));
  discriminator_result written{.total = 1, .adversarial = 2, .penalty = 3, .non_finite = 4};
  auto const step = [&](discriminator_result* to) {
    c.stack.discriminator_step(c.ctx, adversarial<>{}, std::as_const(c.w), std::as_const(c.state),
                               c.real.in(), c.fake.in(), {.values = c.w_bar}, workspace, options,
                               to);
  };
  step(&written);
  CHECK(written.total == returned.total);
  CHECK(written.adversarial == returned.adversarial);
  CHECK(written.penalty == returned.penalty);
  CHECK(written.non_finite == 0);
  CHECK(c.w_bar == w_bar);
  CHECK(error_of([&] { step(nullptr); }) ==
        "head_stack::discriminator_step: result (expected memory, got a null pointer)");
}
