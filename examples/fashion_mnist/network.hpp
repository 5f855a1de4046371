// SPDX-License-Identifier: MIT
/// The building blocks of the networks of this example: forward and backward passes by hand.
///
/// All parameters of a network lie in one buffer, in named parts. A layer knows where its parts are
/// and computes on memory of its caller:
///   forward   y = f(x; w)
///   backward  x_bar = (df/dx)^T y_bar,  w_bar += (df/dw)^T y_bar;  a null result is not computed
/// Tensors are [tokens, samples, channels], dense: mixing tokens is the product of [hidden, tokens]
/// with [tokens, samples * channels], mixing channels one of [tokens * samples, channels] with
/// [channels, hidden]. The products are the library's, on one thread each; threads share out the
/// batch (`each_slice`). Everything is a template of T: float to train, double to check
/// derivatives.
/// Sources: Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, 2021; Perez et al.,
/// FiLM: Visual Reasoning with a General Conditioning Layer, 2018.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <addloss/heads/initialise.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/matrix_product.hpp>
#include <addloss/heads/safetensors.hpp>

#include "image_shape.hpp"

namespace demo {

/// Images are cut into 7 x 7 patches of 4 x 4: the tokens.
inline constexpr std::int64_t patch_side = 4;
inline constexpr std::int64_t patch_pixels = patch_side * patch_side;
inline constexpr std::int64_t patches_a_side = image_side / patch_side;
inline constexpr std::int64_t tokens = patches_a_side * patches_a_side;

// ---- Parameters ---------------------------------------------------------------------------------

/// A named tensor within the parameters. First values: those of `initial`, times `gain`.
struct part {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;
  std::int64_t size = 0;
  addloss::initial_values initial;
  double gain = 1;
};

/// The parts of a network, in the order in which its layers ask for them.
struct part_list {
  std::vector<part> parts;
  std::int64_t size = 0;

  /// Appends a part; gives its offset.
  std::int64_t add(std::string name, std::vector<std::int64_t> shape,
                   addloss::initial_values initial, double gain = 1) {
    std::int64_t const count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1},
                                               std::multiplies<std::int64_t>());
    parts.push_back({std::move(name), std::move(shape), size, count, initial, gain});
    return std::exchange(size, size + count);
  }
};

template <std::floating_point T>
struct basic_parameters {
  std::vector<part> parts;
  std::vector<T> values;

  basic_parameters() = default;
  /// The first values of a network: a pure function of the seed.
  basic_parameters(part_list const& list, std::uint64_t seed)
      : parts(list.parts), values(static_cast<std::size_t>(list.size)) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      part const& p = parts[i];
      std::span<T> const piece(values.data() + p.offset, static_cast<std::size_t>(p.size));
      addloss::parameter_key const key{seed, static_cast<std::uint32_t>(i)};
      std::visit([&](auto const& rule) { addloss::initialise(rule, key, piece); }, p.initial);
      for (T& x : piece) x *= static_cast<T>(p.gain);
    }
  }
};
using parameters = basic_parameters<float>;

/// What a file holds, collected: `Data` is void const to save, void to load. Errors name the file.
template <class Data>
class file_contents {
 public:
  void add(std::string name, std::vector<std::int64_t> shape, auto* values) {
    names_.push_back(std::move(name));
    shapes_.push_back(std::move(shape));
    tensors_.emplace_back(names_.back(), shapes_.back(), values);
  }
  /// Every part, under its name after `prefix`.
  void add(std::string const& prefix, auto& network) {
    for (part const& p : network.parts) {
      add(prefix + p.name, p.shape, network.values.data() + p.offset);
    }
  }

  void save(std::string const& path, addloss::safetensors_metadata const& metadata) const
    requires(std::is_const_v<Data>)
  {
    naming(path, [&] { addloss::save_safetensors(path, tensors_, metadata); });
  }
  /// On an error nothing that was added has changed.
  addloss::safetensors_metadata load(std::string const& path,
                                     addloss::load_options options = {}) const
    requires(!std::is_const_v<Data>)
  {
    addloss::safetensors_metadata metadata;
    naming(path, [&] { metadata = addloss::load_safetensors(path, tensors_, options); });
    return metadata;
  }

