// SPDX-License-Identifier: MIT
/// add_trainer, whatever its heads are.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "add_trainer.hpp"
#include "network.hpp"

namespace demo {

/// What programs need of add_trainer, which see.
class trainer {
 public:
  trainer() = default;
  trainer(trainer const&) = delete;
  trainer& operator=(trainer const&) = delete;
  virtual ~trainer() = default;

  virtual add_report step(std::int64_t step, std::span<float const> real,
                          std::span<int const> labels, double progress) = 0;
  [[nodiscard]] virtual parameters const& student() const = 0;
  virtual void add_to(saved_contents& contents) = 0;
  virtual void add_to(loaded_contents& contents) = 0;
};

/// The networks that ADD begins with.
struct networks {
  parameters teacher;
  parameters features;
  parameters student;
};

/// With group_norm_heads.
std::unique_ptr<trainer> group_norm_trainer(add_settings const& settings, networks begin);
/// With the heads of the paper: local norm, spectral norm.
std::unique_ptr<trainer> paper_trainer(add_settings const& settings, networks begin);

}  // namespace demo
