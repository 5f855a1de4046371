// SPDX-License-Identifier: MIT
/// Spectral normalisation of every convolution of a layer, its parts' too: W / sigma in place of W.
///
/// A convolution's weight is a parameter of rank 3, [out, in, kernel], taken as a matrix
/// [out, in kernel] (heads/spectral_norm.hpp). Its state u [out], v [in kernel] lies in a buffer of
/// the caller, one weight after the other. Several calls, so that the passes of one step (reals,
/// fakes, R1) share one state:
///   update              the power iteration, once a training step
///   sigmas              sigma of each weight
///   normalise           w -> w_hat: weights divided by sigma, all other parameters copied
///   normalise_backward  the gradient of w_hat becomes that of w; u and v are constants
/// The layer then runs with w_hat. Nothing is allocated. Same bits for any number of threads.
/// Errors: in sigmas, one that is 0 or not finite (NaN parameters).
/// Source: Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for Generative Adversarial
/// Networks, 2018, algorithm 1.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/heads/head_executor.hpp>
#include <addloss/heads/layer.hpp>
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

/// Who asks for sigma, for the text of an error.
struct sigma_caller {
  char const* function;
  int head = -1;  ///< in a stack of heads; -1: in none

  constexpr sigma_caller(char const* name, int number = -1)  // NOLINT(*-explicit-*)
      : function(name), head(number) {}
};

inline namespace ADDLOSS_ISA_NAMESPACE {

template <detail::any_layer Layer>
struct spectral_weights {
  Layer layer;
  int iterations = 1;
  double epsilon = 1e-12;

  /// That a stack of heads takes in one head.
  static constexpr int max_weights = 16;

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

  /// Doubles that the sigmas take: on the CPU, weights().
  template <head_context Context = cpu_context>
  [[nodiscard]] std::int64_t sigma_numbers() const {
    std::int64_t numbers = 0;
    each_weight([&](spectral_state_view const& view) {
      numbers += head_executor<Context>::sigma_numbers(norm(view));
    });
    return numbers;
  }

  template <head_context Context, arithmetic_scalar T>
  void update(Context const& ctx, T const* w, T* state) const {
    each_weight([&](spectral_state_view const& view) {
      head_executor<Context>::update(ctx, norm(view), w + offset(view), state + view.u,
                                     state + view.v);
    });
  }

  /// sigma of each weight. On the CPU one that is 0 or not finite is refused in the name of
  /// `caller`.
  template <head_context Context, arithmetic_scalar T>
  void sigmas(sigma_caller caller, Context const& ctx, T const* w, T const* state,
              double* sigma) const {
    each_weight([&](spectral_state_view const& view) {
      head_executor<Context>::sigma(ctx, norm(view), w + offset(view), state + view.u,
                                    state + view.v, sigma);
      if constexpr (std::same_as<typename Context::space, host_space>) {
        check_sigma(caller, view, *sigma);
      }
      sigma += head_executor<Context>::sigma_numbers(norm(view));
    });
  }

  /// w_hat: weights divided by sigma, all other parameters copied.
  template <head_context Context, arithmetic_scalar T>
  void normalise(Context const& ctx, T const* w, double const* sigma, T* w_hat) const {
    each_part(
        [&](std::int64_t first, std::int64_t count) {
          if (count == 0) return;
          head_executor<Context>::each_element(ctx, count,
                                               detail::copy_elements<T>{w + first, w_hat + first});
        },
        [&](spectral_state_view const& view) {
          head_executor<Context>::divide(ctx, norm(view), w + offset(view), sigma,
                                         w_hat + offset(view));
          sigma += head_executor<Context>::sigma_numbers(norm(view));
        });
  }

  /// The gradient of w_hat becomes that of w, in place. `scratch`: as many doubles as a weight has
  /// rows, but on the CPU.
  template <head_context Context, arithmetic_scalar T>
  void normalise_backward(Context const& ctx, T const* w, T const* state, double const* sigma,
                          T* gradient, double* scratch = nullptr) const {
    each_weight([&](spectral_state_view const& view) {
      head_executor<Context>::divide_backward(ctx, norm(view), w + offset(view), state + view.u,
                                              state + view.v, sigma, gradient + offset(view),
                                              scratch);
      sigma += head_executor<Context>::sigma_numbers(norm(view));
    });
  }

 private:
  /// Visits the parameters in their order: pieces that are not normalised, and weights.
  template <class Piece, class Weight>
  void each_part(Piece const& piece, Weight const& weight) const {
    std::int64_t done = 0;
    each_weight([&](spectral_state_view const& view) {
      piece(done, offset(view) - done);
      weight(view);
      done = offset(view) + view.rows * view.columns;
    });
    piece(done, layer.parameter_count() - done);
  }
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
  void check_sigma(sigma_caller caller, spectral_state_view const& view, double sigma) const {
    if (std::isfinite(1 / sigma) && std::isfinite(sigma)) return;
    detail::text name;
    if (caller.head >= 0) name << caller.head << ".";
    name << layer.parameter(view.parameter).name;
    detail::fail(caller.function, name.c_str(), "a weight whose sigma is finite and not 0",
                 detail::text() << sigma);
  }
  [[nodiscard]] std::int64_t offset(spectral_state_view const& view) const {
    return layer.parameter(view.parameter).offset;
  }
  [[nodiscard]] spectral_norm norm(spectral_state_view const& view) const {
    return {view.rows, view.columns, iterations, epsilon};
  }
};

// clang 14 deduces nothing for aggregates by itself.
template <detail::any_layer Layer>
spectral_weights(Layer, int = 1, double = 1e-12) -> spectral_weights<Layer>;

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
