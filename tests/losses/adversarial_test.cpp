// SPDX-License-Identifier: MIT
#include <addloss/losses/adversarial.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/losses/evaluate.hpp>

#include "catch.hpp"
#include "losses/head_tensors.hpp"
#include "storage_types.hpp"
#include "test_context.hpp"

// Not in the unnamed namespace: kernels are named after them.
namespace adversarial_test {

using addloss::logit_term;

/// A critic whose logits are pulled to 0, with strength `pull`: a state of its own is copied along.
struct pulled_critic {
  double pull = 0;
  template <class V>
  ADDLOSS_HOST_DEVICE logit_term<V> discriminator(V logit, V label, V weight) const {
    V const slope = V(2 * pull) * logit - label;
    return {V(pull) * logit * logit - label * logit, weight * slope, slope != V(0)};
  }
  template <class V>
  ADDLOSS_HOST_DEVICE logit_term<V> generator(V logit, V weight) const {
    return {-logit, -weight, V(0) <= V(0)};
  }
  void check(char const* function) const {
    if (pull < 0) {
      addloss::detail::fail(function, "pulled_critic.pull", "a number >= 0",
                            addloss::detail::text() << pull);
    }
  }
};

}  // namespace adversarial_test

namespace {

using namespace addloss;
using adversarial_test::pulled_critic;
using head_tests::head_tensors;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

struct without_generator {
  logit_term<double> discriminator(double logit, double label, double weight) const {
    return {logit, label * weight, true};
  }
};
struct value_alone {
  double discriminator(double logit, double, double) const { return logit; }
  double generator(double logit, double) const { return logit; }
};
struct with_memory : pulled_critic {
  std::vector<double> history;
};
static_assert(logit_loss<hinge> && logit_loss<non_saturating>);
static_assert(logit_loss<least_squares> && logit_loss<wasserstein>);
static_assert(logit_loss<pulled_critic>);
static_assert(!logit_loss<without_generator> && !logit_loss<value_alone>);
static_assert(!logit_loss<with_memory> && !logit_loss<double>);

// --- the formulas of the header's table, one number at a time ------------------------------------

enum class side { real, fake, generator };

struct point {
  double value;
  double slope;
};

point naive(hinge, side s, double z) {
  if (s == side::generator) return {-z, -1};
  if (s == side::real) return z < 1 ? point{1 - z, -1} : point{0, 0};
  return z > -1 ? point{1 + z, 1} : point{0, 0};
}
point naive(non_saturating, side s, double z) {
  if (s == side::fake) return {std::log(1 + std::exp(z)), 1 / (1 + std::exp(-z))};
  return {std::log(1 + std::exp(-z)), -1 / (1 + std::exp(z))};
}
point naive(least_squares, side s, double z) {
  double const aim = s == side::fake ? 0 : 1;
  return {(z - aim) * (z - aim), 2 * (z - aim)};
}
point naive(wasserstein, side s, double z) { return s == side::fake ? point{z, 1} : point{-z, -1}; }
point naive(pulled_critic c, side s, double z) {
  if (s == side::generator) return {-z, -1};
  double const sign = s == side::fake ? 1 : -1;
  return {c.pull * z * z + sign * z, 2 * c.pull * z + sign};
}

/// Of one number in the arithmetic type, and of one stored in T.
template <class T>
constexpr double sum_tolerance = std::same_as<T, double> ? 1e-13 : 2e-6;
template <class T>
constexpr double stored_tolerance = std::same_as<T, double>  ? 1e-14
                                    : std::same_as<T, float> ? 1e-6
                                    : std::same_as<T, half>  ? 0x1p-11
                                                             : 0x1p-8;

template <class T>
struct settings {
  std::vector<arithmetic_t<T>> upstream{};
  double grad_scale = 1;
};

/// What one head and side is to give: written to `samples`, `gradient` and `statistics`.
template <class T, class Tokens, class Heads, class Reduction, class Loss>
void oracle(Loss loss, side s, head_tensors<T>& z, settings<T> const& set,
            std::vector<double>& samples, std::vector<std::vector<double>>& gradient,
            std::vector<logit_statistics>& statistics) {
  auto const heads = static_cast<double>(z.sizes.size());
  auto const batch = static_cast<double>(z.batch);
  gradient.assign(z.sizes.size(), {});
  statistics.assign(z.sizes.size(), {});
  for (std::size_t k = 0; k < z.sizes.size(); ++k) {
    auto const length = static_cast<double>(z.sizes[k]);
    double scale = std::same_as<Tokens, mean> ? 1 / length : 1;
    if (std::same_as<Heads, mean>) scale /= heads;
    auto& found = statistics[k];
    for (std::size_t b = 0; b < z.batch; ++b) {
      double outer = set.grad_scale * scale;
      if (std::same_as<Reduction, mean>) outer /= batch;
      if (!set.upstream.empty()) outer *= static_cast<double>(set.upstream[b]);
      for (std::size_t l = 0; l < z.sizes[k]; ++l) {
        double const logit = as_double(z.at(k, b, l));
        auto const [value, slope] = naive(loss, s, logit);
        samples[b] += scale * value;
        gradient[k].push_back(outer * slope);
        found.mean += logit / (batch * length);
        found.positive += logit > 0 ? 1 : 0;
        found.active += slope != 0 ? 1 : 0;
      }
    }
    found.positive /= batch * length;
    found.active /= batch * length;
  }
}

template <class T>
void check_gradients(head_tensors<T>& got, std::vector<std::vector<double>> const& expected) {
  double worst = 0;
  double largest = 0;
  for (std::size_t k = 0; k < expected.size(); ++k) {
    std::size_t i = 0;
    for (std::size_t b = 0; b < got.batch; ++b) {
      for (std::size_t l = 0; l < got.sizes[k]; ++l, ++i) {
        double const error = std::abs(as_double(got.at(k, b, l)) - expected[k][i]);
        if (!(error <= worst)) worst = error;
        largest = std::fmax(largest, std::abs(expected[k][i]));
      }
    }
  }
  CHECK(worst <= stored_tolerance<T> * largest);
  CHECK(got.gaps_untouched());
}

template <class T>
void check_statistics(logit_statistics const& got, logit_statistics const& expected) {
  CHECK(got.mean == Approx(expected.mean).epsilon(0).margin(sum_tolerance<T> * 10));
  CHECK(got.positive == Approx(expected.positive).epsilon(1e-15));
  CHECK(got.active == Approx(expected.active).epsilon(1e-15));
  CHECK(got.non_finite == 0);
}

struct shape {
  std::size_t batch;
  std::vector<std::size_t> tokens;
  std::size_t gap = 0;
  std::size_t gradient_gap = gap;
};

/// Value, gradients and statistics against the oracle.
template <class T, bool Generator, class Tokens = mean, class Heads = sum, class Reduction = mean,
          class Loss>
void check(Loss loss, shape const& s, settings<T> const& set = {}) {
  using real_type = arithmetic_t<T>;
  std::size_t const heads = s.tokens.size();
  head_tensors<T> real(s.batch, s.tokens, s.gap);
  head_tensors<T> fake(s.batch, s.tokens, s.gap);
  real.fill(11, 1.5);
  fake.fill(12, 1.5);
  head_tensors<T> real_gradient(s.batch, s.tokens, s.gradient_gap);
  head_tensors<T> fake_gradient(s.batch, s.tokens, s.gradient_gap);
  std::vector<head_statistics> statistics(heads);

  std::vector<double> samples(s.batch);
  std::vector<std::vector<double>> expected_real;
  std::vector<std::vector<double>> expected_fake;
  std::vector<logit_statistics> real_statistics;
  std::vector<logit_statistics> fake_statistics;
  oracle<T, Tokens, Heads, Reduction>(loss, Generator ? side::generator : side::fake, fake, set,
                                      samples, expected_fake, fake_statistics);
  if (!Generator) {
    oracle<T, Tokens, Heads, Reduction>(loss, side::real, real, set, samples, expected_real,
                                        real_statistics);
  }

  adversarial<Loss, Tokens, Heads> const bound{loss};
  adversarial_options<real_type> options;
  if (!set.upstream.empty()) options.upstream = set.upstream;
  options.grad_scale = set.grad_scale;
  options.statistics = statistics;
  std::int64_t bad = 99;
  options.non_finite = &bad;
  std::vector<double> losses(std::same_as<Reduction, per_sample> ? s.batch : 1, guard);
  auto const run = [&](auto& out) {
    if constexpr (Generator) {
      value_and_grad<Reduction>(test_context{}, bound.template generator<T>(fake.read), out,
                                {.fake = fake_gradient.write}, options);
    } else {
      value_and_grad<Reduction>(
          test_context{}, bound.template discriminator<T>(real.read, fake.read), out,
          {.real = real_gradient.write, .fake = fake_gradient.write}, options);
    }
  };
  if constexpr (std::same_as<Reduction, per_sample>) {
    run(losses);
  } else {
    run(losses[0]);
    double total = 0;
    for (double const x : samples) total += x;
    samples = {std::same_as<Reduction, mean> ? total / static_cast<double>(s.batch) : total};
  }

  CAPTURE(Generator, s.batch, s.tokens, s.gap);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    CHECK(losses[i] == Approx(samples[i]).epsilon(sum_tolerance<T>).margin(sum_tolerance<T>));
  }
  check_gradients(fake_gradient, expected_fake);
  CHECK(bad == 0);
  for (std::size_t k = 0; k < heads; ++k) {
    check_statistics<T>(statistics[k].fake, fake_statistics[k]);
    if (!Generator) check_statistics<T>(statistics[k].real, real_statistics[k]);
    // A generator loss reads no real logits: their entry is left alone.
    if (Generator) CHECK(statistics[k].real.active == 0);
  }
  if (!Generator) check_gradients(real_gradient, expected_real);
}

