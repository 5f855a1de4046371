// SPDX-License-Identifier: MIT
/// The networks of the CUDA trainer, small enough to be differentiated by hand.
///
///   student   x_0(x_t, t) = tanh(W_3 silu(W_2 silu(W_1 [x_t, waves(t)]))). Not v: that has as much
///             noise in it as x_t, which does not pass through layers narrower than an image
///   teacher   the exact denoiser of the training images x_i: sum_i w_i x_i,
///             w = softmax_i(-|x_t - alpha x_i|^2 / (2 sigma^2)): what a perfectly trained one says
///   heads     logits D_k = u_k . lrelu(U_k f) of each feature f, with the gradient of R1. Features
///             are the patches of an image, up to the whole of it, where a trainer in earnest has a
///             frozen network
/// Everything is enqueued on a stream, nothing is allocated but by constructors.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <addloss/cuda.cuh>

#include "../fashion_mnist/image_shape.hpp"
#include "device.cuh"

namespace demo {

using levels = addloss::schedule_table<addloss::device_space>;

/// Normal numbers with the variance 1 / inputs.
inline void initialise(float* weights, std::int64_t outputs, std::int64_t inputs,
                       addloss::random_key const& key) {
  for (std::int64_t i = 0; i < outputs * inputs; ++i) {
    weights[i] = addloss::normal_at(key, 0, static_cast<std::uint64_t>(i)) /
                 std::sqrt(static_cast<float>(inputs));
  }
}

// --- student -------------------------------------------------------------------------------------

inline constexpr int wave_count = 32;

/// [x_t, waves(t)]: waves are sines and cosines of t / 10000^(k / 16).
struct with_waves {
  static constexpr int width = image_pixels + wave_count;
  float const* x_t;
  std::int64_t const* t;
  float* out;
  __device__ void operator()(std::int64_t i) const {
    auto const sample = i / width;
    auto const column = static_cast<int>(i % width);
    if (column < image_pixels) {
      out[i] = x_t[sample * image_pixels + column];
      return;
    }
    int const wave = column - image_pixels;
    constexpr int half = wave_count / 2;
    float const angle =
        static_cast<float>(t[sample]) * exp2f(-13.28771F * static_cast<float>(wave % half) / half);
    out[i] = wave < half ? sinf(angle) : cosf(angle);
  }
};

struct silu {
  float const* in;
  float* out;
  __device__ void operator()(std::int64_t i) const { out[i] = in[i] / (1 + expf(-in[i])); }
};

/// The gradient of what went in, over that of what came out.
struct silu_backward {
  float const* in;
  float* gradient;
  __device__ void operator()(std::int64_t i) const {
    float const sigmoid = 1 / (1 + expf(-in[i]));
    gradient[i] *= sigmoid * (1 + in[i] * (1 - sigmoid));
  }
};

/// To the range of images, in place.
struct squash {
  float* x;
  __device__ void operator()(std::int64_t i) const { x[i] = tanhf(x[i]); }
};

/// The gradient of what went in, over that of what came out.
struct squash_backward {
  float const* out;
  float* gradient;
  __device__ void operator()(std::int64_t i) const { gradient[i] *= 1 - out[i] * out[i]; }
};

class student_network {
 public:
  student_network(int batch, int hidden)
      : batch_(batch),
        hidden_(hidden),
        in_(size(batch, with_waves::width)),
        first_(size(batch, hidden)),
        second_(size(batch, hidden)),
        first_active_(size(batch, hidden)),
        second_active_(size(batch, hidden)),
        bar_(size(batch, hidden)),
        other_bar_(size(batch, hidden)) {}

  [[nodiscard]] std::size_t parameter_count() const { return weight(3); }
  /// The last weights are 0: the first image is grey.
  [[nodiscard]] std::vector<float> initial_parameters(std::uint64_t seed) const {
    std::vector<float> result(parameter_count());
    initialise(result.data(), hidden_, with_waves::width, {.seed = seed, .stream = 100});
    initialise(result.data() + weight(1), hidden_, hidden_, {.seed = seed, .stream = 101});
    return result;
  }

