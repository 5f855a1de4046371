// SPDX-License-Identifier: MIT
/// The distillation loss: the student's image against the image the teacher makes of it.
///
///   L_b = c(t_b) d(student_b, target_b),  L = 1/B sum_b L_b
/// c(t): weighting/; d: losses/distance.hpp, summed or averaged over the elements of a sample
/// (`Elements`; the default is mean; at 512 x 512 x 3 the two differ by a factor 786432, so a
/// weight lambda means nothing without it). Student and target [B, ...], timesteps [B].
/// Gradient: with respect to the student only; the teacher is a constant (stop-gradient).
///   squared: dL/dx = 2 c (student - target) / B, or / (B D) with mean over D elements
/// Deterministic: same bits for any number of threads. Reads each operand once, writes the gradient
/// once; no allocation.
/// Errors: shapes, memory order, an empty batch, a timestep outside the schedule; settings of the
/// weighting or the distance that are out of range.
/// Source: Sauer, Lorenz, Blattmann, Rombach, Adversarial Diffusion Distillation, 2023, eq. 4.
#pragma once

#include <concepts>
#include <cstdint>

#include <addloss/core/error.hpp>
#include <addloss/losses/distance.hpp>
#include <addloss/noising/prediction.hpp>
#include <addloss/reduce/destination.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>
#include <addloss/schedule/concept.hpp>
#include <addloss/weighting/concept.hpp>
#include <addloss/weighting/exponential.hpp>
#include <addloss/weighting/nfsd.hpp>

namespace addloss {

/// What the teacher said about x_t = alpha student + sigma noise. `T`: storage type.
/// The guided prediction is p = u + s (c - u) (some code writes c + s (c - u); s differs by one).
template <storage_scalar T, class Space = host_space>
struct teacher_predictions {
  noise_source<T, Space> noise{};  ///< the noise in x_t: stored, or normal_noise{key}
  rows<T const, Space> conditional{};  ///< c
  rows<T const, Space> unconditional{};  ///< u; may be absent where guidance_scale is 1
  /// Prediction for a negative prompt; read by nfsd only, for t >= its threshold. On a GPU it must
  /// be there whatever the timesteps, as they are not read before the kernel runs.
  rows<T const, Space> negative{};
  double guidance_scale = 1;  ///< s
};

namespace detail {

/// One row of the teacher form: the distance of `scale` times a linear combination of the guided
/// prediction x[0] + guidance (x[1] - x[0]) and the operands after it.
template <class A, distance Distance, unsigned Operands>
struct residual_row {
  Distance distance;
  A guidance;
  A coefficient[Operands - 1];
  A scale;
  A gradient_weight;

  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE element_result<V, 1, 1> operator()(
      V const (&x)[Operands]) const {
    V residual = V(coefficient[0]) * (x[0] + V(guidance) * (x[1] - x[0]));
    for (unsigned i = 2; i < Operands; ++i) residual = residual + V(coefficient[i - 1]) * x[i];
    auto const [value, grad] = distance(V(scale) * residual);
    return {{value}, {V(gradient_weight) * grad}, {}};
  }
};

/// student - target needs no coefficients.
template <class A, distance Distance>
struct difference_row {
  Distance distance;
  A gradient_weight;

  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE element_result<V, 1, 1> operator()(V const (&x)[2]) const {
    auto const [value, grad] = distance(x[0] - x[1]);
    return {{value}, {V(gradient_weight) * grad}, {}};
  }
};

/// What both forms of the loss share; `Form` adds operands and rows.
template <class Form, class A, class G, class Out>
struct distillation_pass_base {
  using arithmetic = A;
  static constexpr unsigned output_count = 1;
  static constexpr unsigned sum_count = 1;
  static constexpr unsigned tally_count = 0;
  static constexpr unsigned total_count = sum_count + tally_count + 1;
  static constexpr unsigned max_parts = 1;

