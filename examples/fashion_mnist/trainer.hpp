// SPDX-License-Identifier: MIT
/// add_trainer, whatever its heads are: each kind of heads is compiled once, for all programs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

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

template <class Heads>
class trainer_of final : public trainer {
 public:
  trainer_of(add_settings const& settings, Heads heads, networks begin)
      : method_(settings, std::move(heads), std::move(begin.teacher), std::move(begin.features),
                std::move(begin.student)) {}

  add_report step(std::int64_t step, std::span<float const> real, std::span<int const> labels,
                  double progress) override {
    return method_.step(step, real, labels, progress);
  }
  [[nodiscard]] parameters const& student() const override { return method_.student(); }
  void add_to(saved_contents& contents) override { method_.add_to(contents); }
  void add_to(loaded_contents& contents) override { method_.add_to(contents); }

 private:
  add_trainer<Heads> method_;
};

/// With group_norm_heads.
std::unique_ptr<trainer> group_norm_trainer(add_settings const& settings, networks begin);
/// With the heads of the paper: local norm, spectral norm.
std::unique_ptr<trainer> paper_trainer(add_settings const& settings, networks begin);

}  // namespace demo
