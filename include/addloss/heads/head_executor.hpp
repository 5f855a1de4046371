// SPDX-License-Identifier: MIT
/// What a back end does for discriminator heads beside their layers (heads/layer.hpp): one
/// specialisation for each type of context, of which that of the CPU is here.
///
///   check<T>(ctx)                        refuses a context that no call in `T` can run in
///   losses(ctx)                          the context that losses run in
///   check_losses<T>(ctx, features, logits)  refuses what they would refuse of a context
///   each_element(ctx, size, body)        body(i) for i in [0, size); `body`: a named functor that
///                                        host and device can call
///   remakes_gradients                    whether gradients that cheap layers give are made again
///                                        when they are wanted, for memory, or kept, for time
///   feature_numbers(shape)               memory that one of the next three needs
///   read_features(ctx, shape, x, m)      features [B, C, L] as layers read them: x itself, or m
///   gradient_memory(x_bar, m)            where layers write their gradient: x_bar itself, or m
///   write_features(ctx, shape, m, x_bar) brings it from there to x_bar
/// Spectral normalisation, as in heads/spectral_norm.hpp but with sigma in memory of the back end,
/// where it takes sigma_numbers(norm) doubles: update, sigma, divide, divide_backward.
#pragma once

#include <cstdint>

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/spectral_norm.hpp>

namespace addloss {

template <class Context>
struct head_executor;

/// A context that heads run in.
template <class C>
concept head_context = context<C> && requires { sizeof(head_executor<C>); };

template <>
struct head_executor<cpu_context> {
  static constexpr bool remakes_gradients = true;

  /// The losses check this too, but only after the first pass.
  template <class T>
  static void check(cpu_context const& ctx) {
    if (ctx.threads < 1) {
      detail::fail("cpu_context", "threads", "at least 1", detail::text() << ctx.threads);
    }
  }
  static cpu_context const& losses(cpu_context const& ctx) { return ctx; }
  template <class T>
  static void check_losses(cpu_context const& /*ctx*/, feature_shape /*features*/,
                           feature_shape /*logits*/) {}

  template <class Body>
  static void each_element(cpu_context const& ctx, std::int64_t size, Body const& body) {
    constexpr std::int64_t piece = 4096;
    detail::each_task(ctx, (size + piece - 1) / piece, size, [&](std::int64_t task) {
      // A copy: what the loop writes could otherwise lie over the members of `body`, and it would
      // read them again for each element.
      Body const local = body;
      std::int64_t const last = size - task * piece < piece ? size : (task + 1) * piece;
      for (std::int64_t i = task * piece; i < last; ++i) local(i);
    });
  }

  static constexpr std::int64_t feature_numbers(feature_shape /*shape*/) { return 0; }
  template <class T>
  static T const* read_features(cpu_context const& /*ctx*/, feature_shape /*shape*/, T const* x,
                                T* /*memory*/) {
    return x;
  }
  template <class T>
  static T* gradient_memory(T* x_bar, T* /*memory*/) {
    return x_bar;
  }
  template <class T>
  static void write_features(cpu_context const& /*ctx*/, feature_shape /*shape*/,
                             T const* /*memory*/, T* /*x_bar*/) {}

  static constexpr std::int64_t sigma_numbers(spectral_norm const& /*norm*/) { return 1; }
  template <class T>
  static void update(cpu_context const& ctx, spectral_norm const& norm, T const* W, T* u, T* v) {
    norm.update(ctx, W, u, v);
  }
  template <class T>
  static void sigma(cpu_context const& ctx, spectral_norm const& norm, T const* W, T const* u,
                    T const* v, double* sigma) {
    *sigma = norm.sigma(ctx, W, u, v);
  }
  template <class T>
  static void divide(cpu_context const& ctx, spectral_norm const& norm, T const* W,
                     double const* sigma, T* W_hat) {
    norm.divide(ctx, W, *sigma, W_hat);
  }
  /// `scratch`: `rows` doubles, for a back end that needs them.
  template <class T>
  static void divide_backward(cpu_context const& ctx, spectral_norm const& norm, T const* W,
                              T const* u, T const* v, double const* sigma, T* gradient,
                              double* /*scratch*/) {
    norm.divide_backward(ctx, W, u, v, *sigma, gradient);
  }
};

namespace detail {

// Bodies of each_element.

template <class T>
struct fill_elements {
  T* to;
  T value;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const { to[i] = value; }
};
template <class T>
struct copy_elements {
  T const* from;
  T* to;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const { to[i] = from[i]; }
};
template <class T>
struct add_elements {
  T const* from;
  T* to;
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE void operator()(std::int64_t i) const { to[i] += from[i]; }
};

}  // namespace detail
}  // namespace addloss
