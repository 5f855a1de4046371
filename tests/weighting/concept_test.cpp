// SPDX-License-Identifier: MIT
#include <addloss/weighting/concept.hpp>

#include <string>

#include <addloss/weighting/exponential.hpp>
#include <addloss/weighting/nfsd.hpp>
#include <addloss/weighting/sds.hpp>
#include <addloss/weighting/snr.hpp>
#include <addloss/weighting/uniform.hpp>

#include "catch.hpp"

namespace {

using addloss::noise_level;
using addloss::weighting;
using addloss::weighting_without_pole;

/// A weighting of a user: c(t) = strength sigma_t^2.
struct noisy {
  double strength = 3;
  double at(noise_level level) const { return strength * level.sigma * level.sigma; }
};
struct noisy_without_pole : noisy {
  double over_alpha(noise_level level) const { return at(level) / level.alpha; }
};
struct in_float {
  float at(noise_level level) const { return static_cast<float>(level.alpha); }
};
struct of_time {
  double at(std::string const& name) const { return static_cast<double>(name.size()); }
};
/// `at` must not change the weighting: it is shared by threads.
struct changes_itself {
  double at(noise_level) { return 1; }
};
/// Cannot be copied to a device.
struct owns_memory : noisy {
  std::string name;
};
struct float_over_alpha : noisy {
  float over_alpha(noise_level) const { return 1; }
};
struct only_over_alpha {
  double over_alpha(noise_level) const { return 1; }
};

static_assert(weighting<noisy> && !weighting_without_pole<noisy>);
static_assert(weighting<noisy_without_pole> && weighting_without_pole<noisy_without_pole>);
static_assert(weighting<addloss::uniform> && !weighting_without_pole<addloss::uniform>);
static_assert(weighting_without_pole<addloss::exponential>);
static_assert(weighting_without_pole<addloss::sds>);
static_assert(weighting_without_pole<addloss::basic_sds<addloss::unit>>);
static_assert(weighting_without_pole<addloss::nfsd>);
static_assert(weighting_without_pole<addloss::snr>);
static_assert(weighting_without_pole<addloss::min_snr>);
static_assert(!weighting<in_float> && !weighting<of_time> && !weighting<changes_itself>);
static_assert(!weighting<owns_memory> && !weighting<only_over_alpha> && !weighting<double>);
static_assert(weighting<float_over_alpha> && !weighting_without_pole<float_over_alpha>);
static_assert(!weighting_without_pole<only_over_alpha>);

double weight_through(weighting auto const& c, noise_level level) { return c.at(level); }

}  // namespace

TEST_CASE("a weighting of one's own serves wherever a weighting is asked for") {
  CHECK(weight_through(noisy{}, {0.8, 0.5}) == 0.75);
  CHECK(weight_through(noisy{.strength = 2}, {0, 1}) == 2);
  CHECK(noisy_without_pole{}.over_alpha({0.5, 0.5}) == 1.5);
}