 private:
  template <class Action>
  static void naming(std::string const& path, Action const& action) {
    try {
      action();
    } catch (addloss::error const& e) {
      // Where a tensor is wrong, the library names that alone.
      std::string const message = e.what();
      bool const named = message.find(path) != std::string::npos;
      throw std::runtime_error(named ? message : path + ": " + message);
    }
  }

  std::deque<std::string> names_;  // a deque: what tensors_ views must not move
  std::deque<std::vector<std::int64_t>> shapes_;
  std::vector<addloss::file_tensor<Data>> tensors_;
};
using saved_contents = file_contents<void const>;
using loaded_contents = file_contents<void>;

void save_parameters(std::string const& path, parameters const& network,
                     addloss::safetensors_metadata const& metadata = {});
addloss::safetensors_metadata load_parameters(std::string const& path, parameters& network);

// ---- Memory and threads -------------------------------------------------------------------------

/// Aligned to whole SIMD registers.
template <class T>
using buffer = std::vector<T, Eigen::aligned_allocator<T>>;

/// Allocates only if there were fewer elements before.
template <class T>
void resize(buffer<T>& memory, std::int64_t count) {
  memory.resize(static_cast<std::size_t>(count));
}

template <class T>
using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using row = Eigen::Array<T, 1, Eigen::Dynamic>;

/// Memory [rows, columns] as a matrix of Eigen.
template <class T>
auto as_matrix(T* data, std::int64_t rows, std::int64_t columns) {
  return Eigen::Map<matrix<T>>(data, rows, columns);
}
template <class T>
auto as_matrix(T const* data, std::int64_t rows, std::int64_t columns) {
  return Eigen::Map<matrix<T> const>(data, rows, columns);
}
/// Memory [columns] as a row for operations by element.
template <class T>
auto as_row(T* data, std::int64_t columns) {
  return Eigen::Map<row<T>>(data, columns);
}
template <class T>
auto as_row(T const* data, std::int64_t columns) {
  return Eigen::Map<row<T> const>(data, columns);
}

using addloss::transposed;
using addloss::view;
inline constexpr addloss::cpu_context one_thread{};

/// A batch is worked on in slices of so many samples: what a slice computes with fits the caches.
inline constexpr std::int64_t slice_samples = 8;
/// Slices are dealt out to lanes, lanes to threads. A lane has its own gradients, and their number
/// is fixed: so sums have one order for any number of threads.
inline constexpr int lanes = 4;

struct slice {
  std::int64_t first = 0;  ///< sample
  std::int64_t samples = 0;
  std::int64_t number = 0;
  int lane = 0;
};

inline std::int64_t slice_count(std::int64_t batch) {
  return (batch + slice_samples - 1) / slice_samples;
}

/// work(slice) for the slices of a batch; those of one lane in order, on one thread. First
/// begin(lane), once for each lane.
template <class Begin, class Work>
void each_slice(std::int64_t batch, [[maybe_unused]] int threads, Begin const& begin,
                Work const& work) {
  Eigen::setNbThreads(1);  // the products are small; the threads are used here
  std::int64_t const count = slice_count(batch);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int lane = 0; lane < lanes; ++lane) {
    begin(lane);
    for (std::int64_t i = lane * count / lanes; i < (lane + 1) * count / lanes; ++i) {
      std::int64_t const first = i * slice_samples;
      work(slice{first, std::min(slice_samples, batch - first), i, lane});
    }
  }
}

/// Gradients of the parameters, a buffer a lane.
template <class T>
struct lane_gradients {
  std::array<buffer<T>, lanes> of;

  /// The memory of a lane, all zero.
  T* start(int lane, std::int64_t count) {
    auto& memory = of[static_cast<std::size_t>(lane)];
    memory.assign(static_cast<std::size_t>(count), T(0));
    return memory.data();
  }
  T* data(int lane) { return of[static_cast<std::size_t>(lane)].data(); }

