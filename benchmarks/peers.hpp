// SPDX-License-Identifier: MIT
/// The same results by expressions of Eigen and of xtensor, written as one would at first, to run
/// beside ours on the same arrays and on one thread.
///
/// Defined in peers.cpp, which is always compiled for the machine's own instruction set and with
/// full optimisation. Tensors are dense, and [batch, size] where nothing else is said.
#pragma once

#include <cstdint>

namespace peers {

/// How a factor of a matrix product lies in memory, row-major.
enum class layout { plain, transposed };

/// A convolution [B, C, L] -> [B, C, L], circular, of an odd number of taps. W [C, C, taps], then
/// bias [C].
struct convolution {
  std::int64_t batch, channels, length;
  int taps;
};

/// Normalisation of x [B, C, L] over boxes of `samples` samples by `width` channels, one of them 1,
/// with a leaky ReLU: y = act(weight_c h + bias_c), h = scale (x - mean). Parameters w: weight [C],
/// bias [C]. Saved of each box: mean and scale.
struct norm {
  std::int64_t batch, channels, length, samples, width;
  double epsilon, negative_slope;
};

/// logits = sum_p (W h + bias)_p m_p / sqrt(width), m = V c / sqrt(condition_size) + offset, for
/// each token of h [B, C, L]. Parameters w: W [width, C], bias, V [width, condition_size], offset.
/// Saved: W h + bias [B, width, L], then m [B, width].
struct projection {
  std::int64_t batch, channels, length, width, condition_size;
};

/// Null where a library was not found, or has no products of matrices.
struct peer {
  char const* name;

  /// out = alpha_b x_0 + sigma_b eps
  void (*add_noise)(float const* x0, float const* noise, double const* alpha, double const* sigma,
                    float* out, std::int64_t batch, std::int64_t size) = nullptr;
  /// mean_b c_b mean (student - target)^2, and its gradient.
  double (*distillation)(float const* student, float const* target, double const* weights,
                         float* gradient, std::int64_t batch, std::int64_t size) = nullptr;
  /// mean_b c_b mean (student - target)^2 with target the x_0 of the guided epsilon prediction at
  /// alpha_b student + sigma_b eps, and its gradient.
  double (*teacher_distillation)(float const* noise, float const* conditional,
                                 float const* unconditional, double guidance_scale,
                                 double const* weights, double const* alpha, double const* sigma,
                                 float* gradient, std::int64_t batch, std::int64_t size) = nullptr;
  /// mean max(0, 1 - real) + mean max(0, 1 + fake), its gradients, and six statistics: for real and
  /// fake the mean, the share of positive logits and the share with a gradient.
  double (*hinge)(float const* real, float const* fake, float* real_gradient, float* fake_gradient,
                  double* statistics, std::int64_t size) = nullptr;
  /// mean softplus(-(first - second)), both gradients, and four statistics: of first and second the
  /// mean and the share of positive logits.
  double (*relativistic)(float const* first, float const* second, float* first_gradient,
                         float* second_gradient, double* statistics, std::int64_t size) = nullptr;
  /// gamma mean_b sum g^2, and its cotangent.
  double (*r1)(float const* g, double gamma, float* cotangent, std::int64_t batch,
               std::int64_t size) = nullptr;
  /// v = W^T u / |.|, u = W v / |.|, and u^T W v; W [rows, columns] row-major.
  double (*power_iteration)(float const* W, float* u, float* v, std::int64_t rows,
                            std::int64_t columns) = nullptr;
  /// C [m, n] = A [m, k] B [k, n].
  void (*matrix_product)(layout of_a, float const* a, layout of_b, float const* b, float* c,
                         std::int64_t m, std::int64_t n, std::int64_t k) = nullptr;
  /// y = W * x + bias.
  void (*convolve)(convolution of, float const* x, float const* w, float* y) = nullptr;
  /// w_bar += the gradient of W, for one tap.
  void (*convolution_weights)(convolution of, float const* x, float const* y_bar,
                              float* w_bar) = nullptr;
  void (*normalise)(norm const& of, float const* x, float const* w, float* saved,
                    float* y) = nullptr;
  /// x_bar, and w_bar += its gradient.
  void (*normalise_backward)(norm const& of, float const* x, float const* w, float const* saved,
                             float const* y_bar, float* x_bar, float* w_bar) = nullptr;
  void (*project)(projection const& of, float const* h, float const* condition, float const* w,
                  float* saved, float* logits) = nullptr;
  /// h_bar, and w_bar += its gradient.
  void (*project_backward)(projection const& of, float const* h, float const* condition,
                           float const* w, float const* saved, float const* logits_bar,
                           float* h_bar, float* w_bar) = nullptr;
};

extern peer const eigen;
extern peer const xtensor;

/// out = alpha x_0 + sigma eps with eps from std::normal_distribution.
void add_noise_of_std(float const* x0, double alpha, double sigma, float* out, std::int64_t size);

}  // namespace peers
