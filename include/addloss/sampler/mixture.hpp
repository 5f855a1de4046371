// SPDX-License-Identifier: MIT
/// Draws from `first` with probability `share`, else from `second`.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/sampler/concept.hpp>

namespace addloss {

template <timestep_sampler First, timestep_sampler Second>
  requires(std::same_as<typename First::time_type, typename Second::time_type>)
struct mixture {
  using time_type = typename First::time_type;
  First first{};
  Second second{};
  double share = 0.5;  ///< of `first`, 0 to 1

  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr time_type draw(random_key const& key,
                                                             std::uint32_t sample) const {
    // The parts draw from block 0 of the sample; the choice must not depend on the same words.
    philox_block const block = philox4x32(key, sample, 1);
    bool const take_first = static_cast<double>(block.word[0]) < share * 0x1p32;
    return take_first ? first.draw(key, sample) : second.draw(key, sample);
  }
};

}  // namespace addloss
