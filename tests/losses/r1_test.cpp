// SPDX-License-Identifier: MIT
#include <addloss/losses/r1.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/losses/evaluate.hpp>

#include "catch.hpp"
#include "losses/head_tensors.hpp"
#include "storage_types.hpp"
#include "test_context.hpp"

namespace {

using namespace addloss;

template <class T>
using feature_tensors = head_tests::head_tensors<T, 3>;

static_assert(r1{}.gamma.get() == 1e-5 && r1{}.factor == 1 && r1{}.interval == 1);
static_assert(r1{.interval = 16}.due(32) && !r1{.interval = 16}.due(33));

struct shape {
  std::size_t batch;
  std::vector<std::size_t> lengths;
  std::size_t gap = 0;
  std::size_t cotangent_gap = gap;
};
shape const three_heads{3, {1, 64, 131}};
shape const strided{2, {5, 70}, 3};

template <class T>
constexpr double tolerance = std::same_as<T, double>  ? 1e-14
                             : std::same_as<T, float> ? 1e-6
                             : std::same_as<T, half>  ? 0x1p-10
                                                      : 0x1p-7;

/// Value, cotangents and the penalty of each head, `weight` = gamma factor interval.
template <class T, class Reduction = mean>
void check(shape const& s, r1 const& penalty, double weight,
           std::vector<arithmetic_t<T>> const& upstream = {}, double grad_scale = 1) {
  feature_tensors<T> g(s.batch, s.lengths, s.gap);
  feature_tensors<T> cotangent(s.batch, s.lengths, s.cotangent_gap);
  g.fill(81);
  std::vector<double> penalties(s.lengths.size(), guard);
  std::int64_t bad = 99;
  r1_options<arithmetic_t<T>> options{
      .grad_scale = grad_scale, .non_finite = &bad, .penalties = penalties};
  if (!upstream.empty()) options.upstream = upstream;
  std::vector<double> losses(std::same_as<Reduction, per_sample> ? s.batch : 1, guard);
  auto const run = [&](auto& out) {
    value_and_grad<Reduction>(test_context{}, penalty.on<T>(g.read), out,
                              {.features = cotangent.write}, options);
  };
  if constexpr (std::same_as<Reduction, per_sample>) {
    run(losses);
  } else {
    run(losses[0]);
  }

  auto const batch = static_cast<double>(s.batch);
  std::vector<double> samples(s.batch);
  std::vector<double> heads(s.lengths.size());
  double worst = 0;
  double largest = 0;
  g.each_index([&](std::size_t k, std::size_t b, std::size_t i) {
    double const x = as_double(g.at(k, b, i));
    samples[b] += weight * x * x;
    heads[k] += x * x / batch;
    double expected = 2 * weight * x * grad_scale;
    if (std::same_as<Reduction, mean>) expected /= batch;
    if (!upstream.empty()) expected *= static_cast<double>(upstream[b]);
    double const error = std::abs(as_double(cotangent.at(k, b, i)) - expected);
    if (!(error <= worst)) worst = error;
    largest = std::fmax(largest, std::abs(expected));
  });
  CAPTURE(s.batch, s.lengths, s.gap, s.cotangent_gap);
  CHECK(worst <= tolerance<T> * largest);
  CHECK(cotangent.gaps_untouched());
  if constexpr (!std::same_as<Reduction, per_sample>) {
    double total = 0;
    for (double const x : samples) total += x;
    samples = {std::same_as<Reduction, mean> ? total / batch : total};
  }
  double const relative = std::same_as<T, double> ? 1e-14 : 1e-6;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    CHECK(losses[i] == Approx(samples[i]).epsilon(relative));
  }
  for (std::size_t k = 0; k < heads.size(); ++k) {
    CHECK(penalties[k] == Approx(heads[k]).epsilon(relative));
  }
  CHECK(bad == 0);
}

}  // namespace

TEST_CASE("the penalty, its cotangents and the share of each head") {
  check<double>(three_heads, {.gamma = 0.5}, 0.5);
  check<double>(strided, {.gamma = 0.5}, 0.5);
  check<double>({1, {1}}, {.gamma = 0.5}, 0.5);
  check<double>({1, {67, 2}, 1}, {.gamma = 0.5}, 0.5);
  check<double>(three_heads, {}, 1e-5);
}

TEST_CASE("gaps between samples of the feature gradients alone, and of the cotangents alone") {
  check<double>({2, {5, 70}, 3, 0}, {.gamma = 0.5}, 0.5);
  check<double>({2, {5, 70}, 0, 3}, {.gamma = 0.5}, 0.5);
}

TEST_CASE("gamma, factor and interval multiply, the head's own penalties excepted") {
  check<double>(three_heads, {.gamma = 0.25, .factor = 0.5}, 0.125);
  check<double>(three_heads, {.gamma = 0.25, .interval = 16}, 4);
  check<double>(strided, {.gamma = 3, .factor = 0.5, .interval = 4}, 6);
  check<double>(strided, {.gamma = 0}, 0);
}

