// SPDX-License-Identifier: MIT
/// Layers one after the other, as one layer: y = last(... first(x)).
///
///   sequence block(named("conv", conv1d{...}), named("norm", local_norm{64}), leaky_relu{});
/// Parameters: those of the layers in their order, "conv.weight"; a layer without a name is called
/// by its position, "2.weight". The names lie in the sequence itself: `parameter(i).name` is valid
/// as long as the sequence that was asked.
/// With f_0, f_1, ..., h_i the output of f_i, one pass from front to back or from back to front:
///   tangent            h_dot_i = (df_i/dh_{i-1}) h_dot_{i-1}
///   tangent_backward   a tangent pass for all h_dot_i, then each layer's own tangent_backward
/// Saved: what each layer saves, and all h_i but the last. Workspace: the largest of the layers',
/// the h_dot_i, and two or four of the largest h_i. Nothing is allocated.
/// Errors: names too long for `name_capacity` (when made); output_shape: those of the layers.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <tuple>
#include <utility>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/residual.hpp>

namespace addloss {

/// A layer and what it is called in a sequence. The text is copied by the sequence.
template <detail::any_layer Layer>
struct named {
  char const* name;
  Layer body;

  constexpr named(char const* layer_name, Layer layer_body)
      : name(layer_name), body(std::move(layer_body)) {}
};

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

  /// Layers, or layers with names.
  template <class... Items>
    requires(sizeof...(Items) == sizeof...(Layers) &&
             (std::same_as<detail::unnamed_t<Items>, Layers> && ...))
  explicit sequence(Items const&... items) : layers_(detail::layer_of(items)...) {
    std::size_t used = 0;
    int position = 0;
    (append_names(items, position++, used), ...);
  }

  /// Layer number `I`.
  template <std::size_t I>
  [[nodiscard]] auto const& get() const {
    return std::get<I>(layers_);
  }

  [[nodiscard]] std::int64_t parameter_count() const {
    return std::apply([](auto const&... l) { return (l.parameter_count() + ...); }, layers_);
  }
  [[nodiscard]] int parameters() const {
    return std::apply([](auto const&... l) { return (l.parameters() + ...); }, layers_);
  }
  [[nodiscard]] parameter_view parameter(int i) const {
    parameter_view result{};
    std::int64_t offset = 0;
    int first = 0;
    each([&]<std::size_t I>(index<I>) {
      auto const& l = get<I>();
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
    each([&]<std::size_t I>(index<I>) { shape = get<I>().output_shape(function, shape); });
    return shape;
  }
  [[nodiscard]] std::int64_t saved_size(feature_shape shape) const {
    return plan_of(shape).saved_size;
  }
  [[nodiscard]] std::int64_t workspace_size(feature_shape shape) const {
    return plan_of(shape).workspace_size;
  }

  template <arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void forward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T* y, T* saved,
               T* workspace) const {
    plan const p = plan_of(shape);
    each([&]<std::size_t I>(index<I>) {
      get<I>().forward(ctx, at(w, p.parameter[I]), p.shape[I], input<I>(p, x, saved),
                       I == last ? y : saved + p.activation[I], saved + p.saved[I], workspace);
    });
  }

  template <arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T const* saved,
                T const* y_bar, T* x_bar, T* w_bar, T* workspace) const {
    plan const p = plan_of(shape);
    each_backwards([&]<std::size_t I>(index<I>) {
      get<I>().backward(ctx, at(w, p.parameter[I]), p.shape[I], input<I>(p, x, saved),
                        saved + p.saved[I], I == last ? y_bar : workspace + p.gradient(I),
                        I == 0 ? x_bar : workspace + p.gradient(I - 1), at(w_bar, p.parameter[I]),
                        workspace);
    });
  }

  template <arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void tangent(cpu_context const& ctx, T const* w, feature_shape shape, T const* x, T const* saved,
               T const* x_dot, T* y_dot, T* workspace) const {
    plan const p = plan_of(shape);
    each([&]<std::size_t I>(index<I>) {
      tangent_of<I>(ctx, p, w, x, saved, x_dot, y_dot, workspace);
    });
  }

