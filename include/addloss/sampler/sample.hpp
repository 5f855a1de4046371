// SPDX-License-Identifier: MIT
/// Fills a host array with timesteps: out[b] = sampler.draw(key, b).
/// Errors: an empty array, or one whose sample indices do not fit 32 bits; settings of the sampler
/// that are out of range.
#pragma once

#include <cstdint>
#include <span>

#include <addloss/core/error.hpp>
#include <addloss/sampler/concept.hpp>

namespace addloss {

template <timestep_sampler Sampler>
void sample_timesteps(Sampler const& sampler, random_key const& key,
                      std::span<typename Sampler::time_type> out) {
  detail::check_settings("sample_timesteps", sampler);
  auto const count = static_cast<std::int64_t>(out.size());
  std::int64_t const room = (std::int64_t{1} << 32) - key.first_sample;
  if (count < 1 || count > room) {
    detail::fail("sample_timesteps", "out",
                 detail::text() << "1 to " << room << " samples, whose indices fit 32 bits",
                 detail::text() << count);
  }
  std::uint32_t sample = 0;
  for (auto& time : out) time = sampler.draw(key, sample++);
}

}  // namespace addloss
