// SPDX-License-Identifier: MIT
/// A layer for tests of what is made of layers: it uses all that the contract offers, and is
/// written without care for speed.
///
///   y = z^2 / 2 + s z,  z[b,:,l] = W x[b,:,l] + bias,  s[b] = u . c[b]
/// c: the only condition, of u's size; s = 0 where that is 0. Parameters: weight [out, in], bias
/// [out], gate u. Of <y_bar, y> + <q, y_dot> the gradients are
///   z_bar = (z + s) y_bar + q z_dot,  z_dot_bar = (z + s) q,  s_bar = sum y_bar z + q z_dot
/// Kept: z and s, z_dot, and z_dot_bar.
#pragma once

#include <cstdint>
#include <span>

#include <addloss/heads/layer.hpp>

struct gated {
  std::int64_t in;
  std::int64_t out;
  std::int64_t gate = 0;

  [[nodiscard]] std::int64_t parameter_count() const { return in * out + out + gate; }
  [[nodiscard]] int parameters() const { return gate == 0 ? 2 : 3; }
  [[nodiscard]] addloss::parameter_view parameter(int i) const {
    if (i == 0) return {"weight", 0, 2, {out, in, 1}};
    if (i == 1) return {"bias", in * out, 1, {out, 1, 1}};
    return {"gate", in * out + out, 1, {gate, 1, 1}};
  }
  [[nodiscard]] std::span<std::int64_t const> condition_sizes() const {
    return {&gate, gate == 0 ? std::size_t{0} : std::size_t{1}};
  }
  [[nodiscard]] addloss::feature_shape output_shape(char const* function,
                                                    addloss::feature_shape shape) const {
    using addloss::detail::text;
    if (shape.channels != in) {
      addloss::detail::fail(function, "x", text() << in << " channels", text() << shape.channels);
    }
    return {shape.batch, out, shape.length};
  }
  [[nodiscard]] addloss::layer_sizes sizes(addloss::feature_shape shape) const {
    std::int64_t const z = shape.batch * out * shape.length;
    return {.saved = z + shape.batch, .saved_bar = z, .saved_dot = z, .workspace = z + shape.batch};
  }

  template <class T>
  void forward(addloss::cpu_context const& /*ctx*/, addloss::layer_pass<T> const& p) const {
    each(p, [&](place at) {
      T* const z = p.saved + at.y;
      *z = p.w[in * out + at.o];
      for (std::int64_t i = 0; i < in; ++i) *z += weight(p.w, at, i) * p.x[x_index(p, at, i)];
      T* const s = p.saved + y_size(p) + at.b;
      *s = 0;
      for (std::int64_t k = 0; k < gate; ++k) *s += u(p.w)[k] * values(p, at)[k];
      p.y[at.y] = *z * *z / 2 + *s * *z;
    });
  }
  template <class T>
  void tangent(addloss::cpu_context const& /*ctx*/, addloss::layer_pass<T> const& p) const {
    each(p, [&](place at) {
      T* const z_dot = p.saved_dot + at.y;
      *z_dot = 0;
      for (std::int64_t i = 0; i < in; ++i) {
        *z_dot += weight(p.w, at, i) * p.x_dot[x_index(p, at, i)];
      }
      if (p.y_dot != nullptr) p.y_dot[at.y] = slope(p, at) * *z_dot;
    });
  }
  template <class T>
  void backward(addloss::cpu_context const& /*ctx*/, addloss::layer_pass<T> const& p) const {
    T* const z_bar = p.workspace;
    clear_s_bar(p);
    each(p, [&](place at) {
      z_bar[at.y] = slope(p, at) * p.y_bar[at.y];
      if (p.saved_bar != nullptr) p.saved_bar[at.y] = z_bar[at.y];
      s_bar(p)[at.b] += p.y_bar[at.y] * p.saved[at.y];
    });
    to_x(p, z_bar);
    to_weight(p, z_bar, p.x);
    to_rest(p, z_bar);
  }
  template <class T>
  void tangent_backward(addloss::cpu_context const& /*ctx*/,
                        addloss::layer_pass<T> const& p) const {
    T* const z_bar = p.workspace;
    clear_s_bar(p);
    each(p, [&](place at) {
      T const from_tangent = p.y_dot_bar[at.y] * p.saved_dot[at.y];
      z_bar[at.y] = slope(p, at) * p.y_bar[at.y] + from_tangent;
      s_bar(p)[at.b] += p.y_bar[at.y] * p.saved[at.y] + from_tangent;
    });
    to_x(p, z_bar);
    to_weight(p, z_bar, p.x);
    to_weight(p, p.saved_bar, p.x_dot);
    to_rest(p, z_bar);
  }

