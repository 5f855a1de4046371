// SPDX-License-Identifier: MIT
// The gradients of both objectives against finite differences.
#include "losses/gradcheck_sweep.hpp"

namespace {

using namespace sweep;

/// x: the logits of the fakes, then the student's images.
template <class T, class Objective>
struct of_student_objective {
  static auto bound(std::vector<T> const& x, std::vector<rows<T const>> const& fake) {
    Objective const objective{.lambda = 0.75};
    return objective.template student<T>(
        fake, objective.distillation(schedule(), view(x.data() + head_begin[heads], batch, row),
                                     constant<T, 106>(), timesteps()));
  }
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const fake = heads_of<rows<T const>>(x.data(), 0);
    value<Reduction>(cpu_context{}, bound(x, fake), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const fake = heads_of<rows<T const>>(x.data(), 0);
    auto const out = heads_of<rows<T>>(g.data(), 0);
    auto const place = view(g.data() + head_begin[heads], batch, row);
    grad<Reduction>(cpu_context{}, bound(x, fake),
                    {.logits = {.fake = out, .accumulate = s.accumulates},
                     .student = s.accumulates ? addloss::gradient<T>(accumulate(place))
                                              : addloss::gradient<T>(place)},
                    {s.upstream, s.grad_scale});
  }
};

/// x: the logits of reals and fakes, then the feature gradients.
template <class T>
struct of_discriminator_objective {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), 1);
    auto const features = heads_of<rows<T const>>(x.data(), 2);
    add_practical<> const objective{.penalty = {.gamma = 0.5}};
    value<Reduction>(cpu_context{}, objective.template discriminator<T>(real, fake, features), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const real = heads_of<rows<T const>>(x.data(), 0);
    auto const fake = heads_of<rows<T const>>(x.data(), 1);
    auto const features = heads_of<rows<T const>>(x.data(), 2);
    auto const real_out = heads_of<rows<T>>(g.data(), 0);
    auto const fake_out = heads_of<rows<T>>(g.data(), 1);
    auto const cotangent = heads_of<rows<T>>(g.data(), 2);
    add_practical<> const objective{.penalty = {.gamma = 0.5}};
    grad<Reduction>(cpu_context{}, objective.template discriminator<T>(real, fake, features),
                    {.logits = {.real = real_out, .fake = fake_out, .accumulate = s.accumulates},
                     .cotangents = {.features = cotangent, .accumulate = s.accumulates}},
                    {s.upstream, s.grad_scale});
  }
};

std::vector<double> student_and_logits() {
  auto x = logits(1);
  auto const student = sixteenths(batch * row, 6);
  x.insert(x.end(), student.begin(), student.end());
  return x;
}

template <class T>
using paper_student = of_student_objective<T, add_paper<>>;
template <class T>
using practical_student = of_student_objective<T, add_practical<>>;

}  // namespace

TEST_CASE("gradients of both objectives are those of the totals") {
  check_types<paper_student>(student_and_logits());
  check_types<practical_student>(student_and_logits());
  check_types<of_discriminator_objective>(logits(3));
}
