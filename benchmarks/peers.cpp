// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <array>
#include <cstddef>
#include <random>

#if __has_include(<Eigen/Core>)
#define PEERS_EIGEN 1
#define EIGEN_DONT_PARALLELIZE  // it would take all threads
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 finds its own AVX-512 intrinsics uninitialised where Eigen uses them.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>
#endif

#if __has_include(<xtl/xtl_config.hpp>)
#define PEERS_XTENSOR 1
#if __has_include(<xtensor/containers/xadapt.hpp>)  // 0.26
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/core/xnoalias.hpp>
#include <xtensor/reducers/xreducer.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xnoalias.hpp>
#endif
#endif

namespace peers {
namespace {

/// dL/dx = factor (student - target), of mean_b c_b mean_i.
float gradient_factor(double weight, std::int64_t batch, std::int64_t size) {
  return static_cast<float>(2 * weight / static_cast<double>(batch * size));
}

#if defined(PEERS_EIGEN)
namespace with_eigen {

using Eigen::ArrayXf;
using Eigen::Map;

void add_noise(float const* x0, float const* noise, double const* alpha, double const* sigma,
               float* out, std::int64_t batch, std::int64_t size) {
  for (std::int64_t b = 0; b < batch; ++b) {
    Map<ArrayXf>(out + b * size, size) =
        static_cast<float>(alpha[b]) * Map<ArrayXf const>(x0 + b * size, size) +
        static_cast<float>(sigma[b]) * Map<ArrayXf const>(noise + b * size, size);
  }
}

double distillation(float const* student, float const* target, double const* weights,
                    float* gradient, std::int64_t batch, std::int64_t size) {
  double loss = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    Map<ArrayXf const> const x(student + b * size, size);
    Map<ArrayXf const> const y(target + b * size, size);
    loss += weights[b] * static_cast<double>((x - y).square().mean());
    Map<ArrayXf>(gradient + b * size, size) = gradient_factor(weights[b], batch, size) * (x - y);
  }
  return loss / static_cast<double>(batch);
}

double teacher_distillation(float const* noise, float const* conditional,
                            float const* unconditional, double guidance_scale,
                            double const* weights, double const* alpha, double const* sigma,
                            float* gradient, std::int64_t batch, std::int64_t size) {
  double loss = 0;
  auto const scale = static_cast<float>(guidance_scale);
  ArrayXf residual(size);
  for (std::int64_t b = 0; b < batch; ++b) {
    Map<ArrayXf const> const e(noise + b * size, size);
    Map<ArrayXf const> const c(conditional + b * size, size);
    Map<ArrayXf const> const u(unconditional + b * size, size);
    residual = static_cast<float>(sigma[b] / alpha[b]) * (u + scale * (c - u) - e);
    loss += weights[b] * static_cast<double>(residual.square().mean());
    Map<ArrayXf>(gradient + b * size, size) = gradient_factor(weights[b], batch, size) * residual;
  }
  return loss / static_cast<double>(batch);
}

double hinge(float const* real, float const* fake, float* real_gradient, float* fake_gradient,
             double* statistics, std::int64_t size) {
  Map<ArrayXf const> const r(real, size);
  Map<ArrayXf const> const f(fake, size);
  float const step = 1 / static_cast<float>(size);
  Map<ArrayXf>(real_gradient, size) = -step * (r < 1.0F).cast<float>();
  Map<ArrayXf>(fake_gradient, size) = step * (f > -1.0F).cast<float>();
  statistics[0] = static_cast<double>(r.mean());
  statistics[1] = static_cast<double>((r > 0.0F).cast<float>().mean());
  statistics[2] = static_cast<double>((r < 1.0F).cast<float>().mean());
  statistics[3] = static_cast<double>(f.mean());
  statistics[4] = static_cast<double>((f > 0.0F).cast<float>().mean());
  statistics[5] = static_cast<double>((f > -1.0F).cast<float>().mean());
  return static_cast<double>((1.0F - r).max(0.0F).mean() + (1.0F + f).max(0.0F).mean());
}

double relativistic(float const* first, float const* second, float* first_gradient,
                    float* second_gradient, double* statistics, std::int64_t size) {
  Map<ArrayXf const> const a(first, size);
  Map<ArrayXf const> const b(second, size);
  ArrayXf const d = a - b;
  ArrayXf const g = -1 / (static_cast<float>(size) * (1 + d.exp()));
  Map<ArrayXf>(first_gradient, size) = g;
  Map<ArrayXf>(second_gradient, size) = -g;
  statistics[0] = static_cast<double>(a.mean());
  statistics[1] = static_cast<double>((a > 0.0F).cast<float>().mean());
  statistics[2] = static_cast<double>(b.mean());
  statistics[3] = static_cast<double>((b > 0.0F).cast<float>().mean());
  return static_cast<double>(((-d.abs()).exp().log1p() + (-d).max(0.0F)).mean());
}

double r1(float const* g, double gamma, float* cotangent, std::int64_t batch, std::int64_t size) {
  Map<ArrayXf const> const all(g, batch * size);
  auto const factor = static_cast<float>(2 * gamma / static_cast<double>(batch));
  Map<ArrayXf>(cotangent, batch * size) = factor * all;
  return gamma * static_cast<double>(all.square().sum()) / static_cast<double>(batch);
}

double power_iteration(float const* W, float* u, float* v, std::int64_t rows,
                       std::int64_t columns) {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Map<matrix const> const w(W, rows, columns);
  Map<Eigen::VectorXf> left(u, rows);
  Map<Eigen::VectorXf> right(v, columns);
  right = (w.transpose() * left).normalized();
  left = (w * right).normalized();
  return static_cast<double>(left.dot(w * right));
}

}  // namespace with_eigen
#endif

#if defined(PEERS_XTENSOR)
namespace with_xtensor {

/// [size], without a copy.
template <class T>
auto vector(T* data, std::int64_t size) {
  auto const count = static_cast<std::size_t>(size);
  return xt::adapt(data, count, xt::no_ownership(), std::array<std::size_t, 1>{count});
}

void add_noise(float const* x0, float const* noise, double const* alpha, double const* sigma,
               float* out, std::int64_t batch, std::int64_t size) {
  for (std::int64_t b = 0; b < batch; ++b) {
    auto y = vector(out + b * size, size);
    xt::noalias(y) = static_cast<float>(alpha[b]) * vector(x0 + b * size, size) +
                     static_cast<float>(sigma[b]) * vector(noise + b * size, size);
  }
}

double distillation(float const* student, float const* target, double const* weights,
                    float* gradient, std::int64_t batch, std::int64_t size) {
  double loss = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    auto const x = vector(student + b * size, size);
    auto const y = vector(target + b * size, size);
    auto g = vector(gradient + b * size, size);
    loss += weights[b] * static_cast<double>(xt::mean(xt::square(x - y))());
    xt::noalias(g) = gradient_factor(weights[b], batch, size) * (x - y);
  }
  return loss / static_cast<double>(batch);
}

double teacher_distillation(float const* noise, float const* conditional,
                            float const* unconditional, double guidance_scale,
                            double const* weights, double const* alpha, double const* sigma,
                            float* gradient, std::int64_t batch, std::int64_t size) {
  double loss = 0;
  auto const scale = static_cast<float>(guidance_scale);
  for (std::int64_t b = 0; b < batch; ++b) {
    auto const e = vector(noise + b * size, size);
    auto const c = vector(conditional + b * size, size);
    auto const u = vector(unconditional + b * size, size);
    auto g = vector(gradient + b * size, size);
    xt::noalias(g) = static_cast<float>(sigma[b] / alpha[b]) * (u + scale * (c - u) - e);
    loss += weights[b] * static_cast<double>(xt::mean(xt::square(g))());
    g *= gradient_factor(weights[b], batch, size);
  }
  return loss / static_cast<double>(batch);
}

double hinge(float const* real, float const* fake, float* real_gradient, float* fake_gradient,
             double* statistics, std::int64_t size) {
  auto const r = vector(real, size);
  auto const f = vector(fake, size);
  auto real_g = vector(real_gradient, size);
  auto fake_g = vector(fake_gradient, size);
  float const step = 1 / static_cast<float>(size);
  xt::noalias(real_g) = -step * xt::cast<float>(r < 1.0F);
  xt::noalias(fake_g) = step * xt::cast<float>(f > -1.0F);
  statistics[0] = static_cast<double>(xt::mean(r)());
  statistics[1] = static_cast<double>(xt::mean(xt::cast<float>(r > 0.0F))());
  statistics[2] = static_cast<double>(xt::mean(xt::cast<float>(r < 1.0F))());
  statistics[3] = static_cast<double>(xt::mean(f)());
  statistics[4] = static_cast<double>(xt::mean(xt::cast<float>(f > 0.0F))());
  statistics[5] = static_cast<double>(xt::mean(xt::cast<float>(f > -1.0F))());
  return static_cast<double>(xt::mean(xt::maximum(1.0F - r, 0.0F))() +
                             xt::mean(xt::maximum(1.0F + f, 0.0F))());
}

double relativistic(float const* first, float const* second, float* first_gradient,
                    float* second_gradient, double* statistics, std::int64_t size) {
  auto const a = vector(first, size);
  auto const b = vector(second, size);
  auto const d = a - b;
  auto first_g = vector(first_gradient, size);
  auto second_g = vector(second_gradient, size);
  xt::noalias(first_g) = -1.0F / (static_cast<float>(size) * (1.0F + xt::exp(d)));
  xt::noalias(second_g) = -first_g;
  statistics[0] = static_cast<double>(xt::mean(a)());
  statistics[1] = static_cast<double>(xt::mean(xt::cast<float>(a > 0.0F))());
  statistics[2] = static_cast<double>(xt::mean(b)());
  statistics[3] = static_cast<double>(xt::mean(xt::cast<float>(b > 0.0F))());
  return static_cast<double>(xt::mean(xt::log1p(xt::exp(-xt::abs(d))) + xt::maximum(-d, 0.0F))());
}

double r1(float const* g, double gamma, float* cotangent, std::int64_t batch, std::int64_t size) {
  auto const all = vector(g, batch * size);
  auto out = vector(cotangent, batch * size);
  xt::noalias(out) = static_cast<float>(2 * gamma / static_cast<double>(batch)) * all;
  return gamma * static_cast<double>(xt::sum(xt::square(all))()) / static_cast<double>(batch);
}

}  // namespace with_xtensor
#endif

}  // namespace