shape const three_heads{3, {1, 64, 131}};
shape const strided{3, {5, 70}, 3};

template <class Loss>
void check_loss(Loss loss) {
  for (shape const& s : {three_heads, strided, shape{1, {1}}, shape{1, {67, 2}, 1}}) {
    check<double, false>(loss, s);
    check<double, true>(loss, s);
  }
}

// --- single functors -----------------------------------------------------------------------------

template <class Loss>
logit_term<double> real_of(double z, double weight = 1) {
  return Loss{}.discriminator(z, 1.0, weight);
}
template <class Loss>
logit_term<double> fake_of(double z, double weight = 1) {
  return Loss{}.discriminator(z, -1.0, weight);
}
template <class Loss>
logit_term<double> generated_of(double z, double weight = 1) {
  return Loss{}.generator(z, weight);
}

template <class Loss>
void check_nan() {
  for (auto const& f : {real_of<Loss>, fake_of<Loss>, generated_of<Loss>}) {
    CHECK(std::isnan(f(not_a_number, 1).value));
    CHECK(std::isnan(f(not_a_number, 1).grad));
  }
}

template <class Loss>
void check_weight() {
  for (auto const& f : {real_of<Loss>, fake_of<Loss>, generated_of<Loss>}) {
    for (double const z : {-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, not_a_number}) {
      CAPTURE(z);
      auto const one = f(z, 1);
      CHECK(one.active == (one.grad != 0));
      for (double const weight : {-4.0, 0.0, 0.5}) {
        auto const weighted = f(z, weight);
        CHECK((weighted.grad == weight * one.grad || std::isnan(z)));
        CHECK((weighted.value == one.value || std::isnan(z)));
        CHECK(weighted.active == one.active);
      }
      CHECK(std::isnan(f(z, not_a_number).grad));
      CHECK(!std::isfinite(f(z, infinity).grad));
    }
  }
}

