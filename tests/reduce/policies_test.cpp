// SPDX-License-Identifier: MIT
#include <addloss/reduce/policies.hpp>

#include "catch.hpp"

namespace {

using addloss::batch_reduction;
using addloss::mean;
using addloss::per_sample;
using addloss::reduction;
using addloss::sum;

static_assert(reduction<mean> && reduction<sum>);
static_assert(!reduction<per_sample> && !reduction<int> && !reduction<mean const>);
static_assert(batch_reduction<mean> && batch_reduction<sum> && batch_reduction<per_sample>);
static_assert(!batch_reduction<int> && !batch_reduction<mean&>);

static_assert(mean::factor(8) == 0.125 && mean::factor(1) == 1);
static_assert(sum::factor(8) == 1 && per_sample::factor(8) == 1);

}  // namespace

TEST_CASE("the mean of many numbers") {
  // More than fit a float or 32 bits.
  CHECK(mean::factor(3'000'000'001) == 1.0 / 3000000001.0);
  CHECK(mean::factor(3) == 1.0 / 3.0);
  CHECK(sum::factor(3'000'000'000) == 1);
}