  template <arithmetic_scalar T>
    requires(layer<Layers, T> && ...)
  void tangent_backward(cpu_context const& ctx, T const* w, feature_shape shape, T const* x,
                        T const* saved, T const* x_dot, T const* y_bar, T const* y_dot_bar,
                        T* x_bar, T* x_dot_bar, T* w_bar, T* workspace) const {
    plan const p = plan_of(shape);
    each([&]<std::size_t I>(index<I>) {
      if constexpr (I != last) {
        tangent_of<I>(ctx, p, w, x, saved, x_dot, static_cast<T*>(nullptr), workspace);
      }
    });
    each_backwards([&]<std::size_t I>(index<I>) {
      get<I>().tangent_backward(ctx, at(w, p.parameter[I]), p.shape[I], input<I>(p, x, saved),
                                saved + p.saved[I],
                                I == 0 ? x_dot : workspace + p.tangent[I - (I == 0 ? 0 : 1)],
                                I == last ? y_bar : workspace + p.gradient(I),
                                I == last ? y_dot_bar : workspace + p.gradient_dot(I),
                                I == 0 ? x_bar : workspace + p.gradient(I - 1),
                                I == 0 ? x_dot_bar : workspace + p.gradient_dot(I - 1),
                                at(w_bar, p.parameter[I]), workspace);
    });
  }

 private:
  static constexpr std::size_t size = sizeof...(Layers);
  static constexpr std::size_t last = size - 1;
  template <std::size_t I>
  using index = std::integral_constant<std::size_t, I>;

  /// Offsets of layer i's share of each buffer; in the workspace, what the layers use comes first.
  struct plan {
    std::array<feature_shape, size> shape;  ///< of the input
    std::array<std::int64_t, size> parameter;
    std::array<std::int64_t, size> saved;
    std::array<std::int64_t, size> activation;  ///< of the output, in `saved`
    std::array<std::int64_t, size> tangent;  ///< of the output, in the workspace
    std::int64_t gradients;  ///< four buffers of `largest` in the workspace
    std::int64_t largest;
    std::int64_t saved_size;
    std::int64_t workspace_size;

    /// Of the output of layer i: neighbours lie in different buffers.
    [[nodiscard]] std::int64_t gradient(std::size_t i) const {
      return gradients + static_cast<std::int64_t>(i % 2) * largest;
    }
    [[nodiscard]] std::int64_t gradient_dot(std::size_t i) const {
      return gradient(i) + 2 * largest;
    }
  };

  [[nodiscard]] plan plan_of(feature_shape shape) const {
    plan p{};
    std::int64_t parameter = 0;
    std::int64_t workspace = 0;
    std::int64_t tangents = 0;
    each([&]<std::size_t I>(index<I>) {
      auto const& l = get<I>();
      p.shape[I] = shape;
      p.parameter[I] = parameter;
      parameter += l.parameter_count();
      p.saved[I] = p.saved_size;
      p.saved_size += l.saved_size(shape);
      std::int64_t const needed = l.workspace_size(shape);
      if (needed > workspace) workspace = needed;
      shape = l.output_shape("sequence", shape);
      p.activation[I] = p.saved_size;
      p.tangent[I] = tangents;
      if constexpr (I != last) {
        p.saved_size += shape.size();
        tangents += shape.size();
        if (shape.size() > p.largest) p.largest = shape.size();
      }
    });
    for (std::int64_t& offset : p.tangent) offset += workspace;
    p.gradients = workspace + tangents;
    p.workspace_size = p.gradients + 4 * p.largest;
    return p;
  }

  /// body(index<I>{}) for each layer.
  template <class Body>
  static void each(Body const& body) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (body(index<I>{}), ...);
    }(std::make_index_sequence<size>{});
  }
  template <class Body>
  static void each_backwards(Body const& body) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (body(index<last - I>{}), ...);
    }(std::make_index_sequence<size>{});
  }

  /// A layer's share of the parameters, or of their gradients, where there are any.
  template <class T>
  static T* at(T* parameters, std::int64_t offset) {
    return parameters == nullptr ? nullptr : parameters + offset;
  }
  template <std::size_t I, class T>
  static T const* input(plan const& p, T const* x, T const* saved) {
    if constexpr (I == 0) {
      return x;
    } else {
      return saved + p.activation[I - 1];
    }
  }

  /// The tangent of layer I's output from that of its input.
  template <std::size_t I, class T>
  void tangent_of(cpu_context const& ctx, plan const& p, T const* w, T const* x, T const* saved,
                  T const* x_dot, T* y_dot, T* workspace) const {
    T const* in = x_dot;
    if constexpr (I > 0) in = workspace + p.tangent[I - 1];
    get<I>().tangent(ctx, at(w, p.parameter[I]), p.shape[I], input<I>(p, x, saved),
                     saved + p.saved[I], in, I == last ? y_dot : workspace + p.tangent[I],
                     workspace);
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
