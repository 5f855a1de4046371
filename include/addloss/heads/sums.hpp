// SPDX-License-Identifier: MIT
/// Sums of products of rows of numbers, in double, where each number of a matrix is read once.
///
///   add_wide     sum[j] += x[j], for the numbers x of a register
///   dot          sum_j a[j] b[j]
///   sum_columns  sum[j] = sum_i weight[i] matrix[i, j], `column_block` columns at a time
///   write, add   out[j] = scale sum[j] + start;  out[j] += scale sum[j]
///   combine      x[j] = a x[j] + b y[j]
///   scale_row    out[j] = factor x[j]
/// All are bound by memory, so that double costs little, and sums of any length are good to the
/// last bits of a float.
/// Order of sums: `dot` in 16 lanes that are added pairwise, `sum_columns` row by row; it depends
/// on the number of terms only, not on the SIMD width. NaN reaches the sum, even times 0.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

using wide_pack = native_pack<double>;

// The instructions are named for g++, which converts vectors in pieces, those of two floats one by
// one.
#if !defined(__clang__) && defined(__SSE2__) && ADDLOSS_SIMD_BYTES == 16
using narrow_pack = simd_pack<float, 4>;  ///< of which two count
ADDLOSS_INLINE narrow_pack load_narrow(float const* from) {
  simd_mask<std::int64_t, 2>::vector two{};
  std::memcpy(&two, from, 2 * sizeof(float));
  return narrow_pack(std::bit_cast<narrow_pack::vector>(two));
}
#else
using narrow_pack = simd_pack<float, wide_pack::width>;
ADDLOSS_INLINE narrow_pack load_narrow(float const* from) { return narrow_pack::load(from); }
#endif

ADDLOSS_INLINE wide_pack widen(narrow_pack x) {
#if defined(__clang__) || !defined(__SSE2__)
  return wide_pack(__builtin_convertvector(x.lanes, wide_pack::vector));
#elif ADDLOSS_SIMD_BYTES == 64
  return wide_pack(__builtin_ia32_cvtps2pd512_mask(x.lanes, wide_pack::vector{}, -1, 4));
#elif ADDLOSS_SIMD_BYTES == 32
  return wide_pack(__builtin_ia32_cvtps2pd256(x.lanes));
#else
  return wide_pack(__builtin_ia32_cvtps2pd(x.lanes));
#endif
}

template <arithmetic_scalar T>
ADDLOSS_INLINE wide_pack load_wide(T const* from) {
  if constexpr (std::same_as<T, double>) {
    return wide_pack::load(from);
  } else {
    return widen(load_narrow(from));
  }
}

/// Half of a register in double. A shuffle: a register that is stored and loaded in halves has to
/// wait for its store to end.
template <bool Upper, std::size_t... Lane>
ADDLOSS_INLINE wide_pack widen_half(native_pack<float> x, std::index_sequence<Lane...> /*lanes*/) {
  constexpr int width = wide_pack::width;
  constexpr int first = Upper ? width : 0;
#if defined(__CUDACC__)
  // What nvcc makes of __builtin_shufflevector with a parameter pack does not compile.
  wide_pack result;
  for (int lane = 0; lane < width; ++lane) {
    result.lanes[lane] = static_cast<double>(x.lanes[first + lane]);
  }
  return result;
#else
  return widen(narrow_pack(
      __builtin_shufflevector(x.lanes, x.lanes, (first + static_cast<int>(Lane) % width)...)));
#endif
}

/// Adds the numbers of a register to as many doubles, in their order.
template <arithmetic_scalar T>
ADDLOSS_INLINE void add_wide(native_pack<T> x, wide_pack* sums) {
  if constexpr (std::same_as<T, double>) {
    sums[0] += x;
  } else {
    constexpr auto lanes = std::make_index_sequence<static_cast<unsigned>(narrow_pack::width)>{};
    sums[0] += widen_half<false>(x, lanes);
    sums[1] += widen_half<true>(x, lanes);
  }
}

template <arithmetic_scalar T>
ADDLOSS_INLINE void store_narrow(wide_pack x, T* to) {
  if constexpr (std::same_as<T, double>) {
    x.store(to);
  } else {
#if defined(__clang__) || !defined(__SSE2__)
    using narrow = simd_pack<float, wide_pack::width>;
    narrow(__builtin_convertvector(x.lanes, narrow::vector)).store(to);
#elif ADDLOSS_SIMD_BYTES == 64
    using narrow = simd_pack<float, 8>;
    narrow(__builtin_ia32_cvtpd2ps512_mask(x.lanes, narrow::vector{}, -1, 4)).store(to);
#elif ADDLOSS_SIMD_BYTES == 32
    simd_pack<float, 4>(__builtin_ia32_cvtpd2ps256(x.lanes)).store(to);
#else
    auto const four = __builtin_ia32_cvtpd2ps(x.lanes);  // two, and zeros
    std::memcpy(to, &four, 2 * sizeof(float));
#endif
  }
}

template <arithmetic_scalar T>
double dot(T const* a, T const* b, std::int64_t count) {
  constexpr std::int64_t width = wide_pack::width;
  constexpr std::int64_t lanes = 16;
  constexpr std::int64_t packs = lanes / width;
  wide_pack sum[packs];
  for (wide_pack& lane : sum) lane = wide_pack(0.0);
  std::int64_t j = 0;
  for (; j + lanes <= count; j += lanes) {
    ADDLOSS_UNROLL(8)
    for (std::int64_t k = 0; k < packs; ++k) {
      std::int64_t const n = j + k * width;
      // One expression, or clang would not fuse it.
      sum[k].lanes += load_wide(a + n).lanes * load_wide(b + n).lanes;
    }
  }
  double lane[lanes];
  ADDLOSS_UNROLL(8)
  for (std::int64_t k = 0; k < packs; ++k) sum[k].store(lane + k * width);
  for (std::int64_t k = 0; j < count; ++k, ++j) {
    lane[k] += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  }
  for (std::int64_t half = lanes / 2; half > 0; half /= 2) {
    for (std::int64_t k = 0; k < half; ++k) lane[k] += lane[k + half];
  }
  return lane[0];
}

