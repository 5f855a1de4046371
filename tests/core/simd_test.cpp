// SPDX-License-Identifier: MIT
#include <addloss/core/simd.hpp>

#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace {

using addloss::simd_pack;
namespace math = addloss::math;

static_assert(addloss::native_pack<float>::width == 2 * addloss::native_pack<double>::width);
static_assert(addloss::native_pack<float>::width * 4 == ADDLOSS_SIMD_BYTES);

template <class T>
bool same_bits(T a, T b) {
  using bits = addloss::integer_like_t<T>;
  // Which NaN comes out is the instruction's choice; that one comes out is not.
  return (math::is_nan(a) && math::is_nan(b)) || std::bit_cast<bits>(a) == std::bit_cast<bits>(b);
}

template <class T>
std::vector<T> interesting() {
  using limits = std::numeric_limits<T>;
  return {T(0),
          T(-0.0),
          T(1),
          T(-1),
          T(0.3),
          T(-2.7),
          T(50),
          T(1e-9),
          limits::max(),
          -limits::max(),
          limits::min(),
          limits::denorm_min(),
          limits::infinity(),
          -limits::infinity(),
          limits::quiet_NaN(),
          T(7)};
}

/// Every operation on every pair of interesting numbers, lane by lane against the scalar one.
template <class T>
void check_operations() {
  using pack = addloss::native_pack<T>;
  auto const numbers = interesting<T>();
  auto const size = numbers.size();
  constexpr auto width = static_cast<std::size_t>(pack::width);
  int wrong = 0;
  for (std::size_t shift = 0; shift < size; ++shift) {
    for (std::size_t first = 0; first < size; first += width) {
      T a[width];
      T b[width];
      for (std::size_t lane = 0; lane < width; ++lane) {
        a[lane] = numbers[(first + lane) % size];
        b[lane] = numbers[(first + lane + shift) % size];
      }
      pack const x = pack::load(a);
      pack const y = pack::load(b);
      auto const check = [&](pack result, auto const& scalar) {
        T out[width];
        result.store(out);
        for (std::size_t lane = 0; lane < width; ++lane) {
          wrong += same_bits<T>(out[lane], scalar(a[lane], b[lane])) ? 0 : 1;
        }
      };
      check(x + y, [](T p, T q) { return p + q; });
      check(x - y, [](T p, T q) { return p - q; });
      check(x * y, [](T p, T q) { return p * q; });
      check(x / y, [](T p, T q) { return p / q; });
      check(-x, [](T p, T) { return -p; });
      check(abs(x), [](T p, T) { return std::abs(p); });
      check(sqrt(x), [](T p, T) { return std::sqrt(p); });
      if constexpr (std::same_as<T, double>) {
        check(exp(x), [](T p, T) { return std::exp(p); });
        check(log1p(x), [](T p, T) { return std::log1p(p); });
      }
      pack sum = x;
      sum += y;
      check(sum, [](T p, T q) { return p + q; });
      check(select(x < y, x, y), [](T p, T q) { return p < q ? p : q; });
      check(select(x <= y, x, y), [](T p, T q) { return p <= q ? p : q; });
      check(select(x > y, x, y), [](T p, T q) { return p > q ? p : q; });
      check(select(x >= y, x, y), [](T p, T q) { return p >= q ? p : q; });
      check(select(x != y, x, y), [](T p, T q) { return p != q ? p : q; });
      check(select(!(x < y), x, y), [](T p, T q) { return !(p < q) ? p : q; });
      check(select((x < y) & (x > pack(0)), x, y), [](T p, T q) { return p < q && p > 0 ? p : q; });
      check(select((x < y) | (x > pack(0)), x, y), [](T p, T q) { return p < q || p > 0 ? p : q; });
      check(select(is_nan(x), pack(1), pack(2)),
            [](T p, T) { return math::is_nan(p) ? T(1) : T(2); });
      auto total = typename pack::integers{} + 5;
      count_true(total, x < y);
      for (std::size_t lane = 0; lane < width; ++lane) {
        wrong += total[lane] == (a[lane] < b[lane] ? 6 : 5) ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("each lane is the scalar operation, float") { check_operations<float>(); }
TEST_CASE("each lane is the scalar operation, double") { check_operations<double>(); }

namespace {

/// The largest relative error of a function of floats over numbers of all magnitudes, NaN and
/// infinities; infinite where a result is not of the right kind. Subnormals may be off by one.
template <class Function, class Exact>
double worst_error(Function function, Exact exact) {
  using pack = addloss::native_pack<float>;
  using limits = std::numeric_limits<float>;
  constexpr std::uint64_t step = 997;  // prime: all lanes meet all kinds of numbers
  double worst = 0;
  std::uint64_t next = 0;
  auto const check = [&](float const(&in)[pack::width]) {
    float out[pack::width];
    function(pack::load(in)).store(out);
    for (int lane = 0; lane < pack::width; ++lane) {
      double const right = exact(static_cast<double>(in[lane]));
      auto const rounded = static_cast<float>(right);
      if (!std::isfinite(rounded) || rounded == 0) {
        if (!same_bits(out[lane], rounded)) worst = limits::infinity();
        continue;
      }
      double const allowed = std::abs(right) < double{limits::min()} ? limits::denorm_min() : 0;
      double const error = std::abs(static_cast<double>(out[lane]) - right) - allowed;
      if (!(error / std::abs(right) <= worst)) worst = error / std::abs(right);  // NaN too
    }
  };
  auto const special = interesting<float>();
  for (std::size_t i = 0; i < special.size(); ++i) {
    float in[pack::width];
    for (float& number : in) number = special[i];
    check(in);
  }
  while (next < (std::uint64_t{1} << 32)) {
    float in[pack::width];
    for (float& number : in) {
      number = std::bit_cast<float>(static_cast<std::uint32_t>(next));
      next += step;
    }
    check(in);
  }
  return worst;
}

}  // namespace

TEST_CASE("exp and log1p of floats are right for all kinds of numbers") {
  double const of_exp =
      worst_error([](auto x) { return exp(x); }, [](double x) { return std::exp(x); });
  double const of_log1p =
      worst_error([](auto x) { return log1p(x); }, [](double x) { return std::log1p(x); });
  CAPTURE(of_exp, of_log1p);
  CHECK(of_exp < 1e-7);
  CHECK(of_log1p < 1.5e-7);
}

TEST_CASE("packs load and store at any address") {
  using pack = addloss::native_pack<float>;
  float from[pack::width + 4];
  float to[pack::width + 4] = {};
  for (int i = 0; i < pack::width + 4; ++i) from[i] = static_cast<float>(i);
  for (int offset = 0; offset < 4; ++offset) {
    pack::load(from + offset).store(to + offset);
    for (int i = 0; i < pack::width; ++i) CHECK(to[offset + i] == from[offset + i]);
  }
}

TEST_CASE("iota counts the lanes, and a number fills them") {
  using pack = addloss::native_pack<double>;
  double out[pack::width];
  pack::iota().store(out);
  for (int i = 0; i < pack::width; ++i) CHECK(out[i] == i);
  pack(3).store(out);
  for (double const lane : out) CHECK(lane == 3);
  pack(-0.0).store(out);
  for (double const lane : out) CHECK(std::signbit(lane));
}
