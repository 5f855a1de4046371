// SPDX-License-Identifier: MIT
/// Runs a pass (reduce/pass.hpp) on the CPU: SIMD within a row, threads over rows and segments.
///
/// Allocates nothing: partial sums lie on the stack, in a table whose size the summation tree
/// bounds. With OpenMP, work is shared out where a part has at least `parallel_elements` elements;
/// who computes a partial sum does not change it.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include <addloss/core/context.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/cpu/normal_noise.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss {
namespace detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// Below this a second thread costs more (about 2 us to wake it) than it saves.
inline constexpr std::int64_t parallel_elements = 1 << 15;

template <class V, class T>
ADDLOSS_INLINE V load_pack(T const* from) {
  using value_type = typename V::value_type;
  if constexpr (std::same_as<T, value_type>) {
    return V::load(from);
  } else {
    V result;
    for (int lane = 0; lane < V::width; ++lane) {
      result.lanes[lane] = static_cast<value_type>(from[lane]);
    }
    return result;
  }
}

/// The next storage type on the way from arithmetic to storage: half types convert from float.
template <class T, class A>
ADDLOSS_INLINE T narrow(A x) {
  if constexpr (arithmetic_scalar<T>) {
    return static_cast<T>(x);
  } else {
    return T(static_cast<float>(x));
  }
}

template <class V, class T>
ADDLOSS_INLINE void store_pack(T* to, V pack) {
  if constexpr (std::same_as<T, typename V::value_type>) {
    pack.store(to);
  } else {
    for (int lane = 0; lane < V::width; ++lane) to[lane] = narrow<T>(pack.lanes[lane]);
  }
}

/// `to` must be aligned to the register.
template <class V>
ADDLOSS_INLINE void store_streaming(typename V::value_type* to, V pack) {
#if defined(__clang__)
  using vector = typename V::vector;
  __builtin_nontemporal_store(pack.lanes, reinterpret_cast<vector*>(to));
#elif defined(__SSE2__) && ADDLOSS_SIMD_BYTES == 16
  if constexpr (sizeof(pack.lanes[0]) == 4) __builtin_ia32_movntps(to, pack.lanes);
  else __builtin_ia32_movntpd(to, pack.lanes);
#elif ADDLOSS_SIMD_BYTES == 32
  if constexpr (sizeof(pack.lanes[0]) == 4) __builtin_ia32_movntps256(to, pack.lanes);
  else __builtin_ia32_movntpd256(to, pack.lanes);
#elif ADDLOSS_SIMD_BYTES == 64
  if constexpr (sizeof(pack.lanes[0]) == 4) __builtin_ia32_movntps512(to, pack.lanes);
  else __builtin_ia32_movntpd512(to, pack.lanes);
#else
  pack.store(to);
#endif
}