  part_extent size;
  output_rows<G> gradient;
  gradient_scale<A> upstream;
  loss_writer<Out> writer;
  double element_factor;

  /// Of checked students: checks the rest.
  template <class Reduction, class Loss, class Space>
  static distillation_pass_base make(char const* function, Loss const& loss,
                                     rows<G const, Space> const& student,
                                     loss_output<Out, Space> const& value,
                                     addloss::gradient<G, Space> const& grad,
                                     evaluation_options<A, Space> const& settings) {
    check_settings(function, loss.weighting);
    check_settings(function, loss.distance);
    auto const writer =
        check_output<Reduction>(function, value, student.count, settings.non_finite);
    if (grad.mode != store_mode::none) {
      check_same_rows(function, "gradient", grad.target, "student", student);
      check_distinct_rows(function, "gradient", grad.target);
    }
    auto const scale = check_upstream(function, settings.upstream, settings.grad_scale,
                                      value.weight, student.count);
    return {{student.count, student.row_size},
            grad.output(),
            scale,
            writer,
            Loss::elements::factor(student.row_size)};
  }

  [[nodiscard]] ADDLOSS_HOST_DEVICE int parts() const { return 1; }
  [[nodiscard]] ADDLOSS_HOST_DEVICE part_extent extent(int /*part*/) const { return size; }
  template <int>
  [[nodiscard]] ADDLOSS_HOST_DEVICE output_rows<G> const& output(int /*part*/) const {
    return gradient;
  }
  /// What the gradient of a row's summed distance is multiplied with, the weighting left out.
  [[nodiscard]] ADDLOSS_HOST_DEVICE double gradient_factor(std::int64_t row) const {
    return element_factor * writer.factor * upstream.at(row);
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double row_weight(int /*part*/, std::int64_t row) const {
    return static_cast<Form const*>(this)->value_weight(row) * element_factor;
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE bool writes_samples() const { return writer.writes_samples(); }
  ADDLOSS_HOST_DEVICE void write_sample(int /*part*/, std::int64_t row, double value) const {
    writer.write_sample(row, true, value);
  }
  ADDLOSS_HOST_DEVICE void finish_part(int /*part*/, double const* /*totals*/) const {}
  ADDLOSS_HOST_DEVICE void finish(double value, double bad) const { writer.write(value, bad); }
};

}  // namespace detail

/// distillation from a target, bound to its inputs; made by `distillation`.
template <class Loss, noise_schedule Schedule, storage_scalar X, storage_scalar Y, class Space>
struct target_distillation {
  using space = Space;
  using arithmetic = arithmetic_t<X>;
  using gradients = gradient<X, Space>;
  using options = evaluation_options<arithmetic, Space>;
  template <class Out>
  using values = detail::loss_output<Out, Space>;
  using time_type = typename Schedule::time_type;

  Loss loss;
  Schedule schedule;
  rows<X const, Space> student;
  rows<Y const, Space> target;
  rows<time_type const, Space> timesteps;

  template <class Out>
  struct pass_type : detail::distillation_pass_base<pass_type<Out>, arithmetic, X, Out> {
    static constexpr unsigned operand_count = 2;
    Loss loss;
    Schedule schedule;
    detail::stored<X> student;
    detail::stored<Y> target;
    detail::stored<time_type> timesteps;

    template <int Index>
    [[nodiscard]] ADDLOSS_HOST_DEVICE auto operand(int /*part*/, std::int64_t /*row*/) const {
      if constexpr (Index == 0) {
        return student;
      } else {
        return target;
      }
    }
    [[nodiscard]] ADDLOSS_HOST_DEVICE double value_weight(std::int64_t row) const {
      return loss.weighting.at(schedule.at(timesteps.data[row * timesteps.row_stride]));
    }
    [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int /*part*/, std::int64_t row) const {
      return detail::difference_row<arithmetic, typename Loss::distance_type>{
          loss.distance, static_cast<arithmetic>(value_weight(row) * this->gradient_factor(row))};
    }
  };

