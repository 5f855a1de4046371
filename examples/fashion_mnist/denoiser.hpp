// SPDX-License-Identifier: MIT
/// The denoiser, teacher and student alike: v(x_t, t, y) of noisy images, timesteps and classes.
///
///   e = silu(W_2 silu(W_1 [sin, cos](t)) + class[y])       scales and shifts of all layers from it
///   h = patches(x_t) W + position;  6 mixer blocks;  v = images(norm(h) W')
///   v + conv(silu(film(conv([v, x_t]))))
/// Patches are made each by itself, so that their seams show; the convolutions, of pixels, see
/// across them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "image_shape.hpp"
#include "network.hpp"

namespace demo {

/// x_t [B, 784], t [B], y [B] with classes 0 .. 9 or no_class.
template <class T>
struct denoiser_batch {
  std::span<T const> x;
  std::span<std::int64_t const> t;
  std::span<int const> y;
};

class denoiser {
 public:
  static constexpr std::int64_t channels = 128;
  static constexpr std::int64_t blocks = 6;
  static constexpr std::int64_t token_hidden = 98;
  static constexpr std::int64_t channel_hidden = 256;
  static constexpr std::int64_t condition = 64;
  static constexpr std::int64_t pixel_channels = 16;

  template <class T>
  struct slice_activations {
    buffer<T> patches, waves, condition_bar, condition_bar_in, films, films_bar;
    silu_units<T> time, conditions;
    buffer<T> stream, stream_bar, last, v_patches, v;
    modulated_norm<T> last_norm;
    std::vector<mixer_activations<T>> blocks;
    mixer_workspace<T> workspace;
    buffer<T> pixel_in, pixel_conv, pixel_out, pixel_bar, flipped;
    silu_units<T> pixel;
    std::vector<int> y;
  };

  /// What a forward pass keeps for a backward pass. Allocated by the first passes, and then again
  /// only for a larger batch.
  template <class T>
  struct activations {
    std::vector<slice_activations<T>> slices;
    lane_gradients<T> gradients;
    std::int64_t batch = 0;
  };

  [[nodiscard]] part_list const& parts() const { return list_; }
  [[nodiscard]] std::int64_t parameter_count() const { return list_.size; }

  /// v [B, 784]; keeps what `backward` needs.
  template <class T>
  void forward(basic_parameters<T> const& w, denoiser_batch<T> const& in, activations<T>& a,
               std::span<T> v, int threads) const {
    a.batch = check(w, in, v.size());
    grow(a.slices, slice_count(a.batch));
    each_slice(
        a.batch, threads, [](int) {},
        [&](slice const& s) {
          forward_slice(w.values.data(), in, s, a.slices[at(s.number)], v.data());
        });
  }

  /// v alone: the memory of a block and of a lane is used again and again.
  template <class T>
  void predict(basic_parameters<T> const& w, denoiser_batch<T> const& in, activations<T>& a,
               std::span<T> v, int threads) const {
    std::int64_t const batch = check(w, in, v.size());
    a.batch = 0;
    grow(a.slices, lanes);
    each_slice(
        batch, threads, [](int) {},
        [&](slice const& s) {
          forward_slice(w.values.data(), in, s, a.slices[at(s.lane)], v.data(), 1);
        });
  }

  /// Gradients given v_bar [B, 784], after `forward`: of the parameters and of x_t, overwritten;
  /// either may be empty, it is not computed then.
  template <class T>
  void backward(basic_parameters<T> const& w, std::span<T const> v_bar, activations<T>& a,
                std::span<T> w_bar, std::span<T> x_bar, int threads) const {
    auto const image_size = at(a.batch * image_pixels);
    if (a.batch == 0 || v_bar.size() != image_size ||
        (!w_bar.empty() && w_bar.size() != w.values.size()) ||
        (!x_bar.empty() && x_bar.size() != image_size)) {
      throw std::invalid_argument("denoiser: backward wants the sizes of the forward pass before");
    }
    bool const wanted = !w_bar.empty();
    each_slice(
        a.batch, threads,
        [&](int lane) {
          if (wanted) a.gradients.start(lane, list_.size);
        },
        [&](slice const& s) {
          backward_slice(w.values.data(), v_bar.data(), s, a.slices[at(s.number)],
                         wanted ? a.gradients.data(s.lane) : nullptr,
                         x_bar.empty() ? nullptr : x_bar.data());
        });
    if (wanted) a.gradients.sum(w_bar, threads);
  }