TEST_CASE("the penalty of a batch, of samples, and with upstream gradients") {
  check<double, sum>(three_heads, {.gamma = 0.5}, 0.5);
  check<double, per_sample>(three_heads, {.gamma = 0.5}, 0.5, {0.5, -2, 0}, 1024);
  check<double, mean>(strided, {.gamma = 0.5}, 0.5, {3, 0}, 0.5);
}

TEST_CASE("feature gradients stored in each type") {
  check<float>(three_heads, {.gamma = 0.5, .interval = 4}, 2);
  check<half>(strided, {.gamma = 0.5, .interval = 4}, 2);
  check<bfloat16>(three_heads, {.gamma = 0.5, .interval = 4}, 2);
}

TEST_CASE("as many heads as there may be in R1") {
  check<double>({2, std::vector<std::size_t>(static_cast<std::size_t>(max_heads), 2)},
                {.gamma = 0.5}, 0.5);
}

TEST_CASE("a lazy penalty is due every interval-th step, beginning at 0") {
  r1 const lazy{.interval = 4};
  int due = 0;
  for (std::int64_t step = 0; step < 12; ++step) due += lazy.due(step) ? 1 : 0;
  CHECK(due == 3);
  CHECK(lazy.due(0));
  CHECK_FALSE(lazy.due(3));
  CHECK(lazy.due(4));
  CHECK(lazy.due(std::int64_t{4} << 40));
  CHECK(r1{}.due(7));
}

TEST_CASE("a cotangent may be written over its feature gradient") {
  feature_tensors<double> apart(3, {5, 131}, 2);
  feature_tensors<double> over(3, {5, 131}, 2);
  feature_tensors<double> out(3, {5, 131}, 2);
  apart.fill(82);
  over.fill(82);
  double loss[2] = {0, 0};
  r1 const penalty{.gamma = 0.7};
  value_and_grad(test_context{}, penalty.on<double>(apart.read), loss[0], {.features = out.write});
  value_and_grad(test_context{}, penalty.on<double>(over.read), loss[1], {.features = over.write});
  CHECK(loss[0] == loss[1]);
  CHECK(over.memory == out.memory);
}

TEST_CASE("cotangents are added to what is there") {
  feature_tensors<double> g(2, {3});
  g.fill(83);
  feature_tensors<double> out(2, {3});
  grad(test_context{}, r1{.gamma = 2}.on<double>(g.read),
       {.features = out.write, .accumulate = true});
  CHECK(out.at(0, 1, 2) == Approx(guard + 2 * g.at(0, 1, 2)).epsilon(1e-15));
}

TEST_CASE("channels-last features") {
  // [2, 3, 4] with the channels innermost: memory[b][l][c].
  std::vector<double> memory(24);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<double>(i);
  std::vector<double> out(24, guard);
  auto const channels_last = [](double* data) {
    auto v = view(data, 2, 3, 4);
    v.strides[1] = 1;
    v.strides[2] = 3;
    return v;
  };
  rows<double const> const g[] = {channels_last(memory.data())};
  rows<double> const cotangent[] = {channels_last(out.data())};
  double loss = 0;
  value_and_grad<sum>(test_context{}, r1{.gamma = 1}.on<double>(g), loss, {.features = cotangent});
  CHECK(loss == 23 * 24 * 47 / 6);
  for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == 2 * memory[i]);
}

TEST_CASE("NaN and infinity in a feature gradient") {
  feature_tensors<float> g(2, {3, 67});
  g.fill(84);
  g.at(1, 0, 66) = std::numeric_limits<float>::quiet_NaN();
  g.at(1, 1, 2) = -std::numeric_limits<float>::infinity();
  feature_tensors<float> cotangent(2, {3, 67});
  double penalties[2] = {0, 0};
  double losses[2] = {0, 0};
  std::int64_t bad = 0;
  value_and_grad<per_sample>(test_context{}, r1{}.on<float>(g.read), view(losses, 2),
                             {.features = cotangent.write},
                             {.non_finite = &bad, .penalties = penalties});
  CHECK(std::isnan(losses[0]));
  CHECK(losses[1] == std::numeric_limits<float>::infinity());
  CHECK(bad == 2);
  CHECK(std::isfinite(penalties[0]));
  CHECK(std::isnan(penalties[1]));
  CHECK(std::isnan(cotangent.at(1, 0, 66)));
  CHECK(cotangent.at(1, 1, 2) == -std::numeric_limits<float>::infinity());
  int non_finite = 0;
  cotangent.each([&](float x) { non_finite += std::isfinite(x) ? 0 : 1; });
  CHECK(non_finite == 2);
}

TEST_CASE("a square that overflows float is counted") {
  float const g[] = {1, 1e20F};
  rows<float const> const features[] = {view(g, 1, 2)};
  double loss = 0;
  std::int64_t bad = 0;
  value(test_context{}, r1{}.on<float>(features), loss, {.non_finite = &bad});
  CHECK(std::isinf(loss));
  CHECK(bad == 1);
}

// --- errors --------------------------------------------------------------------------------------

