// SPDX-License-Identifier: MIT
#include <memory>
#include <utility>

#include "trainer.hpp"

namespace demo {

std::unique_ptr<trainer> group_norm_trainer(add_settings const& settings, networks begin) {
  auto heads = group_norm_heads(settings);
  return std::make_unique<trainer_of<decltype(heads)>>(settings, std::move(heads),
                                                       std::move(begin));
}

}  // namespace demo
