// SPDX-License-Identifier: MIT
/// The inner loop of a pass on the CPU: consecutive blocks of one row.
///
/// Keyed on the element functor and on the storage types alone. Losses that differ in weighting,
/// schedule or reduction share it, so a program with many of them compiles it once. Pointers and
/// the functor are taken by value: a store through a pointer then cannot alias them, and they stay
/// in registers.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>

#include <addloss/core/simd.hpp>
#include <addloss/cpu/normal_noise.hpp>
#include <addloss/cpu/storage.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// One row of an operand: where the elements of a group can be read from.
template <class T>
struct stored_row {
  T const* data;
  ADDLOSS_INLINE T const* group(std::int64_t index, float* /*buffer*/) const {
    return data + index * group_size;
  }
};

template <class T>
ADDLOSS_INLINE stored_row<T> row_of(stored<T> const& operand, std::int64_t row) {
  return {operand.data + row * operand.row_stride};
}

struct generated_row {
  random_key key;
  std::uint32_t sample;
  ADDLOSS_INLINE float const* group(std::int64_t index, float* buffer) const {
    fill_normals(key, sample, index, buffer);
    return buffer;
  }
};

inline generated_row row_of(generated_operand const& operand, std::int64_t row) {
  return {operand.current_key(), static_cast<std::uint32_t>(row)};
}

enum class store_kind : unsigned char { none, overwrite, add, stream };

/// Totals over elements: the sums, then the tallies, then the number of non-finite elements.
template <unsigned Count>
struct element_totals {
  double value[Count];
  ADDLOSS_INLINE void add(element_totals const& other) {
    for (unsigned i = 0; i < Count; ++i) value[i] += other.value[i];
  }
};

/// `Element` on rows of one segment. `A`: arithmetic type; `Out`: storage type of all outputs.
template <class Element, class A, unsigned Sums, unsigned Tallies, class Out, unsigned Outputs>
struct block_runner {
  using pack = native_pack<A>;
  using totals = element_totals<Sums + Tallies + 1>;
  using output = array_or_none<Out*, Outputs>;
  using result_type = element_result<pack, Sums, Outputs, Tallies>;
  static constexpr int width = pack::width;
  static constexpr auto lanes_of_pack = static_cast<unsigned>(width);
  static constexpr unsigned steps = static_cast<unsigned>(lane_count / width);

  /// What the lanes of the summation tree hold, in registers.
  struct accumulators {
    array_or_none<pack[steps], Sums> sum;
    array_or_none<typename pack::integers[steps], Tallies> tally;
  };

  /// Elements [first, last) of a row; `first` is a multiple of the block size.
  template <store_kind Store, class... Rows>
  [[gnu::noinline]] static totals run(Element const element, output const out, std::int64_t first,
                                      std::int64_t last, Rows const... rows) {
    totals result{};
    for (std::int64_t block = first; block < last; block += block_size) {
      std::int64_t const end = at_most(block + block_size, last);
      totals const sums = run_block<Store>(element, out, block, end, rows...);
      result.add(sums);
    }
    if constexpr (Store == store_kind::stream) finish_streaming();
    return result;
  }

 private:
  template <store_kind Store, class... Rows>
  static ADDLOSS_INLINE totals run_block(Element const& element, output const& out,
                                         std::int64_t first, std::int64_t last,
                                         Rows const&... rows) {
    accumulators lanes{};
    alignas(64) float noise[group_size];
    std::int64_t const full = last / group_size;
    for (std::int64_t group = first / group_size; group < full; ++group) {
      run_group<Store>(element, out, group * group_size, lanes, rows.group(group, noise)...);
    }
    if (full * group_size < last) {
      lanes =
          run_tail<Store>(element, out, full * group_size, last, lanes, rows.group(full, noise)...);
    }
    totals result{};
    if constexpr (Sums > 0) {
      bool finite = true;
      for (unsigned i = 0; i < Sums; ++i) {
        result.value[i] = sum_lanes<double, A>(&lanes.sum[i]);
        finite = finite && math::is_finite(result.value[i]);
      }
      // A non-finite element leaves a non-finite sum, so nothing is counted where all is well.
      if (!finite) [[unlikely]] {
        result.value[Sums + Tallies] = count_non_finite(element, first, last, rows...);
      }
    }
    if constexpr (Tallies > 0) {
      for (unsigned i = 0; i < Tallies; ++i) {
        using integer = integer_like_t<A>;
        result.value[Sums + i] = static_cast<double>(sum_lanes<integer, integer>(&lanes.tally[i]));
      }
    }
    return result;
  }

  template <store_kind Store, class... Elements>
  static ADDLOSS_INLINE void run_group(Element const& element, output const& out,
                                       std::int64_t first, accumulators& lanes,
                                       Elements const*... from) {
    ADDLOSS_UNROLL(8)
    for (unsigned step = 0; step < steps; ++step) {
      result_type result[4];
      ADDLOSS_UNROLL(4)
      for (int quarter = 0; quarter < 4; ++quarter) {
        int const offset = quarter * lane_count + static_cast<int>(step) * width;
        pack const operand[] = {load_pack<pack>(from + offset)...};
        result[quarter] = element(operand);
      }
      // After the loads: one that follows a store to the same place of another page waits for it.
      if constexpr (Store != store_kind::none) {
        ADDLOSS_UNROLL(4)
        for (int quarter = 0; quarter < 4; ++quarter) {
          int const offset = quarter * lane_count + static_cast<int>(step) * width;
          ADDLOSS_UNROLL(2)
          for (unsigned i = 0; i < Outputs; ++i) {
            store<Store>(out[i] + first + offset, result[quarter].output[i]);
          }
        }
      }
      if constexpr (Sums > 0) {
        ADDLOSS_UNROLL(8)
        for (unsigned i = 0; i < Sums; ++i) {
          lanes.sum[i][step] +=
              (result[0].sum[i] + result[1].sum[i]) + (result[2].sum[i] + result[3].sum[i]);
        }
      }
      if constexpr (Tallies > 0) {
        ADDLOSS_UNROLL(8)
        for (unsigned i = 0; i < Tallies; ++i) {
          ADDLOSS_UNROLL(4)
          for (auto const& quarter : result) count_true(lanes.tally[i][step], quarter.tally[i]);
        }
      }
    }
  }