#if !defined(ADDLOSS_TEST_ON_GPU)
/// `rounding`: the largest relative difference.
bool same(float a, float b, float rounding) {
  return a == b || std::abs(a - b) <= rounding * std::abs(b) || (std::isnan(a) && std::isnan(b));
}

void check_same(logit_term<native_pack<float>> const& many, logit_term<float> const& one,
                float rounding) {
  CHECK(same(many.value.lanes[0], one.value, rounding));
  CHECK(same(many.grad.lanes[1], one.grad, rounding));
  CHECK((many.active.bits[2] != 0) == one.active);
}

/// A register of numbers gives what each number gives, up to `rounding`.
template <class Loss>
void check_registers(float rounding = 0) {
  using pack = native_pack<float>;
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (float const z : {0.0F, 1.0F, -1.0F, 0.3F, 2.5F, -7.0F, 200.0F, -200.0F, 1e30F, -1e30F, inf,
                        -inf, std::numeric_limits<float>::quiet_NaN()}) {
    CAPTURE(z);
    for (float const label : {1.0F, -1.0F}) {
      check_same(Loss{}.discriminator(pack(z), pack(label), pack(0.3F)),
                 Loss{}.discriminator(z, label, 0.3F), rounding);
    }
    check_same(Loss{}.generator(pack(z), pack(0.3F)), Loss{}.generator(z, 0.3F), rounding);
  }
}
#endif

}  // namespace

