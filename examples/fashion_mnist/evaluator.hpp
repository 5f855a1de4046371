// SPDX-License-Identifier: MIT
/// The judge of images: a small convolutional classifier that takes no part in training.
///
///   conv 3x3, 1 -> 32, max pool 2x2, ReLU;  conv 3x3, 32 -> 64, max pool 2x2, ReLU
///   linear 3136 -> 128, ReLU: the features;  dropout (to train);  linear 128 -> 10: the logits
/// accuracy: the share of images that it gives the class that was asked for.
/// FID: how far mean m and covariance C of the features are from those of the real test images,
///   |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1^1/2 C_2 C_1^1/2)^1/2
/// Same bits for any number of threads.
/// Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
/// Equilibrium, 2017 (FID), with this classifier's features in place of Inception's.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <addloss/heads/initialise.hpp>

#include "data.hpp"
#include "image_shape.hpp"
#include "network.hpp"

namespace demo {

/// The classifier. Maps are [height, width, channels] of one image; a map that a convolution reads
/// has a border of zeros.
class image_classifier {
 public:
  static constexpr std::int64_t channels_1 = 32;
  static constexpr std::int64_t channels_2 = 64;
  static constexpr std::int64_t side_1 = image_side / 2;  // after the first pool
  static constexpr std::int64_t side_2 = side_1 / 2;
  static constexpr std::int64_t padded = side_1 + 2;
  static constexpr std::int64_t map_size = padded * padded * channels_1;
  static constexpr std::int64_t pooled_size = side_1 * side_1 * channels_1;
  static constexpr std::int64_t flat = side_2 * side_2 * channels_2;
  static constexpr std::int64_t feature_count = 128;

  /// What a forward pass of a batch keeps for a backward pass.
  template <class T>
  struct activations {
    std::int64_t batch = 0;
    buffer<T> map;  ///< [B, 16, 16, 32]: after the first pool, with its border
    buffer<T> pooled;  ///< [B, 7, 7, 64]: after the second
    std::vector<std::uint8_t> choice_1;  ///< which of four each maximum is; 4: none is positive
    std::vector<std::uint8_t> choice_2;
    buffer<T> features;  ///< [B, 128]
    buffer<T> kept;  ///< [B, 128]: what dropout leaves of them
    buffer<T> logits;  ///< [B, 10]
    buffer<T> features_bar;  ///< of backward
    buffer<T> pooled_bar;
    buffer<T> turned;
    lane_gradients<T> gradients;
  };

  [[nodiscard]] part_list const& parts() const { return list_; }

  /// Features and logits of images x [B, 784]. `keep` [B, 128]: the factors of dropout, 0 or
  /// 1 / (1 - rate); empty: none.
  template <class T>
  void forward(basic_parameters<T> const& w, std::span<T const> x, std::span<T const> keep,
               activations<T>& a, int threads) const {
    std::int64_t const batch = std::ssize(x) / image_pixels;
    reserve(a, batch);
    T const* const values = w.values.data();
    each_slice(
        batch, threads, [](int) {},
        [&](slice const& s) {
          for (std::int64_t b = s.first; b < s.first + s.samples; ++b) {
            T* const map = a.map.data() + b * map_size;
            first_layer(values, x.data() + b * image_pixels, map,
                        a.choice_1.data() + b * pooled_size);
            second_layer(values, map, a.pooled.data() + b * flat, a.choice_2.data() + b * flat);
          }
        });
    each_block(batch, threads, [&](std::int64_t first, std::int64_t count) {
      std::int64_t const start = first * feature_count;
      T* const features = a.features.data() + start;
      T* const kept = a.kept.data() + start;
      to_features_.forward(values, a.pooled.data() + first * flat, count, features);
      for (std::int64_t i = 0; i < count * feature_count; ++i) {
        features[i] = features[i] > 0 ? features[i] : T(0);
        kept[i] = keep.empty() ? features[i] : features[i] * keep.data()[start + i];
      }
      to_logits_.forward(values, kept, count, a.logits.data() + first * class_count);
    });
  }

