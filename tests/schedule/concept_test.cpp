// SPDX-License-Identifier: MIT
#include <addloss/schedule/concept.hpp>

#include <cmath>
#include <cstdint>
#include <string>

#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/schedule/karras.hpp>

#include "catch.hpp"

namespace {

using addloss::noise_level;
using addloss::noise_schedule;

/// A schedule of a user: variance exploding, sigma = 25^t.
struct exploding {
  using time_type = double;
  noise_level at(double t) const { return {1, std::pow(25, t)}; }
  void check(char const*, std::int64_t, double) const {}
};
struct no_check {
  using time_type = double;
  noise_level at(double) const { return {1, 1}; }
};
struct no_time_type {
  noise_level at(double) const { return {1, 1}; }
  void check(char const*, std::int64_t, double) const {}
};
struct only_alpha {
  using time_type = double;
  double at(double) const { return 1; }
  void check(char const*, std::int64_t, double) const {}
};
/// `at` must not change the schedule: it is shared by threads.
struct changes_itself {
  using time_type = double;
  noise_level at(double) { return {1, 1}; }
  void check(char const*, std::int64_t, double) const {}
};
/// Cannot be copied to a device.
struct owns_memory : exploding {
  std::string name;
};

static_assert(noise_schedule<exploding>);
static_assert(noise_schedule<addloss::schedule_table<>>);
static_assert(noise_schedule<addloss::rectified_flow>);
static_assert(noise_schedule<addloss::trigflow>);
static_assert(noise_schedule<addloss::karras>);
static_assert(!noise_schedule<addloss::discrete_schedule>);  // its table() is one
static_assert(!noise_schedule<no_check>);
static_assert(!noise_schedule<no_time_type>);
static_assert(!noise_schedule<only_alpha>);
static_assert(!noise_schedule<changes_itself>);
static_assert(!noise_schedule<owns_memory>);
static_assert(!noise_schedule<double>);

// A schedule without memory is read everywhere, a table where it lies.
using addloss::device_space;
using addloss::host_space;
using addloss::schedule_in;
using addloss::schedule_table;
static_assert(schedule_in<exploding, host_space> && schedule_in<exploding, device_space>);
static_assert(schedule_in<schedule_table<>, host_space>);
static_assert(!schedule_in<schedule_table<>, device_space>);
static_assert(schedule_in<schedule_table<device_space>, device_space>);
static_assert(!schedule_in<schedule_table<device_space>, host_space>);

double sigma_through(noise_schedule auto const& schedule, double t) { return schedule.at(t).sigma; }

}  // namespace

TEST_CASE("a schedule of one's own serves wherever a schedule is asked for") {
  CHECK(sigma_through(exploding{}, 0) == 1);
  CHECK(sigma_through(exploding{}, 1) == 25);
}
