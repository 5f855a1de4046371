// SPDX-License-Identifier: MIT
/// Runs a pass (reduce/pass.hpp) on the CPU: SIMD within a row, threads over rows and segments.
///
/// Allocates nothing: partial sums lie on the stack, in a table whose size the summation tree
/// bounds. With OpenMP, work is shared out where a part has at least `parallel_elements` elements;
/// who computes a partial sum does not change it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/cpu/block.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>

namespace addloss {
namespace detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

/// All parts of a pass; the outputs of a part are stored in one way.
template <class Pass>
struct pass_runner {
  static constexpr unsigned operands = Pass::operand_count;
  static constexpr unsigned outputs = Pass::output_count;
  static constexpr unsigned sums = Pass::sum_count;
  static constexpr unsigned tallies = Pass::tally_count;
  using totals = element_totals<Pass::total_count>;

  Pass const& pass;
  cpu_context const& context;

  void run() const {
    double value = 0;
    double bad = 0;
    for (int part = 0; part < pass.parts(); ++part) {
      double value_of_part = 0;
      totals const result = run_part(part, value_of_part);
      pass.finish_part(part, result.value);
      value += value_of_part;
      bad += result.value[Pass::total_count - 1];
    }
    pass.finish(value, bad);
  }

 private:
  totals run_part(int part, double& value) const {
    auto const [row_count, row_size] = pass.extent(part);
    std::int64_t const segments =
        at_most((row_size + segment_size - 1) / segment_size, max_segments);
    std::int64_t const groups = at_most(row_count, max_groups);
    // Few rows: segments are shared out. Many rows: whole groups of rows.
    bool const few = row_count <= max_groups;
    std::int64_t const tasks = few ? row_count * segments : groups;
    task_runner const task{*this, part, store_of(part), few, segments, groups};
    totals partial[max_groups * max_segments];
    double group_value[max_groups];
    each_task(context, tasks, row_count * row_size,
              [&](std::int64_t i) { task.run(i, partial, group_value); });
    totals result{};
    value = 0;
    for (std::int64_t group = 0; group < groups; ++group) {
      if (few) group_value[group] = close_row(part, group, segments, partial + group * segments);
      result.add(partial[few ? group * segments : group]);
      value += group_value[group];
    }
    return result;
  }

  /// A piece of a part that one thread computes: a segment of a row, or a group of rows.
  struct task_runner {
    pass_runner const& runner;
    int part;
    store_kind store;
    bool few;
    std::int64_t segments;
    std::int64_t groups;

    void run(std::int64_t task, totals* partial, double* group_value) const {
      if (few) {
        partial[task] = runner.run_segment(part, store, task / segments, segments, task % segments);
        return;
      }
      auto const [first, last] = split(runner.pass.extent(part).rows, groups, task);
      totals group{};
      double value = 0;
      for (std::int64_t row = first; row < last; ++row) {
        totals segment[max_segments];
        segment[0] = runner.run_segment(part, store, row, segments, 0);
        for (std::int64_t i = 1; i < segments; ++i) {
          segment[i] = runner.run_segment(part, store, row, segments, i);
        }
        value += runner.close_row(part, row, segments, segment);
        group.add(segment[0]);
      }
      partial[task] = group;
      group_value[task] = value;
    }
  };

  /// Adds up the segments of a row, into the first of them, and gives the row's weighted loss.
  double close_row(int part, std::int64_t row, std::int64_t segments, totals* segment) const {
    for (std::int64_t i = 1; i < segments; ++i) segment[0].add(segment[i]);
    double const value = pass.row_weight(part, row) * segment[0].value[0];
    if (pass.writes_samples()) pass.write_sample(part, row, value);
    return value;
  }

  totals run_segment(int part, store_kind store, std::int64_t row, std::int64_t segments,
                     std::int64_t segment) const {
    std::int64_t const size = pass.extent(part).row_size;
    if (segments == 1) return with_operands(part, row, store, 0, size);
    auto const [first, last] = split((size + block_size - 1) / block_size, segments, segment);
    return with_operands(part, row, store, first * block_size, at_most(last * block_size, size));
  }