  /// Their sum, lane after lane, into `result`.
  void sum(std::span<T> result, [[maybe_unused]] int threads) const {
    auto const count = static_cast<std::int64_t>(result.size());
    constexpr std::int64_t block = 1 << 13;
    std::int64_t const blocks = (count + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t i = 0; i < blocks; ++i) {
      std::int64_t const size = std::min(block, count - i * block);
      auto total = as_row(result.data() + i * block, size);
      total = as_row(of[0].data() + i * block, size);
      for (std::size_t lane = 1; lane < of.size(); ++lane) {
        total += as_row(of[lane].data() + i * block, size);
      }
    }
  }
};

// ---- SiLU ---------------------------------------------------------------------------------------

/// exp(x), which the compiler can vectorise; relative error at most 2e-7 where |x| <= 87, beyond it
/// the value at +-87. NaN stays NaN.
///   x = n ln 2 + r,  |r| <= ln 2 / 2;  exp(x) = 2^n (1 + r + r^2 p(r))
/// The polynomial is that of expf in the Cephes library (Moshier, 1989).
inline float exponential(float x) {
  x = x < -87.0F ? -87.0F : x;
  x = x > 87.0F ? 87.0F : x;
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
  constexpr float rounding = 12582912.0F;
  float const shifted = x * 1.44269504F + rounding;
  float const n = shifted - rounding;
  float const r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  std::uint32_t const exponent = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23;
  return (p * (r * r) + r + 1.0F) * std::bit_cast<float>(exponent);
}
inline double exponential(double x) { return std::exp(x); }

/// Hidden units u: silu(u) = u / (1 + exp(-u)), and its derivative for the backward pass.
template <class T>
struct silu_units {
  buffer<T> value;
  buffer<T> slope;  ///< holds u before `apply`

  void reserve(std::int64_t count) {
    resize(value, count);
    resize(slope, count);
  }
  void apply(std::int64_t count) {
    T* const __restrict s = slope.data();
    T* const __restrict v = value.data();
    for (std::int64_t i = 0; i < count; ++i) {
      T const gate = 1 / (1 + exponential(-s[i]));
      v[i] = s[i] * gate;
      s[i] = gate + v[i] * (1 - gate);
    }
  }
  /// value_bar <- u_bar
  void backward(T* value_bar, std::int64_t count) const {
    as_row(value_bar, count) *= as_row(slope.data(), count);
  }
};

// ---- Layers -------------------------------------------------------------------------------------

/// total[columns] += the sum of x [rows, columns] over its rows.
template <class T>
void add_rows(T const* x, std::int64_t rows, std::int64_t columns, T* total) {
  auto sum = as_row(total, columns);
  for (std::int64_t r = 0; r < rows; ++r) sum += as_row(x + r * columns, columns);
}

/// y = x W^T + b:  x [rows, in], W [out, in], y [rows, out].
struct linear_layer {
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t weight = 0;
  std::int64_t bias = 0;

  /// As PyTorch begins, times `gain`.
  linear_layer(part_list& list, std::string const& name, std::int64_t inputs, std::int64_t outputs,
               double gain = 1)
      : in(inputs),
        out(outputs),
        weight(
            list.add(name + ".weight", {outputs, inputs}, addloss::fan_in_uniform{inputs}, gain)),
        bias(list.add(name + ".bias", {outputs}, addloss::fan_in_uniform{inputs}, gain)) {}