/// Streaming stores are weakly ordered: other threads see them after a fence only.
ADDLOSS_INLINE void finish_streaming() {
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

/// One row of an operand: where 64 elements can be read from.
template <class T>
struct stored_row {
  T const* data;
  static constexpr bool generates = false;
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

enum class store_kind : unsigned char { none, overwrite, add, stream };

/// What one block of a row needs, gathered so that the inner loop sees plain pointers.
template <class Pass>
struct row_runner {
  using arithmetic = typename Pass::arithmetic;
  using pack = native_pack<arithmetic>;
  static constexpr int width = pack::width;
  static constexpr unsigned operands = Pass::operand_count;
  static constexpr unsigned outputs = Pass::output_count;
  static constexpr unsigned sums = Pass::sum_count;
  static constexpr unsigned steps = static_cast<unsigned>(lane_count / width);
  static constexpr unsigned result_sums = sums == 0 ? 1 : sums;  // no arrays of length 0

  /// Sums of the elements of one block, the count of non-finite ones last.
  struct totals {
    double value[sums + 1];
    ADDLOSS_INLINE void add(totals const& other) {
      for (unsigned i = 0; i <= sums; ++i) value[i] += other.value[i];
    }
  };

  Pass const& pass;
  int part;
  std::int64_t row;

  /// Elements [first, last) of the row; `first` is a multiple of the block size.
  template <store_kind Store>
  totals run(std::int64_t first, std::int64_t last) const {
    auto const element = pass.row(part, row);
    totals result{};
    with_operands([&](auto const&... rows) {
      for (std::int64_t block = first; block < last; block += block_size) {
        result.add(run_block<Store>(element, block, at_most(block + block_size, last), rows...));
      }
    });
    return result;
  }

 private:
  /// Calls `use` with a row of each operand, generated ones as their own type.
  template <class Use, unsigned Index = 0, class... Rows>
  ADDLOSS_INLINE void with_operands(Use const& use, Rows const&... rows) const {
    if constexpr (Index == operands) {
      use(rows...);
    } else {
      auto const operand = pass.template operand<static_cast<int>(Index)>(part, row);
      if constexpr (requires { operand.generated; }) {
        if (operand.generated) {
          with_operands<Use, Index + 1>(
              use, rows..., generated_row{operand.key, static_cast<std::uint32_t>(row)});
        } else {
          with_operands<Use, Index + 1>(use, rows..., row_of(operand.rows, row));
        }
      } else {
        with_operands<Use, Index + 1>(use, rows..., row_of(operand, row));
      }
    }
  }

  template <store_kind Store, class Element, class... Rows>
  ADDLOSS_INLINE totals run_block(Element const& element, std::int64_t first, std::int64_t last,
                                  Rows const&... rows) const {
    pack lanes[result_sums][steps];
    for (auto& sum : lanes) {
      for (auto& lane : sum) lane = pack(0);
    }
    std::int64_t const groups = first / group_size;
    std::int64_t const full = last / group_size;
    for (std::int64_t group = groups; group < full; ++group) {
      run_group<Store, false>(element, group, group_size, lanes, rows...);
    }
    if (full * group_size < last) {
      run_group<Store, true>(element, full, static_cast<int>(last - full * group_size), lanes,
                             rows...);
    }
    totals result{};
    bool finite = true;
    for (unsigned i = 0; i < sums; ++i) {
      result.value[i] = sum_lanes(lanes[i]);
      finite = finite && math::is_finite(result.value[i]);
    }
    // A non-finite element leaves a non-finite sum, so nothing is counted where all is well.
    if constexpr (sums > 0) {
      if (!finite) [[unlikely]] {
        result.value[sums] = count_non_finite(element, first, last, rows...);
      }
    }
    return result;
  }

  static ADDLOSS_INLINE double sum_lanes(pack const (&sum)[steps]) {
    arithmetic narrow_lanes[lane_count];
    for (unsigned step = 0; step < steps; ++step) {
      sum[step].store(narrow_lanes + static_cast<int>(step) * width);
    }
    double wide[lane_count];
    for (int lane = 0; lane < lane_count; ++lane) wide[lane] = narrow_lanes[lane];
    for (int half = lane_count / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) wide[lane] += wide[lane + half];
    }
    return wide[0];
  }

  /// One group of 64 elements; `count` < 64 only in the last group of a row, which is read through
  /// zero-padded copies and whose padding is kept out of the sums.
  template <store_kind Store, bool Tail, class Element, class... Rows>
  ADDLOSS_INLINE void run_group(Element const& element, std::int64_t group, int count,
                                pack (&lanes)[result_sums][steps], Rows const&... rows) const {
    alignas(64) float noise[group_size];
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      if constexpr (Tail) {
        run_padded<Store>(std::index_sequence<I...>{}, element, group, count, lanes,
                          padded(rows, group, count, noise)...);
      } else {
        run_steps<Store, false>(std::index_sequence<I...>{}, element, group, count, lanes,
                                rows.group(group, noise)...);
      }
    }(std::make_index_sequence<outputs>{});
  }

  template <class T>
  struct padded_group {
    T data[group_size];
  };

  template <class Row>
  static ADDLOSS_INLINE auto padded(Row const& source, std::int64_t group, int count,
                                    float* noise) {
    auto const* const data = source.group(group, noise);
    padded_group<std::remove_cvref_t<decltype(*data)>> copy{};
    for (int i = 0; i < count; ++i) copy.data[i] = data[i];
    return copy;
  }

  template <store_kind Store, std::size_t... I, class Element, class... Groups>
  ADDLOSS_INLINE void run_padded(std::index_sequence<I...> indices, Element const& element,
                                 std::int64_t group, int count,
                                 pack (&lanes)[result_sums][steps],
                                 Groups const&... groups) const {
    run_steps<Store, true>(indices, element, group, count, lanes, groups.data...);
  }

  template <store_kind Store, bool Tail, std::size_t... I, class Element, class... Pointers>
  ADDLOSS_INLINE void run_steps(std::index_sequence<I...>, Element const& element,
                                std::int64_t group, int count, pack (&lanes)[result_sums][steps],
                                Pointers const*... pointers) const {
    constexpr unsigned output_slots = outputs == 0 ? 1 : outputs;
    arithmetic spill[output_slots][Tail ? group_size : 1];
#pragma GCC unroll 8
    for (unsigned step = 0; step < steps; ++step) {
      element_result<pack, sums, outputs> result[4];
#pragma GCC unroll 4
      for (int quarter = 0; quarter < 4; ++quarter) {
        int const offset = quarter * lane_count + static_cast<int>(step) * width;
        pack const operand[] = {load_pack<pack>(pointers + offset)...};
        result[quarter] = element(operand);
        if constexpr (Store != store_kind::none && Tail) {
          (result[quarter].output[I].store(spill[I] + offset), ...);
        } else if constexpr (Store != store_kind::none) {
          (store<Store>(place<I>(group) + offset, result[quarter].output[I]), ...);
        }
        if constexpr (Tail && sums > 0) {
          auto const inside = pack::iota() + pack(offset) < pack(count);
          for (auto& sum : result[quarter].sum) sum = select(inside, sum, pack(0));
        }
      }
      if constexpr (sums > 0) {
#pragma GCC unroll 8
        for (unsigned i = 0; i < sums; ++i) {
          lanes[i][step] += (result[0].sum[i] + result[1].sum[i]) +
                            (result[2].sum[i] + result[3].sum[i]);
        }
      }
    }
    if constexpr (Store != store_kind::none && Tail) {
      (store_tail<Store>(place<I>(group), spill[I], count), ...);
    }
  }

  template <std::size_t I>
  ADDLOSS_INLINE auto* place(std::int64_t group) const {
    auto const& output = pass.template output<static_cast<int>(I)>(part);
    return output.data + row * output.row_stride + group * group_size;
  }

  template <store_kind Store, class T>
  static ADDLOSS_INLINE void store(T* to, pack value) {
    if constexpr (Store == store_kind::stream && std::same_as<T, arithmetic>) {
      store_streaming(to, value);
    } else {
      if constexpr (Store == store_kind::add) value += load_pack<pack>(to);
      store_pack(to, value);
    }
  }

  template <store_kind Store, class T>
  static ADDLOSS_INLINE void store_tail(T* to, arithmetic const* from, int count) {
    for (int i = 0; i < count; ++i) {
      arithmetic value = from[i];
      if constexpr (Store == store_kind::add) value += static_cast<arithmetic>(to[i]);
      to[i] = narrow<T>(value);
    }
  }

  /// Elements whose first operand, or whose loss, is infinite or NaN.
  template <class Element, class... Rows>
  [[gnu::noinline]] double count_non_finite(Element const& element, std::int64_t first,
                                            std::int64_t last, Rows const&... rows) const {
    std::int64_t count = 0;
    float noise[group_size];
    for (std::int64_t group = first / group_size; group * group_size < last; ++group) {
      auto const size = static_cast<int>(at_most(last - group * group_size, group_size));
      [&](auto const&... copies) {
        for (int i = 0; i < size; ++i) {
          arithmetic const operand[] = {static_cast<arithmetic>(copies.data[i])...};
          bool const finite =
              math::is_finite(operand[0]) && math::is_finite(element(operand).sum[0]);
          count += finite ? 0 : 1;
        }
      }(padded(rows, group, size, noise)...);
    }
    return static_cast<double>(count);
  }
};