  void forward(cudaStream_t stream, float const* w, float const* x_t, std::int64_t const* t,
               float* x_0) const {
    each(stream, std::int64_t{batch_} * with_waves::width, with_waves{x_t, t, in_.data()});
    multiply(stream, in(), first_weights(w).transposed(), first_.data());
    each(stream, hidden_size(), silu{first_.data(), first_active_.data()});
    multiply(stream, activation(first_active_), second_weights(w).transposed(), second_.data());
    each(stream, hidden_size(), silu{second_.data(), second_active_.data()});
    multiply(stream, activation(second_active_), last_weights(w).transposed(), x_0);
    each(stream, std::int64_t{batch_} * image_pixels, squash{x_0});
  }
  /// After `forward`: w_bar is added to, and x_0_bar becomes the gradient of what tanh is taken of.
  void backward(cudaStream_t stream, float const* w, float const* x_0, float* x_0_bar,
                float* memory, float* w_bar) const {
    each(stream, std::int64_t{batch_} * image_pixels, squash_backward{x_0, x_0_bar});
    matrix const gradient(x_0_bar, batch_, image_pixels);
    add_outer(stream, gradient, activation(second_active_), memory, w_bar + weight(2));
    multiply(stream, gradient, last_weights(w), bar_.data());
    each(stream, hidden_size(), silu_backward{second_.data(), bar_.data()});
    add_outer(stream, activation(bar_), activation(first_active_), memory, w_bar + weight(1));
    multiply(stream, activation(bar_), second_weights(w), other_bar_.data());
    each(stream, hidden_size(), silu_backward{first_.data(), other_bar_.data()});
    add_outer(stream, activation(other_bar_), in(), memory, w_bar);
  }

 private:
  static std::size_t size(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
  /// Where the weights of layer `i` begin.
  [[nodiscard]] std::size_t weight(int i) const {
    std::size_t const sizes[] = {size(hidden_, with_waves::width), size(hidden_, hidden_),
                                 size(image_pixels, hidden_)};
    std::size_t first = 0;
    for (int layer = 0; layer < i; ++layer) first += sizes[layer];
    return first;
  }
  [[nodiscard]] matrix first_weights(float const* w) const {
    return {w, hidden_, with_waves::width};
  }
  [[nodiscard]] matrix second_weights(float const* w) const {
    return {w + weight(1), hidden_, hidden_};
  }
  [[nodiscard]] matrix last_weights(float const* w) const {
    return {w + weight(2), image_pixels, hidden_};
  }
  [[nodiscard]] matrix in() const { return {in_.data(), batch_, with_waves::width}; }
  [[nodiscard]] matrix activation(device_array<float> const& x) const {
    return {x.data(), batch_, hidden_};
  }
  [[nodiscard]] std::int64_t hidden_size() const { return std::int64_t{batch_} * hidden_; }

  int batch_;
  int hidden_;
  device_array<float> in_, first_, second_, first_active_, second_active_, bar_, other_bar_;
};

// --- teacher -------------------------------------------------------------------------------------

/// One number of a block, of all its threads' numbers. Every thread gets it.
template <class Combine>
__device__ float block_reduce(float x, Combine const& combine) {
  __shared__ float all[block_threads];
  int const thread = static_cast<int>(threadIdx.x);
  all[thread] = x;
  __syncthreads();
  for (int distance = block_threads / 2; distance > 0; distance /= 2) {
    if (thread < distance) all[thread] = combine(all[thread], all[thread + distance]);
    __syncthreads();
  }
  float const result = all[0];
  __syncthreads();
  return result;
}

struct largest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct added {
  __device__ float operator()(float a, float b) const { return a + b; }
};

/// products[b, i] = x_t,b . x_i becomes the weight of image i for sample b, one block a sample.
/// -|x_t - alpha x_i|^2 / 2 is alpha x_t . x_i - alpha^2 |x_i|^2 / 2, and what all i share.
template <class Schedule>
__global__ void __launch_bounds__(block_threads)
    weigh_images(Schedule schedule, std::int64_t const* t, float const* half_squares, int images,
                 float* products) {
  addloss::noise_level const level = schedule.at(t[blockIdx.x]);
  auto const alpha = static_cast<float>(level.alpha);
  auto const precision = static_cast<float>(1 / (level.sigma * level.sigma));
  float* const row = products + std::int64_t{blockIdx.x} * images;
  float most = -INFINITY;
  for (int i = static_cast<int>(threadIdx.x); i < images; i += block_threads) {
    row[i] = precision * alpha * (row[i] - alpha * half_squares[i]);
    most = fmaxf(most, row[i]);
  }
  most = block_reduce(most, largest{});
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < images; i += block_threads) {
    row[i] = expf(row[i] - most);
    sum += row[i];
  }
  sum = block_reduce(sum, added{});
  for (int i = static_cast<int>(threadIdx.x); i < images; i += block_threads) row[i] /= sum;
}

class ideal_denoiser {
 public:
  /// `images` [count, 784], also on the GPU at `on_device`, where they stay.
  ideal_denoiser(std::vector<float> const& images, float const* on_device, int batch)
      : count_(static_cast<int>(images.size() / image_pixels)),
        batch_(batch),
        images_(on_device),
        half_squares_(half_squares(images)),
        weights_(static_cast<std::size_t>(batch) * static_cast<std::size_t>(count_)) {}