  template <class T>
  void forward(T const* w, T const* x, std::int64_t rows, T* y) const {
    addloss::matrix_product(one_thread, view(x, rows, in), transposed(view(w + weight, out, in)),
                            view(y, rows, out), {.column_bias = w + bias});
  }
  /// y += what forward gives.
  template <class T>
  void add(T const* w, T const* x, std::int64_t rows, T* y) const {
    addloss::add_matrix_product(one_thread, view(x, rows, in),
                                transposed(view(w + weight, out, in)), view(y, rows, out),
                                {.column_bias = w + bias});
  }
  template <class T>
  void backward(T const* w, T const* x, T const* y_bar, std::int64_t rows, T* w_bar,
                T* x_bar) const {
    if (w_bar != nullptr) {
      addloss::add_matrix_product(one_thread, transposed(view(y_bar, rows, out)), view(x, rows, in),
                                  view(w_bar + weight, out, in));
      add_rows(y_bar, rows, out, w_bar + bias);
    }
    if (x_bar != nullptr) {
      addloss::matrix_product(one_thread, view(y_bar, rows, out), view(w + weight, out, in),
                              view(x_bar, rows, in));
    }
  }
};

/// Scale and shift of every channel, for each sample: those of sample s begin at s * stride. With
/// the stride 0 all samples share them.
template <class T>
struct film {
  T* scale = nullptr;
  T* shift = nullptr;
  std::int64_t stride = 0;
};

/// Layer norm over the channels without parameters, then FiLM:
///   n = (x - mean x) / sqrt(var x + 1e-5),  y = (1 + scale) n + shift
template <class T>
struct modulated_norm {
  buffer<T> normal;  ///< n
  buffer<T> inverse;  ///< 1 / sqrt(...), of each row

  void forward(T const* x, std::int64_t rows, std::int64_t samples, std::int64_t channels,
               film<T const> f, T* y) {
    resize(normal, rows * channels);
    resize(inverse, rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const x_row = as_row(x + r * channels, channels);
      auto n = as_row(normal.data() + r * channels, channels);
      n = x_row - x_row.mean();
      T const scale = 1 / std::sqrt(n.square().mean() + T(1e-5));
      inverse.data()[r] = scale;
      n *= scale;
      std::int64_t const s = r % samples * f.stride;
      as_row(y + r * channels, channels) =
          n * (1 + as_row(f.scale + s, channels)) + as_row(f.shift + s, channels);
    }
  }
  /// Adds to x_bar, and to what f_bar points to unless that is null; y_bar is used up.
  void backward(T* y_bar, std::int64_t rows, std::int64_t samples, std::int64_t channels,
                film<T const> f, film<T> f_bar, T* x_bar) const {
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const n = as_row(normal.data() + r * channels, channels);
      auto n_bar = as_row(y_bar + r * channels, channels);
      std::int64_t const s = r % samples;
      if (f_bar.scale != nullptr) {
        as_row(f_bar.scale + s * f_bar.stride, channels) += n_bar * n;
        as_row(f_bar.shift + s * f_bar.stride, channels) += n_bar;
      }
      n_bar *= 1 + as_row(f.scale + s * f.stride, channels);
      T const mean = n_bar.mean();
      T const projection = (n_bar * n).mean();
      as_row(x_bar + r * channels, channels) += inverse.data()[r] * (n_bar - mean - projection * n);
    }
  }
};

/// What a block keeps for its backward pass.
template <class T>
struct mixer_activations {
  modulated_norm<T> norms[2];
  buffer<T> mixed[2];  ///< inputs of the two mixings
  silu_units<T> hidden[2];
};

/// Memory that the backward passes of all blocks share.
template <class T>
struct mixer_workspace {
  buffer<T> hidden;
  buffer<T> mixed;
};

/// x += mix_tokens(norm(x));  x += mix_channels(norm(x)): two layers each, SiLU between them.
struct mixer_block {
  std::int64_t channels;
  std::int64_t token_hidden;
  std::int64_t channel_hidden;
  std::int64_t in_weight, in_bias, out_weight, out_bias;  // of the tokens
  linear_layer expand, reduce;  // of the channels

