// SPDX-License-Identifier: MIT
// The gradients of the distillation losses against finite differences.
#include "losses/gradcheck_sweep.hpp"

namespace {

using namespace sweep;

/// The functions of one tensor [B, 7].
template <class T, class Bind>
struct of_student {
  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    value<Reduction>(cpu_context{}, Bind::template bind<T>(view(x.data(), batch, row)), out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    auto const place = view(g.data(), batch, row);
    auto const loss = Bind::template bind<T>(view(x.data(), batch, row));
    using gradient_type = typename decltype(loss)::gradients;
    grad<Reduction>(cpu_context{}, loss,
                    s.accumulates ? gradient_type(accumulate(place)) : gradient_type(place),
                    {s.upstream, s.grad_scale});
  }
};

/// A pseudo-Huber distance wide enough for a step of 1/16.
template <class Distance>
constexpr Distance smooth() {
  if constexpr (std::same_as<Distance, pseudo_huber>) {
    return {.c = 1};
  } else {
    return {};
  }
}

template <class Distance, class Elements, class Weighting = exponential>
struct from_target {
  template <class T>
  static auto bind(auto student) {
    distillation<Weighting, Distance, Elements> const loss{{}, smooth<Distance>()};
    return loss(schedule(), student, constant<T, 101>(), timesteps());
  }
};

/// What a prediction is made with: a variance-preserving schedule, or for flows a rectified one.
template <class Prediction>
struct made_with {
  static auto schedule() { return sweep::schedule(); }
  static std::vector<std::int64_t> const& times() { return timesteps(); }
};
template <>
struct made_with<flow_prediction> {
  static rectified_flow schedule() { return {}; }
  static std::vector<double> const& times() {
    static std::vector<double> const t = {0.1, 0.5, 0.9};
    return t;
  }
};

std::vector<double> student() { return sixteenths(batch * row, 4); }

/// The distillation from the teacher's predictions for `student()`. The teacher is a constant, so
/// what is differentiated is the distance to the image that it made of that student.
template <class T, class Prediction, class Weighting, class Distance = squared>
struct of_teacher {
  using loss_type = distillation<Weighting, Distance, mean>;
  using used = made_with<Prediction>;
  static constexpr double guidance_scale = 2;

  std::vector<T> target = stored_as<T>(teacher_image());

  static std::vector<double> teacher_image() {
    auto const x = student();
    std::vector<double> image(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      auto const read = [i](auto view) { return as_double(view.data[i]); };
      auto const time = used::times()[i / row];
      noise_level const level = used::schedule().at(time);
      double const u = read(constant<T, 104>());
      double const guided = u + guidance_scale * (read(constant<T, 103>()) - u);
      double const noise = read(constant<T, 102>());
      if constexpr (std::same_as<Weighting, nfsd>) {
        double const negative = time < 200 ? 0 : read(constant<T, 105>());
        image[i] = x[i] - level.sigma / level.alpha * (guided - negative);
      } else {
        auto const [of_noisy, of_prediction] = Prediction::sample(level);
        image[i] = of_noisy * (level.alpha * x[i] + level.sigma * noise) + of_prediction * guided;
      }
    }
    return image;
  }

  template <class Reduction>
  void losses(std::vector<T> const& x, auto& out) const {
    auto const weighting = [] {
      if constexpr (std::same_as<Weighting, nfsd>) {
        return sds{};  // the same weights
      } else {
        return Weighting{};
      }
    }();
    distillation<std::remove_const_t<decltype(weighting)>, Distance, mean> const loss{
        weighting, smooth<Distance>()};
    value<Reduction>(cpu_context{},
                     loss(used::schedule(), view(x.data(), batch, row),
                          view(target.data(), batch, row), used::times()),
                     out);
  }
  template <class Reduction>
  void gradient(std::vector<T> const& x, std::vector<T>& g, settings<T> const& s) const {
    teacher_predictions<T> const teacher{.noise = constant<T, 102>(),
                                         .conditional = constant<T, 103>(),
                                         .unconditional = constant<T, 104>(),
                                         .negative = constant<T, 105>(),
                                         .guidance_scale = guidance_scale};
    auto const place = view(g.data(), batch, row);
    grad<Reduction>(
        cpu_context{},
        loss_type{{}, smooth<Distance>()}.from_teacher(
            Prediction{}, used::schedule(), view(x.data(), batch, row), teacher, used::times()),
        s.accumulates ? addloss::gradient<T>(accumulate(place)) : addloss::gradient<T>(place),
        {s.upstream, s.grad_scale});
  }
};

template <class T>
using target_squared = of_student<T, from_target<squared, mean>>;
template <class T>
using target_squared_sum = of_student<T, from_target<squared, sum, sds>>;
template <class T>
using target_absolute = of_student<T, from_target<absolute, mean, min_snr>>;
template <class T>
using target_pseudo_huber = of_student<T, from_target<pseudo_huber, sum, uniform>>;
template <class T>
using teacher_epsilon = of_teacher<T, epsilon_prediction, sds>;
template <class T>
using teacher_epsilon_pseudo_huber = of_teacher<T, epsilon_prediction, exponential, pseudo_huber>;
template <class T>
using teacher_v = of_teacher<T, v_prediction, exponential>;
template <class T>
using teacher_sample = of_teacher<T, sample_prediction, uniform, absolute>;
template <class T>
using teacher_flow = of_teacher<T, flow_prediction, uniform>;
template <class T>
using teacher_nfsd = of_teacher<T, epsilon_prediction, nfsd>;

}  // namespace

TEST_CASE("gradients of the distillation from a target") {
  check_types<target_squared>(student());
  check_types<target_squared_sum>(student());
  check_types<target_absolute>(student());
  check_types<target_pseudo_huber>(student());
}

TEST_CASE("gradients of the distillation from the teacher's predictions") {
  check_types<teacher_epsilon>(student());
  check_types<teacher_epsilon_pseudo_huber>(student());
  check_types<teacher_v>(student());
  check_types<teacher_sample>(student());
  check_types<teacher_flow>(student());
  check_types<teacher_nfsd>(student());
}