namespace {

/// A good call, whose arguments a test then spoils one at a time.
struct call {
  feature_tensors<float> g{2, {3, 5}};
  feature_tensors<float> out{2, {3, 5}};
  r1 penalty{};
  std::vector<rows<float const>> features{g.read};
  std::vector<rows<float>> cotangent{out.write};
  std::vector<double> penalties = {guard, guard};
  std::vector<float> upstream = {1, 1};
  std::vector<double> losses = {guard, guard};
  std::int64_t bad = -7;
  float scratch[64] = {};

  /// The text after "value_and_grad: ", or what was written in spite of it.
  std::string refusal() {
    std::string text = "no error";
    try {
      value_and_grad<per_sample>(
          test_context{}, penalty.on<float>(features), losses, {.features = cotangent},
          {.upstream = upstream, .non_finite = &bad, .penalties = penalties});
    } catch (error const& e) {
      text = e.what();
    }
    bool clean = bad == -7;
    for (double const x : losses) clean = clean && x == guard;
    for (double const x : penalties) clean = clean && x == guard;
    out.each([&](float x) { clean = clean && x == static_cast<float>(guard); });
    if (!clean) return "written in spite of: " + text;
    std::string const begin = "value_and_grad: ";
    return text.starts_with(begin) ? text.substr(begin.size()) : text;
  }
};

}  // namespace

TEST_CASE("a gamma below 0 and an interval below 1 are refused") {
  CHECK(call{}.refusal() == "written in spite of: no error");
  call negative;
  negative.penalty.gamma = -1;
  CHECK(negative.refusal() == "gamma (expected a number >= 0, got -1)");
  call nan;
  nan.penalty.gamma = std::numeric_limits<double>::quiet_NaN();
  CHECK(nan.refusal() == "gamma (expected a number >= 0, got nan)");
  call in_memory;
  double const below = -2;
  in_memory.penalty.gamma = number_at{&below};
  CHECK(in_memory.refusal() == "gamma (expected a number >= 0, got -2)");
  call nowhere;
  nowhere.penalty.gamma = number_at{};
  CHECK(nowhere.refusal() == "gamma (expected memory, got a null pointer)");
  call factor;
  factor.penalty.factor = -0.5;
  CHECK(factor.refusal() == "factor (expected a number >= 0, got -0.5)");
  for (int const interval : {0, -2}) {
    call never;
    never.penalty.interval = interval;
    std::string const text = "interval (expected at least 1, got " + std::to_string(interval) + ")";
    CHECK(never.refusal() == text);
    // Asked first whether it is due, it must not divide by 0.
    std::string due = "no error";
    try {
      static_cast<void>(never.penalty.due(3));
    } catch (error const& e) {
      due = e.what();
    }
    CHECK(due == "r1::due: " + text);
  }
}

TEST_CASE("wrong numbers of heads are refused in R1") {
  call none;
  none.features.clear();
  CHECK(none.refusal() == "features (expected 1 to 32 heads, got 0)");
  call many;
  many.features.assign(33, many.features[0]);
  CHECK(many.refusal() == "features (expected 1 to 32 heads, got 33)");
  call penalties;
  penalties.penalties.pop_back();
  CHECK(penalties.refusal() == "penalties (expected 2 heads, got 1)");
  call cotangents;
  cotangents.cotangent.pop_back();
  CHECK(cotangents.refusal() == "cotangents (expected 2 heads, got 1)");
}

TEST_CASE("shapes of feature gradients and cotangents are checked") {
  call batch;
  batch.features[1] = view(batch.scratch, 3, 2, 5);
  CHECK(batch.refusal() == "features[1] (expected 2 samples, got [3,2,5])");
  call empty;
  empty.features[0] = view(empty.scratch, 0, 1, 3);
  CHECK(empty.refusal() == "features[0] (expected a batch of at least one sample, got [0,1,3])");
  call absent;
  absent.features[0] = {};
  CHECK(absent.refusal() == "features[0] (expected a tensor, got none)");
  call other;
  other.cotangent[1] = view(other.scratch, 2, 5, 2);
  CHECK(other.refusal() ==
        "cotangents[1] (expected the shape of features[1], [2,2,5], got [2,5,2])");
  call order;
  auto channels_last = view(order.scratch, 2, 2, 5);
  channels_last.strides[1] = 1;
  channels_last.strides[2] = 2;
  order.cotangent[1] = channels_last;
  CHECK(order.refusal() ==
        "cotangents[1] (expected the memory order of features[1], stride 5 on axis 1, got stride "
        "1)");
  call shared;
  auto overlapping = view(shared.scratch, 2, 1, 3);
  overlapping.strides[0] = 1;
  shared.cotangent[0] = overlapping;
  CHECK(shared.refusal() ==
        "cotangents[0] (expected samples at least 3 elements apart, as they are written, got "
        "stride 1 on axis 0)");
  call upstream;
  upstream.upstream.pop_back();
  CHECK(upstream.refusal() == "upstream (expected shape [2], one number a sample, got [1])");
  call losses;
  losses.losses.push_back(guard);
  CHECK(losses.refusal() == "value (expected shape [2], one number a sample, got [3])");
}