  mixer_block(part_list& list, std::string const& name, std::int64_t channel_count,
              std::int64_t hidden_tokens, std::int64_t hidden_channels)
      : channels(channel_count),
        token_hidden(hidden_tokens),
        channel_hidden(hidden_channels),
        in_weight(list.add(name + ".tokens.in.weight", {token_hidden, tokens},
                           addloss::standard_normal{}, 1 / std::sqrt(double{tokens}))),
        in_bias(list.add(name + ".tokens.in.bias", {token_hidden}, addloss::constant_value{0})),
        out_weight(list.add(name + ".tokens.out.weight", {tokens, token_hidden},
                            addloss::standard_normal{},
                            0.5 / std::sqrt(static_cast<double>(token_hidden)))),
        out_bias(list.add(name + ".tokens.out.bias", {tokens}, addloss::constant_value{0})),
        expand(list, name + ".channels.in", channels, channel_hidden),
        reduce(list, name + ".channels.out", channel_hidden, channels, 0.5) {}

  /// x [tokens, samples, channels], in place; two FiLMs.
  template <class T>
  void forward(T const* w, T* x, std::int64_t samples, film<T const> const (&f)[2],
               mixer_activations<T>& a) const {
    std::int64_t const rows = tokens * samples;
    std::int64_t const width = samples * channels;
    resize(a.mixed[0], rows * channels);
    resize(a.mixed[1], rows * channels);
    a.hidden[0].reserve(token_hidden * width);
    a.hidden[1].reserve(rows * channel_hidden);

    a.norms[0].forward(x, rows, samples, channels, f[0], a.mixed[0].data());
    addloss::matrix_product(one_thread, view(w + in_weight, token_hidden, tokens),
                            view(std::as_const(a.mixed[0]).data(), tokens, width),
                            view(a.hidden[0].slope.data(), token_hidden, width),
                            {.row_bias = w + in_bias});
    a.hidden[0].apply(token_hidden * width);
    addloss::add_matrix_product(one_thread, view(w + out_weight, tokens, token_hidden),
                                view(std::as_const(a.hidden[0].value).data(), token_hidden, width),
                                view(x, tokens, width), {.row_bias = w + out_bias});

    a.norms[1].forward(x, rows, samples, channels, f[1], a.mixed[1].data());
    expand.forward(w, a.mixed[1].data(), rows, a.hidden[1].slope.data());
    a.hidden[1].apply(rows * channel_hidden);
    reduce.add(w, a.hidden[1].value.data(), rows, x);
  }

  /// x_bar: of the output before, of the input after.
  template <class T>
  void backward(T const* w, T* x_bar, std::int64_t samples, film<T const> const (&f)[2],
                film<T> const (&f_bar)[2], mixer_activations<T> const& a,
                mixer_workspace<T>& memory, T* w_bar) const {
    std::int64_t const rows = tokens * samples;
    std::int64_t const width = samples * channels;
    resize(memory.hidden, std::max(token_hidden * width, rows * channel_hidden));
    resize(memory.mixed, rows * channels);
    T* const hidden_bar = memory.hidden.data();
    T* const mixed_bar = memory.mixed.data();

    reduce.backward(w, a.hidden[1].value.data(), x_bar, rows, w_bar, hidden_bar);
    a.hidden[1].backward(hidden_bar, rows * channel_hidden);
    expand.backward(w, a.mixed[1].data(), hidden_bar, rows, w_bar, mixed_bar);
    a.norms[1].backward(mixed_bar, rows, samples, channels, f[1], f_bar[1], x_bar);

    auto const stream_bar = view(x_bar, tokens, width);
    auto const hidden = view(hidden_bar, token_hidden, width);
    addloss::matrix_product(one_thread, transposed(view(w + out_weight, tokens, token_hidden)),
                            stream_bar, hidden);
    a.hidden[0].backward(hidden_bar, token_hidden * width);
    if (w_bar != nullptr) {
      addloss::add_matrix_product(one_thread, stream_bar,
                                  transposed(view(a.hidden[0].value.data(), token_hidden, width)),
                                  view(w_bar + out_weight, tokens, token_hidden));
      addloss::add_matrix_product(one_thread, hidden,
                                  transposed(view(a.mixed[0].data(), tokens, width)),
                                  view(w_bar + in_weight, token_hidden, tokens));
      as_matrix(w_bar + out_bias, tokens, 1) += as_matrix(x_bar, tokens, width).rowwise().sum();
      as_matrix(w_bar + in_bias, token_hidden, 1) +=
          as_matrix(hidden_bar, token_hidden, width).rowwise().sum();
    }
    addloss::matrix_product(one_thread, transposed(view(w + in_weight, token_hidden, tokens)),
                            hidden, view(mixed_bar, tokens, width));
    a.norms[0].backward(mixed_bar, rows, samples, channels, f[0], f_bar[0], x_bar);
  }
};

