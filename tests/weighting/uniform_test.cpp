// SPDX-License-Identifier: MIT
#include <addloss/weighting/uniform.hpp>

#include "catch.hpp"

namespace {

static_assert(addloss::uniform{}.at({0.5, 0.5}) == 1);

}  // namespace

TEST_CASE("the uniform weighting is 1 at every level") {
  CHECK(addloss::uniform{}.at({0.8, 0.6}) == 1);
  CHECK(addloss::uniform{}.at({0, 1}) == 1);
  CHECK(addloss::uniform{}.at({1, 0}) == 1);
  CHECK(addloss::uniform{}.at({1, 80}) == 1);
}
