// SPDX-License-Identifier: MIT
/// Spectral normalisation of every convolution of a layer, its parts' too: W / sigma in place of W.
///
/// A convolution's weight is a parameter of rank 3, [out, in, kernel], taken as a matrix
/// [out, in kernel] (heads/spectral_norm.hpp). Its state u [out], v [in kernel] lies in a buffer of
/// the caller, one weight after the other. Three calls, so that the passes of one step (reals, fakes,
/// R1) share one state:
///   update              the power iteration, once a training step
///   normalise           w -> w_hat: weights divided by sigma, all other parameters copied
///   normalise_backward  w_bar += the gradient that w_hat_bar gives to w; u and v are constants
/// The layer then runs with w_hat. Nothing is allocated. Same bits for any number of threads.
/// Errors: a sigma that is 0 or not finite (NaN parameters), before w_hat or w_bar is written.
/// Source: Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for Generative Adversarial
/// Networks, 2018, algorithm 1.
#pragma once

#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/residual.hpp>
#include <addloss/heads/spectral_norm.hpp>

namespace addloss {

/// Where the state of one weight lies.
struct spectral_state_view {
  int parameter;  ///< of the layer
  std::int64_t u;  ///< offsets in the state
  std::int64_t v;
  std::int64_t rows;
  std::int64_t columns;
};

inline namespace ADDLOSS_ISA_NAMESPACE {

template <detail::any_layer Layer>
struct spectral_weights {
  Layer layer;
  int iterations = 1;
  double epsilon = 1e-12;

  /// Normalised weights.
  [[nodiscard]] int weights() const {
    int count = 0;
    each_weight([&](spectral_state_view const&) { ++count; });
    return count;
  }
  [[nodiscard]] spectral_state_view weight(int i) const {
    spectral_state_view result{};
    int count = 0;
    each_weight([&](spectral_state_view const& view) {
      if (count++ == i) result = view;
    });
    return result;
  }
  /// Numbers in the state of all weights.
  [[nodiscard]] std::int64_t state_size() const {
    std::int64_t size = 0;
    each_weight([&](spectral_state_view const& view) { size += view.rows + view.columns; });
    return size;
  }

  template <arithmetic_scalar T>
  void update(cpu_context const& ctx, T const* w, T* state) const {
    each_weight([&](spectral_state_view const& view) {
      norm(view).update(ctx, w + offset(view), state + view.u, state + view.v);
    });
  }

  template <arithmetic_scalar T>
  void normalise(cpu_context const& ctx, T const* w, T const* state, T* w_hat) const {
    each_weight([&](spectral_state_view const& view) { checked_sigma(ctx, view, w, state); });
    for (std::int64_t i = 0; i < layer.parameter_count(); ++i) w_hat[i] = w[i];
    each_weight([&](spectral_state_view const& view) {
      norm(view).divide(ctx, w + offset(view), state + view.u, state + view.v,
                        w_hat + offset(view));
    });
  }

  template <arithmetic_scalar T>
  void normalise_backward(cpu_context const& ctx, T const* w, T const* state, T const* w_hat_bar,
                          T* w_bar) const {
    each_weight([&](spectral_state_view const& view) { checked_sigma(ctx, view, w, state); });
    std::int64_t done = 0;
    auto const add_up_to = [&](std::int64_t end) {
      for (; done < end; ++done) w_bar[done] += w_hat_bar[done];
    };
    each_weight([&](spectral_state_view const& view) {
      std::int64_t const first = offset(view);
      add_up_to(first);
      norm(view).divide_backward(ctx, w + first, state + view.u, state + view.v,
                                 checked_sigma(ctx, view, w, state), w_hat_bar + first,
                                 w_bar + first);
      done = first + view.rows * view.columns;
    });
    add_up_to(layer.parameter_count());
  }

 private:
  template <class Visit>
  void each_weight(Visit const& visit) const {
    std::int64_t offset = 0;
    for (int i = 0; i < layer.parameters(); ++i) {
      parameter_view const part = layer.parameter(i);
      if (part.rank != 3) continue;
      std::int64_t const columns = part.extents[1] * part.extents[2];
      visit(spectral_state_view{i, offset, offset + part.extents[0], part.extents[0], columns});
      offset += part.extents[0] + columns;
    }
  }
  [[nodiscard]] std::int64_t offset(spectral_state_view const& view) const {
    return layer.parameter(view.parameter).offset;
  }
  [[nodiscard]] spectral_norm norm(spectral_state_view const& view) const {
    return {view.rows, view.columns, iterations, epsilon};
  }
  template <arithmetic_scalar T>
  double checked_sigma(cpu_context const& ctx, spectral_state_view const& view, T const* w,
                       T const* state) const {
    double const sigma = norm(view).sigma(ctx, w + offset(view), state + view.u, state + view.v);
    if (!(sigma - sigma == 0) || sigma == 0) {
      detail::fail("spectral_weights", layer.parameter(view.parameter).name,
                   "a weight whose sigma is finite and not 0", detail::text() << sigma);
    }
    return sigma;
  }
};

// clang 14 deduces nothing for aggregates by itself.
template <detail::any_layer Layer>
spectral_weights(Layer, int = 1, double = 1e-12) -> spectral_weights<Layer>;

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