/// Numbers with a stride between them.
template <arithmetic_scalar T>
struct strided {
  T const* data;
  std::int64_t stride;
  double operator[](std::int64_t i) const { return static_cast<double>(data[i * stride]); }
};

/// Rows of numbers with a stride between them.
template <arithmetic_scalar T>
struct strided_rows {
  T const* data;
  std::int64_t stride;
  std::int64_t rows;
};

/// Columns that are summed at once. Their sums, 2 KiB, stay in the first-level cache, and 1 KiB of
/// a row of floats is enough for the prefetcher.
inline constexpr std::int64_t column_block = 256;

[[nodiscard]] constexpr std::int64_t column_blocks(std::int64_t columns) {
  return (columns + column_block - 1) / column_block;
}

/// One block of columns: where it begins, and how many there are.
struct column_range {
  std::int64_t first;
  std::int64_t count;

  constexpr column_range(std::int64_t columns, std::int64_t block)
      : first(block * column_block),
        count(columns - first < column_block ? columns - first : column_block) {}
};

/// sum[j] += factor[0] row[j] + ... + factor[Rows - 1] row[(Rows - 1) stride + j], in that order.
/// Several rows at once, as sums are loaded and stored once for all of them.
template <int Rows, arithmetic_scalar T>
void add_rows(double const* factor, T const* row, std::int64_t stride, std::int64_t count,
              double* sum) {
  wide_pack factors[static_cast<unsigned>(Rows)];
  for (int i = 0; i < Rows; ++i) factors[i] = wide_pack(factor[i]);
  std::int64_t j = 0;
  for (; j + wide_pack::width <= count; j += wide_pack::width) {
    wide_pack s = wide_pack::load(sum + j);
    ADDLOSS_UNROLL(4)
    for (int i = 0; i < Rows; ++i) {
      s.lanes += factors[i].lanes * load_wide(row + i * stride + j).lanes;
    }
    s.store(sum + j);
  }
  for (; j < count; ++j) {
    for (int i = 0; i < Rows; ++i) sum[j] += factor[i] * static_cast<double>(row[i * stride + j]);
  }
}

/// sum[j] = sum_i weight[i] matrix[i, range.first + j].
template <arithmetic_scalar T>
void sum_columns(strided<T> weight, strided_rows<T> const& matrix, column_range range,
                 double* sum) {
  for (std::int64_t j = 0; j < range.count; ++j) sum[j] = 0;
  if (matrix.rows == 0) return;  // its data may be null
  T const* const first = matrix.data + range.first;
  std::int64_t i = 0;
  for (; i + 4 <= matrix.rows; i += 4) {
    double const factor[4] = {weight[i], weight[i + 1], weight[i + 2], weight[i + 3]};
    add_rows<4>(factor, first + i * matrix.stride, matrix.stride, range.count, sum);
  }
  for (; i < matrix.rows; ++i) {
    double const factor = weight[i];
    add_rows<1>(&factor, first + i * matrix.stride, matrix.stride, range.count, sum);
  }
}

/// out[j] = scale sum[j] + start.
template <arithmetic_scalar T>
void write(double scale, double const* sum, double start, std::int64_t count, T* out) {
  wide_pack const scales(scale);
  wide_pack const starts(start);
  std::int64_t j = 0;
  for (; j + wide_pack::width <= count; j += wide_pack::width) {
    store_narrow(wide_pack(scales.lanes * wide_pack::load(sum + j).lanes + starts.lanes), out + j);
  }
  for (; j < count; ++j) out[j] = static_cast<T>(scale * sum[j] + start);
}

/// out[j] += scale sum[j].
template <arithmetic_scalar T>
void add(double scale, double const* sum, std::int64_t count, T* out) {
  wide_pack const scales(scale);
  std::int64_t j = 0;
  for (; j + wide_pack::width <= count; j += wide_pack::width) {
    wide_pack const before = load_wide(out + j);
    store_narrow(wide_pack(scales.lanes * wide_pack::load(sum + j).lanes + before.lanes), out + j);
  }
  for (; j < count; ++j) {
    out[j] = static_cast<T>(scale * sum[j] + static_cast<double>(out[j]));
  }
}

/// x[j] = a x[j] + b y[j].
template <arithmetic_scalar T>
void combine(double a, T* x, double b, T const* y, std::int64_t count) {
  wide_pack const as(a);
  wide_pack const bs(b);
  std::int64_t j = 0;
  for (; j + wide_pack::width <= count; j += wide_pack::width) {
    wide_pack const sum(as.lanes * load_wide(x + j).lanes + bs.lanes * load_wide(y + j).lanes);
    store_narrow(sum, x + j);
  }
  for (; j < count; ++j) {
    x[j] = static_cast<T>(a * static_cast<double>(x[j]) + b * static_cast<double>(y[j]));
  }
}

/// out[j] = factor x[j]. May be in place.
template <arithmetic_scalar T>
void scale_row(double factor, T const* x, std::int64_t count, T* out) {
  wide_pack const factors(factor);
  std::int64_t j = 0;
  for (; j + wide_pack::width <= count; j += wide_pack::width) {
    store_narrow(factors * load_wide(x + j), out + j);
  }
  for (; j < count; ++j) out[j] = static_cast<T>(factor * static_cast<double>(x[j]));
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
