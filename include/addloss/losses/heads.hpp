// SPDX-License-Identifier: MIT
/// Tensors of K discriminator heads in one argument, and the checks that all losses on them share.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <addloss/core/config.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/reduce/destination.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>
#include <addloss/reduce/policies.hpp>

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

/// The rows of each head. `collapsed`: all elements of a head are one row, as no sample needs a sum
/// of its own.
struct head_batch {
  std::int64_t samples = 0;
  bool collapsed = false;

  /// `size`: elements of a sample.
  [[nodiscard]] ADDLOSS_HOST_DEVICE part_extent extent(std::int64_t size) const {
    return collapsed ? part_extent{1, samples * size} : part_extent{samples, size};
  }
  template <class A>
  [[nodiscard]] ADDLOSS_HOST_DEVICE double scale(gradient_scale<A> const& upstream,
                                                 std::int64_t row) const {
    return collapsed ? upstream.of_all() : upstream.at(row);
  }
  /// Whether tensors are to be one row: all of them have to be without gaps.
  template <class Tensor>
  void add(Tensor const& tensor) {
    collapsed = collapsed && tensor.contiguous();
  }
};

/// `upstream`: of single samples, if there is any.
template <batch_reduction Reduction, class A, class Space>
head_batch make_head_batch(std::int64_t samples, rows<A, Space> const& upstream) {
  return {samples, !std::same_as<Reduction, per_sample> && upstream.absent()};
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
