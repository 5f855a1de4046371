// SPDX-License-Identifier: MIT
#pragma once

#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

/// Differentiates `f`, from a list of tensors of doubles to one tensor, by autograd and by central
/// differences. Upstream gradients are different numbers.
class differences {
 public:
  using list = std::vector<at::Tensor>;

  /// The largest difference between both gradients, relative to 1 or the gradient.
  template <class Function>
  static double of_value(Function const& f, list const& inputs) {
    return largest([&](list const& x) { return weighted(f(x)); }, inputs);
  }
  /// The same of the gradient, as a function of the inputs: of second derivatives.
  template <class Function>
  static double of_gradient(Function const& f, list const& inputs) {
    return largest(
        [&](list const& x) {
          at::Tensor sum = at::zeros({}, at::kDouble);
          auto const gradients =
              torch::autograd::grad({weighted(f(x))}, x, {}, /*retain_graph=*/true,
                                    /*create_graph=*/true, /*allow_unused=*/true);
          // Another weight for each input: gradients of pairs add up to 0.
          int weight = 1;
          for (at::Tensor const& gradient : gradients) {
            if (gradient.defined()) sum = sum + weight * weighted(gradient);
            ++weight;
          }
          return sum;
        },
        inputs);
  }

 private:
  static at::Tensor weighted(at::Tensor const& value) {
    auto const weights = at::linspace(0.5, 1.5, value.numel(), at::kDouble).view(value.sizes());
    return (weights * value).sum();
  }

  template <class Function>
  static double largest(Function const& f, list const& inputs) {
    list x;
    for (at::Tensor const& input : inputs) x.push_back(input.clone().requires_grad_());
    at::Tensor const value = f(x);
    list gradients(x.size());
    if (value.requires_grad()) {
      gradients = torch::autograd::grad({value}, x, {}, false, false, /*allow_unused=*/true);
    }
    double result = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      auto* const data = x[i].data_ptr<double>();
      at::Tensor const gradient =
          (gradients[i].defined() ? gradients[i] : at::zeros_like(x[i])).contiguous();
      for (std::int64_t j = 0; j < x[i].numel(); ++j) {
        double constexpr step = 1e-5;
        double const before = data[j];
        data[j] = before + step;
        double const above = f(x).template item<double>();
        data[j] = before - step;
        double const below = f(x).template item<double>();
        data[j] = before;
        double const exact = gradient.data_ptr<double>()[j];
        double const error =
            std::abs((above - below) / (2 * step) - exact) / std::max(1.0, std::abs(exact));
        result = error > result || error != error ? error : result;
      }
    }
    return result;
  }
};
