// SPDX-License-Identifier: MIT
/// The forward process and the conversions between predictions, element by element:
///
///   add_noise          x_t = alpha_t x_0 + sigma_t eps
///   velocity           v   = alpha_t eps - sigma_t x_0          (v-prediction's regression target)
///   to_sample<P>       x_0 from x_t and a prediction of type P  (noising/prediction.hpp)
///   to_epsilon<P>      eps from x_t and a prediction of type P
/// All tensors [B, ...] of one shape, timesteps [B]; the noise is stored, or generated from its
/// counters (`normal_noise{key}`) and never stored. Storage types may differ; arithmetic is done in
/// that of the output. Not differentiated: the student's output is the only variable of the losses.
/// The output may be written over an input of its type and strides. NaN propagates. No allocation;
/// same bits for any number of threads.
/// Errors: shapes, an empty batch, a timestep outside the schedule; to_sample of an epsilon
/// prediction at alpha = 0; to_epsilon of a sample prediction at sigma = 0.
/// Source: Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models, 2020, eq. 4.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_traits.hpp>
#include <addloss/noising/prediction.hpp>
#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>
#include <addloss/schedule/concept.hpp>

namespace addloss {
namespace detail {

/// A linear combination of the operands.
template <class A, unsigned Operands>
struct combination_row {
  A factor[Operands];
  template <class V>
  ADDLOSS_HOST_DEVICE ADDLOSS_INLINE element_result<V, 0, 1> operator()(
      V const (&x)[Operands]) const {
    V result = V(factor[0]) * x[0];
    for (unsigned i = 1; i < Operands; ++i) result = result + V(factor[i]) * x[i];
    return {{}, {result}, {}};
  }
};

/// What passes share that write one tensor and sum nothing.
template <class Out>
struct combination_pass_base {
  using arithmetic = arithmetic_t<Out>;
  static constexpr unsigned output_count = 1;
  static constexpr unsigned sum_count = 0;
  static constexpr unsigned tally_count = 0;
  static constexpr unsigned total_count = sum_count + tally_count + 1;
  static constexpr unsigned max_parts = 1;

  part_extent size;
  output_rows<Out> out;

