// SPDX-License-Identifier: MIT
/// The same results by expressions of Eigen and of xtensor, written as one would at first, to run
/// beside ours on the same arrays and on one thread.
///
/// Defined in peers.cpp, which is always compiled for the machine's own instruction set and with
/// full optimisation. Tensors are [batch, size], dense.
#pragma once

#include <cstdint>

namespace peers {

/// Null where a library was not found.
struct peer {
  char const* name;

  /// out = alpha_b x_0 + sigma_b eps
  void (*add_noise)(float const* x0, float const* noise, double const* alpha, double const* sigma,
                    float* out, std::int64_t batch, std::int64_t size);
  /// mean_b c_b mean (student - target)^2, and its gradient.
  double (*distillation)(float const* student, float const* target, double const* weights,
                         float* gradient, std::int64_t batch, std::int64_t size);
  /// mean_b c_b mean (student - target)^2 with target the x_0 of the guided epsilon prediction at
  /// alpha_b student + sigma_b eps, and its gradient.
  double (*teacher_distillation)(float const* noise, float const* conditional,
                                 float const* unconditional, double guidance_scale,
                                 double const* weights, double const* alpha, double const* sigma,
                                 float* gradient, std::int64_t batch, std::int64_t size);
  /// mean max(0, 1 - real) + mean max(0, 1 + fake), its gradients, and six statistics: for real and
  /// fake the mean, the share of positive logits and the share with a gradient.
  double (*hinge)(float const* real, float const* fake, float* real_gradient, float* fake_gradient,
                  double* statistics, std::int64_t size);
  /// mean softplus(-(first - second)), both gradients, and four statistics: of first and second the
  /// mean and the share of positive logits.
  double (*relativistic)(float const* first, float const* second, float* first_gradient,
                         float* second_gradient, double* statistics, std::int64_t size);
  /// gamma mean_b sum g^2, and its cotangent.
  double (*r1)(float const* g, double gamma, float* cotangent, std::int64_t batch,
               std::int64_t size);
  /// v = W^T u / |.|, u = W v / |.|, and u^T W v; W [rows, columns] row-major.
  double (*power_iteration)(float const* W, float* u, float* v, std::int64_t rows,
                            std::int64_t columns);
};

extern peer const eigen;
extern peer const xtensor;

/// out = alpha x_0 + sigma eps with eps from std::normal_distribution.
void add_noise_of_std(float const* x0, double alpha, double sigma, float* out, std::int64_t size);

}  // namespace peers