TEST_CASE("the hinge is 0 from its margin on, and so is its subgradient at the kink") {
  CHECK(real_of<hinge>(-0.5).value == 1.5);
  CHECK(real_of<hinge>(-0.5).grad == -1);
  CHECK(fake_of<hinge>(-0.5).value == 0.5);
  CHECK(fake_of<hinge>(-0.5).grad == 1);
  CHECK(real_of<hinge>(1).value == 0);
  CHECK(real_of<hinge>(1).grad == 0);
  CHECK(fake_of<hinge>(-1).value == 0);
  CHECK(fake_of<hinge>(-1).grad == 0);
  CHECK(real_of<hinge>(std::nextafter(1.0, 0.0)).grad == -1);
  CHECK(fake_of<hinge>(std::nextafter(-1.0, 0.0)).grad == 1);
  CHECK(real_of<hinge>(3).value == 0);
  CHECK(fake_of<hinge>(-3).value == 0);
  CHECK(generated_of<hinge>(3).value == -3);
  CHECK(generated_of<hinge>(3).grad == -1);
}

TEST_CASE("softplus neither overflows nor loses its tail") {
  CHECK(real_of<non_saturating>(0).value == Approx(std::log(2.0)).epsilon(1e-15));
  CHECK(real_of<non_saturating>(0).grad == -0.5);
  CHECK(real_of<non_saturating>(-1e300).value == 1e300);
  CHECK(real_of<non_saturating>(-1e300).grad == -1);
  CHECK(real_of<non_saturating>(1e300).value == 0);
  CHECK(real_of<non_saturating>(1e300).grad == 0);
  CHECK(fake_of<non_saturating>(800).value == 800);
  CHECK(fake_of<non_saturating>(800).grad == 1);
  // ln(1 + e^-40) = e^-40 to 18 digits; 1 + e^-40 alone is 1.
  CHECK(real_of<non_saturating>(40).value == Approx(std::exp(-40)).epsilon(1e-14));
  CHECK(real_of<non_saturating>(40).grad == Approx(-std::exp(-40)).epsilon(1e-14));
  CHECK(fake_of<non_saturating>(-40).value == Approx(std::exp(-40)).epsilon(1e-14));
  CHECK(generated_of<non_saturating>(-700).value == 700);
  CHECK(generated_of<non_saturating>(-700).grad == -1);
  float const far = non_saturating{}.discriminator(-100.0F, 1.0F, 1.0F).value;
  CHECK(far == 100);
}

TEST_CASE("least squares and wasserstein at named points") {
  CHECK(real_of<least_squares>(1).value == 0);
  CHECK(real_of<least_squares>(1).grad == 0);
  CHECK(real_of<least_squares>(-1).value == 4);
  CHECK(real_of<least_squares>(-1).grad == -4);
  CHECK(fake_of<least_squares>(0).grad == 0);
  CHECK(fake_of<least_squares>(3).value == 9);
  CHECK(fake_of<least_squares>(3).grad == 6);
  CHECK(generated_of<least_squares>(0).value == 1);
  CHECK(generated_of<least_squares>(0).grad == -2);
  CHECK(real_of<wasserstein>(2).value == -2);
  CHECK(real_of<wasserstein>(2).grad == -1);
  CHECK(fake_of<wasserstein>(2).value == 2);
  CHECK(fake_of<wasserstein>(2).grad == 1);
  CHECK(generated_of<wasserstein>(2).value == -2);
  CHECK(generated_of<wasserstein>(2).grad == -1);
}

TEST_CASE("a loss weighs its gradient, and says of each logit whether there is one") {
  check_weight<hinge>();
  check_weight<non_saturating>();
  check_weight<least_squares>();
  check_weight<wasserstein>();
}

TEST_CASE("NaN in a logit is NaN in the loss and in its gradient") {
  check_nan<hinge>();
  check_nan<non_saturating>();
  check_nan<least_squares>();
  check_nan<wasserstein>();
}

TEST_CASE("an infinite logit has a NaN gradient where the loss is infinite, and only there") {
  // The side on which the hinge and softplus are 0.
  CHECK(real_of<hinge>(infinity).value == 0);
  CHECK(real_of<hinge>(infinity).grad == 0);
  CHECK(fake_of<hinge>(-infinity).value == 0);
  CHECK(fake_of<hinge>(-infinity).grad == 0);
  CHECK(real_of<non_saturating>(infinity).value == 0);
  CHECK(real_of<non_saturating>(infinity).grad == 0);
  CHECK(fake_of<non_saturating>(-infinity).value == 0);
  CHECK(fake_of<non_saturating>(-infinity).grad == 0);
  // The other side.
  CHECK(real_of<hinge>(-infinity).value == infinity);
  CHECK(std::isnan(real_of<hinge>(-infinity).grad));
  CHECK(fake_of<hinge>(infinity).value == infinity);
  CHECK(std::isnan(fake_of<hinge>(infinity).grad));
  CHECK(generated_of<hinge>(infinity).value == -infinity);
  CHECK(std::isnan(generated_of<hinge>(infinity).grad));
  CHECK(real_of<non_saturating>(-infinity).value == infinity);
  CHECK(std::isnan(real_of<non_saturating>(-infinity).grad));
  CHECK(fake_of<non_saturating>(infinity).value == infinity);
  CHECK(std::isnan(fake_of<non_saturating>(infinity).grad));
  CHECK(std::isnan(generated_of<non_saturating>(-infinity).grad));
  CHECK(real_of<wasserstein>(infinity).value == -infinity);
  CHECK(std::isnan(real_of<wasserstein>(infinity).grad));
  CHECK(std::isnan(fake_of<wasserstein>(-infinity).grad));
  CHECK(std::isnan(generated_of<wasserstein>(infinity).grad));
  CHECK(real_of<least_squares>(-infinity).value == infinity);
  CHECK(real_of<least_squares>(-infinity).grad == -infinity);
  CHECK(fake_of<least_squares>(infinity).grad == infinity);
}

