// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <random>
#include <type_traits>

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

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::OuterStride;
using Eigen::VectorXf;

double power_iteration(float const* W, float* u, float* v, std::int64_t rows,
                       std::int64_t columns) {
  Map<matrix const> const w(W, rows, columns);
  Map<VectorXf> left(u, rows);
  Map<VectorXf> right(v, columns);
  right = (w.transpose() * left).normalized();
  left = (w * right).normalized();
  return static_cast<double>(left.dot(w * right));
}

void matrix_product(layout of_a, float const* a, layout of_b, float const* b, float* c,
                    std::int64_t m, std::int64_t n, std::int64_t k) {
  Map<matrix> result(c, m, n);
  if (of_a == layout::transposed) {
    result.noalias() = Map<matrix const>(a, k, m).transpose() * Map<matrix const>(b, k, n);
  } else if (of_b == layout::transposed) {
    result.noalias() = Map<matrix const>(a, m, k) * Map<matrix const>(b, n, k).transpose();
  } else {
    result.noalias() = Map<matrix const>(a, m, k) * Map<matrix const>(b, k, n);
  }
}

/// A product for each tap, with a copy of the sample whose rows are padded, so that they overlap.
void convolve(convolution of, float const* x, float const* w, float* y) {
  auto const [batch, channels, length, taps] = of;
  std::int64_t const padded_length = length + taps - 1;
  matrix padded(channels, padded_length);
  using strided = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  Map<VectorXf const> const bias(w + channels * channels * taps, channels);
  for (std::int64_t b = 0; b < batch; ++b) {
    Map<matrix const> const sample(x + b * channels * length, channels, length);
    Map<matrix> result(y + b * channels * length, channels, length);
    result.colwise() = bias;
    int const side = taps / 2;
    padded << sample.rightCols(side), sample, sample.leftCols(side);
    for (int t = 0; t < taps; ++t) {
      Map<matrix const, 0, strided> const tap(w + t, channels, channels,
                                              strided(channels * taps, taps));
      result.noalias() += tap * padded.middleCols(t, length);
    }
  }
}

void convolution_weights(convolution of, float const* x, float const* y_bar, float* w_bar) {
  auto const [batch, channels, length, taps] = of;
  Map<matrix> weight(w_bar, channels, channels);
  for (std::int64_t b = 0; b < batch; ++b) {
    weight.noalias() += Map<matrix const>(y_bar + b * channels * length, channels, length) *
                        Map<matrix const>(x + b * channels * length, channels, length).transpose();
  }
}

using array = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// A box of a normalisation, a row for each of its samples or of its channels.
struct box {
  std::int64_t index, offset, channel;
};

/// body(box, view) for each; view(tensor) are its elements there.
template <class Body>
void each_box(norm const& of, Body const& body) {
  std::int64_t const stride = (of.samples > 1 ? of.channels : 1) * of.length;
  std::int64_t index = 0;
  for (std::int64_t b = 0; b < of.batch; b += of.samples) {
    for (std::int64_t c = 0; c < of.channels; c += of.width) {
      box const at{index++, (b * of.channels + c) * of.length, c};
      body(at, [&](auto* tensor) {
        using elements =
            std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(tensor)>>,
                               array const, array>;
        return Map<elements, 0, OuterStride<>>(tensor + at.offset, of.samples * of.width, of.length,
                                               OuterStride<>(stride));
      });
    }
  }
}

/// A parameter for each row of a box.
ArrayXf for_rows(norm const& of, float const* parameter) {
  if (of.samples > 1) return ArrayXf::Constant(of.samples, *parameter);
  return Map<ArrayXf const>(parameter, of.width);
}

void normalise(norm const& of, float const* x, float const* w, float* saved, float* y) {
  auto const epsilon = static_cast<float>(of.epsilon);
  auto const slope = static_cast<float>(of.negative_slope);
  array n(of.samples * of.width, of.length);
  each_box(of, [&](box at, auto const& view) {
    auto const in = view(x);
    float const mean = in.mean();
    float const scale = 1 / std::sqrt((in - mean).square().mean() + epsilon);
    saved[2 * at.index] = mean;
    saved[2 * at.index + 1] = scale;
    n = (scale * (in - mean)).colwise() * for_rows(of, w + at.channel);
    n.colwise() += for_rows(of, w + of.channels + at.channel);
    view(y) = (n > 0.0F).select(n, slope * n);
  });
}

void normalise_backward(norm const& of, float const* x, float const* w, float const* saved,
                        float const* y_bar, float* x_bar, float* w_bar) {
  auto const slope = static_cast<float>(of.negative_slope);
  array h(of.samples * of.width, of.length);
  array g(of.samples * of.width, of.length);
  each_box(of, [&](box at, auto const& view) {
    float const scale = saved[2 * at.index + 1];
    ArrayXf const weight = for_rows(of, w + at.channel);
    h = scale * (view(x) - saved[2 * at.index]);
    g = h.colwise() * weight;
    g.colwise() += for_rows(of, w + of.channels + at.channel);
    g = (g > 0.0F).select(view(y_bar), slope * view(y_bar));
    for (std::int64_t row = 0; row < h.rows(); ++row) {
      std::int64_t const c = at.channel + (of.samples > 1 ? 0 : row);
      w_bar[c] += (g.row(row) * h.row(row)).sum();
      w_bar[of.channels + c] += g.row(row).sum();
    }
    g.colwise() *= weight;
    view(x_bar) = scale * (g - g.mean() - h * (h * g).mean());
  });
}