// ---- Images -------------------------------------------------------------------------------------

/// visit(offset in the image, offset in the tokens [tokens, samples, 16]) for each row of a patch.
template <class Visit>
void each_patch_row(std::int64_t samples, std::int64_t sample, Visit const& visit) {
  for (std::int64_t y = 0; y < image_side; ++y) {
    for (std::int64_t px = 0; px < patches_a_side; ++px) {
      std::int64_t const token = y / patch_side * patches_a_side + px;
      visit(y * image_side + px * patch_side,
            (token * samples + sample) * patch_pixels + y % patch_side * patch_side);
    }
  }
}

/// Images [samples, 784] to patches [tokens, samples, 16].
template <class T>
void to_patches(T const* images, std::int64_t samples, T* patches) {
  for (std::int64_t s = 0; s < samples; ++s) {
    each_patch_row(samples, s, [&](std::int64_t image, std::int64_t token) {
      std::copy_n(images + s * image_pixels + image, patch_side, patches + token);
    });
  }
}

/// The opposite.
template <class T>
void to_images(T const* patches, std::int64_t samples, T* images) {
  for (std::int64_t s = 0; s < samples; ++s) {
    each_patch_row(samples, s, [&](std::int64_t image, std::int64_t token) {
      std::copy_n(patches + token, patch_side, images + s * image_pixels + image);
    });
  }
}

/// Images of several channels with a border of zeros, one after the other: [samples, 30, 30,
/// channels], and room for a row of pixels before and after them, so that the neighbours of every
/// pixel are in memory.
struct padded_images {
  static constexpr std::int64_t side = image_side + 2;
  static constexpr std::int64_t area = side * side;
  static constexpr std::int64_t margin = side + 1;

  static std::int64_t size(std::int64_t samples, std::int64_t channels) {
    return (samples * area + 2 * margin) * channels;
  }
  /// Pixel (y, x) of a sample, counted from the start of the memory.
  static constexpr std::int64_t at(std::int64_t sample, std::int64_t y, std::int64_t x) {
    return margin + sample * area + (y + 1) * side + x + 1;
  }

  /// Puts [samples, 784] into channel `channel` of zeroed memory.
  template <class T>
  static void put(T const* images, std::int64_t samples, std::int64_t channels,
                  std::int64_t channel, T* padded) {
    each_pixel(samples, [&](std::int64_t image, std::int64_t pixel) {
      padded[pixel * channels + channel] = images[image];
    });
  }
  /// Adds that channel to [samples, 784].
  template <class T>
  static void add(T const* padded, std::int64_t samples, std::int64_t channels,
                  std::int64_t channel, T* images) {
    each_pixel(samples, [&](std::int64_t image, std::int64_t pixel) {
      images[image] += padded[pixel * channels + channel];
    });
  }
  /// Zeroes the borders.
  template <class T>
  static void clear_borders(T* padded, std::int64_t samples, std::int64_t channels) {
    auto const clear = [&](std::int64_t pixel, std::int64_t count) {
      std::fill_n(padded + pixel * channels, count * channels, T(0));
    };
    clear(0, margin);
    for (std::int64_t s = 0; s < samples; ++s) {
      clear(at(s, -1, -1), side);
      for (std::int64_t y = 0; y < image_side; ++y) {
        clear(at(s, y, -1), 1);
        clear(at(s, y, image_side), 1);
      }
      clear(at(s, image_side, -1), side);
    }
    clear(margin + samples * area, margin);
  }

