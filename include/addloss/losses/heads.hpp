// SPDX-License-Identifier: MIT
/// Tensors of K discriminator heads in one argument, and the checks that all losses on them share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <addloss/core/rows.hpp>
#include <addloss/reduce/operand.hpp>

namespace addloss {

inline constexpr int max_heads = 32;

/// One tensor a head, in the order of the heads. The array must live until the loss is evaluated.
template <class T, class Space>
using head_rows = std::type_identity_t<std::span<rows<T const, Space> const>>;

namespace detail {

inline int check_heads(char const* function, argument_name argument, std::size_t heads) {
  if (heads < 1 || heads > static_cast<std::size_t>(max_heads)) {
    fail(function, argument, text() << "1 to " << max_heads << " heads",
         text() << static_cast<std::int64_t>(heads));
  }
  return static_cast<int>(heads);
}

inline void check_same_heads(char const* function, argument_name argument, std::size_t heads,
                             std::size_t expected) {
  if (heads != expected) {
    fail(function, argument, text() << static_cast<std::int64_t>(expected) << " heads",
         text() << static_cast<std::int64_t>(heads));
  }
}

/// Checks a tensor and its batch.
template <class T, class Space>
void check_batch(char const* function, argument_name argument, rows<T, Space> const& batch,
                 std::int64_t samples) {
  check_rows(function, argument, batch);
  if (batch.count != samples) {
    fail(function, argument, text() << samples << " samples", shape_text(batch.shape));
  }
}

/// Refuses the terms of an objective where they are means over different batches.
inline void check_same_batch(char const* function, argument_name argument, std::int64_t samples,
                             std::int64_t expected) {
  if (samples != expected) {
    fail(function, argument, text() << "a batch of " << expected << " samples", text() << samples);
  }
}

/// Checks a gradient against what it is the gradient of.
template <class T, class Space>
output_rows<T> check_gradient(char const* function, argument_name argument,
                              rows<T, Space> const& gradient, argument_name of_name,
                              rows<T const, Space> const& of, bool accumulate) {
  check_same_rows(function, argument, gradient, of_name, of);
  check_distinct_rows(function, argument, gradient);
  return {gradient.data, gradient.row_stride, accumulate ? store_mode::add : store_mode::overwrite};
}

}  // namespace detail
}  // namespace addloss