  template <class Reduction, class Out>
  auto pass(char const* function, detail::loss_output<Out, Space> const& value,
            gradients const& grad, options const& settings) const {
    detail::check_rows(function, "student", student);
    detail::check_same_rows(function, "target", target, "student", student);
    detail::check_timesteps(function, schedule, timesteps, student.count);
    auto const base =
        pass_type<Out>::template make<Reduction>(function, loss, student, value, grad, settings);
    using detail::stored_rows;
    return pass_type<Out>{
        base, loss, schedule, stored_rows(student), stored_rows(target), stored_rows(timesteps)};
  }
};

/// distillation from the teacher's raw predictions, bound to its inputs; made by
/// `distillation::from_teacher`. The target is never stored.
template <class Loss, prediction_type Prediction, noise_schedule Schedule, storage_scalar X,
          storage_scalar Y, class Space>
struct teacher_distillation {
  using space = Space;
  using arithmetic = arithmetic_t<X>;
  using gradients = gradient<X, Space>;
  using options = evaluation_options<arithmetic, Space>;
  template <class Out>
  using values = detail::loss_output<Out, Space>;
  using time_type = typename Schedule::time_type;
  using weighting_type = typename Loss::weighting_type;

  static constexpr bool noise_free = std::same_as<weighting_type, nfsd>;
  static_assert(!noise_free || std::same_as<Prediction, epsilon_prediction>,
                "addloss: the nfsd residual is made of epsilon predictions");
  static constexpr bool reads_student = !noise_free && Prediction::residual_reads_student;
  static constexpr bool reads_noise = !noise_free && Prediction::residual_reads_noise;
  // A quadratic distance lets the scale sigma / alpha of an epsilon prediction leave the distance
  // and cancel against the weighting, so that the gradient has no pole at alpha = 0.
  static constexpr bool scale_leaves = std::same_as<typename Loss::distance_type, squared>;
  static constexpr bool gradient_without_pole =
      !Prediction::has_pole || (scale_leaves && weighting_without_pole<weighting_type>);

  Loss loss;
  Schedule schedule;
  rows<X const, Space> student;
  teacher_predictions<Y, Space> teacher;
  rows<time_type const, Space> timesteps;

  template <class Out>
  struct pass_type : detail::distillation_pass_base<pass_type<Out>, arithmetic, X, Out> {
    // u, c, then as needed: the student, the noise, the negative prediction.
    static constexpr unsigned student_index = 2;
    static constexpr unsigned noise_index = student_index + (reads_student ? 1U : 0U);
    static constexpr unsigned negative_index = noise_index + (reads_noise ? 1U : 0U);
    static constexpr unsigned operand_count = negative_index + (noise_free ? 1U : 0U);
    static constexpr bool chooses_operands = noise_free;
    Loss loss;
    Schedule schedule;
    detail::stored<X> student;
    detail::stored<Y> conditional;
    detail::stored<Y> unconditional;
    detail::stored<Y> negative;
    detail::noise_operand<Y> noise;
    detail::stored<time_type> timesteps;
    double guidance_scale;

