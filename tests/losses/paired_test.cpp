// SPDX-License-Identifier: MIT
#include <addloss/losses/paired.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/losses/evaluate.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "losses/head_tensors.hpp"
#include "storage_types.hpp"
#include "test_context.hpp"

// Not in the unnamed namespace: kernels are named after them.
namespace paired_test {

using addloss::value_grad;
namespace math = addloss::math;

/// A user's own: the hinge of the difference of a pair.
struct relativistic_hinge {
  template <class V>
  ADDLOSS_HOST_DEVICE value_grad<V> operator()(V d) const {
    using math::select;
    V const margin = V(1) - d;
    auto const idle = margin <= V(0);
    return {select(idle, V(0), margin), select(idle, V(0), V(-1))};
  }
};

}  // namespace paired_test

namespace {

using namespace addloss;
using head_tests::head_tensors;
using paired_test::relativistic_hinge;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

static_assert(distance<relativistic>);

struct point {
  double value;
  double slope;
};
point naive(relativistic, double d) { return {std::log(1 + std::exp(-d)), -1 / (1 + std::exp(d))}; }
point naive(squared, double d) { return {d * d, 2 * d}; }
point naive(relativistic_hinge, double d) { return d < 1 ? point{1 - d, -1} : point{0, 0}; }

struct shape {
  std::size_t batch;
  std::vector<std::size_t> tokens;
  std::size_t gap = 0;
};
shape const three_heads{3, {1, 64, 131}};
shape const strided{3, {5, 70}, 3};

template <class T>
constexpr double sum_tolerance = std::same_as<T, double> ? 1e-13 : 2e-6;
template <class T>
constexpr double stored_tolerance = std::same_as<T, double>  ? 1e-14
                                    : std::same_as<T, float> ? 1e-6
                                    : std::same_as<T, half>  ? 0x1p-10
                                                             : 0x1p-7;

/// Values, both gradients and statistics of `bind(first, second)`, whose loss is `weight` times the
/// mean over samples of sums over heads and tokens, times token_factor(L).
template <class T, class Reduction, class Loss>
void check(shape const& s, double weight, auto const& token_factor, Loss loss, auto const& bind,
           std::vector<arithmetic_t<T>> const& upstream = {}) {
  head_tensors<T> first(s.batch, s.tokens, s.gap);
  head_tensors<T> second(s.batch, s.tokens, s.gap);
  head_tensors<T> first_gradient(s.batch, s.tokens, s.gap);
  head_tensors<T> second_gradient(s.batch, s.tokens, s.gap);
  first.fill(51);
  second.fill(52);
  std::size_t const heads = s.tokens.size();
  std::vector<pair_statistics> statistics(heads);
  std::int64_t bad = 99;
  pair_options<arithmetic_t<T>> options{.non_finite = &bad, .statistics = statistics};
  if (!upstream.empty()) options.upstream = upstream;
  std::vector<double> losses(std::same_as<Reduction, per_sample> ? s.batch : 1, guard);
  auto const run = [&](auto& out) {
    value_and_grad<Reduction>(test_context{}, bind(first.read, second.read), out,
                              {.first = first_gradient.write, .second = second_gradient.write},
                              options);
  };
  if constexpr (std::same_as<Reduction, per_sample>) {
    run(losses);
  } else {
    run(losses[0]);
  }

  auto const batch = static_cast<double>(s.batch);
  std::vector<double> samples(s.batch);
  std::vector<pair_statistics> expected(heads);
  double worst = 0;
  double largest = 0;
  first.each_index([&](std::size_t k, std::size_t b, std::size_t l) {
    double const z[2] = {as_double(first.at(k, b, l)), as_double(second.at(k, b, l))};
    auto const [value, slope] = naive(loss, z[0] - z[1]);
    double const scale = weight * token_factor(static_cast<double>(s.tokens[k]));
    samples[b] += scale * value;
    double g = scale * slope;
    if (std::same_as<Reduction, mean>) g /= batch;
    if (!upstream.empty()) g *= static_cast<double>(upstream[b]);
    for (double const error :
         {as_double(first_gradient.at(k, b, l)) - g, as_double(second_gradient.at(k, b, l)) + g}) {
      if (!(std::abs(error) <= worst)) worst = std::abs(error);
    }
    largest = std::fmax(largest, std::abs(g));
    double const share = 1 / (batch * static_cast<double>(s.tokens[k]));
    logit_statistics* const sides[2] = {&expected[k].first, &expected[k].second};
    for (int side = 0; side < 2; ++side) {
      sides[side]->mean += share * z[side];
      sides[side]->positive += z[side] > 0 ? share : 0;
      sides[side]->active += slope != 0 ? share : 0;
    }
  });
  CAPTURE(s.batch, s.tokens, s.gap);
  CHECK(worst <= stored_tolerance<T> * largest);
  CHECK(first_gradient.gaps_untouched());
  CHECK(second_gradient.gaps_untouched());
  if constexpr (!std::same_as<Reduction, per_sample>) {
    double total = 0;
    for (double const x : samples) total += x;
    samples = {std::same_as<Reduction, mean> ? total / batch : total};
  }
  for (std::size_t i = 0; i < losses.size(); ++i) {
    CHECK(losses[i] == Approx(samples[i]).epsilon(sum_tolerance<T>));
  }
  CHECK(bad == 0);
  for (std::size_t k = 0; k < heads; ++k) {
    auto const compare = [&](logit_statistics const& got, logit_statistics const& right) {
      CHECK(got.mean == Approx(right.mean).epsilon(0).margin(10 * sum_tolerance<T>));
      CHECK(got.positive == Approx(right.positive).epsilon(1e-13));
      CHECK(got.active == Approx(right.active).epsilon(1e-13));
      CHECK(got.non_finite == 0);
    };
    compare(statistics[k].first, expected[k].first);
    compare(statistics[k].second, expected[k].second);
  }
}

constexpr auto token_mean = [](double length) { return 1 / length; };
constexpr auto token_sum = [](double) { return 1.0; };

template <class T>
constexpr auto discriminator =
    [](auto const& real, auto const& fake) { return paired<>{}.discriminator<T>(real, fake); };
template <class T>
constexpr auto penalty = [](auto const& logits, auto const& perturbed) {
  return approximate_r1<>{.lambda = 0.75}.on<T>(logits, perturbed);
};

#if !defined(ADDLOSS_TEST_ON_GPU)
/// exp and log1p of registers have errors of their own, 1e-7 and 1.5e-7, and round subnormals.
bool close(float a, float b) {
  float const rounding = 4e-7F * std::abs(b) + std::numeric_limits<float>::denorm_min();
  return a == b || std::abs(a - b) <= rounding || (std::isnan(a) && std::isnan(b));
}
#endif

}  // namespace