  [[nodiscard]] ADDLOSS_HOST_DEVICE int parts() const { return 1; }
  [[nodiscard]] ADDLOSS_HOST_DEVICE part_extent extent(int /*part*/) const { return size; }
  template <int>
  [[nodiscard]] ADDLOSS_HOST_DEVICE output_rows<Out> const& output(int /*part*/) const {
    return out;
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE double row_weight(int /*part*/, std::int64_t /*row*/) const {
    return 0;
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE bool writes_samples() const { return false; }
  ADDLOSS_HOST_DEVICE void write_sample(int /*part*/, std::int64_t /*row*/,
                                        double /*value*/) const {}
  ADDLOSS_HOST_DEVICE void finish_part(int /*part*/, double const* /*totals*/) const {}
  ADDLOSS_HOST_DEVICE void finish(double /*value*/, double /*bad*/) const {}
};

/// out = a first + b second, (a, b) of each row given by `Coefficients`. `Second`: an operand,
/// stored or generated.
template <class Coefficients, class Schedule, class X, class Second, class Out>
struct combination_pass : combination_pass_base<Out> {
  using typename combination_pass_base<Out>::arithmetic;
  using time_type = typename Schedule::time_type;
  static constexpr unsigned operand_count = 2;

  Schedule schedule;
  stored<X> first;
  Second second;
  stored<time_type> timesteps;

  template <int Index>
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto operand(int /*part*/, std::int64_t /*row*/) const {
    if constexpr (Index == 0) {
      return first;
    } else {
      return second;
    }
  }
  [[nodiscard]] ADDLOSS_HOST_DEVICE auto row(int /*part*/, std::int64_t row) const {
    auto const pair = Coefficients::at(schedule.at(timesteps.data[row * timesteps.row_stride]));
    return combination_row<arithmetic, 2>{
        {static_cast<arithmetic>(pair.noisy), static_cast<arithmetic>(pair.prediction)}};
  }
};

/// (alpha, sigma), (-sigma, alpha), ...: what each verb multiplies its two operands with, and a
/// check of the levels where it has none.
struct forward_coefficients {
  static constexpr bool has_pole = false;
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients at(noise_level level) {
    return {level.alpha, level.sigma};
  }
};
struct velocity_coefficients {
  static constexpr bool has_pole = false;
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients at(noise_level level) {
    return {-level.sigma, level.alpha};
  }
};
template <prediction_type P>
struct sample_coefficients {
  static constexpr bool has_pole = P::has_pole;
  static void check(char const* function, noise_level level, std::int64_t sample, double time) {
    check_pole(function, level, sample, time);
  }
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients at(noise_level level) {
    return P::sample(level);
  }
};
template <prediction_type P>
struct epsilon_coefficients {
  static constexpr bool has_pole = std::same_as<P, sample_prediction>;
  static void check(char const* function, noise_level level, std::int64_t sample, double time) {
    if (level.sigma == 0) {
      fail(function, argument_name("timesteps", sample),
           "sigma > 0: a sample prediction determines no eps at sigma = 0",
           text() << "timestep " << time << ", where sigma = 0");
    }
  }
  static ADDLOSS_HOST_DEVICE constexpr prediction_coefficients at(noise_level level) {
    return P::epsilon(level);
  }
};

template <class Tensor>
using value_of = typename view_of<Tensor>::value_type;

/// The storage type of a noise argument; that of generated noise is not used.
template <class Noise>
struct stored_noise {
  using type = value_of<Noise>;
};
template <generated_noise Noise>
struct stored_noise<Noise> {
  using type = float;
};

/// Checks the arguments of a verb and runs it.
template <class Coefficients, class Context, class Schedule, class First, class Second, class Time,
          class Out>
void combine(char const* function, Context const& ctx, Schedule const& schedule,
             argument_name first_name, First&& first_tensor, argument_name second_name,
             Second&& second_tensor, Time&& time_tensor, Out&& out_tensor) {
  using space = typename Context::space;
  using second_type = typename stored_noise<std::remove_cvref_t<Second>>::type;
  rows<value_of<First> const, space> const first(as_view(first_tensor));
  noise_source<second_type, space> const second(second_tensor);
  rows<typename Schedule::time_type const, space> const timesteps(as_view(time_tensor));
  rows<value_of<Out>, space> const out(as_view(out_tensor));
  check_rows(function, first_name, first);
  check_noise(function, second_name, second, first_name, first);
  check_timesteps(function, schedule, timesteps, first.count);
  if constexpr (Coefficients::has_pole && std::same_as<space, host_space>) {
    for (std::int64_t b = 0; b < timesteps.count; ++b) {
      auto const t = timesteps.data[b * timesteps.row_stride];
      Coefficients::check(function, schedule.at(t), b, static_cast<double>(t));
    }
  }
  check_same_rows(function, "out", out, first_name, first);
  check_distinct_rows(function, "out", out);
  auto const run = [&](auto const& operand) {
    using operand_type = std::remove_cvref_t<decltype(operand)>;
    executor<Context>::run(
        ctx, combination_pass<Coefficients, Schedule, value_of<First>, operand_type, value_of<Out>>{
                 {{first.count, first.row_size}, {out.data, out.row_stride, store_mode::overwrite}},
                 schedule,
                 stored_rows(first),
                 operand,
                 stored_rows(timesteps)});
  };
  if constexpr (generated_noise<std::remove_cvref_t<Second>>) {
    run(second.noise);
  } else {
    run(stored_rows(second.tensor));
  }
}

}  // namespace detail

/// A noise argument for samples in `Space`: a tensor, `normal_noise`, or `normal_noise_at`.
template <class Noise, class Space>
concept noise_like = generated_noise<std::remove_cvref_t<Noise>> ||
                     (tensor_like<Noise> && std::same_as<typename view_of<Noise>::space, Space> &&
                      storage_scalar<typename view_of<Noise>::value_type>);

/// A tensor in the memory of `Context`.
template <class Tensor, class Context>
concept tensor_of =
    tensor_like<Tensor> && std::same_as<typename view_of<Tensor>::space, typename Context::space> &&
    storage_scalar<typename view_of<Tensor>::value_type>;

/// The same, of elements that can be written.
template <class Tensor, class Context>
concept writable_tensor_of =
    tensor_of<Tensor, Context> && !std::is_const_v<typename view_of<Tensor>::element_type>;

/// The times of a batch for `Schedule`, both in the memory of `Context`.
template <class Tensor, class Schedule, class Context>
concept times_of = tensor_in<Tensor, typename Schedule::time_type const, typename Context::space> &&
                   schedule_in<Schedule, typename Context::space>;

/// x_t = alpha x_0 + sigma eps.
template <has_executor Context, noise_schedule Schedule, tensor_of<Context> X0,
          times_of<Schedule, Context> Time, noise_like<typename Context::space> Noise,
          writable_tensor_of<Context> Out>
void add_noise(Context const& ctx, Schedule const& schedule, X0&& x0, Time&& timesteps,
               Noise&& noise, Out&& out) {
  detail::combine<detail::forward_coefficients>("add_noise", ctx, schedule, "x0", x0, "noise",
                                                noise, timesteps, out);
}

/// v = alpha eps - sigma x_0.
template <has_executor Context, noise_schedule Schedule, tensor_of<Context> X0,
          times_of<Schedule, Context> Time, noise_like<typename Context::space> Noise,
          writable_tensor_of<Context> Out>
void velocity(Context const& ctx, Schedule const& schedule, X0&& x0, Time&& timesteps,
              Noise&& noise, Out&& out) {
  detail::combine<detail::velocity_coefficients>("velocity", ctx, schedule, "x0", x0, "noise",
                                                 noise, timesteps, out);
}

/// x_0 from x_t and a prediction of type P.
template <prediction_type P, has_executor Context, noise_schedule Schedule,
          tensor_of<Context> Noisy, times_of<Schedule, Context> Time, tensor_of<Context> Prediction,
          writable_tensor_of<Context> Out>
void to_sample(P /*type*/, Context const& ctx, Schedule const& schedule, Noisy&& noisy,
               Time&& timesteps, Prediction&& prediction, Out&& out) {
  detail::combine<detail::sample_coefficients<P>>("to_sample", ctx, schedule, "noisy", noisy,
                                                  "prediction", prediction, timesteps, out);
}

/// eps from x_t and a prediction of type P.
template <prediction_type P, has_executor Context, noise_schedule Schedule,
          tensor_of<Context> Noisy, times_of<Schedule, Context> Time, tensor_of<Context> Prediction,
          writable_tensor_of<Context> Out>
void to_epsilon(P /*type*/, Context const& ctx, Schedule const& schedule, Noisy&& noisy,
                Time&& timesteps, Prediction&& prediction, Out&& out) {
  detail::combine<detail::epsilon_coefficients<P>>("to_epsilon", ctx, schedule, "noisy", noisy,
                                                   "prediction", prediction, timesteps, out);
}

}  // namespace addloss
