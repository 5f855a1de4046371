// SPDX-License-Identifier: MIT
#include <addloss/noising/forward.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/core/normal.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>

#include "batch_tensor.hpp"
#include "catch.hpp"
#include "error_of.hpp"
#include "storage_types.hpp"
#include "test_context.hpp"

// Not in the unnamed namespace: kernels are named after them.
namespace forward_test {

/// No signal: x_t is the noise itself.
struct pure_noise {
  using time_type = std::int64_t;
  static ADDLOSS_HOST_DEVICE addloss::noise_level at(time_type) { return {0, 1}; }
  static void check(char const*, std::int64_t, time_type) {}
};

}  // namespace forward_test

namespace {

using namespace addloss;
using batch_tests::batch, batch_tests::batch_tensor, batch_tests::size;
using forward_test::pure_noise;

static_assert(noise_like<normal_noise, host_space> && noise_like<normal_noise const&, host_space>);
static_assert(noise_like<tensor_view<half const, 3>, host_space>);
static_assert(noise_like<std::vector<float>&, host_space>);
static_assert(!noise_like<std::vector<float>, host_space>);  // gone before it is read
static_assert(!noise_like<tensor_view<float, 2, device_space>, host_space>);
static_assert(!noise_like<random_key, host_space> && !noise_like<double, host_space>);
static_assert(!noise_like<tensor_view<int, 3>, host_space>);

static_assert(tensor_of<tensor_view<half const, 3>, cpu_context>);
static_assert(tensor_of<std::vector<double>&, cpu_context>);
static_assert(!tensor_of<tensor_view<int, 3>, cpu_context> && !tensor_of<double*, cpu_context>);
static_assert(!tensor_of<tensor_view<float, 3, device_space>, cpu_context>);

static_assert(writable_tensor_of<tensor_view<half, 3>, cpu_context>);
static_assert(writable_tensor_of<std::vector<double>&, cpu_context>);
static_assert(!writable_tensor_of<tensor_view<half const, 3>, cpu_context>);
static_assert(!writable_tensor_of<std::vector<double> const&, cpu_context>);
static_assert(!writable_tensor_of<tensor_view<int, 3>, cpu_context>);

static_assert(times_of<std::vector<std::int64_t> const&, schedule_table<>, cpu_context>);
static_assert(times_of<tensor_view<double, 1>, rectified_flow, cpu_context>);
static_assert(!times_of<tensor_view<int, 1>, schedule_table<>, cpu_context>);
static_assert(!times_of<tensor_view<std::int64_t, 1>, rectified_flow, cpu_context>);
static_assert(!times_of<tensor_view<std::int64_t, 1, device_space>, schedule_table<>, cpu_context>);

constexpr random_key key{.seed = 0x1234567890, .step = 7, .stream = 3, .first_sample = 11};

template <class T>
constexpr double tolerance = std::same_as<T, double>  ? 1e-12
                             : std::same_as<T, float> ? 1e-6
                             : std::same_as<T, half>  ? 0x1p-10
                                                      : 0x1p-7;

/// `verb(first, second, out)` writes formula(level, first, second) of each element.
template <class X, class Y, class Out>
void check(auto const& schedule, auto const& times, auto const& verb, auto const& formula) {
  auto first = batch_tensor<X>::random(131, 3);
  auto second = batch_tensor<Y>::random(132);
  batch_tensor<Out> out(5);
  verb(first.view(), second.view(), out.view());
  double worst = 0;
  out.each([&](std::size_t b, std::size_t i) {
    double const expected =
        formula(schedule.at(times[b]), as_double(first.at(b, i)), as_double(second.at(b, i)));
    double const error =
        std::abs(as_double(out.at(b, i)) - expected) / std::fmax(1, std::abs(expected));
    if (!(error <= worst)) worst = error;
  });
  CHECK(worst <= tolerance<Out>);
  CHECK(out.gaps_untouched());
}

std::vector<std::int64_t> const timesteps = {10, 420, 900};
std::vector<double> const flow_times = {0.1, 0.5, 0.9};
discrete_schedule const& levels() {
  static discrete_schedule const result = scaled_linear_schedule();
  return result;
}

template <class X, class Y, class Out>
void check_add_noise(auto const& schedule, auto const& times) {
  check<X, Y, Out>(
      schedule, times,
      [&](auto x0, auto noise, auto out) {
        add_noise(test_context{}, schedule, x0, times, noise, out);
      },
      [](noise_level l, double x0, double eps) { return l.alpha * x0 + l.sigma * eps; });
}

/// Both conversions of a prediction, `sample` and `noise` being what the papers say.
template <class X, class Y, class Out, class P>
void check_prediction(P type, auto const& schedule, auto const& times, auto const& sample,
                      auto const& noise) {
  check<X, Y, Out>(
      schedule, times,
      [&](auto x_t, auto p, auto out) {
        to_sample(type, test_context{}, schedule, x_t, times, p, out);
      },
      sample);
  check<X, Y, Out>(
      schedule, times,
      [&](auto x_t, auto p, auto out) {
        to_epsilon(type, test_context{}, schedule, x_t, times, p, out);
      },
      noise);
}

}  // namespace

