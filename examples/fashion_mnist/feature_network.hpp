// SPDX-License-Identifier: MIT
/// F, the frozen feature network of the discriminator: a classifier made like the denoiser.
///
///   h_0 = patches(x) W + position;  h_k = block_k(h_{k-1}), k = 1 .. 4
///   pooled = mean over tokens of norm(h_4);  logits = pooled W' + b
/// It gives K = 5 maps h_k, [B, 64, 49] (channels, then tokens: what discriminator heads read); an
/// embedding [B, 64]: the pooled features, scaled to a mean square of 1; and logits [B, 10].
#pragma once

#include <algorithm>
#include <array>
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

class feature_network {
 public:
  static constexpr std::int64_t channels = 64;
  static constexpr std::int64_t blocks = 4;
  static constexpr std::int64_t maps = blocks + 1;
  static constexpr std::int64_t map_size = channels * tokens;  ///< of a sample

  /// What F makes of a batch.
  template <class T>
  struct features {
    std::array<std::vector<T>, maps> map;  ///< [B, 64, 49] each
    std::vector<T> embedding;  ///< [B, 64]
    std::vector<T> logits;  ///< [B, 10]

    void resize(std::int64_t batch) {
      for (auto& m : map) m.resize(static_cast<std::size_t>(batch * map_size));
      embedding.resize(static_cast<std::size_t>(batch * channels));
      logits.resize(static_cast<std::size_t>(batch * class_count));
    }
  };

  template <class T>
  struct slice_activations {
    buffer<T> patches, stream, stream_bar, last, films_bar, pooled, pooled_bar, patches_bar;
    modulated_norm<T> last_norm;
    std::array<mixer_activations<T>, blocks> block;
    mixer_workspace<T> workspace;
  };

  /// What a forward pass keeps for a backward pass.
  template <class T>
  struct activations {
    std::vector<slice_activations<T>> slices;
    std::int64_t batch = 0;
  };

  [[nodiscard]] part_list const& parts() const { return list_; }
  [[nodiscard]] std::int64_t parameter_count() const { return list_.size; }

  /// Features of x [B, 784].
  template <class T>
  void forward(basic_parameters<T> const& w, std::span<T const> x, activations<T>& a,
               features<T>& out, int threads) const {
    if (w.values.size() != at(list_.size)) {
      throw std::invalid_argument("feature_network: parameters of another network");
    }
    if (x.empty() || x.size() % at(image_pixels) != 0) {
      throw std::invalid_argument("feature_network: x is not a batch of images");
    }
    a.batch = static_cast<std::int64_t>(x.size()) / image_pixels;
    if (a.slices.size() < at(slice_count(a.batch))) a.slices.resize(at(slice_count(a.batch)));
    out.resize(a.batch);
    std::array<T*, maps> map{};
    for (std::size_t k = 0; k < map.size(); ++k) map[k] = out.map[k].data();
    each_slice(
        a.batch, threads, [](int) {},
        [&](slice const& s) {
          auto& mine = a.slices[at(s.number)];
          forward_slice(w.values.data(), x.data(), s, mine, out.logits.data(), map);
          for (std::int64_t i = 0; i < s.samples; ++i) {
            auto const pooled = as_row(std::as_const(mine.pooled).data() + i * channels, channels);
            as_row(out.embedding.data() + (s.first + i) * channels, channels) =
                pooled / std::sqrt(pooled.square().mean() + T(1e-12));
          }
        });
  }

  /// x_bar [B, 784], overwritten, from the gradients of the maps, after `forward`.
  template <class T>
  void backward(basic_parameters<T> const& w, std::array<std::span<T const>, maps> const& map_bar,
                activations<T>& a, std::span<T> x_bar, int threads) const {
    bool fits = a.batch > 0 && x_bar.size() == at(a.batch * image_pixels);
    std::array<T const*, maps> bars{};
    for (std::size_t k = 0; k < bars.size(); ++k) {
      fits = fits && map_bar[k].size() == at(a.batch * map_size);
      bars[k] = map_bar[k].data();
    }
    if (!fits) {
      throw std::invalid_argument(
          "feature_network: backward wants the sizes of the forward pass before");
    }
    each_slice(
        a.batch, threads, [](int) {},
        [&](slice const& s) {
          backward_slice<T>(w.values.data(), nullptr, bars, s, a.slices[at(s.number)], nullptr,
                            x_bar.data());
        });
  }

  /// Some samples of the batch, on the calling thread. Logits and maps are those of the whole
  /// batch; null maps are not written.
  template <class T>
  void forward_slice(T const* w, T const* x, slice const& s, slice_activations<T>& a, T* logits,
                     std::array<T*, maps> const& map = {}) const {
    std::int64_t const n = s.samples;
    std::int64_t const rows = tokens * n;
    resize(a.patches, n * image_pixels);
    resize(a.stream, rows * channels);
    resize(a.last, rows * channels);
    resize(a.pooled, n * channels);
    to_patches(x + s.first * image_pixels, n, a.patches.data());
    embed_.forward(w, a.patches.data(), rows, a.stream.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      as_row(a.stream.data() + r * channels, channels) +=
          as_row(w + position_ + r / n * channels, channels);
    }
    write_map(a.stream.data(), s, map[0]);
    for (std::int64_t b = 0; b < blocks; ++b) {
      film<T const> const f[] = {film_of(w, b, 0), film_of(w, b, 1)};
      blocks_[at(b)].forward(w, a.stream.data(), n, f, a.block[at(b)]);
      write_map(a.stream.data(), s, map[at(b + 1)]);
    }
    // Scales and shifts of zero: no modulation.
    a.last_norm.forward(a.stream.data(), rows, n, channels, no_film<T>(), a.last.data());
    std::fill(a.pooled.begin(), a.pooled.end(), T(0));
    for (std::int64_t l = 0; l < tokens; ++l) {
      as_row(a.pooled.data(), n * channels) +=
          as_row(std::as_const(a.last).data() + l * n * channels, n * channels) / T{tokens};
    }
    head_.forward(w, a.pooled.data(), n, logits + s.first * class_count);
  }

