// SPDX-License-Identifier: MIT
// The gradients of the losses on K heads against finite differences.
#include "losses/gradcheck_sweep.hpp"

namespace {

using namespace sweep;

template <class T, class Loss, bool Generator, class Heads>
struct of_logits {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), Generator ? 0 : 1);
    adversarial<Loss, mean, Heads> const loss;
    if constexpr (Generator) {
      value<Reduction>(cpu_context{}, loss.template generator<T>(fake), out);
    } else {
      value<Reduction>(cpu_context{}, loss.template discriminator<T>(real, fake), out);
    }
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), Generator ? 0 : 1);
    auto const real_out = heads_of<rows<T>>(g.data(), 0);
    auto const fake_out = heads_of<rows<T>>(g.data(), Generator ? 0 : 1);
    adversarial<Loss, mean, Heads> const loss;
    if constexpr (Generator) {
      grad<Reduction>(cpu_context{}, loss.template generator<T>(fake),
                      {.fake = fake_out, .accumulate = s.accumulates}, {s.upstream, s.grad_scale});
    } else {
      grad<Reduction>(cpu_context{}, loss.template discriminator<T>(real, fake),
                      {.real = real_out, .fake = fake_out, .accumulate = s.accumulates},
                      {s.upstream, s.grad_scale});
    }
  }
};

/// The functions of pairs of logits. `Bind::bind<T>(first, second)`.
template <class T, class Bind>
struct of_pairs {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const first = heads_of<rows<T const>>(x.data(), 0);
    auto const second = heads_of<rows<T const>>(x.data(), 1);
    value<Reduction>(cpu_context{}, Bind::template bind<T>(first, second), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const first = heads_of<rows<T const>>(x.data(), 0);
    auto const second = heads_of<rows<T const>>(x.data(), 1);
    auto const first_out = heads_of<rows<T>>(g.data(), 0);
    auto const second_out = heads_of<rows<T>>(g.data(), 1);
    grad<Reduction>(cpu_context{}, Bind::template bind<T>(first, second),
                    {.first = first_out, .second = second_out, .accumulate = s.accumulates},
                    {s.upstream, s.grad_scale});
  }
};

struct relativistic_discriminator {
  template <class T>
  static auto bind(auto const& a, auto const& b) {
    return paired<relativistic>{}.template discriminator<T>(a, b);
  }
};
struct relativistic_generator {
  template <class T>
  static auto bind(auto const& a, auto const& b) {
    return paired<relativistic, sum, mean>{}.template generator<T>(a, b);
  }
};
struct approximate_penalty {
  template <class T>
  static auto bind(auto const& a, auto const& b) {
    return approximate_r1<>{.lambda = 0.25}.template on<T>(a, b);
  }
};

template <class T>
struct of_features {
  static constexpr r1 penalty{.gamma = 0.125, .factor = 0.5, .interval = 4};
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const features = heads_of<rows<T const>>(x.data(), 0);
    value<Reduction>(cpu_context{}, penalty.on<T>(features), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const features = heads_of<rows<T const>>(x.data(), 0);
    auto const out = heads_of<rows<T>>(g.data(), 0);
    grad<Reduction>(cpu_context{}, penalty.on<T>(features),
                    {.features = out, .accumulate = s.accumulates}, {s.upstream, s.grad_scale});
  }
};

template <class T>
using hinge_discriminator = of_logits<T, hinge, false, sum>;
template <class T>
using hinge_generator = of_logits<T, hinge, true, mean>;
template <class T>
using non_saturating_discriminator = of_logits<T, non_saturating, false, mean>;
template <class T>
using non_saturating_generator = of_logits<T, non_saturating, true, sum>;
template <class T>
using least_squares_discriminator = of_logits<T, least_squares, false, sum>;
template <class T>
using least_squares_generator = of_logits<T, least_squares, true, sum>;
template <class T>
using wasserstein_discriminator = of_logits<T, wasserstein, false, sum>;
template <class T>
using wasserstein_generator = of_logits<T, wasserstein, true, sum>;
template <class T>
using pairs_discriminator = of_pairs<T, relativistic_discriminator>;
template <class T>
using pairs_generator = of_pairs<T, relativistic_generator>;
template <class T>
using pairs_penalty = of_pairs<T, approximate_penalty>;

}  // namespace

TEST_CASE("gradients of the adversarial losses") {
  check_types<hinge_discriminator>(logits(2));
  check_types<hinge_generator>(logits(1));
  check_types<non_saturating_discriminator>(logits(2));
  check_types<non_saturating_generator>(logits(1));
  check_types<least_squares_discriminator>(logits(2));
  check_types<least_squares_generator>(logits(1));
  check_types<wasserstein_discriminator>(logits(2));
  check_types<wasserstein_generator>(logits(1));
}

TEST_CASE("gradients of the losses on pairs") {
  check_types<pairs_discriminator>(logits(2));
  check_types<pairs_generator>(logits(2));
  check_types<pairs_penalty>(logits(2));
}

TEST_CASE("the cotangent of R1 is the gradient of the penalty") {
  check_types<of_features>(logits(1));
}