/// All parts of a pass; the outputs of a part are stored in one way.
template <class Pass>
struct pass_runner {
  using runner = row_runner<Pass>;
  using totals = typename runner::totals;

  Pass const& pass;
  cpu_context const& context;

  void run() const {
    constexpr unsigned sums = Pass::sum_count;
    double all[Pass::max_parts][sums + 1];
    double values[Pass::max_parts];
    for (int part = 0; part < pass.parts(); ++part) {
      totals const sum = run_part(part, values[part]);
      for (unsigned i = 0; i <= sums; ++i) all[part][i] = sum.value[i];
    }
    pass.finish(&all[0][0], values);
  }

 private:
  totals run_part(int part, double& value) const {
    store_kind const kind = kind_of(part);
    switch (kind) {
      case store_kind::overwrite: return run_rows<store_kind::overwrite>(part, value);
      case store_kind::add: return run_rows<store_kind::add>(part, value);
      case store_kind::stream: return run_rows<store_kind::stream>(part, value);
      default: return run_rows<store_kind::none>(part, value);
    }
  }

  [[nodiscard]] store_kind kind_of(int part) const {
    if constexpr (Pass::output_count == 0) {
      return store_kind::none;
    } else {
      auto const& output = pass.template output<0>(part);
      if (output.mode == store_mode::none) return store_kind::none;
      if (output.mode == store_mode::add) return store_kind::add;
      return streams(part) ? store_kind::stream : store_kind::overwrite;
    }
  }