  /// The same for some samples of the batch, on the calling thread: a trainer that knows v_bar of a
  /// sample as soon as v goes back at once, while the activations are in the cache.
  template <class T>
  void forward_slice(T const* w, denoiser_batch<T> const& in, slice const& s,
                     slice_activations<T>& a, T* v, std::int64_t kept_blocks = blocks) const {
    std::int64_t const n = s.samples;
    std::int64_t const rows = tokens * n;
    reserve(a, n, kept_blocks);
    T const* const x = in.x.data() + s.first * image_pixels;

    // The condition, and from it scales and shifts.
    a.y.assign(in.y.data() + s.first, in.y.data() + s.first + n);
    wave(in.t.data() + s.first, n, a.waves.data());
    time_in_.forward(w, a.waves.data(), n, a.time.slope.data());
    a.time.apply(n * condition);
    time_out_.forward(w, a.time.value.data(), n, a.conditions.slope.data());
    for (std::int64_t i = 0; i < n; ++i) {
      as_row(a.conditions.slope.data() + i * condition, condition) +=
          as_row(w + classes_ + a.y[at(i)] * condition, condition);
    }
    a.conditions.apply(n * condition);
    film_.forward(w, a.conditions.value.data(), n, a.films.data());

    // Patches, mixed.
    to_patches(x, n, a.patches.data());
    embed_.forward(w, a.patches.data(), rows, a.stream.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      as_row(a.stream.data() + r * channels, channels) +=
          as_row(w + position_ + r / n * channels, channels);
    }
    for (std::int64_t b = 0; b < blocks; ++b) {
      film<T const> const f[] = {film_of(a.films, 4 * b, channels),
                                 film_of(a.films, 4 * b + 2, channels)};
      blocks_[at(b)].forward(w, a.stream.data(), n, f, a.blocks[at(b % kept_blocks)]);
    }
    a.last_norm.forward(a.stream.data(), rows, n, channels, film_of(a.films, 4 * blocks, channels),
                        a.last.data());
    out_.forward(w, a.last.data(), rows, a.v_patches.data());
    to_images(a.v_patches.data(), n, a.v.data());

    // Pixels, convolved.
    padded_images::put(a.v.data(), n, 2, 0, a.pixel_in.data());
    padded_images::put(x, n, 2, 1, a.pixel_in.data());
    pixel_in_.forward(w, a.pixel_in.data(), n, a.pixel_conv.data());
    modulate_pixels(a, n);
    pixel_out_.forward(w, a.pixel.value.data(), n, a.pixel_out.data());
    T* const result = v + s.first * image_pixels;
    std::copy_n(a.v.data(), n * image_pixels, result);
    padded_images::add(a.pixel_out.data(), n, 1, 0, result);
  }

