// SPDX-License-Identifier: MIT
/// Where the loss itself is written: a scalar, or one number a sample.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/core/number.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/reduce/policies.hpp>

namespace addloss {

/// The sum over a batch and the size of that batch: `value<sum>(ctx, loss, totals)`. Added up over
/// ranks, sum / count is the mean over all of them.
template <arithmetic_scalar T>
struct sum_and_count {
  T sum = 0;
  std::int64_t count = 0;
};

/// A scalar variable or tensor of rank 0 (for `mean` and `sum`), a tensor [B] (for `per_sample`),
/// or a `sum_and_count` (for `sum`; on a GPU a pointer to one there). Default-constructed: absent.
template <class T, class Space = host_space>
struct destination {
  T* scalar = nullptr;
  rows<T, Space> samples;
  std::int64_t* count = nullptr;

  destination() = default;
  template <tensor_like Tensor>
    requires(tensor_in<Tensor, T, Space> && view_of<Tensor>::rank <= 1)
  destination(Tensor&& tensor) {  // NOLINT(*-explicit-*, *-forwarding-reference-overload)
    if constexpr (view_of<Tensor>::rank == 0) {
      scalar = as_view(tensor).data;
      absent_ = false;
    } else {
      samples = as_view(tensor);
      absent_ = samples.absent();
    }
  }
  destination(sum_and_count<T>& totals)  // NOLINT(*-explicit-*)
    requires(std::same_as<Space, host_space>)
      : scalar(&totals.sum), count(&totals.count), absent_(false) {}
  destination(sum_and_count<T>* totals)  // NOLINT(*-explicit-*)
    requires(!std::same_as<Space, host_space>)
      : scalar(&totals->sum), count(&totals->count), absent_(totals == nullptr) {}

  [[nodiscard]] bool absent() const { return absent_; }

 private:
  bool absent_ = true;
};

namespace detail {

/// Where a loss goes: to its own destination, and times `weight` to the total that it is a term of.
/// Its gradients are those of the total.
template <class T, class Space>
struct loss_output {
  destination<T, Space> own{};
  char const* name = "value";  ///< of `own`, for errors
  destination<T, Space> total{};
  number weight = 1;
  bool adds = false;  ///< to a total that an earlier term has written

  [[nodiscard]] bool absent() const { return own.absent() && total.absent(); }
};

/// Refuses a scalar for a per-sample loss and a tensor for a reduced one.
template <batch_reduction Reduction, class T, class Space>
void check_destination(char const* function, argument_name argument,
                       destination<T, Space> const& out, std::int64_t count) {
  if (out.absent()) return;
  if constexpr (std::same_as<Reduction, per_sample>) {
    if (!out.samples.absent()) {
      check_per_sample(function, argument, out.samples, count);
      check_distinct_rows(function, argument, out.samples);
      return;
    }
    fail(function, argument, text() << "shape [" << count << "], one number a sample",
         text() << "a scalar");
  } else {
    if (!out.samples.absent()) {
      fail(function, argument, text() << "a scalar (the losses of single samples are per_sample)",
           shape_text(out.samples.shape));
    }
    if (out.scalar == nullptr) fail(function, argument, "memory", "a null pointer");
    if (!std::same_as<Reduction, sum> && out.count != nullptr) {
      fail(function, argument, "a scalar", "a sum_and_count, which the reduction sum writes");
    }
  }
}

/// Writes the loss of each sample and of the batch. Kernels hold it by value.
template <class T>
struct loss_writer {
  T* scalar = nullptr;
  T* samples = nullptr;
  std::int64_t stride = 0;
  T* total = nullptr;
  T* total_samples = nullptr;
  std::int64_t total_stride = 0;
  number weight = 1;
  bool adds = false;
  double factor = 1;  ///< of the batch reduction
  std::int64_t batch = 0;
  std::int64_t* count = nullptr;
  std::int64_t* total_count = nullptr;
  std::int64_t* non_finite = nullptr;

  [[nodiscard]] ADDLOSS_HOST_DEVICE bool writes_samples() const {
    return samples != nullptr || total_samples != nullptr;
  }
  /// `value`: a share of the loss of sample `row`; the first share overwrites.
  ADDLOSS_HOST_DEVICE void write_sample(std::int64_t row, bool first, double value) const {
    if (samples != nullptr) add(samples[row * stride], first, value);
    if (total_samples != nullptr) {
      add(total_samples[row * total_stride], first && !adds, weight.get() * value);
    }
  }
  /// `value`: the sum over the samples; `bad`: the number of non-finite elements.
  ADDLOSS_HOST_DEVICE void write(double value, double bad) const {
    if (scalar != nullptr) add(*scalar, true, factor * value);
    if (total != nullptr) add(*total, !adds, weight.get() * factor * value);
    if (non_finite != nullptr) {
      *non_finite = (adds ? *non_finite : 0) + static_cast<std::int64_t>(bad);
    }
    if (count != nullptr) *count = batch;
    if (total_count != nullptr) *total_count = batch;
  }

 private:
  static ADDLOSS_HOST_DEVICE void add(T& to, bool overwrites, double value) {
    to = static_cast<T>(overwrites ? value : static_cast<double>(to) + value);
  }
};

/// Checks where a loss over `samples` samples goes.
template <class Reduction, class T, class Space>
loss_writer<T> check_output(char const* function, loss_output<T, Space> const& out,
                            std::int64_t samples, std::int64_t* non_finite) {
  check_destination<Reduction>(function, out.name, out.own, samples);
  check_destination<Reduction>(function, "total", out.total, samples);
  return {out.own.scalar,
          out.own.samples.data,
          out.own.samples.row_stride,
          out.total.scalar,
          out.total.samples.data,
          out.total.samples.row_stride,
          out.weight,
          out.adds,
          Reduction::factor(samples),
          samples,
          out.own.count,
          out.total.count,
          non_finite};
}

}  // namespace detail

/// Settings of an evaluation. `T` is the arithmetic type of the loss. All that is read and written
/// through them lies in the memory of `Space`; so do the statistics of other losses' options.
template <class T, class Space = host_space>
struct evaluation_options {
  /// Gradient of what the user computes from the loss with respect to each L_b, shape [B].
  /// Multiplies the gradients of sample b; absent: 1.
  rows<T const, Space> upstream{};
  /// Multiplies all gradients, never the value: the loss scale of mixed-precision training.
  number grad_scale = 1;
  /// Number of elements whose argument or loss is infinite or NaN; not written where null.
  std::int64_t* non_finite = nullptr;
};

namespace detail {

/// The upstream gradient of a sample times grad_scale and the weight of the loss in the total, in a
/// form that a kernel can read.
template <class T>
struct gradient_scale {
  T const* upstream = nullptr;
  std::int64_t stride = 0;
  number scale = 1;
  number weight = 1;

  /// Without upstream gradients.
  [[nodiscard]] ADDLOSS_HOST_DEVICE double of_all() const { return scale.get() * weight.get(); }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double at(std::int64_t row) const {
    return upstream == nullptr ? of_all() : of_all() * static_cast<double>(upstream[row * stride]);
  }
};

template <class T, class Space>
gradient_scale<T> check_upstream(char const* function, rows<T const, Space> const& upstream,
                                 number const& grad_scale, number const& weight,
                                 std::int64_t count) {
  if (!upstream.absent()) check_per_sample(function, "upstream", upstream, count);
  check_number(function, "grad_scale", grad_scale);
  return {upstream.data, upstream.row_stride, grad_scale, weight};
}

}  // namespace detail
}  // namespace addloss
