// SPDX-License-Identifier: MIT
#include <addloss/weighting/nfsd.hpp>

#include "catch.hpp"

namespace {

using addloss::nfsd;
using addloss::noise_level;
using addloss::sds;

}  // namespace

TEST_CASE("the NFSD weighting is that of SDS") {
  for (noise_level const level : {noise_level{0.8, 0.6}, noise_level{0.068265, 0.997667},
                                  noise_level{0, 1}, noise_level{1, 0}}) {
    CAPTURE(level.alpha, level.sigma);
    CHECK(nfsd{}.at(level) == Approx(level.alpha * level.sigma / 2).epsilon(1e-15));
    CHECK(nfsd{}.over_alpha(level) == Approx(level.sigma / 2).epsilon(1e-15));
    CHECK(nfsd{}.at(level) == sds{}.at(level));
  }
}

TEST_CASE("the negative prediction counts from timestep 200 on") {
  CHECK(nfsd{}.negative_threshold == 200);
  nfsd const other{{}, 50};
  CHECK(other.negative_threshold == 50);
  CHECK(other.at({0.8, 0.6}) == nfsd{}.at({0.8, 0.6}));
}