    template <int Index>
    [[nodiscard]] ADDLOSS_HOST_DEVICE auto operand(int /*part*/, std::int64_t row) const {
      if constexpr (Index == 0) {
        return unconditional;
      } else if constexpr (Index == 1) {
        return conditional;
      } else if constexpr (Index == student_index && reads_student) {
        return student;
      } else if constexpr (Index == noise_index && reads_noise) {
        return noise;
      } else {
        // Not read where it does not count: the row of u stands in, with coefficient 0.
        return subtracts_negative(row) ? negative : unconditional;
      }
    }
    [[nodiscard]] ADDLOSS_HOST_DEVICE bool subtracts_negative(std::int64_t row) const {
      return timesteps.data[row * timesteps.row_stride] >= loss.weighting.negative_threshold;
    }
    [[nodiscard]] ADDLOSS_HOST_DEVICE auto level_of(std::int64_t row) const {
      return schedule.at(timesteps.data[row * timesteps.row_stride]);
    }
    /// c(t) scale^2 where the scale leaves the distance, else c(t).
    [[nodiscard]] ADDLOSS_HOST_DEVICE double value_weight(std::int64_t row) const {
      noise_level const level = level_of(row);
      if constexpr (scale_leaves) {
        return weight_times_scale(level) * Prediction::residual(level).scale;
      } else {
        return loss.weighting.at(level);
      }
    }
    /// c(t) scale, without dividing by alpha where that can be avoided.
    [[nodiscard]] ADDLOSS_HOST_DEVICE double weight_times_scale(noise_level level) const {
      if constexpr (Prediction::has_pole && weighting_without_pole<weighting_type>) {
        return loss.weighting.over_alpha(level) * level.sigma;
      } else {
        return loss.weighting.at(level) * Prediction::residual(level).scale;
      }
    }
    [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int /*part*/, std::int64_t row) const {
      noise_level const level = level_of(row);
      auto const residual = Prediction::residual(level);
      detail::residual_row<arithmetic, typename Loss::distance_type, operand_count> result{};
      result.distance = loss.distance;
      result.guidance = static_cast<arithmetic>(guidance_scale);
      if constexpr (noise_free) {
        // delta_D + s delta_C = u - [t >= threshold] n + s (c - u)
        result.coefficient[0] = arithmetic(1);
        result.coefficient[negative_index - 1] = arithmetic(subtracts_negative(row) ? -1 : 0);
      } else {
        result.coefficient[0] = static_cast<arithmetic>(residual.prediction);
        if constexpr (reads_student) {
          result.coefficient[student_index - 1] = static_cast<arithmetic>(residual.student);
        }
        if constexpr (reads_noise) {
          result.coefficient[noise_index - 1] = static_cast<arithmetic>(residual.noise);
        }
      }
      double const weight = scale_leaves ? weight_times_scale(level) : loss.weighting.at(level);
      result.scale = static_cast<arithmetic>(scale_leaves ? 1 : residual.scale);
      result.gradient_weight = static_cast<arithmetic>(weight * this->gradient_factor(row));
      return result;
    }
  };

  template <class Reduction, class Out>
  auto pass(char const* function, detail::loss_output<Out, Space> const& value,
            gradients const& grad, options const& settings) const {
    using detail::check_same_rows;
    using detail::fail;
    using detail::text;
    detail::check_rows(function, "student", student);
    check_same_rows(function, "teacher.conditional", teacher.conditional, "student", student);
    bool const guided = !teacher.unconditional.absent();
    if (guided) {
      check_same_rows(function, "teacher.unconditional", teacher.unconditional, "student", student);
    } else if (noise_free || teacher.guidance_scale != 1) {
      fail(function, "teacher.unconditional",
           text() << "a tensor, as guidance_scale is " << teacher.guidance_scale
                  << (noise_free ? " and the weighting nfsd" : ""),
           text() << "none");
    }
    if constexpr (reads_noise) {
      detail::check_noise(function, "teacher.noise", teacher.noise, "student", student);
    }
    detail::check_timesteps(function, schedule, timesteps, student.count);
    bool subtracts = !std::same_as<Space, host_space>;
    if constexpr (std::same_as<Space, host_space>) {
      for (std::int64_t b = 0; b < student.count; ++b) {
        time_type const t = timesteps.data[b * timesteps.row_stride];
        if constexpr (Prediction::has_pole) {
          if (!value.absent() || !gradient_without_pole) {
            detail::check_pole(function, schedule.at(t), b, static_cast<double>(t));
          }
        }
        if constexpr (noise_free) subtracts = subtracts || t >= loss.weighting.negative_threshold;
      }
    }
    if constexpr (noise_free) {
      if (subtracts || !teacher.negative.absent()) {
        check_same_rows(function, "teacher.negative", teacher.negative, "student", student);
      }
    }
    auto const base =
        pass_type<Out>::template make<Reduction>(function, loss, student, value, grad, settings);
    using detail::stored_rows;
    auto const conditional = stored_rows(teacher.conditional);
    auto const unconditional = guided ? stored_rows(teacher.unconditional) : conditional;
    return pass_type<Out>{base,
                          loss,
                          schedule,
                          stored_rows(student),
                          conditional,
                          unconditional,
                          stored_rows(teacher.negative),
                          teacher.noise.operand(),
                          stored_rows(timesteps),
                          teacher.guidance_scale};
  }
};

/// The distillation loss as a value: what is weighted, how distance is measured and averaged.
///
///   distillation<> loss;                                       // exponential, squared, mean
///   value_and_grad(ctx, loss(schedule, student, target, t), value, gradient);
///   value_and_grad(ctx, loss.from_teacher(v_prediction{}, schedule, student, teacher, t), ...);
template <weighting Weighting = exponential, distance Distance = squared, reduction Elements = mean>
struct distillation {
  using weighting_type = Weighting;
  using distance_type = Distance;
  using elements = Elements;