  /// Gradients from those of the maps and of the logits; null ones are zero. w_bar is added to,
  /// x_bar of the whole batch overwritten; either may be null.
  template <class T>
  void backward_slice(T const* w, T const* logits_bar, std::array<T const*, maps> const& map_bar,
                      slice const& s, slice_activations<T>& a, T* w_bar, T* x_bar) const {
    std::int64_t const n = s.samples;
    std::int64_t const rows = tokens * n;
    resize(a.stream_bar, rows * channels);
    std::fill(a.stream_bar.begin(), a.stream_bar.end(), T(0));
    if (logits_bar != nullptr) {
      resize(a.pooled_bar, n * channels);
      head_.backward(w, a.pooled.data(), logits_bar + s.first * class_count, n, w_bar,
                     a.pooled_bar.data());
      for (std::int64_t l = 0; l < tokens; ++l) {
        as_row(a.last.data() + l * n * channels, n * channels) =
            as_row(std::as_const(a.pooled_bar).data(), n * channels) / T{tokens};
      }
      a.last_norm.backward(a.last.data(), rows, n, channels, no_film<T>(), film<T>{},
                           a.stream_bar.data());
    }
    for (std::int64_t b = blocks; b-- > 0;) {
      read_map(map_bar[at(b + 1)], s, a.stream_bar.data());
      film<T const> const f[] = {film_of(w, b, 0), film_of(w, b, 1)};
      film<T> f_bar[2];
      if (w_bar != nullptr) {
        f_bar[0] = film_of(w_bar, b, 0);
        f_bar[1] = film_of(w_bar, b, 1);
      }
      blocks_[at(b)].backward(w, a.stream_bar.data(), n, f, f_bar, a.block[at(b)], a.workspace,
                              w_bar);
    }
    read_map(map_bar[0], s, a.stream_bar.data());
    resize(a.patches_bar, n * image_pixels);
    embed_.backward(w, a.patches.data(), a.stream_bar.data(), rows, w_bar,
                    x_bar == nullptr ? nullptr : a.patches_bar.data());
    if (x_bar != nullptr) to_images(a.patches_bar.data(), n, x_bar + s.first * image_pixels);
    if (w_bar == nullptr) return;
    for (std::int64_t r = 0; r < rows; ++r) {
      as_row(w_bar + position_ + r / n * channels, channels) +=
          as_row(a.stream_bar.data() + r * channels, channels);
    }
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  static std::vector<mixer_block> make_blocks(part_list& list) {
    std::vector<mixer_block> result;
    for (std::int64_t b = 0; b < blocks; ++b) {
      result.emplace_back(list, "block" + std::to_string(b), channels, 64, 128);
    }
    return result;
  }

  /// Scale and shift of a norm, the same for all samples; `w` may be parameters or gradients.
  template <class T>
  film<T> film_of(T* w, std::int64_t block, std::int64_t norm) const {
    T* const scale = w + film_ + (4 * block + 2 * norm) * channels;
    return {scale, scale + channels, 0};
  }
  template <class T>
  static film<T const> no_film() {
    static constexpr std::array<T, channels> zeros{};
    return {zeros.data(), zeros.data(), 0};
  }

  /// [tokens, samples, channels] of a slice to [B, channels, tokens] of the batch.
  template <class T>
  static void write_map(T const* stream, slice const& s, T* map) {
    if (map == nullptr) return;
    for (std::int64_t i = 0; i < s.samples; ++i) {
      as_matrix(map + (s.first + i) * map_size, channels, tokens) =
          of_sample(stream, s, i).transpose();
    }
  }
  /// The opposite, added.
  template <class T>
  static void read_map(T const* map, slice const& s, T* stream) {
    if (map == nullptr) return;
    for (std::int64_t i = 0; i < s.samples; ++i) {
      of_sample(stream, s, i) +=
          as_matrix(map + (s.first + i) * map_size, channels, tokens).transpose();
    }
  }
  /// Sample i as a matrix [tokens, channels].
  template <class T>
  static auto of_sample(T* stream, slice const& s, std::int64_t i) {
    using values =
        std::conditional_t<std::is_const_v<T>, matrix<std::remove_const_t<T>> const, matrix<T>>;
    return Eigen::Map<values, Eigen::Unaligned, Eigen::OuterStride<>>(
        stream + i * channels, tokens, channels, Eigen::OuterStride<>(s.samples * channels));
  }

  part_list list_;
  linear_layer embed_{list_, "embed", patch_pixels, channels};
  std::int64_t position_ =
      list_.add("position", {tokens, channels}, addloss::standard_normal{}, 0.1);
  std::int64_t film_ = list_.add("film", {blocks, 4, channels}, addloss::constant_value{0});
  std::vector<mixer_block> blocks_ = make_blocks(list_);
  linear_layer head_{list_, "head", channels, class_count};
};

}  // namespace demo
