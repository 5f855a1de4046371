// SPDX-License-Identifier: MIT
#include <addloss/sampler/sample.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <addloss/sampler/logit_normal.hpp>
#include <addloss/sampler/mixture.hpp>
#include <addloss/sampler/shifted.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/sampler/uniform.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::random_key;
using addloss::sample_timesteps;
using addloss::uniform_timesteps;

/// A user's sampler of continuous times.
struct continuous {
  using time_type = double;
  double draw(random_key const& key, std::uint32_t sample) const {
    return addloss::detail::uniform_at(key, sample, 0);
  }
};

template <class Sampler>
std::vector<typename Sampler::time_type> sampled(Sampler const& sampler, random_key const& key,
                                                 std::size_t count) {
  std::vector<typename Sampler::time_type> out(count);
  sample_timesteps(sampler, key, std::span(out));
  return out;
}

/// The same times however the batch is split over ranks, and other times for other addresses.
template <class Sampler>
void check_reproducible(Sampler const& sampler) {
  random_key const key{.seed = 71, .step = 5, .stream = 3, .first_sample = 100};
  auto const whole = sampled(sampler, key, 60);
  CHECK(sampled(sampler, key, 60) == whole);
  for (std::size_t const cut : {1U, 7U, 59U}) {
    random_key second = key;
    second.first_sample += static_cast<std::uint32_t>(cut);
    auto parts = sampled(sampler, key, cut);
    auto const rest = sampled(sampler, second, 60 - cut);
    parts.insert(parts.end(), rest.begin(), rest.end());
    CHECK(parts == whole);
  }
  for (std::uint32_t b = 60; b-- > 0;) CHECK(sampler.draw(key, b) == whole[b]);
  random_key other = key;
  other.step = 6;
  CHECK(sampled(sampler, other, 60) != whole);
  other = key;
  other.stream = 4;
  CHECK(sampled(sampler, other, 60) != whole);
  other = key;
  other.seed = 72;
  CHECK(sampled(sampler, other, 60) != whole);
  other = key;
  other.first_sample = 160;
  CHECK(sampled(sampler, other, 60) != whole);
}

}  // namespace

TEST_CASE("timesteps depend on seed, step, stream and sample alone") {
  check_reproducible(uniform_timesteps{});
  check_reproducible(uniform_timesteps::dreamfusion());
  check_reproducible(addloss::student_timesteps::trailing(4));
  check_reproducible(
      addloss::student_timesteps::turbo(4).with_weights(std::vector{0.7, 0.1, 0.1, 0.1}));
  check_reproducible(addloss::logit_normal_timesteps{});
  check_reproducible(addloss::shifted_timesteps{});
  check_reproducible(addloss::mixture<uniform_timesteps, addloss::logit_normal_timesteps>{});
  check_reproducible(continuous{});
}

TEST_CASE("timesteps of neighbouring samples and steps differ") {
  random_key key{.seed = 72};
  std::vector<std::int64_t> all;
  for (key.step = 0; key.step < 20; ++key.step) {
    auto const some = sampled(uniform_timesteps{0, 1'000'000'000}, key, 20);
    all.insert(all.end(), some.begin(), some.end());
  }
  // 400 of 1e9: the chance of two equal ones is 8e-5.
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
}

TEST_CASE("sampling nothing is refused") {
  CHECK(error_of([] { (void)sampled(uniform_timesteps{}, {}, 0); }) ==
        "sample_timesteps: out (expected 1 to 4294967296 samples, whose indices fit 32 bits, got "
        "0)");
}

TEST_CASE("settings of samplers that are out of range are refused") {
  using namespace addloss;
  std::int64_t untouched = -1;
  auto const refusal = [&](auto const& sampler) {
    std::string const text =
        error_of([&] { sample_timesteps(sampler, random_key{}, std::span(&untouched, 1)); });
    CHECK(untouched == -1);
    std::string const begin = "sample_timesteps: ";
    return text.starts_with(begin) ? text.substr(begin.size()) : text;
  };
  double const nan = std::numeric_limits<double>::quiet_NaN();
  double const infinity = std::numeric_limits<double>::infinity();
  CHECK(refusal(uniform_timesteps{5, 4}) ==
        "uniform_timesteps.hi (expected at least lo = 5, got 4)");
  for (double const shift : {0.0, -1.0, nan, infinity}) {
    CHECK(refusal(shifted_timesteps{.shift = shift})
              .starts_with("shifted_timesteps.shift (expected a finite number > 0, got "));
  }
  CHECK(refusal(shifted_timesteps{.timesteps = 0}) ==
        "shifted_timesteps.timesteps (expected at least 1, got 0)");
  for (double const mean : {nan, -infinity}) {
    CHECK(refusal(logit_normal_timesteps{.mean = mean})
              .starts_with("logit_normal_timesteps.mean (expected a finite number, got "));
  }
  for (double const stddev : {-1.0, nan, infinity}) {
    CHECK(refusal(logit_normal_timesteps{.stddev = stddev})
              .starts_with("logit_normal_timesteps.stddev (expected a finite number >= 0, got "));
  }
  CHECK(refusal(logit_normal_timesteps{.timesteps = 0}) ==
        "logit_normal_timesteps.timesteps (expected at least 1, got 0)");
  using mixed = mixture<uniform_timesteps, shifted_timesteps>;
  for (double const share : {-0.1, 1.1, nan}) {
    CHECK(refusal(mixed{.share = share})
              .starts_with("mixture.share (expected a number in [0, 1], got "));
  }
  CHECK(refusal(mixed{.first = {1, 0}}).starts_with("uniform_timesteps.hi"));
  CHECK(refusal(mixture<mixed, mixed>{.second = {.second = {.shift = 0}}})
            .starts_with("shifted_timesteps.shift"));
}

TEST_CASE("sample indices beyond 32 bits are refused") {
  // Refused before the first is written: there is no such memory.
  std::int64_t one = -1;
  CHECK(error_of([&] {
          sample_timesteps(uniform_timesteps{}, {}, std::span(&one, (std::size_t{1} << 32) + 1));
        }) ==
        "sample_timesteps: out (expected 1 to 4294967296 samples, whose indices fit 32 bits, got "
        "4294967297)");
  random_key const last{.first_sample = 0xffffffff};
  CHECK(error_of([&] { sample_timesteps(uniform_timesteps{}, last, std::span(&one, 2)); }) ==
        "sample_timesteps: out (expected 1 to 1 samples, whose indices fit 32 bits, got 2)");
  CHECK(one == -1);
  // The very last index is still fine.
  CHECK(sampled(uniform_timesteps{}, last, 1)[0] ==
        uniform_timesteps{}.draw(random_key{}, 0xffffffff));
}