TEST_CASE("add_noise mixes sample and noise") {
  check_add_noise<double, double, double>(levels().table(), timesteps);
  check_add_noise<double, double, double>(rectified_flow{.shift = 3}, flow_times);
}

TEST_CASE("add_noise reads and writes each storage type") {
  check_add_noise<float, float, float>(levels().table(), timesteps);
  check_add_noise<half, float, bfloat16>(levels().table(), timesteps);
  check_add_noise<bfloat16, half, half>(levels().table(), timesteps);
  check_add_noise<float, bfloat16, double>(levels().table(), timesteps);
}

TEST_CASE("velocity is what a v prediction aims at") {
  check<double, double, double>(
      levels().table(), timesteps,
      [](auto x0, auto noise, auto out) {
        velocity(test_context{}, levels().table(), x0, timesteps, noise, out);
      },
      [](noise_level l, double x0, double eps) { return l.alpha * eps - l.sigma * x0; });
}

TEST_CASE("sample and noise of an epsilon prediction") {
  check_prediction<double, double, double>(
      epsilon_prediction{}, levels().table(), timesteps,
      [](noise_level l, double x_t, double p) { return (x_t - l.sigma * p) / l.alpha; },
      [](noise_level, double, double p) { return p; });
}
TEST_CASE("sample and noise of a v prediction") {
  check_prediction<half, float, float>(
      v_prediction{}, levels().table(), timesteps,
      [](noise_level l, double x_t, double p) { return l.alpha * x_t - l.sigma * p; },
      [](noise_level l, double x_t, double p) { return l.sigma * x_t + l.alpha * p; });
}
TEST_CASE("sample and noise of an x_0 prediction") {
  check_prediction<double, double, double>(
      sample_prediction{}, levels().table(), timesteps,
      [](noise_level, double, double p) { return p; },
      [](noise_level l, double x_t, double p) { return (x_t - l.alpha * p) / l.sigma; });
}
TEST_CASE("sample and noise of a flow prediction") {
  check_prediction<double, double, double>(
      flow_prediction{}, rectified_flow{}, flow_times,
      [](noise_level l, double x_t, double p) { return x_t - l.sigma * p; },
      [](noise_level l, double x_t, double p) { return x_t + (1 - l.sigma) * p; });
}

TEST_CASE("what was mixed is found again") {
  auto x0 = batch_tensor<double>::random(141);
  auto noise = batch_tensor<double>::random(142);
  batch_tensor<double> x_t;
  batch_tensor<double> v;
  batch_tensor<double> back;
  test_context const ctx;
  add_noise(ctx, levels().table(), x0.view(), timesteps, noise.view(), x_t.view());
  velocity(ctx, levels().table(), x0.view(), timesteps, noise.view(), v.view());
  auto const distance = [&](batch_tensor<double>& original) {
    double worst = 0;
    back.each([&](std::size_t b, std::size_t i) {
      double const error = std::abs(back.at(b, i) - original.at(b, i));
      if (!(error <= worst)) worst = error;
    });
    return worst;
  };
  to_sample(v_prediction{}, ctx, levels().table(), x_t.view(), timesteps, v.view(), back.view());
  CHECK(distance(x0) < 1e-14);
  to_epsilon(v_prediction{}, ctx, levels().table(), x_t.view(), timesteps, v.view(), back.view());
  CHECK(distance(noise) < 1e-14);
  to_sample(epsilon_prediction{}, ctx, levels().table(), x_t.view(), timesteps, noise.view(),
            back.view());
  CHECK(distance(x0) < 1e-13);
}