  /// The gradients of all parameters, given that of the logits, after `forward` of the same.
  template <class T>
  void backward(basic_parameters<T> const& w, std::span<T const> x, std::span<T const> keep,
                std::span<T const> logits_bar, activations<T>& a, std::span<T> w_bar,
                int threads) const {
    T const* const values = w.values.data();
    std::fill(w_bar.begin(), w_bar.end(), T(0));
    resize(a.features_bar, a.batch * feature_count);
    resize(a.pooled_bar, a.batch * flat);
    T* const features_bar = a.features_bar.data();
    to_logits_.backward(values, a.kept.data(), logits_bar.data(), a.batch, w_bar.data(),
                        features_bar);
    for (std::int64_t i = 0; i < a.batch * feature_count; ++i) {
      T const kept = keep.empty() ? features_bar[i] : features_bar[i] * keep.data()[i];
      features_bar[i] = a.features.data()[i] > 0 ? kept : T(0);
    }
    each_block(a.batch, threads, [&](std::int64_t first, std::int64_t count) {
      to_features_.backward<T>(values, a.pooled.data() + first * flat,
                               features_bar + first * feature_count, count, nullptr,
                               a.pooled_bar.data() + first * flat);
    });
    // The large weight [128, 3136]: a block of its rows each.
    each_block(feature_count, threads, [&](std::int64_t first, std::int64_t count) {
      auto const bar = as_matrix(features_bar, a.batch, feature_count).middleCols(first, count);
      as_matrix(w_bar.data() + to_features_.weight + first * flat, count, flat).noalias() =
          bar.transpose() * as_matrix(std::as_const(a.pooled).data(), a.batch, flat);
    });
    add_rows(features_bar, a.batch, feature_count, w_bar.data() + to_features_.bias);

    turn(values, a.turned);
    each_slice(
        a.batch, threads, [&](int lane) { a.gradients.start(lane, convolutions_); },
        [&](slice const& s) {
          for (std::int64_t b = s.first; b < s.first + s.samples; ++b) {
            convolutions_backward(x.data() + b * image_pixels, a, b, a.gradients.data(s.lane));
          }
        });
    a.gradients.sum(w_bar.first(static_cast<std::size_t>(convolutions_)), threads);
  }

 private:
  /// 3 x 3 convolution of a map with its border [16, 16, in]; weight [3, 3, in, out].
  /// Output (y, x) stands in row 16 y + x of the result [222, out]: so three neighbours in a line
  /// of the map are a row of a matrix whose rows overlap, and nothing is copied. The two rows after
  /// each 14 mix the ends of two lines and mean nothing.
  static constexpr std::int64_t convolved_rows = padded * side_1 - 2;
  template <class T>
  static auto triples(T const* map, std::int64_t channels, std::int64_t ky) {
    return Eigen::Map<matrix<T> const, Eigen::Unaligned, Eigen::OuterStride<>>(
        map + ky * padded * channels, convolved_rows, 3 * channels, Eigen::OuterStride<>(channels));
  }
  template <class T>
  static void convolve(T const* map, std::int64_t in, T const* weight, std::int64_t out,
                       T* result) {
    auto rows = as_matrix(result, convolved_rows, out);
    rows.setZero();
    for (std::int64_t ky = 0; ky < 3; ++ky) {
      rows.noalias() += triples(map, in, ky) * as_matrix(weight + ky * 3 * in * out, 3 * in, out);
    }
  }

  /// The running maximum of a pool: `value` is number q of four.
  template <std::int64_t Channels, class T>
  static void pool_step(int q, T const* value, T* best, std::uint8_t* choice) {
    for (std::int64_t c = 0; c < Channels; ++c) {
      bool const better = q == 0 || value[c] > best[c];
      best[c] = better ? value[c] : best[c];
      choice[c] = better ? static_cast<std::uint8_t>(q) : choice[c];
    }
  }
  /// ReLU of the maximum.
  template <std::int64_t Channels, class T>
  static void pool_end(T* best, std::uint8_t* choice) {
    for (std::int64_t c = 0; c < Channels; ++c) {
      bool const positive = best[c] > 0;
      best[c] = positive ? best[c] : T(0);
      choice[c] = positive ? choice[c] : std::uint8_t{4};
    }
  }
  /// The gradient at number q of the four.
  template <std::int64_t Channels, class T>
  static void unpool(int q, T const* pooled_bar, std::uint8_t const* choice, T* value_bar) {
    for (std::int64_t c = 0; c < Channels; ++c)
      value_bar[c] = choice[c] == q ? pooled_bar[c] : T(0);
  }

  /// An image with a border of zeros.
  static constexpr std::int64_t framed_side = image_side + 2;
  template <class T>
  static std::array<T, framed_side * framed_side> frame(T const* image) {
    std::array<T, framed_side * framed_side> result{};
    for (std::int64_t y = 0; y < image_side; ++y) {
      std::copy_n(image + y * image_side, image_side, result.begin() + (y + 1) * framed_side + 1);
    }
    return result;
  }
  /// Where pixel k of the 3 x 3 below output number q of the pool (y, x) stands in it.
  static constexpr std::int64_t framed_pixel(std::int64_t y, std::int64_t x, int q, int k) {
    return (2 * y + q / 2 + k / 3) * framed_side + 2 * x + q % 2 + k % 3;
  }
  /// The same in rows of `convolve`.
  static constexpr std::int64_t convolved_row(std::int64_t y, std::int64_t x, int q) {
    return (2 * y + q / 2) * padded + 2 * x + q % 2;
  }

