// SPDX-License-Identifier: MIT
#include <addloss/heads/spectral_norm.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <addloss/core/normal.hpp>
#include <addloss/testing/gradcheck.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

template <class T>
std::vector<T> normals(std::size_t count, std::uint32_t stream) {
  std::vector<T> x(count);
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = static_cast<T>(normal_at({.seed = 3, .stream = stream}, 0, i));
  }
  return x;
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The formulas of the header, written out.
struct oracle {
  std::int64_t rows;
  std::int64_t columns;

  template <class T>
  [[nodiscard]] double sigma(std::vector<T> const& W, std::vector<T> const& u,
                             std::vector<T> const& v) const {
    double sum = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        sum += static_cast<double>(u[at(i)]) * static_cast<double>(W[at(i * columns + j)]) *
               static_cast<double>(v[at(j)]);
      }
    }
    return sum;
  }

  template <class T>
  void update(std::vector<T> const& W, std::vector<double>& u, std::vector<double>& v,
              double epsilon) const {
    auto const normalise = [&](std::vector<double>& x) {
      double square = 0;
      for (double const n : x) square += n * n;
      for (double& n : x) n /= std::fmax(std::sqrt(square), epsilon);
    };
    v.assign(at(columns), 0);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        v[at(j)] += static_cast<double>(W[at(i * columns + j)]) * u[at(i)];
      }
    }
    normalise(v);
    for (std::int64_t i = 0; i < rows; ++i) {
      u[at(i)] = 0;
      for (std::int64_t j = 0; j < columns; ++j) {
        u[at(i)] += static_cast<double>(W[at(i * columns + j)]) * v[at(j)];
      }
    }
    normalise(u);
  }
};

template <class T, class U>
double distance(std::vector<T> const& a, std::vector<U> const& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double const d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(d)) return d;
    if (d > worst) worst = d;
  }
  return worst;
}

}  // namespace

TEMPLATE_TEST_CASE("a spectral norm equals its formulas", "", float, double) {
  using T = TestType;
  double const tolerance = 4 * static_cast<double>(std::numeric_limits<T>::epsilon());
  struct extents {
    std::int64_t rows;
    std::int64_t columns;
  };
  for (auto const& [rows, columns] :
       {extents{1, 1}, {1, 7}, {5, 1}, {3, 64}, {7, 65}, {130, 200}}) {
    CAPTURE(rows, columns);
    spectral_norm const norm{.rows = rows, .columns = columns};
    oracle const expected{rows, columns};
    auto const W = normals<T>(at(rows * columns), 1);
    auto u = normals<T>(at(rows), 2);
    std::vector<T> v(at(columns), std::numeric_limits<T>::quiet_NaN());  // not read by an update
    std::vector<double> u_expected(u.begin(), u.end());
    std::vector<double> v_expected;
    for (int i = 0; i < 3; ++i) {
      norm.update(cpu_context{}, W.data(), u.data(), v.data());
      expected.update(W, u_expected, v_expected, 1e-12);
    }
    CHECK(distance(u, u_expected) < 10 * tolerance);
    CHECK(distance(v, v_expected) < 10 * tolerance);
    double const sigma = expected.sigma(W, u, v);
    CHECK(norm.sigma(cpu_context{}, W.data(), u.data(), v.data()) == Approx(sigma).epsilon(1e-13));
    std::vector<T> W_hat(W.size());
    norm.divide(cpu_context{}, W.data(), sigma, W_hat.data());
    std::vector<double> quotient(W.begin(), W.end());
    for (double& x : quotient) x /= sigma;
    CHECK(distance(W_hat, quotient) < tolerance);

    auto in_place = W;
    norm.divide(cpu_context{}, in_place.data(), sigma, in_place.data());
    CHECK(in_place == W_hat);

    auto const W_hat_bar = normals<T>(W.size(), 4);
    auto W_bar = W_hat_bar;
    norm.divide_backward(cpu_context{}, W.data(), u.data(), v.data(), sigma, W_bar.data());
    double inner = 0;
    for (std::size_t n = 0; n < W.size(); ++n) {
      inner += static_cast<double>(W_hat_bar[n]) * static_cast<double>(W[n]);
    }
    std::vector<double> gradient(W.size());
    for (std::int64_t n = 0; n < rows * columns; ++n) {
      gradient[at(n)] = static_cast<double>(W_hat_bar[at(n)]) / sigma -
                        inner / (sigma * sigma) * static_cast<double>(u[at(n / columns)]) *
                            static_cast<double>(v[at(n % columns)]);
    }
    CHECK(distance(W_bar, gradient) < 10 * tolerance);
  }
}

TEST_CASE("many iterations find the largest singular value") {
  // A rotation times diag(3, 2) times a rotation.
  double const c = std::cos(0.4);
  double const s = std::sin(0.4);
  std::vector<double> const W = {3 * c, -2 * s, 3 * s, 2 * c};
  std::vector<double> u = {0.6, 0.8};
  std::vector<double> v(2);
  spectral_norm const norm{.rows = 2, .columns = 2, .iterations = 60};
  norm.update(cpu_context{}, W.data(), u.data(), v.data());
  CHECK(norm.sigma(cpu_context{}, W.data(), u.data(), v.data()) == Approx(3).epsilon(1e-12));
  CHECK(std::abs(v[0]) == Approx(1));
}

