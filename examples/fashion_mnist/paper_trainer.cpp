// SPDX-License-Identifier: MIT
#include <memory>
#include <utility>

#include "trainer.hpp"

namespace demo {

std::unique_ptr<trainer> paper_trainer(add_settings const& settings, networks begin) {
  auto heads = addloss::projected_heads<float>(head_list(settings));
  return std::make_unique<trainer_of<decltype(heads)>>(settings, std::move(heads),
                                                       std::move(begin));
}

}  // namespace demo
