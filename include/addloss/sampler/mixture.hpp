// SPDX-License-Identifier: MIT
/// Draws from `first` with probability `share`, else from `second`. The parts may be mixtures.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/sampler/concept.hpp>

namespace addloss {
namespace detail {

/// How many Philox blocks of a sample `Sampler` draws from: `Sampler::blocks`, 1 if it has none.
template <class Sampler>
constexpr std::uint32_t blocks_of() {
  if constexpr (requires { Sampler::blocks; }) {
    return Sampler::blocks;
  } else {
    return 1;
  }
}

}  // namespace detail

template <timestep_sampler First, timestep_sampler Second>
  requires(std::same_as<typename First::time_type, typename Second::time_type>)
struct mixture {
  using time_type = typename First::time_type;
  First first{};
  Second second{};
  double share = 0.5;  ///< of `first`, 0 to 1

  static constexpr std::uint32_t blocks =
      1 + (detail::blocks_of<First>() > detail::blocks_of<Second>() ? detail::blocks_of<First>()
                                                                    : detail::blocks_of<Second>());

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr time_type draw(random_key const& key,
                                                             std::uint32_t sample) const {
    // The choice must not depend on words that the parts draw from.
    philox_block const block = philox4x32_10(key, sample, blocks - 1);
    bool const take_first = static_cast<double>(block.word[0]) < share * 0x1p32;
    return take_first ? first.draw(key, sample) : second.draw(key, sample);
  }
  /// Of the parts too.
  void check(char const* function) const {
    if (!(share >= 0 && share <= 1)) {
      detail::fail(function, "mixture.share", "a number in [0, 1]", detail::text() << share);
    }
    detail::check_settings(function, first);
    detail::check_settings(function, second);
  }
};

}  // namespace addloss