/// Where the parts of a projection's parameters and of what it saves lie.
struct projection_parts {
  explicit projection_parts(projection const& of)
      : bias(of.width * of.channels),
        conditions(bias + of.width),
        offset(conditions + of.width * of.condition_size),
        m(of.batch * of.width * of.length) {}
  std::int64_t bias, conditions, offset, m;
};

void project(projection const& of, float const* h, float const* condition, float const* w,
             float* saved, float* logits) {
  auto const [batch, channels, length, width, size] = of;
  projection_parts const at(of);
  Map<matrix> m(saved + at.m, batch, width);
  m.noalias() = Map<matrix const>(condition, batch, size) *
                Map<matrix const>(w + at.conditions, width, size).transpose();
  m /= std::sqrt(static_cast<float>(size));
  m.rowwise() += Map<VectorXf const>(w + at.offset, width).transpose();
  for (std::int64_t b = 0; b < batch; ++b) {
    Map<matrix> out(saved + b * width * length, width, length);
    out.noalias() = Map<matrix const>(w, width, channels) *
                    Map<matrix const>(h + b * channels * length, channels, length);
    out.colwise() += Map<VectorXf const>(w + at.bias, width);
    Map<matrix>(logits + b * length, 1, length).noalias() =
        m.row(b) * out / std::sqrt(static_cast<float>(width));
  }
}

void project_backward(projection const& of, float const* h, float const* condition, float const* w,
                      float const* saved, float const* logits_bar, float* h_bar, float* w_bar) {
  auto const [batch, channels, length, width, size] = of;
  projection_parts const at(of);
  float const scale = 1 / std::sqrt(static_cast<float>(width));
  Map<matrix const> const m(saved + at.m, batch, width);
  matrix m_bar(batch, width);
  matrix out_bar(width, length);
  for (std::int64_t b = 0; b < batch; ++b) {
    Map<matrix const> const out(saved + b * width * length, width, length);
    Map<matrix const> const in(h + b * channels * length, channels, length);
    Map<VectorXf const> const y_bar(logits_bar + b * length, length);
    out_bar.noalias() = scale * m.row(b).transpose() * y_bar.transpose();
    m_bar.row(b) = scale * (out * y_bar).transpose();
    Map<matrix>(h_bar + b * channels * length, channels, length).noalias() =
        Map<matrix const>(w, width, channels).transpose() * out_bar;
    Map<matrix>(w_bar, width, channels).noalias() += out_bar * in.transpose();
    Map<VectorXf>(w_bar + at.bias, width) += out_bar.rowwise().sum();
  }
  Map<matrix>(w_bar + at.conditions, width, size).noalias() +=
      m_bar.transpose() * Map<matrix const>(condition, batch, size) /
      std::sqrt(static_cast<float>(size));
  Map<VectorXf>(w_bar + at.offset, width) += m_bar.colwise().sum().transpose();
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

peer const eigen {
  .name = "eigen",
#if defined(PEERS_EIGEN)
  .add_noise = with_eigen::add_noise, .distillation = with_eigen::distillation,
  .teacher_distillation = with_eigen::teacher_distillation, .hinge = with_eigen::hinge,
  .relativistic = with_eigen::relativistic, .r1 = with_eigen::r1,
  .power_iteration = with_eigen::power_iteration, .matrix_product = with_eigen::matrix_product,
  .convolve = with_eigen::convolve, .convolution_weights = with_eigen::convolution_weights,
  .normalise = with_eigen::normalise, .normalise_backward = with_eigen::normalise_backward,
  .project = with_eigen::project, .project_backward = with_eigen::project_backward
#endif
};
peer const xtensor {
  .name = "xtensor",
#if defined(PEERS_XTENSOR)
  .add_noise = with_xtensor::add_noise, .distillation = with_xtensor::distillation,
  .teacher_distillation = with_xtensor::teacher_distillation, .hinge = with_xtensor::hinge,
  .relativistic = with_xtensor::relativistic, .r1 = with_xtensor::r1
#endif
};

void add_noise_of_std(float const* x0, double alpha, double sigma, float* out, std::int64_t size) {
  static std::mt19937_64 engine(42);
  std::normal_distribution<float> normal;
  auto const a = static_cast<float>(alpha);
  auto const s = static_cast<float>(sigma);
  for (std::int64_t i = 0; i < size; ++i) out[i] = a * x0[i] + s * normal(engine);
}

}  // namespace peers
