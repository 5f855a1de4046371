// SPDX-License-Identifier: MIT
/// What a timestep sampler is, and the uniform numbers it draws from.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <addloss/core/philox.hpp>

namespace addloss {

/// A pure function of (key, sample): independent of order, threads, ranks and device. If it has
/// `check(function)`, that raises addloss::error on the host for settings out of range. One that
/// draws from Philox blocks 0 to n - 1 of a sample, n > 1, says so as `blocks` = n: a `mixture`
/// makes its choice from the block after them.
template <class S>
concept timestep_sampler =
    std::is_trivially_copyable_v<S> && requires(S const sampler, random_key key) {
      typename S::time_type;
      { sampler.draw(key, std::uint32_t{}) } -> std::same_as<typename S::time_type>;
    };

namespace detail {

/// A number of [0, 1) with 53 bits, from word pair 0 or 1 of block 0 of a sample.
ADDLOSS_HOST_DEVICE constexpr double uniform_at(random_key const& key, std::uint32_t sample,
                                                std::size_t pair) {
  philox_block const block = philox4x32_10(key, sample, 0);
  std::uint64_t const bits = std::uint64_t{block.word[2 * pair]} << 32 | block.word[2 * pair + 1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

/// Index of the piece of [0, 1) that `u` falls into, of `count` equal pieces.
ADDLOSS_HOST_DEVICE constexpr std::int64_t scaled_index(double u, std::int64_t count) {
  auto const index = static_cast<std::int64_t>(u * static_cast<double>(count));
  return index < count ? index : count - 1;
}

}  // namespace detail
}  // namespace addloss