 private:
  struct place {
    std::int64_t b, o, l;
    std::int64_t y;  ///< index
  };

  template <class T, class Visit>
  void each(addloss::layer_pass<T> const& p, Visit const& visit) const {
    std::int64_t y = 0;
    for (std::int64_t b = 0; b < p.shape.batch; ++b) {
      for (std::int64_t o = 0; o < out; ++o) {
        for (std::int64_t l = 0; l < p.shape.length; ++l) visit(place{b, o, l, y++});
      }
    }
  }
  template <class T>
  std::int64_t x_index(addloss::layer_pass<T> const& p, place at, std::int64_t i) const {
    return (at.b * in + i) * p.shape.length + at.l;
  }
  template <class T>
  std::int64_t y_size(addloss::layer_pass<T> const& p) const {
    return p.shape.batch * out * p.shape.length;
  }
  template <class T>
  T weight(T const* w, place at, std::int64_t i) const {
    return w[at.o * in + i];
  }
  template <class T>
  T* u(T* w) const {
    return w + in * out + out;
  }
  template <class T>
  T const* values(addloss::layer_pass<T> const& p, place at) const {
    return p.conditions[0].values + at.b * gate;
  }
  template <class T>
  T* s_bar(addloss::layer_pass<T> const& p) const {
    return p.workspace + y_size(p);
  }
  template <class T>
  T slope(addloss::layer_pass<T> const& p, place at) const {
    return p.saved[at.y] + p.saved[y_size(p) + at.b];
  }

  template <class T>
  void clear_s_bar(addloss::layer_pass<T> const& p) const {
    for (std::int64_t b = 0; b < p.shape.batch; ++b) s_bar(p)[b] = 0;
  }
  template <class T>
  void to_x(addloss::layer_pass<T> const& p, T const* z_bar) const {
    if (p.x_bar == nullptr) return;
    for (std::int64_t n = 0; n < p.shape.size(); ++n) p.x_bar[n] = 0;
    each(p, [&](place at) {
      for (std::int64_t i = 0; i < in; ++i) {
        p.x_bar[x_index(p, at, i)] += weight(p.w, at, i) * z_bar[at.y];
      }
    });
  }
  template <class T>
  void to_weight(addloss::layer_pass<T> const& p, T const* z_bar, T const* x) const {
    if (p.w_bar == nullptr) return;
    each(p, [&](place at) {
      for (std::int64_t i = 0; i < in; ++i) {
        p.w_bar[at.o * in + i] += z_bar[at.y] * x[x_index(p, at, i)];
      }
    });
  }
  /// The bias, the gate and its condition.
  template <class T>
  void to_rest(addloss::layer_pass<T> const& p, T const* z_bar) const {
    if (p.w_bar != nullptr) {
      each(p, [&](place at) { p.w_bar[in * out + at.o] += z_bar[at.y]; });
    }
    for (std::int64_t n = 0; n < p.shape.batch * gate; ++n) {
      std::int64_t const b = n / gate;
      std::int64_t const k = n % gate;
      auto const& c = p.conditions[0];
      if (p.w_bar != nullptr) u(p.w_bar)[k] += s_bar(p)[b] * c.values[n];
      if (c.gradient != nullptr) c.gradient[n] += s_bar(p)[b] * u(p.w)[k];
    }
  }
};

static_assert(addloss::layer<gated, float> && addloss::layer<gated, double>);
