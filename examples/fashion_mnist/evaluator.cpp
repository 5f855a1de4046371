// SPDX-License-Identifier: MIT
#include "evaluator.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "data.hpp"
#include "image_shape.hpp"
#include "network.hpp"

namespace demo {
namespace {

parameters loaded(std::string const& path) {
  parameters result(image_classifier().parts(), 0);
  load_parameters(path, result);
  return result;
}

}  // namespace

std::vector<int> predicted_classes(std::span<float const> logits) {
  std::vector<int> result;
  for (std::size_t i = 0; i < logits.size(); i += class_count) {
    auto const row = logits.subspan(i, class_count);
    result.push_back(static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  return result;
}

moments moments_of(std::span<float const> values, std::int64_t size) {
  std::int64_t const n = std::ssize(values) / size;
  if (n < 2) {
    throw std::invalid_argument("FID: expected at least 2 images, got " + std::to_string(n));
  }
  Eigen::setNbThreads(1);
  matrix<double> centred = as_matrix(values.data(), n, size).template cast<double>();
  moments result;
  result.mean = centred.colwise().mean();
  centred.rowwise() -= result.mean.transpose();
  result.covariance = centred.transpose() * centred / static_cast<double>(n - 1);
  return result;
}

double frechet_distance(moments const& a, moments const& b) {
  if (!a.covariance.allFinite() || !b.covariance.allFinite()) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  using solver = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>;
  // Rounding makes eigenvalues that are 0 slightly negative.
  auto const root = [](double eigenvalue) { return eigenvalue > 0 ? std::sqrt(eigenvalue) : 0.0; };
  solver const of_a(a.covariance);
  Eigen::MatrixXd const root_a = of_a.eigenvectors() *
                                 of_a.eigenvalues().unaryExpr(root).asDiagonal() *
                                 of_a.eigenvectors().transpose();
  solver const of_product(root_a * b.covariance * root_a, Eigen::EigenvaluesOnly);
  return (a.mean - b.mean).squaredNorm() + a.covariance.trace() + b.covariance.trace() -
         2 * of_product.eigenvalues().unaryExpr(root).sum();
}

evaluator::evaluator(std::string const& weights, images const& test, int threads)
    : evaluator(loaded(weights), test, threads) {}
evaluator::evaluator(parameters weights, images const& test, int threads)
    : weights_(std::move(weights)), threads_(threads) {
  real_ = moments_of(judge(test.pixels).features, image_classifier::feature_count);
}

evaluation evaluator::evaluate(std::span<float const> x, std::span<int const> labels) const {
  if (x.size() != labels.size() * image_pixels) {
    throw std::invalid_argument("evaluate: expected 784 pixels a label, got " +
                                std::to_string(x.size()) + " for " + std::to_string(labels.size()) +
                                " labels");
  }
  judgement const found = judge(x);
  auto const of_images = moments_of(found.features, image_classifier::feature_count);
  std::int64_t right = 0;
  for (std::size_t b = 0; b < labels.size(); ++b) right += found.classes[b] == labels[b] ? 1 : 0;
  return {.fid = frechet_distance(real_, of_images),
          .accuracy = static_cast<double>(right) / static_cast<double>(labels.size())};
}

evaluator::judgement evaluator::judge(std::span<float const> x) const {
  constexpr std::size_t piece = 256 * image_pixels;  // keeps the activations small
  judgement result;
  std::vector<float> clamped;
  image_classifier::activations<float> a;
  for (std::size_t first = 0; first < x.size(); first += piece) {
    auto const part = x.subspan(first, std::min(piece, x.size() - first));
    clamped.assign(part.begin(), part.end());
    for (float& value : clamped) value = std::clamp(value, -1.0F, 1.0F);
    classifier_.forward<float>(weights_, clamped, {}, a, threads_);
    auto const found = predicted_classes(a.logits);
    result.features.insert(result.features.end(), a.features.begin(), a.features.end());
    result.classes.insert(result.classes.end(), found.begin(), found.end());
  }
  // ReLU and the pools may have hidden NaN.
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isnan(x[i])) continue;
    result.features[i / image_pixels * image_classifier::feature_count] =
        std::numeric_limits<float>::quiet_NaN();
    result.classes[i / image_pixels] = -1;
  }
  return result;
}

}  // namespace demo
