// SPDX-License-Identifier: MIT
#include <addloss/core/math.hpp>

#include <cmath>
#include <limits>

#include "catch.hpp"

namespace {
namespace math = addloss::math;

static_assert(math::select(true, 1.0F, 2.0F) == 1.0F && math::select(false, 1.0, 2.0) == 2.0);
static_assert(math::abs(-3.0) == 3.0 && math::abs(3.0F) == 3.0F);
static_assert(std::same_as<decltype(addloss::value_grad{1.0F, 2.0F}), addloss::value_grad<float>>);

template <class T>
void check_all() {
  T const infinity = std::numeric_limits<T>::infinity();
  T const nan = std::numeric_limits<T>::quiet_NaN();
  T const largest = std::numeric_limits<T>::max();
  T const smallest = std::numeric_limits<T>::denorm_min();
  CHECK(math::is_nan(nan));
  CHECK(math::is_nan(-nan));
  CHECK_FALSE(math::is_nan(infinity));
  CHECK_FALSE(math::is_nan(T(0)));
  for (T const finite : {T(0), T(-0.0), T(1), largest, -largest, smallest}) {
    CHECK(math::is_finite(finite));
  }
  for (T const other : {infinity, -infinity, nan}) CHECK_FALSE(math::is_finite(other));
  CHECK(math::abs(-infinity) == infinity);
  CHECK_FALSE(std::signbit(math::abs(T(-0.0))));
  CHECK(math::is_nan(math::abs(nan)));
  CHECK(math::is_nan(math::abs(-nan)));
  CHECK(math::is_nan(math::select(true, nan, T(1))));
  CHECK(math::select(false, nan, T(1)) == 1);
  CHECK(math::sqrt(T(2)) == std::sqrt(T(2)));
  CHECK(math::exp(T(2)) == std::exp(T(2)));
  CHECK(math::log1p(T(1e-9)) == std::log1p(T(1e-9)));
  CHECK(math::is_nan(math::sqrt(T(-1))));
  CHECK(math::exp(-infinity) == 0);
  CHECK(math::exp(infinity) == infinity);
}

}  // namespace

TEST_CASE("scalar functions, float") { check_all<float>(); }
TEST_CASE("scalar functions, double") { check_all<double>(); }