  /// v_bar and x_bar of the whole batch; w_bar is added to, x_bar overwritten, either may be null.
  template <class T>
  void backward_slice(T const* w, T const* v_bar, slice const& s, slice_activations<T>& a, T* w_bar,
                      T* x_bar) const {
    std::int64_t const n = s.samples;
    std::int64_t const rows = tokens * n;
    resize(a.films_bar, n * film_size);
    resize(a.stream_bar, rows * channels);
    resize(a.condition_bar, n * condition);
    resize(a.condition_bar_in, n * condition);
    std::fill(a.films_bar.begin(), a.films_bar.end(), T(0));
    std::fill(a.stream_bar.begin(), a.stream_bar.end(), T(0));
    T* const result = x_bar == nullptr ? nullptr : x_bar + s.first * image_pixels;

    // Pixels. What was v is now v_bar, and pixel_out the gradient of its own values.
    std::copy_n(v_bar + s.first * image_pixels, n * image_pixels, a.v.data());
    std::fill(a.pixel_out.begin(), a.pixel_out.end(), T(0));
    padded_images::put(a.v.data(), n, 1, 0, a.pixel_out.data());
    pixel_out_.backward(w, a.pixel.value.data(), a.pixel_out.data(), n, w_bar, a.pixel_bar.data(),
                        a.flipped);
    unmodulate_pixels(a, n);
    // The gradient of pixel_in takes the place of the convolved pixels.
    pixel_in_.backward(w, a.pixel_in.data(), a.pixel_bar.data(), n, w_bar, a.pixel_conv.data(),
                       a.flipped);
    padded_images::add(a.pixel_conv.data(), n, 2, 0, a.v.data());
    if (result != nullptr) {
      std::fill_n(result, n * image_pixels, T(0));
      padded_images::add(a.pixel_conv.data(), n, 2, 1, result);
    }

    // Patches.
    to_patches(a.v.data(), n, a.v_patches.data());
    // The gradient of `last` takes its place.
    out_.backward(w, a.last.data(), a.v_patches.data(), rows, w_bar, a.last.data());
    a.last_norm.backward(a.last.data(), rows, n, channels, film_of(a.films, 4 * blocks, channels),
                         film_bar_of(a.films_bar, 4 * blocks, channels), a.stream_bar.data());
    for (std::int64_t b = blocks; b-- > 0;) {
      film<T const> const f[] = {film_of(a.films, 4 * b, channels),
                                 film_of(a.films, 4 * b + 2, channels)};
      film<T> const f_bar[] = {film_bar_of(a.films_bar, 4 * b, channels),
                               film_bar_of(a.films_bar, 4 * b + 2, channels)};
      blocks_[at(b)].backward(w, a.stream_bar.data(), n, f, f_bar, a.blocks[at(b)], a.workspace,
                              w_bar);
    }
    embed_.backward(w, a.patches.data(), a.stream_bar.data(), rows, w_bar,
                    result == nullptr ? nullptr : a.v_patches.data());
    if (result != nullptr) {
      to_images(a.v_patches.data(), n, a.v.data());
      as_row(result, n * image_pixels) += as_row(a.v.data(), n * image_pixels);
    }
    if (w_bar == nullptr) return;
    for (std::int64_t r = 0; r < rows; ++r) {
      as_row(w_bar + position_ + r / n * channels, channels) +=
          as_row(a.stream_bar.data() + r * channels, channels);
    }

    // The condition.
    T* const e_bar = a.condition_bar.data();
    T* const time_bar = a.condition_bar_in.data();
    film_.backward(w, a.conditions.value.data(), a.films_bar.data(), n, w_bar, e_bar);
    a.conditions.backward(e_bar, n * condition);
    for (std::int64_t i = 0; i < n; ++i) {
      as_row(w_bar + classes_ + a.y[at(i)] * condition, condition) +=
          as_row(e_bar + i * condition, condition);
    }
    time_out_.backward(w, a.time.value.data(), e_bar, n, w_bar, time_bar);
    a.time.backward(time_bar, n * condition);
    time_in_.backward<T>(w, a.waves.data(), time_bar, n, w_bar, nullptr);
  }

 private:
  /// Four of a block, two of the last norm, then two of the pixels.
  static constexpr std::int64_t film_size = (4 * blocks + 2) * channels + 2 * pixel_channels;
  static constexpr std::int64_t pixel_film = (4 * blocks + 2) * channels;

  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  static std::vector<mixer_block> make_blocks(part_list& list) {
    std::vector<mixer_block> result;
    for (std::int64_t b = 0; b < blocks; ++b) {
      result.emplace_back(list, "block" + std::to_string(b), channels, token_hidden,
                          channel_hidden);
    }
    return result;
  }

  template <class T>
  static void grow(std::vector<T>& slices, std::int64_t count) {
    if (slices.size() < at(count)) slices.resize(at(count));
  }

  template <class T>
  std::int64_t check(basic_parameters<T> const& w, denoiser_batch<T> const& in,
                     std::size_t v) const {
    if (w.values.size() != at(list_.size)) {
      throw std::invalid_argument("denoiser: parameters of another network");
    }
    if (in.x.size() != in.t.size() * at(image_pixels) || in.y.size() != in.t.size() ||
        v != in.x.size() || v == 0) {
      throw std::invalid_argument("denoiser: x, t, y and v of different batches, or none");
    }
    for (int const label : in.y) {
      if (label < 0 || label > no_class) throw std::invalid_argument("denoiser: no such class");
    }
    return static_cast<std::int64_t>(in.t.size());
  }

  template <class T>
  void reserve(slice_activations<T>& a, std::int64_t n, std::int64_t kept_blocks) const {
    std::int64_t const rows = tokens * n;
    if (a.blocks.size() < at(kept_blocks)) a.blocks.resize(at(kept_blocks));
    resize(a.waves, n * condition);
    a.time.reserve(n * condition);
    a.conditions.reserve(n * condition);
    resize(a.films, n * film_size);
    resize(a.patches, n * image_pixels);
    resize(a.v_patches, n * image_pixels);
    resize(a.v, n * image_pixels);
    resize(a.stream, rows * channels);
    resize(a.last, rows * channels);
    // The values at the borders of these are zero, or are made so.
    auto const padded = [&](buffer<T>& memory, std::int64_t count) {
      if (memory.size() != at(padded_images::size(n, count))) {
        memory.assign(at(padded_images::size(n, count)), T(0));
      }
    };
    padded(a.pixel_in, 2);
    padded(a.pixel_conv, pixel_channels);
    padded(a.pixel_bar, pixel_channels);
    padded(a.pixel_out, 1);
    a.pixel.reserve(padded_images::size(n, pixel_channels));
  }