  /// Streaming stores need every register's place aligned, and pay for large outputs only.
  [[nodiscard]] bool streams(int part) const {
    part_extent const size = pass.extent(part);
    bool result = true;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((result = result && streams(pass.template output<static_cast<int>(I)>(part), size)), ...);
    }(std::make_index_sequence<Pass::output_count>{});
    return result;
  }

  template <class T>
  [[nodiscard]] bool streams(output_rows<T> const& output, part_extent size) const {
    constexpr std::uintptr_t mask = ADDLOSS_SIMD_BYTES - 1;
    return (reinterpret_cast<std::uintptr_t>(output.data) & mask) == 0 &&
           ((static_cast<std::uintptr_t>(output.row_stride) * sizeof(T)) & mask) == 0 &&
           static_cast<std::size_t>(size.rows) * static_cast<std::size_t>(size.row_size) *
                   sizeof(T) >=
               context.streaming_bytes;
  }

  template <store_kind Store>
  totals run_segment(int part, std::int64_t row, std::int64_t segments,
                     std::int64_t segment) const {
    std::int64_t const size = pass.extent(part).row_size;
    auto const [first, last] =
        split((size + block_size - 1) / block_size, segments, segment);
    totals const result = runner{pass, part, row}.template run<Store>(
        first * block_size, at_most(last * block_size, size));
    if constexpr (Store == store_kind::stream) finish_streaming();
    return result;
  }

  template <store_kind Store>
  totals run_rows(int part, double& value) const {
    auto const [row_count, row_size] = pass.extent(part);
    std::int64_t const segments = at_most((row_size + block_size - 1) / block_size, max_segments);
    std::int64_t const groups = at_most(row_count, max_groups);
    // Few rows: segments are shared out. Many rows: whole groups of rows.
    bool const few = row_count <= max_groups;
    std::int64_t const tasks = few ? row_count * segments : groups;
    totals partial[max_groups * max_segments];
    double group_value[max_groups];
    [[maybe_unused]] int const threads =
        row_count * row_size >= parallel_elements && context.threads > 1 ? context.threads : 1;
    if (threads == 1) {
      for (std::int64_t task = 0; task < tasks; ++task) {
        run_task<Store>(part, few, segments, groups, task, partial, group_value);
      }
    } else {
#if defined(_OPENMP)
#pragma omp parallel for schedule(static) num_threads(threads)
#endif
      for (std::int64_t task = 0; task < tasks; ++task) {
        run_task<Store>(part, few, segments, groups, task, partial, group_value);
      }
    }
    totals result{};
    value = 0;
    for (std::int64_t group = 0; group < groups; ++group) {
      if (few) group_value[group] = close_row(part, group, segments, partial + group * segments);
      result.add(partial[few ? group * segments : group]);
      value += group_value[group];
    }
    return result;
  }

  template <store_kind Store>
  void run_task(int part, bool few, std::int64_t segments, std::int64_t groups, std::int64_t task,
                totals* partial, double* group_value) const {
    if (few) {
      partial[task] = run_segment<Store>(part, task / segments, segments, task % segments);
      return;
    }
    auto const [first, last] = split(pass.extent(part).rows, groups, task);
    totals group{};
    double value = 0;
    for (std::int64_t row = first; row < last; ++row) {
      totals segment[max_segments];
      segment[0] = run_segment<Store>(part, row, segments, 0);
      for (std::int64_t i = 1; i < segments; ++i) {
        segment[i] = run_segment<Store>(part, row, segments, i);
      }
      value += close_row(part, row, segments, segment);
      group.add(segment[0]);
    }
    partial[task] = group;
    group_value[task] = value;
  }

  /// Adds up the segments of a row, into the first of them, and gives the row's weighted loss.
  double close_row(int part, std::int64_t row, std::int64_t segments, totals* segment) const {
    for (std::int64_t i = 1; i < segments; ++i) segment[0].add(segment[i]);
    return pass.finish_row(part, row, segment[0].value);
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace detail

template <>
struct executor<cpu_context> {
  template <fused_pass Pass>
  static void run(cpu_context const& context, Pass const& pass) {
    if (context.threads < 1) {
      detail::fail("cpu_context", "threads", detail::text() << "at least 1",
                   detail::text() << context.threads);
    }
    detail::pass_runner<Pass>{pass, context}.run();
  }
};

}  // namespace addloss