TEST_CASE("the gradient through a spectral norm agrees with finite differences") {
  std::int64_t const rows = 4;
  std::int64_t const columns = 6;
  spectral_norm const norm{.rows = rows, .columns = columns};
  auto W = normals<double>(24, 1);
  auto u = normals<double>(4, 2);
  std::vector<double> v(6);
  norm.update(cpu_context{}, W.data(), u.data(), v.data());
  auto const weight = normals<double>(24, 5);
  // A function of W_hat that is not linear: its gradient at W_hat is weight + W_hat.
  auto const loss = [&](std::span<double const> x) {
    std::vector<double> W_hat(24);
    double const sigma = norm.sigma(cpu_context{}, x.data(), u.data(), v.data());
    norm.divide(cpu_context{}, x.data(), sigma, W_hat.data());
    double sum = 0;
    for (std::size_t n = 0; n < 24; ++n) sum += weight[n] * W_hat[n] + W_hat[n] * W_hat[n] / 2;
    return sum;
  };
  double const sigma = norm.sigma(cpu_context{}, W.data(), u.data(), v.data());
  std::vector<double> gradient(24);
  norm.divide(cpu_context{}, W.data(), sigma, gradient.data());
  for (std::size_t n = 0; n < 24; ++n) gradient[n] += weight[n];
  norm.divide_backward(cpu_context{}, W.data(), u.data(), v.data(), sigma, gradient.data());
  CHECK(testing::gradcheck(loss, W, gradient).passed);
}

TEST_CASE("a spectral norm has the same bits on any number of threads") {
  std::int64_t const rows = 150;
  std::int64_t const columns = 333;
  spectral_norm const norm{.rows = rows, .columns = columns, .iterations = 2};
  auto const W = normals<float>(at(rows * columns), 1);
  auto const bar = normals<float>(at(rows * columns), 2);
  auto const results = [&](int threads) {
    cpu_context const ctx{.threads = threads};
    auto u = normals<float>(at(rows), 3);
    std::vector<float> v(at(columns));
    std::vector<float> W_hat(W.size());
    auto W_bar = bar;
    norm.update(ctx, W.data(), u.data(), v.data());
    double const sigma = norm.sigma(ctx, W.data(), u.data(), v.data());
    norm.divide(ctx, W.data(), sigma, W_hat.data());
    norm.divide_backward(ctx, W.data(), u.data(), v.data(), sigma, W_bar.data());
    for (auto const& x : {u, v, W_bar}) W_hat.insert(W_hat.end(), x.begin(), x.end());
    return W_hat;
  };
  auto const one = results(1);
  for (int const threads : {2, 3, 7}) CHECK(results(threads) == one);
}

TEST_CASE("no iteration leaves the state of a spectral norm as it is") {
  std::vector<double> const W = {1, 2};
  std::vector<double> u = {5};
  std::vector<double> v = {6, 7};
  spectral_norm{.rows = 1, .columns = 2, .iterations = 0}.update(cpu_context{}, W.data(), u.data(),
                                                                 v.data());
  CHECK(u == std::vector<double>{5});
  CHECK(v == std::vector<double>{6, 7});
}

TEST_CASE("a spectral norm reports what it cannot divide by") {
  spectral_norm const norm{.rows = 2, .columns = 2};
  std::vector<double> u = {1, 0};
  std::vector<double> v = {0, 1};
  std::vector<double> out(4, 9);
  auto const divide = [&](std::vector<double> const& W) {
    double const sigma = norm.sigma(cpu_context{}, W.data(), u.data(), v.data());
    return error_of([&] { norm.divide(cpu_context{}, W.data(), sigma, out.data()); });
  };
  CHECK(divide({1, 0, 0, 1}) ==
        "spectral_norm.divide: sigma (expected a finite number other than 0, got 0)");
  CHECK(divide({0, std::nan(""), 0, 1}).find("got nan") != std::string::npos);
  CHECK(divide({0, INFINITY, 1, 1}).find("sigma") != std::string::npos);
  CHECK(divide({0, 1e-310, 0, 1}).find("inverse is finite") != std::string::npos);
  CHECK(out == std::vector<double>(4, 9));
  std::vector<double> const W = {1, 2, 3, 4};
  CHECK(error_of([&] {
          norm.divide_backward(cpu_context{}, W.data(), u.data(), v.data(), 0.0, out.data());
        }).find("spectral_norm.divide_backward: sigma") == 0);
  CHECK(out == std::vector<double>(4, 9));

  // A weight of zeros gives u = v = 0, no NaN; NaN in W reaches the state.
  std::vector<double> const zero(4);
  norm.update(cpu_context{}, zero.data(), u.data(), v.data());
  CHECK(u == std::vector<double>{0, 0});
  CHECK(v == std::vector<double>{0, 0});
  std::vector<double> const bad = {std::nan(""), 1, 1, 1};
  u = {1, 0};
  norm.update(cpu_context{}, bad.data(), u.data(), v.data());
  CHECK(std::isnan(u[0]));
}

TEST_CASE("a spectral norm reports numbers that make no sense") {
  double x = 1;
  auto const update = [&](spectral_norm norm) {
    return error_of([&] { norm.update(cpu_context{}, &x, &x, &x); });
  };
  CHECK(update({.rows = 0, .columns = 1}) ==
        "spectral_norm.update: rows (expected at least 1, got 0)");
  CHECK(update({.rows = 1, .columns = 0}).find("columns") != std::string::npos);
  CHECK(update({.rows = 1, .columns = 1, .iterations = -1}).find("iterations") !=
        std::string::npos);
  CHECK(update({.rows = 1, .columns = 1, .epsilon = 0}).find("epsilon") != std::string::npos);
  CHECK(update({.rows = 1, .columns = 1, .epsilon = std::nan("")}).find("epsilon") !=
        std::string::npos);
}