  template <class T>
  static film<T const> film_of(buffer<T> const& films, std::int64_t i, std::int64_t count) {
    return {films.data() + i * count, films.data() + (i + 1) * count, film_size};
  }
  template <class T>
  static film<T> film_bar_of(buffer<T>& films, std::int64_t i, std::int64_t count) {
    return {films.data() + i * count, films.data() + (i + 1) * count, film_size};
  }

  /// sin and cos of t / 10000^(k / 32), k = 0 .. 31, [samples, 64].
  template <class T>
  static void wave(std::int64_t const* t, std::int64_t samples, T* result) {
    constexpr std::int64_t half = condition / 2;
    for (std::int64_t i = 0; i < samples; ++i) {
      for (std::int64_t k = 0; k < half; ++k) {
        double const angle =
            static_cast<double>(t[i]) * std::pow(10000.0, -static_cast<double>(k) / double{half});
        result[i * condition + k] = static_cast<T>(std::sin(angle));
        result[i * condition + half + k] = static_cast<T>(std::cos(angle));
      }
    }
  }

  /// FiLM and SiLU of the convolved pixels; zero at the borders, as are the slopes.
  template <class T>
  static void modulate_pixels(slice_activations<T>& a, std::int64_t n) {
    each_pixel_row(n, [&](std::int64_t i, std::int64_t offset, std::int64_t f) {
      as_row(a.pixel.slope.data() + offset, pixel_channels) =
          as_row(a.pixel_conv.data() + offset, pixel_channels) *
              (1 + as_row(a.films.data() + i * film_size + f, pixel_channels)) +
          as_row(a.films.data() + i * film_size + f + pixel_channels, pixel_channels);
    });
    a.pixel.apply(static_cast<std::int64_t>(a.pixel.value.size()));
    padded_images::clear_borders(a.pixel.value.data(), n, pixel_channels);
    padded_images::clear_borders(a.pixel.slope.data(), n, pixel_channels);
  }

  /// pixel_bar: of the values before, of the convolved pixels after.
  template <class T>
  static void unmodulate_pixels(slice_activations<T>& a, std::int64_t n) {
    a.pixel.backward(a.pixel_bar.data(), static_cast<std::int64_t>(a.pixel_bar.size()));
    each_pixel_row(n, [&](std::int64_t i, std::int64_t offset, std::int64_t f) {
      auto bar = as_row(a.pixel_bar.data() + offset, pixel_channels);
      T* const film_bar = a.films_bar.data() + i * film_size + f;
      as_row(film_bar, pixel_channels) +=
          bar * as_row(a.pixel_conv.data() + offset, pixel_channels);
      as_row(film_bar + pixel_channels, pixel_channels) += bar;
      bar *= 1 + as_row(a.films.data() + i * film_size + f, pixel_channels);
    });
  }

  /// visit(sample, offset in memory, offset of the scale in the films)
  template <class Visit>
  static void each_pixel_row(std::int64_t n, Visit const& visit) {
    for (std::int64_t i = 0; i < n; ++i) {
      std::int64_t const first = padded_images::margin + i * padded_images::area;
      for (std::int64_t p = first; p < first + padded_images::area; ++p) {
        visit(i, p * pixel_channels, pixel_film);
      }
    }
  }

  part_list list_;
  linear_layer time_in_{list_, "time.in", condition, condition};
  linear_layer time_out_{list_, "time.out", condition, condition};
  std::int64_t classes_ =
      list_.add("classes", {class_count + 1, condition}, addloss::standard_normal{});
  linear_layer film_{list_, "film", condition, film_size, 0};
  linear_layer embed_{list_, "embed", patch_pixels, channels};
  std::int64_t position_ =
      list_.add("position", {tokens, channels}, addloss::standard_normal{}, 0.1);
  std::vector<mixer_block> blocks_ = make_blocks(list_);
  linear_layer out_{list_, "out", channels, patch_pixels, 0};
  convolution pixel_in_{list_, "pixels.in", 2, pixel_channels};
  convolution pixel_out_{list_, "pixels.out", pixel_channels, 1, 0};
};

}  // namespace demo