// --- generated noise -----------------------------------------------------------------------------

TEST_CASE("generated noise is the stored noise of the same key, bit for bit, and not stored") {
  batch_tensor<float> noise;
  auto x0 = batch_tensor<float>::random(151);
  add_noise(test_context{}, pure_noise{}, x0.view(), timesteps, normal_noise{key}, noise.view());
  batch_tensor<float> stored;
  batch_tensor<float> generated(3);
  auto const same = [&] {
    bool equal = generated.gaps_untouched();
    stored.each([&](std::size_t b, std::size_t i) {
      equal = equal && stored.at(b, i) == generated.at(b, i);
    });
    return equal;
  };
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, noise.view(), stored.view());
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{key},
            generated.view());
  CHECK(same());
  velocity(test_context{}, levels().table(), x0.view(), timesteps, noise.view(), stored.view());
  velocity(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{key},
           generated.view());
  CHECK(same());
  random_key other = key;
  ++other.stream;
  velocity(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{other},
           generated.view());
  CHECK_FALSE(same());
}

TEST_CASE("a key is given, or read where it lies when the call runs") {
  // On the heap, which a GPU reads too.
  auto const there = std::make_unique<random_key>();
  auto x0 = batch_tensor<float>::random(153);
  batch_tensor<float> given;
  batch_tensor<float> read;
  for (std::uint32_t step = 0; step < 2; ++step) {
    there->step = step;
    add_noise(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{{.step = step}},
              given.view());
    add_noise(test_context{}, levels().table(), x0.view(), timesteps, normal_noise_at{there.get()},
              read.view());
    CHECK(given.memory == read.memory);
  }
}

TEST_CASE("each element has the normal number of its address, in long rows too") {
  // 3 segments a row, the last of them incomplete; then more rows than groups.
  struct extent {
    std::size_t rows;
    std::size_t length;
  };
  for (auto const [count, length] : {extent{2, 40001}, extent{70, 65}}) {
    std::vector<double> const zero(count * length);
    std::vector<double> out(count * length, guard);
    std::vector<std::int64_t> const t(count);
    add_noise(test_context{}, pure_noise{}, view(zero.data(), count, length), t, normal_noise{key},
              view(out.data(), count, length));
    double worst = 0;
    for (std::size_t n = 0; n < out.size(); ++n) {
      auto const right =
          static_cast<double>(normal_at(key, static_cast<std::uint32_t>(n / length), n % length));
      double const error = std::abs(out[n] - right);
      if (!(error <= worst)) worst = error;
    }
    CAPTURE(count, length);
    // Fused multiply-adds may round differently in one of the two.
    CHECK(worst < 1e-5);
  }
}

TEST_CASE("a batch split over ranks gets the same bits, by first_sample") {
  auto x0 = batch_tensor<float>::random(152);
  batch_tensor<float> whole;
  batch_tensor<float> split;
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{key},
            whole.view());
  for (std::size_t first = 0; first < batch; first += 2) {
    std::size_t const count = first == 0 ? 2 : 1;
    random_key part = key;
    part.first_sample += static_cast<std::uint32_t>(first);
    add_noise(test_context{}, levels().table(), view(&x0.at(first, 0), count, 2, 35),
              view(timesteps.data() + first, count), normal_noise{part},
              view(&split.at(first, 0), count, 2, 35));
  }
  CHECK(whole.memory == split.memory);
}

// --- places --------------------------------------------------------------------------------------

TEST_CASE("the output may be written over either input") {
  auto const run = [](batch_tensor<float>& x0, batch_tensor<float>& noise,
                      batch_tensor<float>& out) {
    add_noise(test_context{}, levels().table(), x0.view(), timesteps, noise.view(), out.view());
  };
  auto x0 = batch_tensor<float>::random(161, 2);
  auto noise = batch_tensor<float>::random(162, 2);
  batch_tensor<float> out(2);
  run(x0, noise, out);
  auto over_sample = x0;
  run(over_sample, noise, over_sample);
  CHECK(over_sample.memory == out.memory);
  auto over_noise = noise;
  run(x0, over_noise, over_noise);
  CHECK(over_noise.memory == out.memory);
  // With generated noise, over the sample.
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{key}, out.view());
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, normal_noise{key}, x0.view());
  CHECK(x0.memory == out.memory);
}