  void operator()(cudaStream_t stream, levels const& schedule, float const* x_t,
                  std::int64_t const* t, float* x_0) const {
    matrix const all(images_, count_, image_pixels);
    multiply(stream, {x_t, batch_, image_pixels}, all.transposed(), weights_.data());
    weigh_images<<<static_cast<unsigned>(batch_), block_threads, 0, stream>>>(
        schedule, t, half_squares_.data(), count_, weights_.data());
    check("weigh_images", cudaPeekAtLastError());
    multiply(stream, {weights_.data(), batch_, count_}, all, x_0);
  }

 private:
  static std::vector<float> half_squares(std::vector<float> const& images) {
    std::vector<float> result(images.size() / image_pixels);
    for (std::size_t i = 0; i < images.size(); ++i) {
      result[i / image_pixels] += images[i] * images[i] / 2;
    }
    return result;
  }

  int count_;
  int batch_;
  float const* images_;
  device_array<float> half_squares_;
  device_array<float> weights_;
};

// --- heads ---------------------------------------------------------------------------------------

/// Pixel i of a batch is element at(i) of its patches [B, L, C].
struct patch_order {
  int side;
  __device__ std::int64_t at(std::int64_t i) const {
    auto const pixel = static_cast<int>(i % image_pixels);
    int const x = pixel % image_side;
    int const y = pixel / image_side;
    int const token = y / side * (image_side / side) + x / side;
    return i - pixel + token * side * side + y % side * side + x % side;
  }
};

struct to_patches {
  patch_order order;
  float const* images;
  float* patches;
  __device__ void operator()(std::int64_t i) const { patches[order.at(i)] = images[i]; }
};
struct add_from_patches {
  patch_order order;
  float const* patches;
  float* images;
  __device__ void operator()(std::int64_t i) const { images[i] += patches[order.at(i)]; }
};

/// lrelu(a), and the gradient of the logit with respect to a, of features of `width` numbers each.
struct activate {
  static constexpr float slope = 0.2F;
  float const* a;
  float const* u;
  int width;
  float* value;
  float* gradient;
  __device__ void operator()(std::int64_t i) const {
    float const derivative = a[i] > 0 ? 1 : slope;
    value[i] = derivative * a[i];
    gradient[i] = derivative * u[i % width];
  }
};
/// The derivative of lrelu(a) along a tangent of a, over that tangent.
struct along_tangent {
  float const* a;
  float* tangent;
  __device__ void operator()(std::int64_t i) const { tangent[i] *= a[i] > 0 ? 1 : activate::slope; }
};
/// Gradients of the logits times those of each logit with respect to a.
struct times_logit {
  float const* logit_bar;
  float const* gradient;
  int width;
  float* out;
  __device__ void operator()(std::int64_t i) const { out[i] = logit_bar[i / width] * gradient[i]; }
};

/// A head on patches of `side` x `side` pixels. Tensors of both sides hold the real samples, then
/// the fake ones: features [2B, L, C], logits [2B, L]. Parameters: U [width, C], u [width].
class patch_head {
 public:
  static constexpr int width = 128;

  patch_head(int batch, int side)
      : batch_(batch),
        order_{side},
        features_(size(2, channels())),
        a_(size(2, width)),
        active_(size(2, width)),
        gradient_(size(2, width)),
        bar_(size(2, width)),
        feature_bar_(size(1, channels())),
        ones_(std::vector<float>(size(1, 1), 1.0F)) {}