  Weighting weighting{};
  Distance distance{};

  /// From the teacher's image, or any target (a multi-step teacher's too).
  template <noise_schedule Schedule, tensor_like Student, tensor_like Target,
            tensor_in<typename Schedule::time_type const, typename view_of<Student>::space> Time>
    requires(schedule_in<Schedule, typename view_of<Student>::space>)
  auto operator()(Schedule const& schedule, Student&& student, Target&& target,
                  Time&& timesteps) const {
    using x = typename view_of<Student>::value_type;
    using y = typename view_of<Target>::value_type;
    using space = typename view_of<Student>::space;
    return target_distillation<distillation, Schedule, x, y, space>{
        *this, schedule, as_view(student), as_view(target), as_view(timesteps)};
  }

  /// From the teacher's raw predictions for x_t = alpha student + sigma noise:
  /// | prediction | student - target                              |
  /// | epsilon    | (sigma / alpha) (p - noise)                   |
  /// | v          | sigma^2 student - alpha sigma noise + sigma p |
  /// | x_0        | student - p                                   |
  /// | flow       | sigma (student - noise + p)                   |
  /// with p = u + s (c - u). With an epsilon prediction and a squared distance the gradient is
  /// 2 (c(t) / alpha) sigma (p - noise), finite at alpha = 0 for exponential and sds (there exactly
  /// w(t) (p - noise)); the value has a pole there, and asking for it is an error.
  /// nfsd: p - noise is replaced by delta_D + s delta_C, delta_C = c - u, delta_D = u for
  /// t < negative_threshold, else u - negative (read for t >= negative_threshold only).
  /// Source of nfsd: Katzir, Patashnik, Cohen-Or, Lischinski, Noise-Free Score Distillation, 2023.
  template <prediction_type Prediction, noise_schedule Schedule, tensor_like Student, class Y,
            tensor_in<typename Schedule::time_type const, typename view_of<Student>::space> Time>
    requires(schedule_in<Schedule, typename view_of<Student>::space>)
  auto from_teacher(Prediction /*type*/, Schedule const& schedule, Student&& student,
                    teacher_predictions<Y, typename view_of<Student>::space> const& teacher,
                    Time&& timesteps) const {
    using x = typename view_of<Student>::value_type;
    using space = typename view_of<Student>::space;
    return teacher_distillation<distillation, Prediction, Schedule, x, Y, space>{
        *this, schedule, as_view(student), teacher, as_view(timesteps)};
  }
};

}  // namespace addloss