TEST_CASE("timesteps are read at their stride by add_noise") {
  auto x0 = batch_tensor<double>::random(163);
  auto noise = batch_tensor<double>::random(164);
  batch_tensor<double> dense;
  batch_tensor<double> strided;
  std::int64_t const memory[] = {10, -1, 420, -1, 900, -1};
  auto every_second = view(memory, 3);
  every_second.strides[0] = 2;
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, noise.view(), dense.view());
  add_noise(test_context{}, levels().table(), x0.view(), every_second, noise.view(),
            strided.view());
  CHECK(dense.memory == strided.memory);
}

TEST_CASE("NaN in either input is in its element of the output alone") {
  auto x0 = batch_tensor<float>::random(165);
  auto noise = batch_tensor<float>::random(166);
  x0.at(0, 69) = std::numeric_limits<float>::quiet_NaN();
  noise.at(2, 1) = std::numeric_limits<float>::quiet_NaN();
  x0.at(1, 5) = std::numeric_limits<float>::infinity();
  batch_tensor<float> out;
  add_noise(test_context{}, levels().table(), x0.view(), timesteps, noise.view(), out.view());
  int nans = 0;
  out.each([&](std::size_t b, std::size_t i) { nans += std::isnan(out.at(b, i)) ? 1 : 0; });
  CHECK(nans == 2);
  CHECK(std::isnan(out.at(0, 69)));
  CHECK(std::isnan(out.at(2, 1)));
  CHECK(out.at(1, 5) == std::numeric_limits<float>::infinity());
}

// --- errors --------------------------------------------------------------------------------------

TEST_CASE("an epsilon prediction has no sample where there is no signal") {
  auto const schedule = zero_terminal_snr(levels());
  auto x_t = batch_tensor<double>::random(171);
  auto p = batch_tensor<double>::random(172);
  batch_tensor<double> out;
  std::vector<std::int64_t> const t = {420, 999, 10};
  CHECK(error_of([&] {
          to_sample(epsilon_prediction{}, test_context{}, schedule.table(), x_t.view(), t, p.view(),
                    out.view());
        }) ==
        "to_sample: timesteps[1] (expected alpha > 0: an epsilon prediction determines no x_0 at "
        "alpha = 0 (use v- or x_0-prediction, or a timestep sampler that leaves it out), got "
        "timestep 999, where alpha = 0)");
  CHECK(out.untouched());
  to_epsilon(epsilon_prediction{}, test_context{}, schedule.table(), x_t.view(), t, p.view(),
             out.view());
  CHECK(out.memory == p.memory);
  to_sample(v_prediction{}, test_context{}, schedule.table(), x_t.view(), t, p.view(), out.view());
  CHECK(out.at(1, 3) == -p.at(1, 3));
}

TEST_CASE("an x_0 prediction has no noise where there is none") {
  auto x_t = batch_tensor<double>::random(173);
  auto p = batch_tensor<double>::random(174);
  batch_tensor<double> out;
  std::vector<double> const t = {0.5, 0.25, 0};
  CHECK(error_of([&] {
          to_epsilon(sample_prediction{}, test_context{}, rectified_flow{}, x_t.view(), t, p.view(),
                     out.view());
        }) ==
        "to_epsilon: timesteps[2] (expected sigma > 0: a sample prediction determines no eps at "
        "sigma = 0, got timestep 0, where sigma = 0)");
  CHECK(out.untouched());
  to_sample(sample_prediction{}, test_context{}, rectified_flow{}, x_t.view(), t, p.view(),
            out.view());
  CHECK(out.memory == p.memory);
  to_epsilon(flow_prediction{}, test_context{}, rectified_flow{}, x_t.view(), t, p.view(),
             out.view());
  CHECK(out.at(2, 3) == x_t.at(2, 3) + p.at(2, 3));
}