 private:
  template <class Visit>
  static void each_pixel(std::int64_t samples, Visit const& visit) {
    for (std::int64_t s = 0; s < samples; ++s) {
      for (std::int64_t y = 0; y < image_side; ++y) {
        for (std::int64_t x = 0; x < image_side; ++x) {
          visit(s * image_pixels + y * image_side + x, at(s, y, x));
        }
      }
    }
  }
};

/// Convolution of 3 x 3 pixels over padded images, which it takes and gives; the borders of the
/// result are not zero. Weight [3, 3, in, out].
///
/// Three neighbours in a row lie side by side in memory, so the matrix of all triples of pixels is
/// the image itself, with rows that overlap: a kernel row is one matrix product, without a copy.
struct convolution {
  std::int64_t in;
  std::int64_t out;
  std::int64_t weight;
  std::int64_t bias;

  convolution(part_list& list, std::string const& name, std::int64_t inputs, std::int64_t outputs,
              double gain = 1)
      : in(inputs),
        out(outputs),
        weight(list.add(name + ".weight", {3, 3, inputs, outputs},
                        addloss::fan_in_uniform{9 * inputs}, gain)),
        bias(list.add(name + ".bias", {outputs}, addloss::fan_in_uniform{9 * inputs}, gain)) {}

  template <class T>
  void forward(T const* w, T const* x, std::int64_t samples, T* y) const {
    std::int64_t const count = samples * padded_images::area;
    auto result = as_matrix(y + padded_images::margin * out, count, out);
    result.rowwise() = as_row(w + bias, out).matrix();
    for (std::int64_t k = 0; k < 3; ++k) {
      result.noalias() +=
          triples(x, count, in, k) * as_matrix(w + weight + 3 * k * in * out, 3 * in, out);
    }
  }

  /// y_bar with borders (and margins) of zeros. `flipped` has room for the weights.
  template <class T>
  void backward(T const* w, T const* x, T const* y_bar, std::int64_t samples, T* w_bar, T* x_bar,
                buffer<T>& flipped) const {
    std::int64_t const count = samples * padded_images::area;
    if (w_bar != nullptr) {
      auto const y_bar_matrix = as_matrix(y_bar + padded_images::margin * out, count, out);
      for (std::int64_t k = 0; k < 3; ++k) {
        as_matrix(w_bar + weight + 3 * k * in * out, 3 * in, out).noalias() +=
            triples(x, count, in, k).transpose() * y_bar_matrix;
      }
      add_rows(y_bar + padded_images::margin * out, count, out, w_bar + bias);
    }
    if (x_bar != nullptr) {
      // Also a convolution: of y_bar, by the kernel turned by half a circle, in and out exchanged.
      resize(flipped, 9 * in * out);
      for (std::int64_t tap = 0; tap < 9; ++tap) {
        as_matrix(flipped.data() + (8 - tap) * in * out, out, in) =
            as_matrix(w + weight + tap * in * out, in, out).transpose();
      }
      auto result = as_matrix(x_bar + padded_images::margin * in, count, in);
      result.setZero();
      for (std::int64_t k = 0; k < 3; ++k) {
        result.noalias() +=
            triples(y_bar, count, out, k) *
            as_matrix(std::as_const(flipped).data() + 3 * k * in * out, 3 * out, in);
      }
    }
  }

 private:
  /// Row p: the pixels left of, at and right of pixel p, in image row k - 1 from it.
  template <class T>
  static auto triples(T const* padded, std::int64_t count, std::int64_t channels, std::int64_t k) {
    std::int64_t const first = padded_images::margin + (k - 1) * padded_images::side - 1;
    return Eigen::Map<matrix<T> const, Eigen::Unaligned, Eigen::OuterStride<>>(
        padded + first * channels, count, 3 * channels, Eigen::OuterStride<>(channels));
  }
};

}  // namespace demo