#if !defined(ADDLOSS_TEST_ON_GPU)
TEST_CASE("losses of registers of logits") {
  check_registers<hinge>();
  // exp and log1p of registers have errors of their own, 1e-7 and 1.5e-7.
  check_registers<non_saturating>(4e-7F);
  check_registers<least_squares>();
  check_registers<wasserstein>();
}
#endif

TEST_CASE("hinge: value, gradients and statistics of several heads") { check_loss(hinge{}); }
TEST_CASE("non_saturating: value, gradients and statistics of several heads") {
  check_loss(non_saturating{});
}
#if !defined(ADDLOSS_TEST_ON_GPU)
TEST_CASE("least_squares: value, gradients and statistics of several heads") {
  check_loss(least_squares{});
}
TEST_CASE("wasserstein: value, gradients and statistics of several heads") {
  check_loss(wasserstein{});
}
#endif

TEST_CASE("a logit loss of one's own, with its settings") {
  check<double, false>(pulled_critic{.pull = 0.25}, three_heads);
  if constexpr (each_with_each) {
    check<double, true>(pulled_critic{.pull = 0.25}, three_heads);
  }
}

TEST_CASE("reductions over tokens, heads and the batch") {
  for (shape const& s : {three_heads, strided}) {
    check<double, false, sum, mean, per_sample>(hinge{}, s);
    check<double, true, mean, mean, sum>(hinge{}, s);
    if constexpr (each_with_each) {
      check<double, false, sum, sum, mean>(hinge{}, s);
      check<double, false, mean, mean, sum>(hinge{}, s);
      check<double, true, sum, mean, per_sample>(hinge{}, s);
    }
  }
}

TEST_CASE("gaps between samples of the logits alone, and of the gradients alone") {
  // A reduced loss may run over all samples at once where there are none.
  for (shape const& s : {shape{3, {5, 70}, 3, 0}, shape{3, {5, 70}, 0, 3}}) {
    check<double, false>(hinge{}, s);
    check<double, true>(hinge{}, s);
  }
  double const memory[] = {1, 2, guard, 3, 4, guard};
  auto apart = view(memory, 2, 2);
  apart.strides[0] = 3;
  rows<double const> const fake[] = {apart};
  double loss = 0;
  value(test_context{}, adversarial<wasserstein>{}.generator<double>(fake), loss);
  CHECK(loss == -2.5);
}

TEST_CASE("upstream gradients and the loss scale multiply gradients, not the value") {
  for (shape const& s : {three_heads, strided}) {
    check<double, false, mean, sum, mean>(hinge{}, s, {{}, 1024});
    check<double, false, sum, mean, per_sample>(hinge{}, s, {{0.5, -2, 0}, 3});
    check<double, true, mean, mean, sum>(hinge{}, s, {{0.5, -2, 0}, 3});
  }
}

TEST_CASE("logits stored in each type") {
  check<float, false>(hinge{}, three_heads);
  check<float, true>(hinge{}, strided);
  check<half, false>(hinge{}, strided);
  check<bfloat16, true>(hinge{}, strided);
  if constexpr (each_with_each) {
    check<half, true>(hinge{}, three_heads);
    check<bfloat16, false>(hinge{}, three_heads);
    check<float, false>(non_saturating{}, three_heads);
  }
#if !defined(ADDLOSS_TEST_ON_GPU)
  check<half, false>(non_saturating{}, three_heads);
  check<bfloat16, false>(non_saturating{}, strided);
#endif
}