TEST_CASE("timesteps of the forward process are checked") {
  auto x = batch_tensor<float>::random(175);
  batch_tensor<float> out;
  auto const text = [&](std::vector<std::int64_t> const& t) {
    return error_of(
        [&] { add_noise(test_context{}, levels().table(), x.view(), t, x.view(), out.view()); });
  };
  CHECK(text({0, 1000, 3}) == "add_noise: timesteps[1] (expected 0 to 999, got 1000)");
  CHECK(text({0, 1, -3}) == "add_noise: timesteps[2] (expected 0 to 999, got -3)");
  CHECK(text({0, 1}) == "add_noise: timesteps (expected shape [3], one number a sample, got [2])");
  CHECK(text({}) == "add_noise: timesteps (expected a batch of at least one sample, got [0])");
  std::vector<std::int64_t> const high = {0, 1, 5000};
  CHECK(error_of([&] {
          to_sample(epsilon_prediction{}, test_context{}, levels().table(), x.view(), high,
                    x.view(), out.view());
        }) == "to_sample: timesteps[2] (expected 0 to 999, got 5000)");
  CHECK(error_of([&] {
          to_epsilon(v_prediction{}, test_context{}, levels().table(), x.view(), high, x.view(),
                     out.view());
        }) == "to_epsilon: timesteps[2] (expected 0 to 999, got 5000)");
  CHECK(out.untouched());
}

TEST_CASE("shapes of the forward process are checked by name") {
  auto x = batch_tensor<float>::random(176);
  batch_tensor<float> out;
  auto const good = x.view();
  auto const other = view(x.memory.data(), 3, 70);
  auto const noised = [&](auto const& x0, auto const& noise, auto const& to) {
    return error_of([&] { add_noise(test_context{}, levels().table(), x0, timesteps, noise, to); });
  };
  CHECK(noised(good, other, out.view()) ==
        "add_noise: noise (expected the shape of x0, [3,2,35], got [3,70])");
  CHECK(noised(good, good, view(out.memory.data(), 3, 70)) ==
        "add_noise: out (expected the shape of x0, [3,2,35], got [3,70])");
  CHECK(noised(view(x.memory.data(), 0, 2, 35), good, out.view()) ==
        "add_noise: x0 (expected a batch of at least one sample, got [0,2,35])");
  CHECK(noised(view(static_cast<float*>(nullptr), 3, 2, 35), good, out.view()) ==
        "add_noise: x0 (expected memory, got a null pointer)");
  auto order = good;
  order.strides[1] = 1;
  order.strides[2] = 2;
  CHECK(noised(order, good, out.view()) ==
        "add_noise: noise (expected the memory order of x0, stride 1 on axis 1, got stride 35)");
  auto shared = out.view();
  shared.strides[0] = 0;
  CHECK(noised(good, good, shared) ==
        "add_noise: out (expected samples at least 70 elements apart, as they are written, got "
        "stride 0 on axis 0)");
  CHECK(error_of([&] {
          velocity(test_context{}, levels().table(), good, timesteps, other, out.view());
        }) == "velocity: noise (expected the shape of x0, [3,2,35], got [3,70])");
  CHECK(error_of([&] {
          to_sample(v_prediction{}, test_context{}, levels().table(), good, timesteps, other,
                    out.view());
        }) == "to_sample: prediction (expected the shape of noisy, [3,2,35], got [3,70])");
  CHECK(error_of([&] {
          to_epsilon(v_prediction{}, test_context{}, levels().table(), good, timesteps, good,
                     view(out.memory.data(), 3, 70));
        }) == "to_epsilon: out (expected the shape of noisy, [3,2,35], got [3,70])");
  CHECK(out.untouched());
}

TEST_CASE("samples with more elements than generated noise has are refused") {
  // Never read: the shape alone is refused.
  float memory = 0;
  auto const huge = view(&memory, 1, (std::int64_t{1} << 34) + 1);
  std::int64_t const t[] = {0};
  CHECK(error_of([&] {
          add_noise(test_context{}, levels().table(), huge, view(t, 1), normal_noise{key}, huge);
        }) == "add_noise: noise (expected samples of at most 2^34 elements, got 17179869185)");
}
