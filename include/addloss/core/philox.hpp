// SPDX-License-Identifier: MIT
/// Philox4x32-10, a counter-based random generator: a pure function of (key, counter).
///
/// There is no state: every number has an address, so the values do not depend on the order they
/// are drawn in, on threads, on ranks or on the device.
///   key     (seed low 32 bits, seed high 32 bits)
///   counter (element block, sample, step, stream)
/// One evaluation gives four 32-bit words. Which elements a block covers is said where it is used:
/// reduce/operand.hpp (normal_noise) for tensors, sampler/ for timesteps, heads/initialise.hpp for
/// parameters.
/// Source: Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3, 2011.
#pragma once

#include <cstdint>

#include <addloss/core/config.hpp>

namespace addloss {

/// Where a family of random numbers comes from. Two uses that must not share numbers (the student's
/// noise, the teacher's noise, the timesteps, ...) differ in `stream`.
struct random_key {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;  ///< training step, changes every step
  std::uint32_t stream = 0;  ///< which use within a step
  std::uint32_t first_sample = 0;  ///< index of sample 0 of this batch in the whole (other ranks')
};

/// Four words of one counter.
struct philox_block {
  std::uint32_t word[4];
};

namespace detail {
inline constexpr std::uint32_t philox_multiplier[2] = {0xD2511F53U, 0xCD9E8D57U};
inline constexpr std::uint32_t philox_weyl[2] = {0x9E3779B9U, 0xBB67AE85U};
inline constexpr int philox_rounds = 10;

/// Round 0 .. 9 of one counter.
ADDLOSS_HOST_DEVICE constexpr philox_block philox_round(philox_block counter, std::uint64_t key,
                                                        int round) {
  // Device code cannot read a namespace-scope constexpr array, only its elements as constants.
  constexpr std::uint64_t multiplier0 = philox_multiplier[0];
  constexpr std::uint64_t multiplier1 = philox_multiplier[1];
  constexpr std::uint32_t weyl0 = philox_weyl[0];
  constexpr std::uint32_t weyl1 = philox_weyl[1];
  std::uint64_t const product0 = multiplier0 * counter.word[0];
  std::uint64_t const product1 = multiplier1 * counter.word[2];
  auto const times = static_cast<std::uint32_t>(round);
  std::uint32_t const key0 = static_cast<std::uint32_t>(key) + times * weyl0;
  std::uint32_t const key1 = static_cast<std::uint32_t>(key >> 32) + times * weyl1;
  return {{static_cast<std::uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0,
           static_cast<std::uint32_t>(product1),
           static_cast<std::uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1,
           static_cast<std::uint32_t>(product0)}};
}
}  // namespace detail

ADDLOSS_HOST_DEVICE constexpr philox_block philox4x32_10(philox_block counter, std::uint64_t key) {
  for (int round = 0; round < detail::philox_rounds; ++round) {
    counter = detail::philox_round(counter, key, round);
  }
  return counter;
}

/// The counter of block `block` of sample `sample` (its index within this batch) under `key`.
ADDLOSS_HOST_DEVICE constexpr philox_block philox_counter(random_key const& key,
                                                          std::uint32_t sample,
                                                          std::uint32_t block) {
  return {{block, key.first_sample + sample, key.step, key.stream}};
}

/// Block `block` of sample `sample` under `key`.
ADDLOSS_HOST_DEVICE constexpr philox_block philox4x32_10(random_key const& key,
                                                         std::uint32_t sample,
                                                         std::uint32_t block) {
  return philox4x32_10(philox_counter(key, sample, block), key.seed);
}

}  // namespace addloss
