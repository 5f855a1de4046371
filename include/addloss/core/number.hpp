// SPDX-License-Identifier: MIT
/// A setting that is one number: given by value, or by its address and read when the call is
/// carried out.
///
///   r1{.gamma = 1e-5}
///   r1{.gamma = number_at{gamma}}     double const* gamma, in the memory of the tensors
/// A captured CUDA graph keeps the first; the second it reads anew whenever it is replayed.
/// What is read on a GPU cannot be checked there: a weight below 0 is not refused, NaN goes on to
/// the loss and its gradients.
#pragma once

#include <concepts>

#include <addloss/core/config.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/tensor_view.hpp>

namespace addloss {

/// A number in memory.
struct number_at {
  double const* address = nullptr;
};

class number {
 public:
  constexpr number(double value) : value_(value) {}  // NOLINT(*-explicit-*)
  constexpr number(number_at from)  // NOLINT(*-explicit-*)
      : address_(from.address == nullptr ? &nowhere : from.address) {}

  /// Where its memory can be read.
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr double get() const {
    return in_memory() ? *address_ : value_;
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE constexpr bool in_memory() const { return address_ != nullptr; }
  [[nodiscard]] constexpr bool missing() const { return address_ == &nowhere; }

 private:
  static constexpr double nowhere = 0;  ///< instead of a null pointer; never read

  double value_ = 0;
  double const* address_ = nullptr;
};

namespace detail {

/// Refuses a number_at without an address.
constexpr void check_number(char const* function, argument_name argument, number const& setting) {
  if (setting.missing()) fail(function, argument, "memory", "a null pointer");
}

/// Refuses a weight below 0, if `Space` can be read here.
template <class Space>
constexpr void check_weight(char const* function, argument_name argument, number const& weight) {
  check_number(function, argument, weight);
  if (!std::same_as<Space, host_space> && weight.in_memory()) return;
  if (!(weight.get() >= 0)) {
    fail(function, argument, text() << "a number >= 0", text() << weight.get());
  }
}

}  // namespace detail
}  // namespace addloss