TEST_CASE("as many heads as there may be") {
  shape s{2, std::vector<std::size_t>(static_cast<std::size_t>(max_heads), 3)};
  s.tokens.front() = 1;
  s.tokens.back() = 66;
  check<double, false>(hinge{}, s);
  check<double, true>(hinge{}, s);
}

TEST_CASE("logits of a token grid are one row a sample") {
  std::vector<double> const grid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  rows<double const> const fake[] = {view(grid.data(), 2, 3, 2)};
  double loss = 0;
  value(test_context{}, adversarial<wasserstein>{}.generator<double>(fake), loss);
  CHECK(loss == -6.5);
}

TEST_CASE("gradients are added to what is there, of one side alone if wanted") {
  head_tensors<double> real(2, {3, 66});
  head_tensors<double> fake(2, {3, 66});
  real.fill(21, 0.3);
  fake.fill(22, 0.3);  // all inside the margin: each gradient is 1 / (2 L)
  head_tensors<double> gradient(2, {3, 66});
  grad(test_context{}, adversarial{}.discriminator<double>(real.read, fake.read),
       {.real = gradient.write, .accumulate = true});
  CHECK(gradient.at(0, 1, 2) == Approx(guard - 1.0 / 6).epsilon(1e-15));
  CHECK(gradient.at(1, 0, 65) == Approx(guard - 1.0 / 132).epsilon(1e-15));
  grad(test_context{}, adversarial{}.discriminator<double>(real.read, fake.read),
       {.fake = gradient.write});
  CHECK(gradient.at(0, 1, 2) == Approx(1.0 / 6).epsilon(1e-15));
}

TEST_CASE("a gradient may be written over its logits") {
  head_tensors<double> apart(3, {5, 131}, 2);
  head_tensors<double> over(3, {5, 131}, 2);
  head_tensors<double> gradient(3, {5, 131}, 2);
  apart.fill(31, 2);
  over.fill(31, 2);
  double loss[2] = {0, 0};
  adversarial<least_squares> const bound;
  value_and_grad(test_context{}, bound.generator<double>(apart.read), loss[0],
                 {.fake = gradient.write});
  value_and_grad(test_context{}, bound.generator<double>(over.read), loss[1], {.fake = over.write});
  CHECK(loss[0] == loss[1]);
  CHECK(over.memory == gradient.memory);
}

TEST_CASE("an idle hinge discriminator has loss 2, a collapsed one no active logits") {
  head_tensors<double> real(4, {9});
  head_tensors<double> fake(4, {9});
  head_statistics health[1];
  double loss = 0;
  auto const run = [&](double real_logit, double fake_logit) {
    real.each([&](double& z) { z = real_logit; });
    fake.each([&](double& z) { z = fake_logit; });
    value(test_context{}, adversarial{}.discriminator<double>(real.read, fake.read), loss,
          {.statistics = health});
  };
  run(0, 0);
  CHECK(loss == 2);
  CHECK(health[0].real.active == 1);
  CHECK(health[0].fake.active == 1);
  CHECK(health[0].real.positive == 0);
  run(1, -5);
  CHECK(loss == 0);
  CHECK(health[0].real.active == 0);
  CHECK(health[0].fake.active == 0);
  CHECK(health[0].real.positive == 1);
  CHECK(health[0].fake.positive == 0);
  CHECK(health[0].fake.mean == -5);
}

TEST_CASE("one NaN logit: where it shows, and that it is counted") {
  for (std::size_t const gap : {std::size_t{0}, std::size_t{1}}) {
    head_tensors<float> real(2, {4, 131}, gap);
    head_tensors<float> fake(2, {4, 131}, gap);
    real.fill(41, 1);
    fake.fill(42, 1);
    fake.at(1, 0, 130) = std::numeric_limits<float>::quiet_NaN();
    fake.at(1, 1, 3) = std::numeric_limits<float>::infinity();
    head_tensors<float> real_gradient(2, {4, 131}, gap);
    head_tensors<float> fake_gradient(2, {4, 131}, gap);
    head_statistics health[2];
    std::int64_t bad = -1;
    double losses[2] = {0, 0};
    value_and_grad<per_sample>(
        test_context{}, adversarial{}.discriminator<float>(real.read, fake.read), view(losses, 2),
        {.real = real_gradient.write, .fake = fake_gradient.write},
        {.non_finite = &bad, .statistics = health});
    CHECK(std::isnan(losses[0]));
    CHECK(losses[1] == infinity);
    CHECK(bad == 2);
    CHECK(health[1].fake.non_finite == 2);
    int active = 0;
    for (std::size_t b = 0; b < 2; ++b) {
      for (std::size_t l = 0; l < 131; ++l) active += fake.at(1, b, l) <= -1 ? 0 : 1;
    }
    CHECK(health[1].fake.active == active / 262.0);
    CHECK(std::isnan(health[1].fake.mean));
    CHECK(health[0].fake.non_finite == 0);
    CHECK(health[1].real.non_finite == 0);
    CHECK(std::isfinite(health[1].real.mean));
    int non_finite = 0;
    fake_gradient.each([&](float g) { non_finite += std::isnan(g) ? 1 : 0; });
    real_gradient.each([&](float g) { non_finite += std::isnan(g) ? 1000 : 0; });
    CHECK(non_finite == 2);
    CHECK(std::isnan(fake_gradient.at(1, 0, 130)));
    CHECK(std::isnan(fake_gradient.at(1, 1, 3)));
    double loss = 0;
    value(test_context{}, adversarial{}.discriminator<float>(real.read, fake.read), loss);
    CHECK(std::isnan(loss));
  }
}