  [[nodiscard]] int tokens() const { return image_pixels / channels(); }
  [[nodiscard]] int channels() const { return order_.side * order_.side; }
  [[nodiscard]] std::size_t parameter_count() const {
    return static_cast<std::size_t>(width * (channels() + 1));
  }
  [[nodiscard]] std::vector<float> initial_parameters(std::uint64_t seed) const {
    std::vector<float> result(parameter_count());
    auto const stream = static_cast<std::uint32_t>(200 + order_.side);
    initialise(result.data(), width, channels(), {.seed = seed, .stream = stream});
    initialise(result.data() + width * channels(), 1, width,
               {.seed = seed, .step = 1, .stream = stream});
    return result;
  }
  /// Numbers that `memory` holds in the passes below.
  [[nodiscard]] std::size_t memory_numbers() const {
    return slice_numbers(rows(2), static_cast<std::size_t>(width * channels()));
  }

  /// Logits of both sides.
  void forward(cudaStream_t stream, float const* w, float const* real, float const* fake,
               float* logits) const {
    std::int64_t const pixels = std::int64_t{batch_} * image_pixels;
    each(stream, pixels, to_patches{order_, real, features_.data()});
    each(stream, pixels, to_patches{order_, fake, features_.data() + pixels});
    multiply(stream, {features_.data(), rows(2), channels()}, first(w).transposed(), a_.data());
    each(stream, std::int64_t{rows(2)} * width,
         activate{a_.data(), last(w), width, active_.data(), gradient_.data()});
    multiply(stream, {active_.data(), rows(2), width}, {last(w), width, 1}, logits);
  }
  /// g [B, L, C] of the real samples: the gradient of their logits, summed over tokens.
  void feature_gradient(cudaStream_t stream, float const* w, float* g) const {
    multiply(stream, {gradient_.data(), rows(1), width}, first(w), g);
  }
  /// Adds to w_bar, given the gradients of the logits of both sides and the cotangent of g.
  void backward_parameters(cudaStream_t stream, float const* w, float const* logits_bar,
                           float const* cotangent, float* memory, float* w_bar) const {
    each(stream, std::int64_t{rows(2)} * width,
         times_logit{logits_bar, gradient_.data(), width, bar_.data()});
    matrix const features(features_.data(), rows(2), channels());
    add_outer(stream, {bar_.data(), rows(2), width}, features, memory, w_bar);
    add_outer(stream, {logits_bar, rows(2), 1}, {active_.data(), rows(2), width}, memory,
              w_bar + width * channels());
    // g = U^T (lrelu'(a) u), and lrelu'' = 0.
    matrix const direction(cotangent, rows(1), channels());
    add_outer(stream, {gradient_.data(), rows(1), width}, direction, memory, w_bar);
    multiply(stream, direction, first(w).transposed(), bar_.data());
    each(stream, std::int64_t{rows(1)} * width, along_tangent{a_.data(), bar_.data()});
    add_outer(stream, {ones_.data(), rows(1), 1}, {bar_.data(), rows(1), width}, memory,
              w_bar + width * channels());
  }
  /// Adds to the gradient of the fake images, given that of their logits [B, L].
  void backward_images(cudaStream_t stream, float const* w, float const* logits_bar,
                       float* images_bar) const {
    std::int64_t const fakes = std::int64_t{rows(1)} * width;
    each(stream, fakes, times_logit{logits_bar, gradient_.data() + fakes, width, bar_.data()});
    multiply(stream, {bar_.data(), rows(1), width}, first(w), feature_bar_.data());
    each(stream, std::int64_t{batch_} * image_pixels,
         add_from_patches{order_, feature_bar_.data(), images_bar});
  }

 private:
  [[nodiscard]] int rows(int sides) const { return sides * batch_ * tokens(); }
  [[nodiscard]] std::size_t size(int sides, int columns) const {
    return static_cast<std::size_t>(rows(sides)) * static_cast<std::size_t>(columns);
  }
  [[nodiscard]] matrix first(float const* w) const { return {w, width, channels()}; }
  [[nodiscard]] float const* last(float const* w) const { return w + width * channels(); }

  int batch_;
  patch_order order_;
  device_array<float> features_, a_, active_, gradient_, bar_, feature_bar_, ones_;
};

}  // namespace demo
