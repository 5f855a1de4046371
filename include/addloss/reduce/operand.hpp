// SPDX-License-Identifier: MIT
/// What a pass reads and writes per element: stored tensors, noise that is generated where a stored
/// tensor could be read, and outputs that are written, added to, or left out.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/philox.hpp>
#include <addloss/core/rows.hpp>

namespace addloss {

/// Standard normal noise as a pure function of its address; nothing is stored.
///
/// Element i of sample b takes its number from Philox block (i / 64) * 16 + i mod 16 of that
/// sample, word pair (i / 32) mod 2, by Box-Muller: cosine for even (i / 16) mod 2, sine for odd.
/// So 64 consecutive elements use 16 blocks whole, and neither SIMD lanes nor GPU threads waste a
/// word. Range of |noise|: 0 to 6.77. Samples hold at most 2^34 elements; first_sample + b fits 32
/// bits.
struct normal_noise {
  random_key key;
};

/// The same noise, its key read where the samples are, when the pass runs: a captured CUDA graph is
/// replayed with the seed and the step that the memory then holds.
struct normal_noise_at {
  random_key const* key = nullptr;
};

template <class N>
concept generated_noise = std::same_as<N, normal_noise> || std::same_as<N, normal_noise_at>;

namespace detail {

inline constexpr std::int64_t max_noise_elements = std::int64_t{1} << 34;

/// A stored operand, reduced to what a kernel needs.
template <class T>
struct stored {
  T const* data = nullptr;
  std::int64_t row_stride = 0;
};

template <class T, class Space>
stored<std::remove_const_t<T>> stored_rows(rows<T, Space> const& batch) {
  return {batch.data, batch.row_stride};
}

/// Noise that is generated from its key.
struct generated_operand {
  random_key key;
  random_key const* key_at = nullptr;  ///< read instead of `key` unless null

  [[nodiscard]] ADDLOSS_HOST_DEVICE random_key current_key() const {
    return key_at == nullptr ? key : *key_at;
  }
};

/// Noise of which only the call says whether it is stored or generated.
template <class T>
struct noise_operand {
  stored<T> rows;
  generated_operand noise;
  bool generated = false;
};

enum class store_mode : unsigned char { none, overwrite, add };

/// An output, reduced to what a kernel needs.
template <class T>
struct output_rows {
  T* data = nullptr;
  std::int64_t row_stride = 0;
  store_mode mode = store_mode::none;
};

}  // namespace detail

/// A noise argument: a stored tensor, or `normal_noise{key}` or `normal_noise_at{&key}` to generate
/// it.
template <storage_scalar T, class Space = host_space>
struct noise_source {
  rows<T const, Space> tensor;
  detail::generated_operand noise;
  bool generated = false;
  bool key_missing = false;  ///< a normal_noise_at without a key: refused where it is used

  noise_source() = default;
  template <class Tensor>
    requires(std::constructible_from<rows<T const, Space>, Tensor>)
  noise_source(Tensor&& stored)  // NOLINT(*-explicit-*, *-forwarding-reference-overload)
      : tensor(static_cast<Tensor&&>(stored)) {}
  noise_source(normal_noise from) : noise{from.key}, generated(true) {}  // NOLINT(*-explicit-*)
  noise_source(normal_noise_at from)  // NOLINT(*-explicit-*)
      : noise{{}, from.key}, generated(true), key_missing(from.key == nullptr) {}

  [[nodiscard]] detail::noise_operand<T> operand() const {
    return {detail::stored_rows(tensor), noise, generated};
  }
};

namespace detail {

/// Checks a stored noise tensor against the samples it is added to, or that generated noise has
/// numbers for all of them. (The first sample of a normal_noise_at is not known here.)
template <class T, class U, class Space>
void check_noise(char const* function, argument_name argument, noise_source<T, Space> const& noise,
                 argument_name model_name, rows<U, Space> const& model) {
  if (noise.key_missing) fail(function, argument, "a key", "a null pointer");
  if (!noise.generated) {
    check_same_rows(function, argument, noise.tensor, model_name, model);
    return;
  }
  if (model.row_size > max_noise_elements) {
    fail(function, argument, text() << "samples of at most 2^34 elements",
         text() << model.row_size);
  }
  std::int64_t const room = (std::int64_t{1} << 32) - noise.noise.key.first_sample;
  if (model.count > room) {
    fail(function, argument, text() << "at most " << room << " samples, whose indices fit 32 bits",
         text() << model.count);
  }
}

}  // namespace detail

/// Gradients that are added to what the memory holds, instead of overwriting it:
/// `grad(ctx, loss, accumulate(g))`.
template <class T, class Space>
struct accumulated {
  rows<T, Space> target;
};

template <tensor_like Tensor>
auto accumulate(Tensor&& tensor) {
  using view = view_of<Tensor>;
  return accumulated<typename view::element_type, typename view::space>{
      rows<typename view::element_type, typename view::space>(as_view(tensor))};
}

/// A gradient's destination: rows to overwrite, `accumulate(rows)`, or absent.
template <class T, class Space = host_space>
struct gradient {
  rows<T, Space> target;
  detail::store_mode mode = detail::store_mode::none;

  gradient() = default;
  template <class Tensor>
    requires(std::constructible_from<rows<T, Space>, Tensor>)
  gradient(Tensor&& tensor)  // NOLINT(*-explicit-*, *-forwarding-reference-overload)
      : target(static_cast<Tensor&&>(tensor)), mode(detail::store_mode::overwrite) {}
  gradient(accumulated<T, Space> const& tensor)  // NOLINT(*-explicit-*)
      : target(tensor.target), mode(detail::store_mode::add) {}

  [[nodiscard]] detail::output_rows<T> output() const {
    return {target.data, target.row_stride, mode};
  }
};

}  // namespace addloss