  /// Writes the inner part of the map.
  template <class T>
  void first_layer(T const* w, T const* image, T* map, std::uint8_t* choice) const {
    auto const framed = frame(image);
    for (std::int64_t y = 0; y < side_1; ++y) {
      for (std::int64_t x = 0; x < side_1; ++x, choice += channels_1) {
        T* const best = map + ((y + 1) * padded + x + 1) * channels_1;
        for (int q = 0; q < 4; ++q) {
          T sum[channels_1];
          std::copy_n(w + bias_1_, channels_1, sum);
          for (int k = 0; k < 9; ++k) {
            T const pixel = framed.data()[framed_pixel(y, x, q, k)];
            T const* const weight = w + weight_1_ + k * channels_1;
            for (std::int64_t c = 0; c < channels_1; ++c) sum[c] += pixel * weight[c];
          }
          pool_step<channels_1>(q, sum, best, choice);
        }
        pool_end<channels_1>(best, choice);
      }
    }
  }

  template <class T>
  void second_layer(T const* w, T const* map, T* pooled, std::uint8_t* choice) const {
    alignas(64) T convolved[convolved_rows * channels_2];
    convolve(map, channels_1, w + weight_2_, channels_2, convolved);
    for (std::int64_t y = 0; y < side_2; ++y) {
      for (std::int64_t x = 0; x < side_2; ++x, choice += channels_2, pooled += channels_2) {
        for (int q = 0; q < 4; ++q) {
          pool_step<channels_2>(q, convolved + convolved_row(y, x, q) * channels_2, pooled, choice);
        }
        // The bias moves all four alike.
        for (std::int64_t c = 0; c < channels_2; ++c) pooled[c] += w[bias_2_ + c];
        pool_end<channels_2>(pooled, choice);
      }
    }
  }

  /// The second weight turned by half a circle, with in and out exchanged, [3, 3, 64, 32]: the
  /// gradient of a convolution is the convolution with that.
  template <class T>
  void turn(T const* w, buffer<T>& turned) const {
    resize(turned, 9 * channels_1 * channels_2);
    for (std::int64_t k = 0; k < 9; ++k) {
      as_matrix(turned.data() + (8 - k) * channels_1 * channels_2, channels_2, channels_1) =
          as_matrix(w + weight_2_ + k * channels_1 * channels_2, channels_1, channels_2)
              .transpose();
    }
  }

  /// Adds the gradients of both convolutions of image b to w_bar.
  template <class T>
  void convolutions_backward(T const* image, activations<T> const& a, std::int64_t b,
                             T* w_bar) const {
    T const* pooled_bar = a.pooled_bar.data() + b * flat;
    std::uint8_t const* choice = a.choice_2.data() + b * flat;
    // [16, 16, 64], with its border. From the first inner pixel on it has the rows of `convolve`:
    // zeros of the border stand in those that mean nothing.
    alignas(64) T convolved_bar[padded * padded * channels_2] = {};
    T* const inner = convolved_bar + (padded + 1) * channels_2;
    for (std::int64_t y = 0; y < side_2; ++y) {
      for (std::int64_t x = 0; x < side_2; ++x, choice += channels_2, pooled_bar += channels_2) {
        for (int q = 0; q < 4; ++q) {
          unpool<channels_2>(q, pooled_bar, choice, inner + convolved_row(y, x, q) * channels_2);
        }
        add_chosen<channels_2>(pooled_bar, choice, w_bar + bias_2_);
      }
    }
    T const* const map = a.map.data() + b * map_size;
    auto const rows_bar = as_matrix(std::as_const(inner), convolved_rows, channels_2);
    for (std::int64_t ky = 0; ky < 3; ++ky) {
      as_matrix(w_bar + weight_2_ + ky * 3 * channels_1 * channels_2, 3 * channels_1, channels_2)
          .noalias() += triples(map, channels_1, ky).transpose() * rows_bar;
    }

    alignas(64) T map_bar[convolved_rows * channels_1];
    convolve<T>(convolved_bar, channels_2, a.turned.data(), channels_1, map_bar);
    auto const framed = frame(image);
    choice = a.choice_1.data() + b * pooled_size;
    T sum[9 * channels_1] = {};
    for (std::int64_t y = 0; y < side_1; ++y) {
      for (std::int64_t x = 0; x < side_1; ++x, choice += channels_1) {
        T const* const bar = map_bar + (y * padded + x) * channels_1;
        for (int q = 0; q < 4; ++q) {
          T value_bar[channels_1];
          unpool<channels_1>(q, bar, choice, value_bar);
          for (int k = 0; k < 9; ++k) {
            T const pixel = framed.data()[framed_pixel(y, x, q, k)];
            for (std::int64_t c = 0; c < channels_1; ++c) {
              sum[k * channels_1 + c] += pixel * value_bar[c];
            }
          }
        }
        add_chosen<channels_1>(bar, choice, w_bar + bias_1_);
      }
    }
    for (std::int64_t i = 0; i < 9 * channels_1; ++i) w_bar[weight_1_ + i] += sum[i];
  }
  /// The gradient of a bias: all that ReLU let through.
  template <std::int64_t Channels, class T>
  static void add_chosen(T const* pooled_bar, std::uint8_t const* choice, T* bias_bar) {
    for (std::int64_t c = 0; c < Channels; ++c) bias_bar[c] += choice[c] < 4 ? pooled_bar[c] : T(0);
  }

