// SPDX-License-Identifier: MIT
/// The one skeleton that every loss runs on: one pass over the rows of a batch that reads operands,
/// writes outputs element by element, and sums.
///
/// A *pass* is a trivially copyable description that `executor<Context>::run(context, pass)`
/// carries out. It consists of *parts* (one for most losses; a head and side each for adversarial
/// losses):
///
///   arithmetic                  float or double
///   operand_count               tensors read per element
///   output_count                tensors written per element (gradients, or a noised sample)
///   sum_count                   sums over the elements; sum 0 is the loss, the rest statistics
///   tally_count                 numbers of elements for which something holds
///   total_count                 sum_count + tally_count + 1: the totals of a part
///   parts(), max_parts          number of parts, and a bound on it known at compile time
///   extent(part)                {rows, row_size}
///   operand<I>(part, row)       a stored or a generated operand: see reduce/operand.hpp
///   chooses_operands            true where that reads memory; left out, it does not
///   output<I>(part)             an output: see reduce/operand.hpp
///   row(part, row)              a functor with the constants of that row:
///       template <class V> result operator()(V const (&x)[operand_count]) const,
///                          result: element_result<V, sum_count, output_count, tally_count>
///   row_weight(part, row) -> double   times sum 0 of the row: the row's weighted loss
///   writes_samples()            whether the losses of samples are written, by
///   write_sample(part, row, value)    once for each row: its weighted loss, the parts of a row in
///                               order; then parts have as many rows each
///   finish_part(part, double const* totals)   once, the totals over all rows: the sums, the
///                               tallies, the number of non-finite elements
///   finish(value, bad)          once: the weighted losses of all rows, and the numbers of
///                               non-finite elements, added up. (A GPU leaves these five out of
///                               a pass without sums and tallies.)
/// For a GPU all of these are ADDLOSS_HOST_DEVICE; the host calls `parts`, `extent` and `operand`,
/// which read no tensor where noise is concerned.
///
/// Summation tree of the CPU (that of a GPU: cuda/row_runner.cuh, cuda/pass_kernel.cuh). Sums are
/// formed in double from blocks of `block_size` elements; inside a block in the arithmetic type, in
/// 16 lanes (element i belongs to lane i mod 16, four elements of a lane are added pairwise before
/// they join it). Blocks are added in order into segments of a row (about `segment_size` elements
/// each, at most `max_segments`), segments into the row, rows into at most `max_groups` groups,
/// groups into the total. The shape of the tree depends on the rows and their size alone, not on
/// threads or SIMD width. Tallies are counted in integers.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/config.hpp>
#include <addloss/core/math.hpp>

namespace addloss {

namespace detail {

inline constexpr int lane_count = 16;
inline constexpr int group_size = 4 * lane_count;  // also the unit of generated noise
inline constexpr std::int64_t block_size = 4096;
inline constexpr std::int64_t segment_size = 4 * block_size;  ///< at least, but for the last
inline constexpr std::int64_t max_segments = 16;
inline constexpr std::int64_t max_groups = 64;

/// Piece `index` of `count` nearly equal pieces of [0, size).
struct piece {
  std::int64_t first;
  std::int64_t last;
};

ADDLOSS_HOST_DEVICE constexpr piece split(std::int64_t size, std::int64_t count,
                                          std::int64_t index) {
  std::int64_t const base = size / count;
  std::int64_t const extra = size % count;
  std::int64_t const first = index * base + (index < extra ? index : extra);
  return {first, first + base + (index < extra ? 1 : 0)};
}

}  // namespace detail

/// Rows and elements of one part of a pass.
struct part_extent {
  std::int64_t rows;
  std::int64_t row_size;
};

namespace detail {

/// An array that may have length 0.
template <class T, unsigned Size>
struct array_or_none {  // NOLINT(bugprone-reserved-identifier): in the copy that the compiler makes
  T items[Size];
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE constexpr T& operator[](unsigned i) { return items[i]; }
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE constexpr T const& operator[](unsigned i) const {
    return items[i];
  }
};

template <class T>
struct array_or_none<T, 0> {};

}  // namespace detail

/// bool, or a mask of as many lanes as `V` has.
template <class V>
using mask_of = decltype(V() < V());

/// What a row functor makes of one element (or of one SIMD register of them).
template <class V, unsigned Sums, unsigned Outputs, unsigned Tallies = 0>
struct element_result {
  detail::array_or_none<V, Sums> sum;
  detail::array_or_none<V, Outputs> output;
  detail::array_or_none<mask_of<V>, Tallies> tally;
};

template <class P>
concept fused_pass = std::is_trivially_copyable_v<P> && requires(P const p, double const* totals) {
  typename P::arithmetic;
  { P::operand_count } -> std::convertible_to<unsigned>;
  { P::output_count } -> std::convertible_to<unsigned>;
  { P::sum_count } -> std::convertible_to<unsigned>;
  { P::tally_count } -> std::convertible_to<unsigned>;
  { p.parts() } -> std::same_as<int>;
  { p.extent(0) } -> std::same_as<part_extent>;
  p.row(0, std::int64_t{});
  { P::max_parts } -> std::convertible_to<unsigned>;
  { P::total_count } -> std::convertible_to<unsigned>;
  { p.row_weight(0, std::int64_t{}) } -> std::same_as<double>;
  { p.writes_samples() } -> std::same_as<bool>;
  p.write_sample(0, std::int64_t{}, 0.0);
  p.finish_part(0, totals);
  p.finish(0.0, 0.0);
};

}  // namespace addloss