TEST_CASE("the relativistic loss at named points") {
  CHECK(relativistic{}(0.0).value == Approx(std::log(2.0)).epsilon(1e-15));
  CHECK(relativistic{}(0.0).grad == -0.5);
  // No overflow on one side, no lost tail on the other.
  CHECK(relativistic{}(-1e300).value == 1e300);
  CHECK(relativistic{}(-1e300).grad == -1);
  CHECK(relativistic{}(40.0).value == Approx(std::exp(-40)).epsilon(1e-14));
  CHECK(relativistic{}(40.0).grad == Approx(-std::exp(-40)).epsilon(1e-14));
  CHECK(relativistic{}(1e300).value == 0);
  CHECK(relativistic{}(infinity).grad == 0);
  CHECK(relativistic{}(-infinity).value == infinity);
  CHECK(std::isnan(relativistic{}(-infinity).grad));
  CHECK(std::isnan(relativistic{}(not_a_number).value));
  CHECK(std::isnan(relativistic{}(not_a_number).grad));
}

#if !defined(ADDLOSS_TEST_ON_GPU)
TEST_CASE("the relativistic loss of a register") {
  using pack = native_pack<float>;
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (float const d :
       {0.0F, 0.4F, -3.0F, 90.0F, -1e30F, inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
    CAPTURE(d);
    CHECK(close(relativistic{}(pack(d)).value.lanes[0], relativistic{}(d).value));
    CHECK(close(relativistic{}(pack(d)).grad.lanes[1], relativistic{}(d).grad));
  }
}
#endif

TEST_CASE("relativistic: values, both gradients and statistics") {
  for (shape const& s : {three_heads, strided, shape{1, {1}}, shape{1, {67, 2}, 1}}) {
    check<double, mean>(s, 1, token_mean, relativistic{}, discriminator<double>);
  }
  check<float, mean>(three_heads, 1, token_mean, relativistic{}, discriminator<float>);
  if constexpr (each_with_each) {
    check<half, mean>(strided, 1, token_mean, relativistic{}, discriminator<half>);
  }
#if !defined(ADDLOSS_TEST_ON_GPU)
  check<bfloat16, mean>(three_heads, 1, token_mean, relativistic{}, discriminator<bfloat16>);
#endif
}

TEST_CASE("relativistic: reductions and upstream gradients") {
  check<double, sum>(three_heads, 1, token_mean, relativistic{}, discriminator<double>, {3, 0, 1});
  if constexpr (each_with_each) {
    check<double, per_sample>(strided, 0.5, token_sum, relativistic{},
                              [](auto const& fake, auto const& real) {
                                return paired<relativistic, sum, mean>{}.generator<double>(fake,
                                                                                           real);
                              },
                              {0.5, -2, 0});
  }
}

TEST_CASE("the generator's loss is the discriminator's with reals and fakes exchanged") {
  double const r[] = {3};
  double const f[] = {-1};
  rows<double const> const real[] = {view(r, 1, 1)};
  rows<double const> const fake[] = {view(f, 1, 1)};
  double loss = 0;
  double g[2] = {};
  rows<double> const g_fake[] = {view(g, 1, 1)};
  rows<double> const g_real[] = {view(g + 1, 1, 1)};
  value(test_context{}, paired<>{}.discriminator<double>(real, fake), loss);
  CHECK(loss == Approx(std::log(1 + std::exp(-4))).epsilon(1e-14));
  value_and_grad(test_context{}, paired<>{}.generator<double>(fake, real), loss,
                 {.first = g_fake, .second = g_real});
  CHECK(loss == Approx(std::log(1 + std::exp(4))).epsilon(1e-14));
  // The generator wants its logits above the reals'.
  CHECK(g[0] == Approx(-1 / (1 + std::exp(-4))).epsilon(1e-14));
  CHECK(g[1] == -g[0]);
}

TEST_CASE("a loss on pairs of one's own, with pairs that have no gradient") {
  check<double, mean>(three_heads, 1, token_mean, relativistic_hinge{},
                      [](auto const& a, auto const& b) {
                        return paired<relativistic_hinge>{}.discriminator<double>(a, b);
                      });
}

TEST_CASE("approximate R1: values, both gradients and statistics") {
  for (shape const& s : {three_heads, strided, shape{1, {1}}}) {
    check<double, mean>(s, 0.75, token_sum, squared{}, penalty<double>);
  }
  check<float, mean>(strided, 0.75, token_sum, squared{}, penalty<float>);
#if !defined(ADDLOSS_TEST_ON_GPU)
  check<half, mean>(three_heads, 0.75, token_sum, squared{}, penalty<half>);
#endif
  check<bfloat16, mean>(strided, 0.75, token_sum, squared{}, penalty<bfloat16>);
  check<double, per_sample>(strided, 0.75, token_sum, squared{}, penalty<double>, {0.5, -2, 0});
  check<double, mean>(three_heads, 0.25 / 3, token_mean, squared{},
                      [](auto const& a, auto const& b) {
                        return approximate_r1<mean, mean>{.lambda = 0.25}.on<double>(a, b);
                      });
}

TEST_CASE("approximate R1 weighs 100 where nothing is said, and may weigh nothing") {
  double const a[] = {1.5};
  double const b[] = {1};
  rows<double const> const first[] = {view(a, 1, 1)};
  rows<double const> const second[] = {view(b, 1, 1)};
  double loss = 0;
  value(test_context{}, approximate_r1<>{}.on<double>(first, second), loss);
  CHECK(loss == 25);
  value(test_context{}, approximate_r1<>{.lambda = 0}.on<double>(first, second), loss);
  CHECK(loss == 0);
}

TEST_CASE("gradients of pairs may be written over the logits") {
  head_tensors<double> apart[2] = {{3, {5, 131}, 2}, {3, {5, 131}, 2}};
  head_tensors<double> over[2] = {{3, {5, 131}, 2}, {3, {5, 131}, 2}};
  head_tensors<double> out[2] = {{3, {5, 131}, 2}, {3, {5, 131}, 2}};
  for (unsigned side = 0; side < 2; ++side) {
    apart[side].fill(61 + side);
    over[side].fill(61 + side);
  }
  double loss[2] = {0, 0};
  value_and_grad(test_context{}, penalty<double>(apart[0].read, apart[1].read), loss[0],
                 {.first = out[0].write, .second = out[1].write});
  value_and_grad(test_context{}, penalty<double>(over[0].read, over[1].read), loss[1],
                 {.first = over[0].write, .second = over[1].write});
  CHECK(loss[0] == loss[1]);
  CHECK(over[0].memory == out[0].memory);
  CHECK(over[1].memory == out[1].memory);
}

TEST_CASE("gaps between samples of one of a pair's tensors alone") {
  // Loss, logits and gradients, where tensor `gapped` has gaps.
  auto const run = [](std::size_t gapped) {
    std::vector<head_tensors<double>> all;
    for (std::size_t i = 0; i < 4; ++i) {
      all.emplace_back(3, std::vector<std::size_t>{5, 70}, i == gapped ? 3 : 0);
    }
    all[0].fill(65);
    all[1].fill(66);
    double loss = guard;
    value_and_grad(test_context{}, penalty<double>(all[0].read, all[1].read), loss,
                   {.first = all[2].write, .second = all[3].write});
    std::vector<double> result = {loss};
    for (auto& tensor : all) {
      CHECK(tensor.gaps_untouched());
      tensor.each([&](double x) { result.push_back(x); });
    }
    return result;
  };
  auto const dense = run(4);
  for (std::size_t const gapped : {0U, 1U, 2U, 3U}) {
    auto const got = run(gapped);
    CAPTURE(gapped);
    bool same = got.size() == dense.size();
    for (std::size_t i = 0; same && i < got.size(); ++i) {
      same = std::abs(got[i] - dense[i]) <= 1e-13 * std::abs(dense[i]);
    }
    CHECK(same);
  }
}

TEST_CASE("gradients of pairs are added to what is there") {
  head_tensors<double> logits[2] = {{1, {2}}, {1, {2}}};
  head_tensors<double> out[2] = {{1, {2}}, {1, {2}}};
  for (auto& z : logits) z.fill(63);
  logits[0].at(0, 0, 1) = logits[1].at(0, 0, 1) + 2;
  grad(test_context{}, penalty<double>(logits[0].read, logits[1].read),
       {.first = out[0].write, .second = out[1].write, .accumulate = true});
  CHECK(out[0].at(0, 0, 0) == guard);
  CHECK(out[0].at(0, 0, 1) == Approx(guard + 3).epsilon(1e-15));
  CHECK(out[1].at(0, 0, 1) == Approx(guard - 3).epsilon(1e-15));
}

TEST_CASE("NaN in either logit of a pair is in the loss and in both gradients, and counted") {
  for (std::size_t const side : {std::size_t{0}, std::size_t{1}}) {
    head_tensors<float> logits[2] = {{2, {4, 67}}, {2, {4, 67}}};
    head_tensors<float> out[2] = {{2, {4, 67}}, {2, {4, 67}}};
    logits[0].fill(71);
    logits[1].fill(72);
    logits[side].at(1, 1, 66) = std::numeric_limits<float>::quiet_NaN();
    pair_statistics health[2];
    std::int64_t bad = 0;
    double losses[2] = {0, 0};
    value_and_grad<per_sample>(test_context{}, discriminator<float>(logits[0].read, logits[1].read),
                               view(losses, 2), {.first = out[0].write, .second = out[1].write},
                               {.non_finite = &bad, .statistics = health});
    CAPTURE(side);
    CHECK(std::isfinite(losses[0]));
    CHECK(std::isnan(losses[1]));
    CHECK(bad == 1);
    CHECK(health[0].first.non_finite == 0);
    CHECK(health[1].first.non_finite == 1);
    CHECK(health[1].second.non_finite == 1);
    // A softplus has a gradient everywhere here, and NaN is not 0.
    CHECK(health[1].first.active == 1);
    CHECK(health[1].second.active == 1);
    CHECK(std::isnan(side == 0 ? health[1].first.mean : health[1].second.mean));
    CHECK(std::isfinite(side == 0 ? health[1].second.mean : health[1].first.mean));
    for (auto& gradient : out) {
      int nans = 0;
      gradient.each([&](float g) { nans += std::isnan(g) ? 1 : 0; });
      CHECK(nans == 1);
      CHECK(std::isnan(gradient.at(1, 1, 66)));
    }
  }
}

// --- errors --------------------------------------------------------------------------------------

namespace {

/// A good call, whose arguments a test then spoils one at a time.
struct call {
  head_tensors<float> logits[2] = {{2, {3, 5}}, {2, {3, 5}}};
  head_tensors<float> out[2] = {{2, {3, 5}}, {2, {3, 5}}};
  std::vector<rows<float const>> first{logits[0].read};
  std::vector<rows<float const>> second{logits[1].read};
  std::vector<rows<float>> first_gradient{out[0].write};
  std::vector<rows<float>> second_gradient{out[1].write};
  std::vector<pair_statistics> statistics = std::vector<pair_statistics>(2);
  std::vector<float> upstream = {1, 1};
  std::vector<double> losses = {guard, guard};
  std::int64_t bad = -7;
  number lambda = 1;
  float scratch[64] = {};

  /// The text after "value_and_grad: ", or what was written in spite of it.
  std::string refusal() {
    for (auto& s : statistics) s.first.mean = s.second.mean = guard;
    std::string text = "no error";
    try {
      value_and_grad<per_sample>(
          test_context{}, approximate_r1<>{.lambda = lambda}.on<float>(first, second), losses,
          {.first = first_gradient, .second = second_gradient},
          {.upstream = upstream, .non_finite = &bad, .statistics = statistics});
    } catch (error const& e) {
      text = e.what();
    }
    bool clean = bad == -7;
    for (double const x : losses) clean = clean && x == guard;
    for (auto const& s : statistics) {
      clean = clean && s.first.mean == guard && s.second.mean == guard;
    }
    for (auto& gradient : out) {
      gradient.each([&](float g) { clean = clean && g == static_cast<float>(guard); });
    }
    if (!clean) return "written in spite of: " + text;
    std::string const begin = "value_and_grad: ";
    return text.starts_with(begin) ? text.substr(begin.size()) : text;
  }
};

}  // namespace

TEST_CASE("a negative, NaN or missing lambda is refused, and so is a bad setting of the loss") {
  call good;
  CHECK(good.refusal() == "written in spite of: no error");
  call negative;
  negative.lambda = -0.5;
  CHECK(negative.refusal() == "lambda (expected a number >= 0, got -0.5)");
  call nan;
  nan.lambda = not_a_number;
  CHECK(nan.refusal() == "lambda (expected a number >= 0, got nan)");
  call in_memory;
  double const below = -3;
  in_memory.lambda = number_at{&below};
  CHECK(in_memory.refusal() == "lambda (expected a number >= 0, got -3)");
  call nowhere;
  nowhere.lambda = number_at{};
  CHECK(nowhere.refusal() == "lambda (expected memory, got a null pointer)");
#if !defined(ADDLOSS_TEST_ON_GPU)
  call wide;
  double untouched = guard;
  CHECK(error_of([&] {
          value(
              test_context{},
              paired<pseudo_huber>{.loss = {.c = -1}}.discriminator<float>(wide.first, wide.second),
              untouched);
        }) == "value: pseudo_huber.c (expected a finite number > 0, got -1)");
  CHECK(untouched == guard);
#endif
}

TEST_CASE("wrong numbers of heads of pairs are refused") {
  call none;
  none.first.clear();
  CHECK(none.refusal() == "first (expected 1 to 32 heads, got 0)");
  call many;
  many.first.assign(33, many.first[0]);
  CHECK(many.refusal() == "first (expected 1 to 32 heads, got 33)");
  call fewer;
  fewer.second.pop_back();
  CHECK(fewer.refusal() == "second (expected 2 heads, got 1)");
  call statistics;
  statistics.statistics.pop_back();
  CHECK(statistics.refusal() == "statistics (expected 2 heads, got 1)");
}

TEST_CASE("gradients of a pair are wanted both or not at all") {
  call first;
  first.second_gradient.clear();
  CHECK(first.refusal() == "gradients.second (expected 2 heads, got 0)");
  call second;
  second.first_gradient.clear();
  CHECK(second.refusal() == "gradients.first (expected 2 heads, got 0)");
  call shape_of_second;
  shape_of_second.second_gradient[1] = view(shape_of_second.scratch, 2, 4);
  CHECK(shape_of_second.refusal() ==
        "gradients.second[1] (expected the shape of first[1], [2,5], got [2,4])");
  call overlapping;
  auto place = view(overlapping.scratch, 2, 3);
  place.strides[0] = 0;
  overlapping.first_gradient[0] = place;
  CHECK(overlapping.refusal() ==
        "gradients.first[0] (expected samples at least 3 elements apart, as they are written, got "
        "stride 0 on axis 0)");
}

TEST_CASE("shapes of pairs are checked") {
  call tokens;
  tokens.second[1] = view(tokens.scratch, 2, 4);
  CHECK(tokens.refusal() == "second[1] (expected the shape of first[1], [2,5], got [2,4])");
  call batch;
  batch.first[1] = view(batch.scratch, 3, 5);
  CHECK(batch.refusal() == "first[1] (expected 2 samples, got [3,5])");
  call absent;
  absent.first[0] = {};
  CHECK(absent.refusal() == "first[0] (expected a tensor, got none)");
  call empty;
  empty.first[0] = view(empty.scratch, 0, 3);
  CHECK(empty.refusal() == "first[0] (expected a batch of at least one sample, got [0,3])");
  call upstream;
  upstream.upstream.pop_back();
  CHECK(upstream.refusal() == "upstream (expected shape [2], one number a sample, got [1])");
  call losses;
  losses.losses.pop_back();
  CHECK(losses.refusal() == "value (expected shape [2], one number a sample, got [1])");
}

TEST_CASE("a pair with an infinite second logit is counted, even where its loss is 0") {
  std::vector<double> const first = {1, 2};
  std::vector<double> const second = {1, -std::numeric_limits<double>::infinity()};
  std::vector<rows<double const>> const a = {view(first.data(), 2, 1)};
  std::vector<rows<double const>> const b = {view(second.data(), 2, 1)};
  double loss = 0;
  std::int64_t bad = -1;
  value(test_context{}, paired<relativistic>{}.discriminator<double>(a, b), loss,
        {.non_finite = &bad});
  CHECK(bad == 1);
  CHECK(std::isfinite(loss));
}