  /// work(first, count) for blocks of 32 rows. Larger than a slice: every product reads the large
  /// weight anew.
  template <class Work>
  static void each_block(std::int64_t rows, [[maybe_unused]] int threads, Work const& work) {
    constexpr std::int64_t size = 32;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::int64_t i = 0; i < (rows + size - 1) / size; ++i) {
      work(i * size, std::min(size, rows - i * size));
    }
  }

  template <class T>
  static void reserve(activations<T>& a, std::int64_t batch) {
    if (a.batch == batch) return;
    a.batch = batch;
    // Zeros: the borders stay.
    a.map.assign(static_cast<std::size_t>(batch * map_size), T(0));
    resize(a.pooled, batch * flat);
    a.choice_1.resize(static_cast<std::size_t>(batch * pooled_size));
    a.choice_2.resize(static_cast<std::size_t>(batch * flat));
    resize(a.features, batch * feature_count);
    resize(a.kept, batch * feature_count);
    resize(a.logits, batch * class_count);
  }

  part_list list_;
  std::int64_t weight_1_ =
      list_.add("conv1.weight", {3, 3, 1, channels_1}, addloss::fan_in_uniform{9});
  std::int64_t bias_1_ = list_.add("conv1.bias", {channels_1}, addloss::fan_in_uniform{9});
  std::int64_t weight_2_ = list_.add("conv2.weight", {3, 3, channels_1, channels_2},
                                     addloss::fan_in_uniform{9 * channels_1});
  std::int64_t bias_2_ =
      list_.add("conv2.bias", {channels_2}, addloss::fan_in_uniform{9 * channels_1});
  std::int64_t convolutions_ = list_.size;
  linear_layer to_features_{list_, "features", flat, feature_count};
  linear_layer to_logits_{list_, "logits", feature_count, class_count};
};

/// Mean cross entropy of logits [B, 10], and its gradient with respect to them.
template <class T>
double cross_entropy(std::span<T const> logits, std::span<int const> labels,
                     std::span<T> logits_bar) {
  double sum = 0;
  auto const batch = static_cast<double>(labels.size());
  for (std::size_t b = 0; b < labels.size(); ++b) {
    T const* const row = logits.data() + b * class_count;
    auto const top = static_cast<double>(*std::max_element(row, row + class_count));
    std::array<double, class_count> share{};
    double total = 0;
    for (std::size_t c = 0; c < class_count; ++c) {
      share[c] = std::exp(static_cast<double>(row[c]) - top);
      total += share[c];
    }
    auto const label = static_cast<std::size_t>(labels[b]);
    sum += std::log(total) + top - static_cast<double>(row[label]);
    for (std::size_t c = 0; c < class_count; ++c) {
      logits_bar[b * class_count + c] =
          static_cast<T>((share[c] / total - (c == label ? 1 : 0)) / batch);
    }
  }
  return sum / batch;
}

/// Which class each row of logits [B, 10] names.
std::vector<int> predicted_classes(std::span<float const> logits);

/// Mean and covariance of rows.
struct moments {
  Eigen::VectorXd mean;
  Eigen::MatrixXd covariance;
};
/// Of vectors [n, size], n >= 2; the covariance is divided by n - 1.
moments moments_of(std::span<float const> values, std::int64_t size);

/// The Fréchet distance of two normal distributions; NaN where their moments are not finite.
double frechet_distance(moments const& a, moments const& b);

struct evaluation {
  double fid = 0;
  double accuracy = 0;
};

/// The classifier with weights from a file, and the moments of the real test images.
class evaluator {
 public:
  evaluator(std::string const& weights, images const& test, int threads);
  evaluator(parameters weights, images const& test, int threads);

  /// Judges images x [n, 784]; labels [n] are the classes that were asked for. Values outside
  /// [-1, 1] are clamped. NaN among the pixels makes the FID NaN, and that image's class wrong.
  [[nodiscard]] evaluation evaluate(std::span<float const> x, std::span<int const> labels) const;

 private:
  struct judgement {
    std::vector<float> features;
    std::vector<int> classes;
  };
  [[nodiscard]] judgement judge(std::span<float const> x) const;

  image_classifier classifier_;
  parameters weights_;
  moments real_;
  int threads_;
};

}  // namespace demo