  template <store_kind Store>
  static ADDLOSS_INLINE void store(Out* to, pack value) {
    if constexpr (Store == store_kind::stream && std::same_as<Out, A>) {
      store_streaming(to, value);
    } else {
      if constexpr (Store == store_kind::add) value += load_pack<pack>(to);
      store_pack(to, value);
    }
  }

  /// The last, incomplete group of a row, read through zero-padded registers; the padding is kept
  /// out of the totals.
  template <store_kind Store, class... Elements>
  static ADDLOSS_INLINE accumulators run_tail(Element const& element, output const& out,
                                              std::int64_t first, std::int64_t last,
                                              accumulators lanes, Elements const*... from) {
    for (int offset = 0; offset < static_cast<int>(last - first); offset += width) {
      auto const count = static_cast<int>(at_most(last - first - offset, width));
      auto const step = static_cast<unsigned>(offset % lane_count / width);
      pack const operand[] = {load_padded(from + offset, count)...};
      auto const result = element(operand);
      if constexpr (Store != store_kind::none) {
        for (unsigned i = 0; i < Outputs; ++i) {
          store_padded<Store>(out[i] + first + offset, result.output[i], count);
        }
      }
      auto const inside = pack::iota() < pack(count);
      if constexpr (Sums > 0) {
        for (unsigned i = 0; i < Sums; ++i) {
          lanes.sum[i][step] += select(inside, result.sum[i], pack(0));
        }
      }
      if constexpr (Tallies > 0) {
        for (unsigned i = 0; i < Tallies; ++i) {
          count_true(lanes.tally[i][step], result.tally[i] & inside);
        }
      }
    }
    return lanes;
  }

  template <class T>
  static ADDLOSS_INLINE pack load_padded(T const* from, int count) {
    if (count == width) return load_pack<pack>(from);
    A padded[lanes_of_pack] = {};
    for (int lane = 0; lane < count; ++lane) padded[lane] = widen<A>(from[lane]);
    return pack::load(padded);
  }

  template <store_kind Store>
  static ADDLOSS_INLINE void store_padded(Out* to, pack value, int count) {
    A elements[lanes_of_pack];
    value.store(elements);
    for (int lane = 0; lane < count; ++lane) {
      if constexpr (Store == store_kind::add) elements[lane] += widen<A>(to[lane]);
      to[lane] = narrow<Out>(elements[lane]);
    }
  }

  /// Sums the 16 lanes that begin at `from`, which hold numbers of type `T`, in `Sum`: lane i and
  /// lane i + 8 first, then i + 4, i + 2, i + 1.
  template <class Sum, class T>
  static ADDLOSS_INLINE Sum sum_lanes(void const* from) {
    typedef T eight __attribute__((vector_size(8 * sizeof(T))));
    typedef Sum eight_sums __attribute__((vector_size(8 * sizeof(Sum))));
    typedef Sum four_sums __attribute__((vector_size(4 * sizeof(Sum))));
    typedef Sum two_sums __attribute__((vector_size(2 * sizeof(Sum))));
    eight halves[2];
    std::memcpy(halves, from, sizeof halves);
    eight_sums const sum = __builtin_convertvector(halves[0], eight_sums) +
                           __builtin_convertvector(halves[1], eight_sums);
    four_sums fours[2];
    std::memcpy(fours, &sum, sizeof fours);
    four_sums const four = fours[0] + fours[1];
    two_sums twos[2];
    std::memcpy(twos, &four, sizeof twos);
    two_sums const two = twos[0] + twos[1];
    return two[0] + two[1];
  }

  /// Elements whose first operand, or one of whose sums, is infinite or NaN.
  template <class... Rows>
  [[gnu::noinline, gnu::cold]] static double count_non_finite(Element const& element,
                                                              std::int64_t first, std::int64_t last,
                                                              Rows const&... rows) {
    float noise[group_size];
    std::int64_t count = 0;
    for (std::int64_t group = first / group_size; group * group_size < last; ++group) {
      auto const size = static_cast<int>(at_most(last - group * group_size, group_size));
      count += count_group(element, size, rows.group(group, noise)...);
    }
    return static_cast<double>(count);
  }

  template <class... Elements>
  static std::int64_t count_group(Element const& element, int size, Elements const*... from) {
    std::int64_t count = 0;
    for (int i = 0; i < size; ++i) {
      A const operand[] = {widen<A>(from[i])...};
      auto const result = element(operand);
      bool finite = math::is_finite(operand[0]);
      for (unsigned s = 0; s < Sums; ++s) finite = finite && math::is_finite(result.sum[s]);
      count += finite ? 0 : 1;
    }
    return count;
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
