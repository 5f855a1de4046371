// SPDX-License-Identifier: MIT
/// A batch of samples: a tensor [B, ...] seen as B rows of `row_size` consecutive elements.
///
/// Axis 0 is the batch and may have any stride. The inner axes must cover their elements without
/// gaps, in any order (channels-first and channels-last both do); tensors that are combined element
/// by element must agree in that order.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/error.hpp>
#include <addloss/core/tensor_traits.hpp>

namespace addloss {

namespace detail {

inline constexpr int max_rank = 8;

/// Extents and strides with the rank known at run time.
struct layout {
  int rank = 0;
  std::int64_t extents[max_rank] = {};
  std::int64_t strides[max_rank] = {};
};

inline text shape_text(layout const& shape) { return bracketed(shape.extents, shape.rank); }

/// Whether axes 1.. of `shape` cover `size` consecutive elements, in any order: each stride is the
/// product of the extents of the axes with smaller strides.
constexpr bool dense_rows(layout const& shape, std::int64_t size) {
  std::int64_t covered = 1;
  while (covered < size) {
    int next = -1;
    for (int axis = 1; axis < shape.rank; ++axis) {
      if (shape.extents[axis] > 1 && shape.strides[axis] == covered) next = axis;
    }
    if (next < 0) return false;
    covered *= shape.extents[next];
  }
  return true;
}

}  // namespace detail

/// `T const` for what is read, `T` for what is written. Default-constructed: absent.
template <class T, class Space = host_space>
struct rows {
  using value_type = std::remove_const_t<T>;
  using space = Space;

  T* data = nullptr;
  std::int64_t count = 0;  ///< B, samples
  std::int64_t row_size = 0;  ///< elements of one sample
  std::int64_t row_stride = 0;  ///< elements from one sample to the next
  detail::layout shape;

  rows() = default;

  /// Any tensor of at least one axis whose elements can be seen as `T`. Shapes are checked where
  /// the rows are used, so that the error names the function and the argument.
  template <tensor_like Tensor>
    requires(tensor_in<Tensor, T, Space> && view_of<Tensor>::rank >= 1)
  rows(Tensor&& tensor)  // NOLINT(*-explicit-*, *-forwarding-reference-overload)
      : rows(as_view(tensor), 0) {}

  template <class U>
    requires(std::same_as<U const, T> && !std::same_as<U, T>)
  rows(rows<U, Space> const& other)  // NOLINT(*-explicit-*)
      : data(other.data),
        count(other.count),
        row_size(other.row_size),
        row_stride(other.row_stride),
        shape(other.shape) {}

  [[nodiscard]] bool absent() const { return data == nullptr && shape.rank == 0; }
  /// All samples lie one after the other.
  [[nodiscard]] bool contiguous() const { return count <= 1 || row_stride == row_size; }

 private:
  template <class View>
  rows(View const& view, int /*disambiguates*/) : data(view.data), count(view.extents[0]) {
    shape.rank = View::rank;
    for (int axis = 0; axis < View::rank; ++axis) {
      shape.extents[axis] = view.extents[axis];
      shape.strides[axis] = view.strides[axis];
    }
    row_size = detail::checked_product(shape.extents + 1, View::rank - 1);
    row_stride = view.strides[0];
  }
};

namespace detail {

/// Refuses an absent or empty batch, sizes and offsets that do not fit 63 bits, and inner axes with
/// gaps.
template <class T, class Space>
void check_rows(char const* function, argument_name argument, rows<T, Space> const& batch) {
  if (batch.absent()) fail(function, argument, "a tensor", "none");
  if (batch.count < 1) {
    fail(function, argument, text() << "a batch of at least one sample",
         text() << shape_text(batch.shape));
  }
  if (checked_product(batch.shape.extents, batch.shape.rank) < 0) {
    fail(function, argument, text() << "a size that fits 63 bits",
         text() << shape_text(batch.shape));
  }
  if (batch.row_size < 1) {
    fail(function, argument, text() << "samples of at least one element",
         text() << shape_text(batch.shape));
  }
  if (batch.data == nullptr) fail(function, argument, "memory", "a null pointer");
  if (!dense_rows(batch.shape, batch.row_size)) {
    fail(function, argument, text() << "axes 1.. without gaps",
         text() << "shape " << shape_text(batch.shape) << " with strides "
                << bracketed(batch.shape.strides, batch.shape.rank));
  }
  std::int64_t end = 0;
  if (__builtin_mul_overflow(batch.count - 1, batch.row_stride, &end) ||
      __builtin_add_overflow(end, batch.row_size, &end)) {
    fail(function, argument, text() << "samples whose offsets fit 63 bits",
         text() << batch.count << " at stride " << batch.row_stride);
  }
}

/// Checks `batch` and that it has the shape and the inner order of axes of `model`.
template <class T, class U, class Space>
void check_same_rows(char const* function, argument_name argument, rows<T, Space> const& batch,
                     argument_name model_name, rows<U, Space> const& model) {
  check_rows(function, argument, batch);
  bool same = batch.shape.rank == model.shape.rank;
  for (int axis = 0; same && axis < model.shape.rank; ++axis) {
    same = batch.shape.extents[axis] == model.shape.extents[axis];
  }
  if (!same) {
    fail(function, argument,
         text() << "the shape of " << model_name << ", " << shape_text(model.shape),
         text() << shape_text(batch.shape));
  }
  for (int axis = 1; axis < model.shape.rank; ++axis) {
    if (model.shape.extents[axis] > 1 && batch.shape.strides[axis] != model.shape.strides[axis]) {
      fail(function, argument,
           text() << "the memory order of " << model_name << ", stride "
                  << model.shape.strides[axis] << " on axis " << axis,
           text() << "stride " << batch.shape.strides[axis]);
    }
  }
}

/// Refuses a batch that is to be written and whose samples share memory.
template <class T, class Space>
void check_distinct_rows(char const* function, argument_name argument,
                         rows<T, Space> const& batch) {
  bool const apart = batch.row_stride >= batch.row_size || batch.row_stride <= -batch.row_size;
  if (batch.count > 1 && !apart) {
    fail(function, argument,
         text() << "samples at least " << batch.row_size << " elements apart, as they are written",
         text() << "stride " << batch.row_stride << " on axis 0");
  }
}

/// Checks one number per sample: shape [B].
template <class T, class Space>
void check_per_sample(char const* function, argument_name argument, rows<T, Space> const& batch,
                      std::int64_t count) {
  check_rows(function, argument, batch);
  if (batch.shape.rank != 1 || batch.count != count) {
    fail(function, argument, text() << "shape [" << count << "], one number a sample",
         text() << shape_text(batch.shape));
  }
}

}  // namespace detail
}  // namespace addloss