  /// Runs the blocks of a segment with a row of each operand, generated ones as their own type.
  template <unsigned Index = 0, class... Rows>
  totals with_operands(int part, std::int64_t row, store_kind store, std::int64_t first,
                       std::int64_t last, Rows const&... rows) const {
    if constexpr (Index == operands) {
      return run_blocks(part, row, store, first, last, rows...);
    } else {
      auto const operand = pass.template operand<static_cast<int>(Index)>(part, row);
      auto const with = [&](auto const& next) {
        return with_operands<Index + 1>(part, row, store, first, last, rows..., next);
      };
      if constexpr (requires { operand.generated; }) {
        if (operand.generated) return with(row_of(operand.noise, row));
        return with(row_of(operand.rows, row));
      } else {
        return with(row_of(operand, row));
      }
    }
  }

  template <class... Rows>
  totals run_blocks(int part, std::int64_t row, store_kind store, std::int64_t first,
                    std::int64_t last, Rows const&... rows) const {
    auto const element = pass.row(part, row);
    auto const out = outputs_of(part, row);
    if constexpr (outputs > 0 && sums > 0) {
      if (store != store_kind::none && (is_output(out, rows) || ...)) {
        // Counting non-finite elements reads a block again: before it is written over.
        totals result{};
        for (std::int64_t block = first; block < last; block += block_size) {
          std::int64_t const end = at_most(block + block_size, last);
          result.add(run_kind(element, out, store_kind::none, block, end, rows...));
          run_kind(element, out, store, block, end, rows...);
        }
        return result;
      }
    }
    return run_kind(element, out, store, first, last, rows...);
  }

  template <class Element, class Outputs, class... Rows>
  static totals run_kind(Element const& element, Outputs const& out, store_kind store,
                         std::int64_t first, std::int64_t last, Rows const&... rows) {
    using blocks =
        block_runner<Element, typename Pass::arithmetic, sums, tallies, output_type, outputs>;
    if constexpr (outputs > 0) {
      switch (store) {
        case store_kind::overwrite:
          return blocks::template run<store_kind::overwrite>(element, out, first, last, rows...);
        case store_kind::add:
          return blocks::template run<store_kind::add>(element, out, first, last, rows...);
        case store_kind::stream:
          return blocks::template run<store_kind::stream>(element, out, first, last, rows...);
        case store_kind::none: break;
      }
    }
    return blocks::template run<store_kind::none>(element, out, first, last, rows...);
  }

  template <class Outputs, class T>
  static bool is_output(Outputs const& out, stored_row<T> const& row) {
    bool result = false;
    for (unsigned i = 0; i < outputs; ++i) {
      result = result || static_cast<void const*>(out[i]) == static_cast<void const*>(row.data);
    }
    return result;
  }
  template <class Outputs>
  static bool is_output(Outputs const& /*out*/, generated_row const& /*row*/) {
    return false;
  }

  static auto output_element() {
    if constexpr (outputs > 0) {
      using output = decltype(std::declval<Pass>().template output<0>(0));
      return std::remove_pointer_t<decltype(std::remove_cvref_t<output>::data)>{};
    } else {
      return typename Pass::arithmetic{};
    }
  }
  using output_type = decltype(output_element());

  [[nodiscard]] auto outputs_of(int part, std::int64_t row) const {
    array_or_none<output_type*, outputs> result{};
    if constexpr (outputs > 0) {
      [&]<std::size_t... N>(std::index_sequence<N...>) {
        ((result[N] = place(pass.template output<static_cast<int>(N)>(part), row)), ...);
      }(std::make_index_sequence<outputs>{});
    }
    return result;
  }

  template <class T>
  static T* place(output_rows<T> const& output, std::int64_t row) {
    return output.data + row * output.row_stride;
  }

  [[nodiscard]] store_kind store_of(int part) const {
    if constexpr (outputs == 0) {
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
    return [&]<std::size_t... N>(std::index_sequence<N...>) {
      return (streams(pass.template output<static_cast<int>(N)>(part), size) && ...);
    }(std::make_index_sequence<outputs>{});
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
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace detail

template <>
struct executor<cpu_context> {
  template <fused_pass Pass>
  static void check(cpu_context const& context, Pass const& /*pass*/) {
    if (context.threads < 1) {
      detail::fail("cpu_context", "threads", detail::text() << "at least 1",
                   detail::text() << context.threads);
    }
  }
  template <fused_pass Pass>
  static void run(cpu_context const& context, Pass const& pass) {
    check(context, pass);
    detail::pass_runner<Pass>{pass, context}.run();
  }
};

}  // namespace addloss
