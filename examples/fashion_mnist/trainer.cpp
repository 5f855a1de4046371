// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include <addloss/addloss.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "add_trainer.hpp"
#include "network.hpp"

namespace demo {
namespace {

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

}  // namespace

std::unique_ptr<trainer> group_norm_trainer(add_settings const& settings, networks begin) {
  auto heads = group_norm_heads(settings);
  return std::make_unique<trainer_of<decltype(heads)>>(settings, std::move(heads),
                                                       std::move(begin));
}

std::unique_ptr<trainer> paper_trainer(add_settings const& settings, networks begin) {
  auto heads = addloss::projected_heads<float>(head_list(settings));
  return std::make_unique<trainer_of<decltype(heads)>>(settings, std::move(heads),
                                                       std::move(begin));
}

}  // namespace demo
