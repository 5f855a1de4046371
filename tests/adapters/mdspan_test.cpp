// SPDX-License-Identifier: MIT
#include <addloss/adapters/mdspan.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include <addloss/core/rows.hpp>
#include <addloss/testing/conformance.hpp>

#include "catch.hpp"

namespace {

using addloss::as_view;
using addloss::device_space;
using addloss::host_space;
using addloss::tensor_like;
using addloss::tensor_view;
using addloss::view_of;
using addloss::testing::adapted;
using addloss::testing::check_view;

/// Accessors: of the CPU's memory, of a GPU's, and one that says nothing.
struct plain {};
struct on_gpu {};
struct silent {};

/// The members of std::mdspan that count here. g++ 12 and clang 14 have none.
template <class T, std::size_t Rank, class Reference = T&, bool Strided = true,
          class Accessor = plain>
struct span_of_extents {
  using accessor_type = Accessor;
  using element_type = T;
  using data_handle_type = T*;
  using reference = Reference;
  using rank_type = std::size_t;
  using index_type = int;

  static constexpr rank_type rank() { return Rank; }
  static constexpr bool is_always_strided() { return Strided; }
  [[nodiscard]] T* data_handle() const { return data; }
  [[nodiscard]] index_type extent(rank_type axis) const { return extents[axis]; }
  [[nodiscard]] index_type stride(rank_type axis) const {
    static_assert(Rank > 0, "std::mdspan has no strides then");
    return strides[axis];
  }

  T* data = nullptr;
  std::array<index_type, Rank> extents{};
  std::array<index_type, Rank> strides{};
};

}  // namespace

template <>
struct addloss::mdspan_space<plain> {
  using type = host_space;
};
template <>
struct addloss::mdspan_space<on_gpu> {
  using type = device_space;
};

namespace {

using span3 = span_of_extents<float, 3>;
static_assert(adapted<span3> && adapted<span_of_extents<double const, 8>>);
static_assert(adapted<span_of_extents<addloss::half, 0>>);
static_assert(std::same_as<view_of<span3&>, tensor_view<float, 3>>);
// A const span of mutable elements can be written through, as std::mdspan itself.
static_assert(std::same_as<view_of<span3 const&>, tensor_view<float, 3>>);
static_assert(std::same_as<view_of<span_of_extents<float const, 2>&>, tensor_view<float const, 2>>);

template <class Span>
concept viewable = tensor_like<Span&>;
static_assert(!tensor_like<span3>);
static_assert(!viewable<span_of_extents<float, 9>>);
static_assert(!viewable<span_of_extents<float, 2, float>>);  // its accessor scales, or is atomic
static_assert(!viewable<span_of_extents<float, 2, float&, false>>);
template <class Accessor>
using span_by = span_of_extents<float, 2, float&, true, Accessor>;
static_assert(std::same_as<view_of<span_by<on_gpu>&>, tensor_view<float, 2, device_space>>);
// What a GPU's memory may be is not taken for the CPU's: its space must be named.
static_assert(addloss::mdspan_like<span_by<silent>> && !viewable<span_by<silent>>);
template <class Space, class Accessor>
using named = decltype(addloss::view<Space>(span_by<Accessor>{}));
static_assert(std::same_as<named<host_space, silent>, tensor_view<float, 2>>);
static_assert(std::same_as<named<device_space, silent>, tensor_view<float, 2, device_space>>);
static_assert(std::same_as<named<device_space, plain>, tensor_view<float, 2, device_space>>);
template <class Tensor>
concept unnamed = requires(Tensor const& tensor) { addloss::view(tensor); };
static_assert(!unnamed<span_by<plain>> && !unnamed<span_by<silent>>);
using device_rows = addloss::rows<float const, device_space>;
static_assert(std::constructible_from<device_rows, span_by<on_gpu>&>);
static_assert(!std::constructible_from<addloss::rows<float const>, span_by<on_gpu>&>);
static_assert(!std::constructible_from<addloss::rows<float const>, span_by<silent>&>);
#if defined(__cpp_lib_mdspan)
static_assert(
    std::same_as<view_of<std::mdspan<float, std::dextents<int, 2>>&>, tensor_view<float, 2>>);
#endif
static_assert(!addloss::mdspan_like<float*> && !addloss::mdspan_like<tensor_view<float, 2>>);

}  // namespace

TEST_CASE("an mdspan is a view of its memory") {
  std::array<float, 40> memory{};
  span3 const span{memory.data() + 1, {2, 3, 2}, {20, 2, 1}};
  auto const result = check_view(
      span, [&](auto i, auto j, auto k) { return memory.data() + 1 + 20 * i + 2 * j + k; });
  CHECK(result.passed);
  CHECK(result.elements == 12);
  as_view(span).data[0] = 7;
  CHECK(memory[1] == 7);
  addloss::rows<float> const rows(span);
  CHECK(rows.row_size == 6);
  CHECK(rows.row_stride == 20);
}
