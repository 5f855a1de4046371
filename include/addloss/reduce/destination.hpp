// SPDX-License-Identifier: MIT
/// Where the loss itself is written: a scalar, or one number a sample.
#pragma once

#include <cstdint>

#include <addloss/core/rows.hpp>
#include <addloss/reduce/policies.hpp>

namespace addloss {

/// A scalar variable or tensor of rank 0 (for `mean` and `sum`), or a tensor [B] (for `per_sample`).
/// Default-constructed: absent.
template <class T, class Space = host_space>
struct destination {
  T* scalar = nullptr;
  rows<T, Space> samples;

  destination() = default;
  template <tensor_like Tensor>
    requires(tensor_in<Tensor, T, Space> && view_of<Tensor>::rank <= 1)
  destination(Tensor&& tensor) {  // NOLINT(*-explicit-*, *-forwarding-reference-overload)
    if constexpr (view_of<Tensor>::rank == 0) {
      scalar = as_view(tensor).data;
    } else {
      samples = as_view(tensor);
    }
  }

  [[nodiscard]] bool absent() const { return scalar == nullptr && samples.absent(); }
};

namespace detail {

/// Refuses a scalar for a per-sample loss and a tensor for a reduced one.
template <batch_reduction Reduction, class T, class Space>
void check_destination(char const* function, destination<T, Space> const& out,
                       std::int64_t count) {
  if (out.absent()) return;
  if constexpr (std::same_as<Reduction, per_sample>) {
    if (out.scalar != nullptr) {
      fail(function, "value", text() << "shape [" << count << "], one number a sample",
           text() << "a scalar");
    }
    check_per_sample(function, "value", out.samples, count);
  } else if (out.scalar == nullptr) {
    fail(function, "value", text() << "a scalar (the losses of single samples are per_sample)",
         text() << shape_text(out.samples.shape));
  }
}

}  // namespace detail

/// Settings of an evaluation. `T` is the arithmetic type of the loss.
template <class T, class Space = host_space>
struct evaluation_options {
  /// Gradient of what the user computes from the loss with respect to each L_b, shape [B].
  /// Multiplies the gradients of sample b; absent: 1.
  rows<T const, Space> upstream{};
  /// Multiplies all gradients, never the value: the loss scale of mixed-precision training.
  double grad_scale = 1;
  /// Number of elements whose argument or loss is infinite or NaN; not written where null.
  std::int64_t* non_finite = nullptr;
};

namespace detail {

/// The upstream gradient of a sample times grad_scale, in a form that a kernel can read.
template <class T>
struct gradient_scale {
  T const* upstream = nullptr;
  std::int64_t stride = 0;
  double scale = 1;

  [[nodiscard]] ADDLOSS_HOST_DEVICE double at(std::int64_t row) const {
    return upstream == nullptr ? scale : scale * static_cast<double>(upstream[row * stride]);
  }
};

template <class T, class Space>
gradient_scale<T> check_upstream(char const* function, rows<T const, Space> const& upstream,
                                 double grad_scale, std::int64_t count) {
  if (!upstream.absent()) check_per_sample(function, "upstream", upstream, count);
  return {upstream.data, upstream.row_stride, grad_scale};
}

/// Adds a part's share to the loss of a sample; the first part overwrites.
template <class Out>
ADDLOSS_HOST_DEVICE void add_sample_value(Out* samples, std::int64_t offset, bool first,
                                          double value) {
  if (samples == nullptr) return;
  double const before = first ? 0 : static_cast<double>(samples[offset]);
  samples[offset] = static_cast<Out>(before + value);
}

}  // namespace detail
}  // namespace addloss