#if defined(PEERS_EIGEN)
peer const eigen{"eigen",
                 with_eigen::add_noise,
                 with_eigen::distillation,
                 with_eigen::teacher_distillation,
                 with_eigen::hinge,
                 with_eigen::relativistic,
                 with_eigen::r1,
                 with_eigen::power_iteration};
#else
peer const eigen{"eigen", {}, {}, {}, {}, {}, {}, {}};
#endif
#if defined(PEERS_XTENSOR)
peer const xtensor{"xtensor",
                   with_xtensor::add_noise,
                   with_xtensor::distillation,
                   with_xtensor::teacher_distillation,
                   with_xtensor::hinge,
                   with_xtensor::relativistic,
                   with_xtensor::r1,
                   nullptr};  // its matrix products are another library's
#else
peer const xtensor{"xtensor", {}, {}, {}, {}, {}, {}, {}};
#endif

void add_noise_of_std(float const* x0, double alpha, double sigma, float* out, std::int64_t size) {
  static std::mt19937_64 engine(42);
  std::normal_distribution<float> normal;
  auto const a = static_cast<float>(alpha);
  auto const s = static_cast<float>(sigma);
  for (std::int64_t i = 0; i < size; ++i) out[i] = a * x0[i] + s * normal(engine);
}

}  // namespace peers
