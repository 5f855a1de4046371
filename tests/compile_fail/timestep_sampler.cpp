// EXPECT: (of|satisfy) '(addloss::)?timestep_sampler
// SPDX-License-Identifier: MIT
/// A sampler with a state instead of a key and the index of the sample.
#include <cstdint>
#include <span>

#include <addloss/sampler/sample.hpp>

struct counter {
  using time_type = std::int64_t;
#ifdef ADDLOSS_EXPECT_COMPILES
  time_type draw(addloss::random_key const&, std::uint32_t sample) const { return sample; }
#else
  time_type next = 0;
  time_type draw() { return next++; }
#endif
};

void use(std::span<std::int64_t> timesteps) {
  addloss::sample_timesteps(counter{}, {.seed = 1}, timesteps);
}
