// SPDX-License-Identifier: MIT
/// Layers one after the other, as one layer: y = last(... first(x)).
///
///   sequence block(named("conv", conv1d{...}), named("norm", local_norm{64}), leaky_relu{});
/// Parameters: those of the layers in their order, "conv.weight"; a layer without a name is called
/// by its position, "2.weight". The names lie in the sequence itself: `parameter(i).name` is valid
/// as long as the sequence that was asked.
/// A pass is that pass of each layer, from front to back or from back to front. Kept: what each
/// layer keeps, and of all outputs but the last their values (saved), tangents (saved_dot) and
/// gradients (saved_bar). On the CPU gradients that a layer with in_place gives are made again when
/// they are wanted, and those of the last pass lie over outputs that are used up; the workspace is
/// the largest of the layers', and room for gradients that find no such place.
/// All layers get the same conditions: those that read any must agree in their sizes.
/// Errors: names too long for `name_capacity` (when made); output_shape: those of the layers, and
/// conditions of other sizes than those of a layer before; parameter: a number that is none.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/heads/head_executor.hpp>
#include <addloss/heads/layer.hpp>

namespace addloss {

/// A layer and what it is called in a sequence. The text is copied by the sequence.
template <detail::any_layer Layer>
struct named {
  char const* name;
  Layer body;

  constexpr named(char const* layer_name, Layer layer_body)
      : name(layer_name), body(std::move(layer_body)) {}
};
template <class Layer>
named(char const*, Layer) -> named<Layer>;

namespace detail {

template <class Item>
struct unnamed {
  using type = Item;
};
template <class Layer>
struct unnamed<named<Layer>> {
  using type = Layer;
};
template <class Item>
using unnamed_t = typename unnamed<Item>::type;

template <class Item>
auto const& layer_of(Item const& item) {
  if constexpr (std::same_as<unnamed_t<Item>, Item>) {
    return item;
  } else {
    return item.body;
  }
}

}  // namespace detail

template <detail::any_layer... Layers>
  requires(sizeof...(Layers) > 0)
class sequence {
 public:
  /// Characters of all names together, with a zero after each.
  static constexpr std::size_t name_capacity = 1024;
  static constexpr bool overwrites_y_bar =
      detail::overwrites_y_bar<std::tuple_element_t<sizeof...(Layers) - 1, std::tuple<Layers...>>>;

  /// Layers, or layers with names.
  template <class... Items>
    requires(sizeof...(Items) == sizeof...(Layers) &&
             (std::same_as<detail::unnamed_t<Items>, Layers> && ...))
  explicit sequence(Items const&... items) : layers_(detail::layer_of(items)...) {
    std::size_t used = 0;
    int position = 0;
    (append_names(items, position++, used), ...);
  }

  /// Layer number `N`.
  template <std::size_t N>
  [[nodiscard]] auto const& get() const {
    return std::get<N>(layers_);
  }