TEST_CASE("a finite logit whose loss overflows is counted") {
  float const z[] = {1, 1e30F, 2};
  rows<float const> const fake[] = {view(z, 1, 3)};
  double loss = 0;
  std::int64_t bad = 0;
  value(test_context{}, adversarial<least_squares>{}.generator<float>(fake), loss,
        {.non_finite = &bad});
  CHECK(std::isinf(loss));
  CHECK(bad == 1);
}

// --- errors --------------------------------------------------------------------------------------

namespace {

/// A good call, whose arguments a test then spoils one at a time.
struct call {
  head_tensors<float> real{2, {3, 5}};
  head_tensors<float> fake{2, {3, 5}};
  head_tensors<float> real_out{2, {3, 5}};
  head_tensors<float> fake_out{2, {3, 5}};
  std::vector<rows<float const>> real_in{real.read};
  std::vector<rows<float const>> fake_in{fake.read};
  std::vector<rows<float>> real_gradient{real_out.write};
  std::vector<rows<float>> fake_gradient{fake_out.write};
  std::vector<head_statistics> statistics = std::vector<head_statistics>(2);
  std::vector<float> upstream = {1, 1};
  std::vector<double> losses = {guard, guard};
  std::int64_t bad = -7;
  float scratch[64] = {};

  call() {
    for (auto& s : statistics) s.real.mean = s.fake.mean = guard;
  }

  template <bool Generator>
  std::string run() {
    try {
      adversarial<> const loss;
      adversarial_options<float> const options{
          .upstream = upstream, .non_finite = &bad, .statistics = statistics};
      if constexpr (Generator) {
        value_and_grad<per_sample>(test_context{}, loss.generator<float>(fake_in), losses,
                                   {.real = real_gradient, .fake = fake_gradient}, options);
      } else {
        value_and_grad<per_sample>(test_context{}, loss.discriminator<float>(real_in, fake_in),
                                   losses, {.real = real_gradient, .fake = fake_gradient}, options);
      }
    } catch (error const& e) {
      return e.what();
    }
    return "no error";
  }

  /// The text after "value_and_grad: ", or what was written in spite of it.
  template <bool Generator = false>
  std::string refusal() {
    std::string const text = run<Generator>();
    bool clean = bad == -7;
    for (double const x : losses) clean = clean && x == guard;
    for (auto const& s : statistics) {
      clean = clean && s.real.mean == guard && s.fake.mean == guard;
    }
    for (auto* const out : {&real_out, &fake_out}) {
      out->each([&](float x) { clean = clean && x == static_cast<float>(guard); });
    }
    if (!clean) return "written in spite of: " + text;
    std::string const begin = "value_and_grad: ";
    return text.starts_with(begin) ? text.substr(begin.size()) : text;
  }
};

}  // namespace

TEST_CASE("a good call is not refused, and writes") {
  CHECK(call{}.run<false>() == "no error");
  CHECK(call{}.refusal() == "written in spite of: no error");
  call generator;
  generator.real_gradient.clear();
  CHECK(generator.run<true>() == "no error");
}

TEST_CASE("wrong numbers of heads are refused") {
  call none;
  none.fake_in.clear();
  CHECK(none.refusal() == "fake (expected 1 to 32 heads, got 0)");
  call many;
  many.fake_in.assign(33, many.fake.read[0]);
  many.real_in.assign(33, many.real.read[0]);
  CHECK(many.refusal() == "fake (expected 1 to 32 heads, got 33)");
  call fewer;
  fewer.real_in.pop_back();
  CHECK(fewer.refusal() == "real (expected 2 heads, got 1)");
  call statistics;
  statistics.statistics.pop_back();
  CHECK(statistics.refusal() == "statistics (expected 2 heads, got 1)");
  call real;
  real.real_gradient.pop_back();
  CHECK(real.refusal() == "gradients.real (expected 2 heads, got 1)");
  call fake;
  fake.fake_gradient.push_back(fake.fake_gradient[0]);
  CHECK(fake.refusal() == "gradients.fake (expected 2 heads, got 3)");
}

