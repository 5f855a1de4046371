// SPDX-License-Identifier: MIT
/// Copies between rows of memory and vectors that go across rows, by transposing small squares in
/// registers.
#pragma once

#include <cstdint>
#include <utility>

#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// T[Count]. (g++ warns of an int as the size of an array where it depends on a template.)
template <class T, int Count>
using array_of = T[static_cast<unsigned>(Count)];

template <class Pack, bool Upper, std::size_t... Lane>
ADDLOSS_INLINE Pack interleave(Pack a, Pack b, std::index_sequence<Lane...> /*lanes*/) {
  constexpr int width = Pack::width;
#if defined(__CUDACC__)
  // What nvcc makes of __builtin_shufflevector with a parameter pack does not compile.
  Pack result;
  ((result.lanes[Lane] = (Lane % 2 == 0 ? a : b).lanes[Lane / 2 + (Upper ? width / 2 : 0)]), ...);
  return result;
#else
  return Pack(__builtin_shufflevector(
      a.lanes, b.lanes,
      (static_cast<int>(Lane) / 2 + (Upper ? width / 2 : 0) + (Lane % 2 == 0 ? 0 : width))...));
#endif
}

/// to[i * to_stride + j] = from[j][i] for i, j < Pack::width. Interleaving the upper with the lower
/// half of the rows turns the bits of the row's and the lane's number by one: log2(width) turns
/// exchange the two.
template <class Pack>
ADDLOSS_INLINE void transpose_block(typename Pack::value_type const* const* from,
                                    typename Pack::value_type* to, std::int64_t to_stride) {
  constexpr int width = Pack::width;
  constexpr auto lanes = std::make_index_sequence<static_cast<unsigned>(width)>{};
  array_of<Pack, width> rows;
  ADDLOSS_UNROLL(16)
  for (int j = 0; j < width; ++j) rows[j] = Pack::load(from[j]);
  ADDLOSS_UNROLL(4)
  for (int turn = 1; turn < width; turn *= 2) {
    array_of<Pack, width> turned;
    ADDLOSS_UNROLL(8)
    for (int j = 0; j < width / 2; ++j) {
      turned[2 * j] = interleave<Pack, false>(rows[j], rows[j + width / 2], lanes);
      turned[2 * j + 1] = interleave<Pack, true>(rows[j], rows[j + width / 2], lanes);
    }
    ADDLOSS_UNROLL(16)
    for (int j = 0; j < width; ++j) rows[j] = turned[j];
  }
  ADDLOSS_UNROLL(16)
  for (int i = 0; i < width; ++i) rows[i].store(to + i * to_stride);
}

/// lanes[l][j] = x[j][l] for `channels` rows, zeros for those up to a vector's width. Rows of x are
/// `stride` apart, those of lanes `lane_stride`.
template <arithmetic_scalar T>
void gather_channels(T const* x, std::int64_t stride, std::int64_t length, std::int64_t channels,
                     T* lanes, std::int64_t lane_stride = native_pack<T>::width) {
  using pack = native_pack<T>;
  constexpr int width = pack::width;
  array_of<T const*, width> from;
  for (int j = 0; j < width; ++j) from[j] = x + at_most(j, channels - 1) * stride;
  std::int64_t l = 0;
  for (; l + width <= length; l += width) {
    transpose_block<pack>(from, lanes + l * lane_stride, lane_stride);
    for (int j = 0; j < width; ++j) from[j] += width;
  }
  for (; l < length; ++l) {
    for (int j = 0; j < width; ++j) lanes[l * lane_stride + j] = *from[j]++;
  }
  if (channels >= width) return;
  for (l = 0; l < length; ++l) {
    for (std::int64_t j = channels; j < width; ++j) lanes[l * lane_stride + j] = T(0);
  }
}

/// The way back.
template <arithmetic_scalar T>
void scatter_channels(T const* lanes, std::int64_t length, std::int64_t channels, T* x) {
  using pack = native_pack<T>;
  constexpr int width = pack::width;
  std::int64_t l = 0;
  for (; channels >= width && l + width <= length; l += width) {
    array_of<T const*, width> from;
    for (int j = 0; j < width; ++j) from[j] = lanes + (l + j) * width;
    transpose_block<pack>(from, x + l, length);
  }
  for (; l < length; ++l) {
    for (std::int64_t j = 0; j < at_most(width, channels); ++j)
      x[j * length + l] = lanes[l * width + j];
  }
}

/// The nine taps of `width` weights that lie one after the other, as vectors: taps[t][j] =
/// from[9 j + t], rows of taps `stride` apart. Blocks of `width` taps are transposed, the last one
/// starts early enough to end with tap 8; with 16 lanes it reads 7 numbers and writes 7 rows too
/// many.
template <arithmetic_scalar T>
void load_taps(T const* from, T* taps, std::int64_t stride) {
  using pack = native_pack<T>;
  constexpr int width = pack::width;
  for (int t = 0; t < 9; t += width) {
    int const first = t + width <= 9 || t == 0 ? t : 9 - width;
    array_of<T const*, width> weight;
    for (int j = 0; j < width; ++j) weight[j] = from + 9 * j + first;
    transpose_block<pack>(weight, taps + first * stride, stride);
  }
}

/// The way back, added: to[9 j + t] += taps[t][j]. With 16 lanes it reads 7 rows too many.
template <arithmetic_scalar T>
void add_taps(T const* taps, std::int64_t stride, T* to) {
  using pack = native_pack<T>;
  constexpr int width = pack::width;
  // What a weight's store puts behind its taps, the next one overwrites.
  alignas(64) array_of<T, 10 * width> buffer;
  for (int t = 0; t < 9; t += width) {
    int const first = t + width <= 9 || t == 0 ? t : 9 - width;
    array_of<T const*, width> tap;
    for (int j = 0; j < width; ++j) tap[j] = taps + (first + j) * stride;
    alignas(64) array_of<T, width * width> turned;
    transpose_block<pack>(tap, turned, width);
    for (int j = 0; j < width; ++j) pack::load(turned + j * width).store(buffer + 9 * j + first);
  }
  for (int n = 0; n < 9; ++n, to += width) {
    (pack::load(to) + pack::load(buffer + n * width)).store(to);
  }
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