  [[nodiscard]] std::int64_t parameter_count() const {
    return std::apply([](auto const&... l) { return (l.parameter_count() + ...); }, layers_);
  }
  [[nodiscard]] int parameters() const {
    return std::apply([](auto const&... l) { return (l.parameters() + ...); }, layers_);
  }
  [[nodiscard]] parameter_view parameter(int i) const {
    if (i < 0 || i >= parameters()) {
      detail::fail("sequence::parameter", "i", detail::text() << "0 to " << parameters() - 1,
                   detail::text() << i);
    }
    parameter_view result{};
    std::int64_t offset = 0;
    int first = 0;
    each([&]<std::size_t N>(index<N>) {
      auto const& l = get<N>();
      if (i >= first && i < first + l.parameters()) {
        result = l.parameter(i - first);
        result.offset += offset;
      }
      first += l.parameters();
      offset += l.parameter_count();
    });
    char const* name = names_;
    for (int skipped = 0; skipped < i; ++skipped) {
      while (*name != '\0') ++name;
      ++name;
    }
    result.name = name;
    return result;
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    std::span<std::int64_t const> conditions;
    each([&]<std::size_t N>(index<N>) {
      shape = get<N>().output_shape(function, shape);
      conditions = common_conditions(function, conditions, detail::condition_sizes_of(get<N>()));
    });
    return shape;
  }
  /// Of those of all layers, which output_shape compares.
  [[nodiscard]] std::span<std::int64_t const> condition_sizes() const {
    std::span<std::int64_t const> result;
    each([&]<std::size_t N>(index<N>) {
      auto const sizes = detail::condition_sizes_of(get<N>());
      if (!sizes.empty()) result = sizes;
    });
    return result;
  }
  [[nodiscard]] layer_sizes sizes(feature_shape shape) const {
    return sizes_on<cpu_context>(shape);
  }
  template <class Context>
  [[nodiscard]] layer_sizes sizes_on(feature_shape shape) const {
    return plan_of<Context>(shape).total;
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void forward(Context const& ctx, layer_pass<T> const& p) const {
    plan const sizes = plan_of<Context>(p.shape);
    each([&]<std::size_t N>(index<N>) {
      layer_pass<T> inner = share<N>(sizes, p);
      inner.y = N == last ? p.y : p.saved + sizes.part[N].output;
      on<Context, N>::forward(get<N>(), ctx, inner);
    });
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void backward(Context const& ctx, layer_pass<T> const& p) const {
    plan const sizes = plan_of<Context>(p.shape);
    auto const gradient = [&](std::size_t i) {
      if (p.saved_bar == nullptr) return sizes.last_gradient(i, p, false);
      // Tangents are not there yet.
      return remade<Context>(i) ? p.saved_dot + sizes.part[i].tangent
                                : p.saved_bar + sizes.part[i].gradient;
    };
    each_backwards([&]<std::size_t N>(index<N>) {
      layer_pass<T> inner = share<N>(sizes, p);
      inner.y_bar = N == last ? p.y_bar : gradient(N);
      inner.x_bar = N == 0 ? p.x_bar : gradient(before<N>);
      on<Context, N>::backward(get<N>(), ctx, inner);
    });
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void tangent(Context const& ctx, layer_pass<T> const& p) const {
    plan const sizes = plan_of<Context>(p.shape);
    each([&]<std::size_t N>(index<N>) {
      layer_pass<T> inner = share<N>(sizes, p);
      inner.y_dot = N == last ? p.y_dot : p.saved_dot + sizes.part[N].tangent;
      on<Context, N>::tangent(get<N>(), ctx, inner);
    });
  }

  template <head_context Context = cpu_context, arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void tangent_backward(Context const& ctx, layer_pass<T> const& p) const {
    plan const sizes = plan_of<Context>(p.shape);
    auto const kept_gradient = [&](std::size_t i) {
      return remade<Context>(i) ? p.saved + sizes.part[i].output
                                : p.saved_bar + sizes.part[i].gradient;
    };
    each_backwards([&]<std::size_t N>(index<N>) {
      layer_pass<T> inner = share<N>(sizes, p);
      inner.y_bar = N == last ? p.y_bar : sizes.last_gradient(N, p, true);
      inner.y_dot_bar = N == last ? p.y_dot_bar : kept_gradient(N);
      inner.x_bar = N == 0 ? p.x_bar : sizes.last_gradient(before<N>, p, true);
      on<Context, N>::tangent_backward(get<N>(), ctx, inner);
      if constexpr (N > 0 && remade<Context>(before<N>)) {
        inner.y_bar = inner.y_dot_bar;
        inner.x_bar = kept_gradient(before<N>);
        inner.w_bar = nullptr;
        inner.saved_bar = nullptr;
        on<Context, N>::backward(get<N>(), ctx, inner);
      }
    });
  }

 private:
  static constexpr std::size_t size = sizeof...(Layers);
  static constexpr std::size_t last = size - 1;
  static constexpr bool is_in_place[size + 1] = {detail::in_place<Layers>..., false};
  static constexpr bool changes_y_bar[size] = {detail::overwrites_y_bar<Layers>...};

  /// Whether the gradient of output i is made again rather than kept.
  template <class Context>
  static constexpr bool remade(std::size_t i) {
    return head_executor<Context>::remakes_gradients && is_in_place[i + 1] && !changes_y_bar[i];
  }

  template <std::size_t N>
  using index = std::integral_constant<std::size_t, N>;
  template <class Context, std::size_t N>
  using on = layer_on<Context, std::tuple_element_t<N, std::tuple<Layers...>>>;
  template <std::size_t N>
  static constexpr std::size_t before = N == 0 ? 0 : N - 1;

  /// A layer's share: the shape of its input, and where its parameters and what it keeps begin.
  struct layer_share {
    feature_shape shape;
    std::int64_t parameter;
    layer_sizes first;  ///< of what the layer itself keeps
    std::int64_t output;  ///< in saved; the last layer has none
    std::int64_t gradient;  ///< of the output, in saved_bar, where it is kept
    std::int64_t tangent;  ///< of the output, in saved_dot
    std::size_t over;  ///< over which output its gradient lies in the last pass; none: `size`
    std::int64_t in_workspace;  ///< where it lies then
  };

  struct plan {
    std::array<layer_share, size> part;
    layer_sizes total;
    std::int64_t gradients;  ///< numbers of the workspace before the layers'

    /// The gradient of output i in the last pass. A layer in place has it over its input, x or,
    /// with tangents, x_dot.
    template <class T>
    [[nodiscard]] T* last_gradient(std::size_t i, layer_pass<T> const& p, bool tangents) const {
      if (is_in_place[i + 1]) {
        return tangents ? p.saved_dot + part[i].tangent : p.saved + part[i].output;
      }
      if (part[i].over < last) return p.saved + part[part[i].over].output;
      return p.workspace + part[i].in_workspace;
    }
  };

  template <class Context>
  [[nodiscard]] plan plan_of(feature_shape shape) const {
    plan p{};
    layer_sizes& total = p.total;
    std::int64_t parameter = 0;
    std::array<std::int64_t, size> output;
    each([&]<std::size_t N>(index<N>) {
      auto const& l = get<N>();
      layer_share& part = p.part[N];
      part.shape = shape;
      part.parameter = parameter;
      parameter += l.parameter_count();
      part.first = total;
      layer_sizes const own = on<Context, N>::sizes(l, shape);
      total.saved += detail::aligned(own.saved);
      total.saved_bar += detail::aligned(own.saved_bar);
      total.saved_dot += detail::aligned(own.saved_dot);
      if (own.workspace > total.workspace) total.workspace = own.workspace;
      shape = l.output_shape("sequence", shape);
      output[N] = detail::aligned(shape.size());
      part.output = total.saved;
      part.gradient = total.saved_bar;
      part.tangent = total.saved_dot;
      if constexpr (N != last) {
        total.saved += output[N];
        total.saved_dot += output[N];
        if (!remade<Context>(N)) total.saved_bar += output[N];
      }
    });
    place_gradients(p, output);
    total.workspace += p.gradients;
    // An empty buffer may be null, which means that no tangent_backward follows.
    if (total.saved_bar == 0) total.saved_bar = detail::aligned(1);
    return p;
  }

  /// The sizes of the conditions of layers so far and of one more, of which either may read none.
  static std::span<std::int64_t const> common_conditions(char const* function,
                                                         std::span<std::int64_t const> before,
                                                         std::span<std::int64_t const> more) {
    if (before.empty() || more.empty()) return before.empty() ? more : before;
    bool same = before.size() == more.size();
    for (std::size_t k = 0; same && k < more.size(); ++k) same = before[k] == more[k];
    if (!same) {
      auto const sizes = [](std::span<std::int64_t const> of) {
        return detail::text() << "sizes "
                              << detail::bracketed(of.data(), static_cast<int>(of.size()));
      };
      detail::fail(function, "conditions", sizes(before), sizes(more));
    }
    return before;
  }

  /// Layer i + 1 writes the gradient of output i over an output that is used up: its own, or, where
  /// it reads a gradient from there, the next one.
  static void place_gradients(plan& p, std::array<std::int64_t, size> const& output) {
    std::int64_t largest = 0;
    for (std::size_t i = 0; i < last; ++i) largest = output[i] > largest ? output[i] : largest;
    bool second = false;
    for (std::size_t i = last; i-- > 0;) {
      if (is_in_place[i + 1]) continue;
      std::size_t const over = is_in_place[i + 2] ? i + 2 : i + 1;
      bool const fits = over < last && output[i] <= output[over];
      p.part[i].over = fits ? over : size;
      if (fits) continue;
      // Not where the gradient lies that the layer reads.
      second = i + 1 < last && !is_in_place[i + 2] && p.part[i + 1].over == size && !second;
      p.part[i].in_workspace = second ? largest : 0;
      std::int64_t const end = p.part[i].in_workspace + largest;
      if (end > p.gradients) p.gradients = end;
    }
  }

  /// What layer N gets of a pass, but for the outputs and gradients of its neighbours.
  template <std::size_t N, class T>
  static layer_pass<T> share(plan const& sizes, layer_pass<T> const& p) {
    layer_share const& part = sizes.part[N];
    layer_pass<T> inner = p;
    inner.shape = part.shape;
    inner.w = at(p.w, part.parameter);
    inner.w_bar = at(p.w_bar, part.parameter);
    inner.saved = at(p.saved, part.first.saved);
    inner.saved_bar = at(p.saved_bar, part.first.saved_bar);
    inner.saved_dot = at(p.saved_dot, part.first.saved_dot);
    inner.workspace = at(p.workspace, sizes.gradients);
    if constexpr (N > 0) {
      layer_share const& previous = sizes.part[N - 1];
      inner.x = at(p.saved, previous.output);
      inner.x_dot = at(p.saved_dot, previous.tangent);
    }
    return inner;
  }
  template <class T>
  static T* at(T* memory, std::int64_t offset) {
    return memory == nullptr ? nullptr : memory + offset;
  }

  /// body(index<N>{}) for each layer.
  template <class Body>
  static void each(Body const& body) {
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      (body(index<N>{}), ...);
    }(std::make_index_sequence<size>{});
  }
  template <class Body>
  static void each_backwards(Body const& body) {
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      (body(index<last - N>{}), ...);
    }(std::make_index_sequence<size>{});
  }

  template <class Item>
  void append_names(Item const& item, int position, std::size_t& used) {
    char digits[16];
    std::snprintf(digits, sizeof digits, "%d", position);
    char const* name = digits;
    if constexpr (!std::same_as<detail::unnamed_t<Item>, Item>) name = item.name;
    auto const& l = detail::layer_of(item);
    for (int i = 0; i < l.parameters(); ++i) {
      parameter_view const part = l.parameter(i);
      int const written =
          std::snprintf(names_ + used, name_capacity - used, "%s.%s", name, part.name);
      std::size_t const needed = used + static_cast<std::size_t>(written) + 1;
      if (written < 0 || needed > name_capacity) {
        detail::fail("sequence", "name",
                     detail::text() << "at most " << static_cast<std::int64_t>(name_capacity)
                                    << " characters for the names of all parameters",
                     detail::text() << static_cast<std::int64_t>(needed) << " up to " << name);
      }
      used = needed;
    }
  }

  std::tuple<Layers...> layers_;
  char names_[name_capacity] = {};
};
template <class... Items>
sequence(Items const&...) -> sequence<detail::unnamed_t<Items>...>;

}  // namespace addloss