TEST_CASE("settings of a loss that are out of range are refused") {
  call c;
  double untouched = 7;
  std::string text;
  try {
    value(
        test_context{},
        adversarial<pulled_critic>{.loss = {.pull = -1}}.discriminator<float>(c.real_in, c.fake_in),
        untouched);
  } catch (error const& e) {
    text = e.what();
  }
  CHECK(text == "value: pulled_critic.pull (expected a number >= 0, got -1)");
  CHECK(untouched == 7);
}

TEST_CASE("a generator loss has no gradient for real logits") {
  // It would be left unwritten.
  CHECK(call{}.refusal<true>() == "gradients.real (expected 0 heads, got 2)");
}

TEST_CASE("real and fake logits of a head have the same tokens, heads the same batch") {
  call tokens;
  tokens.real_in[1] = view(tokens.scratch, 2, 4);
  CHECK(tokens.refusal() == "real[1] (expected 5 logits a sample, as many as fake, got [2,4])");
  call batch;
  batch.fake_in[1] = view(batch.scratch, 3, 5);
  CHECK(batch.refusal() == "fake[1] (expected 2 samples, got [3,5])");
  call other_side;
  other_side.real_in[0] = view(other_side.scratch, 1, 3);
  CHECK(other_side.refusal() == "real[0] (expected 2 samples, got [1,3])");
}

TEST_CASE("missing and empty logits are refused by their own name") {
  call absent;
  absent.fake_in[0] = {};
  CHECK(absent.refusal() == "fake[0] (expected a tensor, got none)");
  call absent_later;
  absent_later.fake_in[1] = {};
  CHECK(absent_later.refusal() == "fake[1] (expected a tensor, got none)");
  call absent_real;
  absent_real.real_in[1] = {};
  CHECK(absent_real.refusal() == "real[1] (expected a tensor, got none)");
  call empty;
  empty.fake_in[0] = view(empty.scratch, 0, 3);
  CHECK(empty.refusal() == "fake[0] (expected a batch of at least one sample, got [0,3])");
  call no_tokens;
  no_tokens.fake_in[0] = view(no_tokens.scratch, 2, 0);
  CHECK(no_tokens.refusal() == "fake[0] (expected samples of at least one element, got [2,0])");
  call null;
  null.fake_in[0] = view(static_cast<float const*>(nullptr), 2, 3);
  CHECK(null.refusal() == "fake[0] (expected memory, got a null pointer)");
  call transposed;
  auto gaps = view(transposed.scratch, 2, 3);
  gaps.strides[1] = 2;
  transposed.fake_in[0] = gaps;
  CHECK(transposed.refusal() ==
        "fake[0] (expected axes 1.. without gaps, got shape [2,3] with strides [3,2])");
}

TEST_CASE("gradients have the shape of their logits, and rows of their own") {
  call wrong;
  wrong.fake_gradient[1] = view(wrong.scratch, 2, 4);
  CHECK(wrong.refusal() == "gradients.fake[1] (expected the shape of fake[1], [2,5], got [2,4])");
  call real;
  real.real_gradient[0] = view(real.scratch, 2, 3, 1);
  CHECK(real.refusal() == "gradients.real[0] (expected the shape of real[0], [2,3], got [2,3,1])");
  call shared;
  auto overlapping = view(shared.scratch, 2, 3);
  overlapping.strides[0] = 2;
  shared.real_gradient[0] = overlapping;
  CHECK(shared.refusal() ==
        "gradients.real[0] (expected samples at least 3 elements apart, as they are written, got "
        "stride 2 on axis 0)");
  call absent;
  absent.fake_gradient[1] = {};
  CHECK(absent.refusal() == "gradients.fake[1] (expected a tensor, got none)");
}

TEST_CASE("one upstream gradient and one loss a sample") {
  call upstream;
  upstream.upstream.push_back(1);
  CHECK(upstream.refusal() == "upstream (expected shape [2], one number a sample, got [3])");
  call losses;
  losses.losses.push_back(guard);
  CHECK(losses.refusal() == "value (expected shape [2], one number a sample, got [3])");
}
