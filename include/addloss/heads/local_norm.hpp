// SPDX-License-Identifier: MIT
/// Normalisation over small groups of samples, per channel, and what it shares with group_norm;
/// followed, if wanted, by a leaky rectified linear unit in the same pass.
///
///   y = act(n),  n = weight_c h + bias_c,  h = r (x - m),  r = 1 / sqrt(v + epsilon)
///   act(n) = n where n > 0, else s n,  s = negative_slope; s = 1: no activation
/// m, v: mean and biased variance of a statistic's N elements. local_norm: the batch is split into
/// G = ceil(B / virtual_batch) groups of B / G consecutive samples; a statistic is over (a group's
/// samples, L), for each channel. The same in training and evaluation: there are no running means.
///
/// Derivatives. d: that of act, 1 where n > 0, else s; at the kink, 0, it is s, and the second
/// derivative is taken as 0. <.>: mean over a statistic; for any u
///   u' = u - <u> - h <h u>,  A u = r u'  (A is dh/dx; it is symmetric)
/// With g = d y_bar, g_dot = d y_dot_bar, p = weight g, q = weight g_dot, u = x_dot, a = <h u>,
/// b = <h q>:
///   backward           x_bar = A p,  weight_bar += sum g h,  bias_bar += sum g
///   tangent            y_dot = d weight A u
///   tangent_backward   x_bar = A p - r^2 (b u' + a q' + k h),  k = <(q - <q>) u'>,
///                      weight_bar += sum (g h + g_dot A u),  bias_bar += sum g
/// x_bar of the last: sum q A u = N r k, with dr = -r^2 <h dx> and dh = A dx.
///
/// Sums: 16 running sums of T, each over at most 64 elements of a row, then in double; their order
/// depends on the shape alone. Mean and variance are two sweeps: large means cost no precision but
/// that of m itself, and a constant x gives h = 0 exactly.
/// NaN or infinity in x makes its whole statistic NaN, and so does a sum of squares that overflows.
/// Where n is NaN so is d, unless s = 1.
/// Parameters: weight [C], bias [C]. Kept for each statistic: m and r (saved), <q> and <h q> with
/// q = weight d y_bar (saved_bar), <u> and <h u> (saved_dot). Workspace: two sums for each channel
/// of a statistic.
/// Same bits for any number of threads: a statistic is one thread's. Nothing is allocated. x_bar
/// may lie over x or x_dot.
/// Measured with 384 channels, L = 197, B = 8, float, slope 0.2, on one thread of a Zen 4 EPYC,
/// g++ 12 -O3 -march=native: forward 0.14 ms, backward 0.21, tangent 0.18, tangent_backward 0.42;
/// loops that only read and write as much take a third of that. With plain -O2 0.33, 0.66, 0.43 and
/// 1.2 ms. Two threads take half. To reproduce: bench_heads_local_norm, its counter
/// stream.
/// Errors (output_shape): channels; B that G does not divide; virtual_batch < 1; epsilon that is
/// not a positive finite number; a slope that is not finite.
/// Sources: Ioffe & Szegedy, Batch Normalization, 2015; the groups: Sauer et al., StyleGAN-T, 2023.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/sums.hpp>

namespace addloss {
namespace detail {

/// What both kinds of normalisation check.
inline void check_norm(char const* function, feature_shape shape, std::int64_t channels,
                       double epsilon, double negative_slope) {
  if (shape.channels != channels) {
    fail(function, "x", text() << channels << " channels", text() << shape.channels);
  }
  if (!(epsilon > 0 && math::is_finite(epsilon))) {
    fail(function, "epsilon", "a positive number", text() << epsilon);
  }
  if (!math::is_finite(negative_slope)) {
    fail(function, "negative_slope", "a finite number", text() << negative_slope);
  }
}

constexpr parameter_view norm_parameter(std::int64_t channels, int i) {
  if (i == 0) return {"weight", 0, 1, {channels, 1, 1}, constant_value{1}};
  return {"bias", channels, 1, {channels, 1, 1}};
}

/// Sizes for `statistics` statistics over `width` channels each.
constexpr layer_sizes norm_sizes(std::int64_t statistics, std::int64_t width) {
  return {2 * statistics, 2 * statistics, 2 * statistics, 2 * statistics * width};
}

inline namespace ADDLOSS_ISA_NAMESPACE {

/// Where a register of elements lies in every row of a pass.
template <arithmetic_scalar T>
struct row_place {
  std::int64_t offset;

  [[nodiscard]] ADDLOSS_INLINE native_pack<T> load(T const* row) const {
    return native_pack<T>::load(row + offset);
  }
  ADDLOSS_INLINE void store(native_pack<T> elements, T* row) const { elements.store(row + offset); }
};

/// The same, where the first of them lie before the row: they are read as 0 and not written.
template <arithmetic_scalar T>
struct short_row_place {
  std::int64_t offset;  ///< below 0

  [[nodiscard]] ADDLOSS_INLINE native_pack<T> load(T const* row) const {
    T elements[native_pack<T>::width] = {};
    for (std::int64_t i = -offset; i < native_pack<T>::width; ++i) elements[i] = row[offset + i];
    return native_pack<T>::load(elements);
  }
  ADDLOSS_INLINE void store(native_pack<T> elements, T* row) const {
    T all[native_pack<T>::width];
    elements.store(all);
    for (std::int64_t i = -offset; i < native_pack<T>::width; ++i) row[offset + i] = all[i];
  }
};

/// to = values(place) at places that cover a row. Some elements are in two of them; `values` reads
/// all elements before they are written, so that `to` may be a row that it reads.
template <arithmetic_scalar T, class Values>
ADDLOSS_INLINE void write_row(std::int64_t length, T* to, Values const& values) {
  constexpr std::int64_t width = native_pack<T>::width;
  if (length < width) {
    short_row_place<T> const all{length - width};
    if (length > 0) all.store(values(all), to);
    return;
  }
  row_place<T> const end{length - width};
  native_pack<T> const at_end = values(end);
  for (std::int64_t l = 0; l + width <= length; l += width) {
    row_place<T> const at{l};
    at.store(values(at), to);
  }
  if (length % width != 0) end.store(at_end, to);
}

/// Running sums of a row, whatever the SIMD width.
inline constexpr unsigned row_lanes = 16;

/// The mask of the last n of the lanes, at n. Read and not computed: g++ 12 fails on the selection
/// that it makes of computed masks of doubles, without SSE 4.
template <arithmetic_scalar T>
struct row_lane_masks {
  integer_like_t<T> bits[2 * row_lanes] = {};

  constexpr row_lane_masks() {
    for (unsigned i = row_lanes; i < 2 * row_lanes; ++i) bits[i] = -1;
  }
};
template <arithmetic_scalar T>
inline constexpr row_lane_masks<T> last_row_lanes{};

/// Sums over rows, `Count` at once.
template <arithmetic_scalar T, unsigned Count>
struct row_sums {
  using pack = native_pack<T>;
  static constexpr unsigned lanes = row_lanes;
  static constexpr unsigned width = pack::width;
  static constexpr unsigned packs = lanes / width;
  static constexpr std::int64_t piece = std::int64_t{64} * lanes;

  struct terms {
    pack term[Count];
  };

  static constexpr unsigned wide_packs = lanes / wide_pack::width;
  wide_pack total[Count][wide_packs];

  ADDLOSS_INLINE row_sums() {
    for (auto& sum : total) {
      for (wide_pack& some : sum) some = wide_pack(0.0);
    }
  }

  /// Adds those of a row: terms_at(place) gives the terms of the elements there.
  template <class Terms>
  ADDLOSS_INLINE void add_row(std::int64_t length, Terms const& terms_at) {
    for (std::int64_t first = 0; first < length; first += piece) {
      std::int64_t const end = length - first < piece ? length : first + piece;
      pack sum[Count][packs];
      ADDLOSS_UNROLL(4)
      for (unsigned k = 0; k < Count; ++k) {
        ADDLOSS_UNROLL(8)
        for (unsigned j = 0; j < packs; ++j) sum[k][j] = pack(T(0));
      }
      std::int64_t l = first;
      for (; l + lanes <= end; l += lanes) {
        ADDLOSS_UNROLL(8)
        for (unsigned j = 0; j < packs; ++j) {
          terms const t = terms_at(row_place<T>{l + std::int64_t{j} * width});
          ADDLOSS_UNROLL(4)
          for (unsigned k = 0; k < Count; ++k) sum[k][j] += t.term[k];
        }
      }
      if (l < end) {
        // The row's last 16 elements once more, of which those at the end are new.
        std::int64_t const rest = end - l;
        ADDLOSS_UNROLL(8)
        for (unsigned j = 0; j < packs; ++j) {
          unsigned const lane = j * width;
          std::int64_t const offset = end - lanes + lane;
          terms const t =
              offset < 0 ? terms_at(short_row_place<T>{offset}) : terms_at(row_place<T>{offset});
          typename pack::mask is_new;
          std::memcpy(&is_new.bits, last_row_lanes<T>.bits + rest + lane, sizeof is_new.bits);
          ADDLOSS_UNROLL(4)
          for (unsigned k = 0; k < Count; ++k) sum[k][j] += select(is_new, t.term[k], pack(T(0)));
        }
      }
      ADDLOSS_UNROLL(4)
      for (unsigned k = 0; k < Count; ++k) {
        ADDLOSS_UNROLL(8)
        for (unsigned j = 0; j < packs; ++j) {
          add_wide(sum[k][j], total[k] + std::size_t{j} * width / wide_pack::width);
        }
      }
    }
  }

  /// Sum number k.
  [[nodiscard]] double operator[](unsigned k) const {
    double sum[lanes];
    for (std::size_t j = 0; j < wide_packs; ++j) total[k][j].store(sum + j * wide_pack::width);
    for (unsigned half = lanes / 2; half > 0; half /= 2) {
      for (unsigned j = 0; j < half; ++j) sum[j] += sum[j + half];
    }
    return sum[0];
  }
};

/// Normalises x [B, C, L], cut into boxes of `samples` consecutive samples by `width` consecutive
/// channels; each box is one statistic. `samples` divides B, `width` divides C.
template <arithmetic_scalar T>
struct normalizer {
  cpu_context const& ctx;
  layer_pass<T> const& pass;
  std::int64_t samples;
  std::int64_t width;
  double epsilon;
  double negative_slope;

  void forward() const {
    each_statistic([&](box part) {
      moments const stat = measure(part);
      pass.saved[2 * part.index] = stat.mean;
      pass.saved[2 * part.index + 1] = stat.scale;
      each_row(part, stat, [this](channel_map c, std::int64_t row) {
        T const* const x = pass.x + row;
        write_row(pass.shape.length, pass.y + row, [c, x](auto at) ADDLOSS_INLINE_LAMBDA {
          pack const n = c.normal(c.h(at.load(x)));
          return select(n > pack(T(0)), n, c.slope * n);
        });
      });
    });
  }

  void backward() const {
    if (pass.x_bar == nullptr && pass.w_bar == nullptr && pass.saved_bar == nullptr) return;
    each_statistic([&](box part) {
      moments const stat = moments_of(part);
      double mean = 0;
      double along = 0;
      each_channel(part, stat, [&](std::int64_t channel, channel_map c) {
        row_sums<T, 2> sums;
        each_sample(part, channel, [&](std::int64_t row) {
          T const* const x = pass.x + row;
          T const* const y_bar = pass.y_bar + row;
          sums.add_row(pass.shape.length, [c, x, y_bar](auto at) ADDLOSS_INLINE_LAMBDA {
            pack const h = c.h(at.load(x));
            pack const g = c.slope_at(h) * at.load(y_bar);
            return typename row_sums<T, 2>::terms{{g * h, g}};
          });
        });
        double const along_g = sums[0];
        double const sum_g = sums[1];
        auto const weight = static_cast<double>(pass.w[channel]);
        mean += weight * sum_g;
        along += weight * along_g;
        keep_parameter_sums(part, channel, along_g, sum_g);
      });
      projection const p = project(mean, along);
      if (pass.saved_bar != nullptr) keep(p, part, pass.saved_bar);
      if (pass.x_bar == nullptr) return;
      projection_packs const p_packs = spread(p);
      each_row(part, stat, [this, p_packs](channel_map c, std::int64_t row) {
        T const* const x = pass.x + row;
        T const* const y_bar = pass.y_bar + row;
        write_row(pass.shape.length, pass.x_bar + row,
                  [c, p_packs, x, y_bar](auto at) ADDLOSS_INLINE_LAMBDA {
                    pack const h = c.h(at.load(x));
                    pack const weighted = c.weight * (c.slope_at(h) * at.load(y_bar));
                    return c.scale * p_packs.rest(weighted, h);
                  });
      });
    });
    add_parameter_sums();
  }

  void tangent() const {
    each_statistic([&](box part) {
      moments const stat = moments_of(part);
      row_sums<T, 2> sums;
      each_row(part, stat, [&](channel_map c, std::int64_t row) {
        T const* const x = pass.x + row;
        T const* const x_dot = pass.x_dot + row;
        sums.add_row(pass.shape.length, [c, x, x_dot](auto at) ADDLOSS_INLINE_LAMBDA {
          pack const u = at.load(x_dot);
          return typename row_sums<T, 2>::terms{{u, u * c.h(at.load(x))}};
        });
      });
      projection const u = project(sums[0], sums[1]);
      keep(u, part, pass.saved_dot);
      if (pass.y_dot == nullptr) return;
      projection_packs const u_packs = spread(u);
      each_row(part, stat, [this, u_packs](channel_map c, std::int64_t row) {
        T const* const x = pass.x + row;
        T const* const x_dot = pass.x_dot + row;
        write_row(pass.shape.length, pass.y_dot + row,
                  [c, u_packs, x, x_dot](auto at) ADDLOSS_INLINE_LAMBDA {
                    pack const h = c.h(at.load(x));
                    pack const n_dot = c.weight * (c.scale * u_packs.rest(at.load(x_dot), h));
                    return c.slope_at(h) * n_dot;
                  });
      });
    });
  }

  void tangent_backward() const {
    if (pass.x_bar == nullptr && pass.w_bar == nullptr) return;
    each_statistic([&](box part) {
      moments const stat = moments_of(part);
      projection const u = kept(part, pass.saved_dot);
      projection const q = kept(part, pass.saved_bar);
      projection_packs const u_packs = spread(u);
      double mean = 0;
      double along = 0;
      double product = 0;
      each_channel(part, stat, [&](std::int64_t channel, channel_map c) {
        row_sums<T, 4> sums;
        each_sample(part, channel, [&](std::int64_t row) {
          T const* const x = pass.x + row;
          T const* const x_dot = pass.x_dot + row;
          T const* const y_bar = pass.y_bar + row;
          T const* const y_dot_bar = pass.y_dot_bar + row;
          sums.add_row(pass.shape.length,
                       [c, u_packs, x, x_dot, y_bar, y_dot_bar](auto at) ADDLOSS_INLINE_LAMBDA {
                         pack const h = c.h(at.load(x));
                         pack const d = c.slope_at(h);
                         pack const g = d * at.load(y_bar);
                         pack const g_dot = d * at.load(y_dot_bar);
                         pack const rest = u_packs.rest(at.load(x_dot), h);
                         return typename row_sums<T, 4>::terms{{g * h, g, g_dot * rest, rest}};
                       });
        });
        double const along_g = sums[0];
        double const sum_g = sums[1];
        double const product_g = sums[2];
        auto const weight = static_cast<double>(pass.w[channel]);
        mean += weight * sum_g;
        along += weight * along_g;
        // sum u' is 0 but for rounding, which a large <q> would magnify.
        product += weight * product_g - static_cast<double>(q.mean) * sums[3];
        keep_parameter_sums(part, channel, along_g + static_cast<double>(stat.scale) * product_g,
                            sum_g);
      });
      if (pass.x_bar == nullptr) return;
      projection_packs const p_packs = spread(project(mean, along));
      projection_packs const q_packs = spread(q);
      pack const k(static_cast<T>(product / count()));
      each_row(part, stat, [this, p_packs, q_packs, u_packs, k](channel_map c, std::int64_t row) {
        T const* const x = pass.x + row;
        T const* const x_dot = pass.x_dot + row;
        T const* const y_bar = pass.y_bar + row;
        T const* const y_dot_bar = pass.y_dot_bar + row;
        write_row(pass.shape.length, pass.x_bar + row,
                  [c, p_packs, q_packs, u_packs, k, x, x_dot, y_bar, y_dot_bar](auto at)
                      ADDLOSS_INLINE_LAMBDA {
                        pack const h = c.h(at.load(x));
                        pack const weight = c.weight * c.slope_at(h);
                        pack const u_rest = u_packs.rest(at.load(x_dot), h);
                        pack const q_rest = q_packs.rest(weight * at.load(y_dot_bar), h);
                        pack const second = q_packs.along * u_rest + u_packs.along * q_rest + k * h;
                        pack const first = p_packs.rest(weight * at.load(y_bar), h);
                        return c.scale * (first - c.scale * second);
                      });
      });
    });
    add_parameter_sums();
  }

 private:
  using pack = native_pack<T>;

  /// Samples from `batch` on, and channels from `channel` on, of statistic `index`.
  struct box {
    std::int64_t index;
    std::int64_t batch;
    std::int64_t channel;
  };

  struct moments {
    T mean;
    T scale;
  };

  /// The means of u and of h u.
  struct projection {
    T mean;
    T along;
  };
  struct projection_packs {
    pack mean;
    pack along;
    /// u'
    [[nodiscard]] ADDLOSS_INLINE pack rest(pack u, pack h) const { return u - mean - h * along; }
  };

  /// From the elements of one channel of a statistic to its h, n and d.
  struct channel_map {
    pack mean;
    pack scale;
    pack weight;
    pack bias;
    pack slope;
    pack unordered;  ///< d where n is NaN

    [[nodiscard]] ADDLOSS_INLINE pack h(pack x) const { return (x - mean) * scale; }
    [[nodiscard]] ADDLOSS_INLINE pack normal(pack h) const { return weight * h + bias; }
    [[nodiscard]] ADDLOSS_INLINE pack slope_at(pack h) const {
      pack const n = normal(h);
      return select(n > pack(T(0)), pack(T(1)), select(n <= pack(T(0)), slope, unordered));
    }
  };

  [[nodiscard]] std::int64_t statistics() const {
    if (pass.shape.size() == 0) return 0;
    return pass.shape.batch / samples * (pass.shape.channels / width);
  }
  [[nodiscard]] double count() const {
    return static_cast<double>(samples * width * pass.shape.length);
  }
  [[nodiscard]] std::int64_t row_offset(std::int64_t batch, std::int64_t channel) const {
    return (batch * pass.shape.channels + channel) * pass.shape.length;
  }

  template <class Body>
  void each_statistic(Body const& body) const {
    each_task(ctx, statistics(), pass.shape.size(), [&](std::int64_t s) {
      std::int64_t const across = pass.shape.channels / width;
      body(box{s, s / across * samples, s % across * width});
    });
  }
  /// body(channel, map) for each channel of a box.
  template <class Body>
  ADDLOSS_INLINE void each_channel(box part, moments stat, Body const& body) const {
    for (std::int64_t c = part.channel; c < part.channel + width; ++c) {
      body(c,
           channel_map{pack(stat.mean), pack(stat.scale), pack(pass.w[c]),
                       pack(pass.w[pass.shape.channels + c]), pack(static_cast<T>(negative_slope)),
                       pack(negative_slope == 1 ? T(1) : std::numeric_limits<T>::quiet_NaN())});
    }
  }
  /// body(offset) for the rows of a channel of a box.
  template <class Body>
  ADDLOSS_INLINE void each_sample(box part, std::int64_t channel, Body const& body) const {
    for (std::int64_t b = part.batch; b < part.batch + samples; ++b) body(row_offset(b, channel));
  }
  /// body(map, offset) for the rows of a box.
  template <class Body>
  ADDLOSS_INLINE void each_row(box part, moments stat, Body const& body) const {
    each_channel(part, stat, [&](std::int64_t channel, channel_map c) {
      each_sample(part, channel, [&](std::int64_t row) { body(c, row); });
    });
  }

  [[nodiscard]] moments measure(box part) const {
    // From the first element on: exact for a constant, and less to cancel for a large mean.
    std::int64_t const length = pass.shape.length;
    T const first = pass.x[row_offset(part.batch, part.channel)];
    pack const start(first);
    row_sums<T, 1> from_start;
    for (std::int64_t c = part.channel; c < part.channel + width; ++c) {
      each_sample(part, c, [&](std::int64_t row) {
        T const* const x = pass.x + row;
        from_start.add_row(length, [x, start](auto at) ADDLOSS_INLINE_LAMBDA {
          return typename row_sums<T, 1>::terms{{at.load(x) - start}};
        });
      });
    }
    auto const near = static_cast<T>(static_cast<double>(first) + from_start[0] / count());
    pack const center(near);
    row_sums<T, 2> from_center;
    for (std::int64_t c = part.channel; c < part.channel + width; ++c) {
      each_sample(part, c, [&](std::int64_t row) {
        T const* const x = pass.x + row;
        from_center.add_row(length, [x, center](auto at) ADDLOSS_INLINE_LAMBDA {
          pack const d = at.load(x) - center;
          return typename row_sums<T, 2>::terms{{d * d, d}};
        });
      });
    }
    // `near` is rounded: what it misses of the mean goes into both.
    double const missed = from_center[1] / count();
    double const variance = from_center[0] / count() - missed * missed;
    // Were 1 / sqrt(infinity) = 0 let through, h would be 0 without a trace of the overflow.
    double const scale = math::is_finite(variance) ? 1 / std::sqrt(variance + epsilon)
                                                   : std::numeric_limits<double>::quiet_NaN();
    return {static_cast<T>(static_cast<double>(near) + missed), static_cast<T>(scale)};
  }
  [[nodiscard]] moments moments_of(box part) const {
    return {pass.saved[2 * part.index], pass.saved[2 * part.index + 1]};
  }

  [[nodiscard]] projection project(double sum, double sum_along) const {
    return {static_cast<T>(sum / count()), static_cast<T>(sum_along / count())};
  }
  [[nodiscard]] static projection_packs spread(projection u) {
    return {pack(u.mean), pack(u.along)};
  }
  static void keep(projection u, box part, T* to) {
    to[2 * part.index] = u.mean;
    to[2 * part.index + 1] = u.along;
  }
  [[nodiscard]] static projection kept(box part, T const* from) {
    return {from[2 * part.index], from[2 * part.index + 1]};
  }

  /// A channel's part of the gradients of weight and bias from one statistic.
  void keep_parameter_sums(box part, std::int64_t channel, double weight_bar,
                           double bias_bar) const {
    if (pass.w_bar == nullptr) return;
    T* const to = pass.workspace + 2 * (part.index * width + channel - part.channel);
    to[0] = static_cast<T>(weight_bar);
    to[1] = static_cast<T>(bias_bar);
  }
  /// The statistics lie in the order of their samples, then channels: C channels for each
  /// `samples` samples.
  void add_parameter_sums() const {
    if (pass.w_bar == nullptr) return;
    std::int64_t const channels = pass.shape.channels;
    std::int64_t const parts = statistics() * width;
    each_task(ctx, channels, parts, [&](std::int64_t c) {
      double weight_bar = 0;
      double bias_bar = 0;
      for (std::int64_t i = c; i < parts; i += channels) {
        weight_bar += static_cast<double>(pass.workspace[2 * i]);
        bias_bar += static_cast<double>(pass.workspace[2 * i + 1]);
      }
      pass.w_bar[c] += static_cast<T>(weight_bar);
      pass.w_bar[channels + c] += static_cast<T>(bias_bar);
    });
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE

}  // namespace detail

struct local_norm {
  static constexpr bool in_place = true;

  std::int64_t channels;
  std::int64_t virtual_batch = 8;  ///< samples in a group, at most
  double epsilon = 1e-5;  ///< added to the variance
  double negative_slope = 1;  ///< of the leaky ReLU that follows; 1: none

  [[nodiscard]] constexpr std::int64_t groups(feature_shape shape) const {
    return (shape.batch + virtual_batch - 1) / virtual_batch;
  }

  [[nodiscard]] constexpr std::int64_t parameter_count() const { return 2 * channels; }
  [[nodiscard]] constexpr int parameters() const { return 2; }
  [[nodiscard]] constexpr parameter_view parameter(int i) const {
    return detail::norm_parameter(channels, i);
  }
  [[nodiscard]] feature_shape output_shape(char const* function, feature_shape shape) const {
    detail::check_norm(function, shape, channels, epsilon, negative_slope);
    if (virtual_batch < 1) {
      detail::fail(function, "virtual_batch", "at least 1", detail::text() << virtual_batch);
    }
    if (shape.batch > 0 && shape.batch % groups(shape) != 0) {
      detail::fail(function, "x",
                   detail::text() << "a batch that its " << groups(shape) << " groups of at most "
                                  << virtual_batch << " samples divide",
                   detail::text() << "a batch of " << shape.batch);
    }
    return shape;
  }
  [[nodiscard]] constexpr layer_sizes sizes(feature_shape shape) const {
    return detail::norm_sizes(channels * groups(shape), 1);
  }

  template <arithmetic_scalar T>
  void forward(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).forward();
  }
  template <arithmetic_scalar T>
  void backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).backward();
  }
  template <arithmetic_scalar T>
  void tangent(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).tangent();
  }
  template <arithmetic_scalar T>
  void tangent_backward(cpu_context const& ctx, layer_pass<T> const& p) const {
    over(ctx, p).tangent_backward();
  }

 private:
  template <class T>
  detail::normalizer<T> over(cpu_context const& ctx, layer_pass<T> const& p) const {
    std::int64_t const samples = p.shape.batch > 0 ? p.shape.batch / groups(p.shape) : 0;
    return {ctx, p, samples, 1, epsilon, negative_slope};
  }
};

static_assert(layer<local_norm, float> && layer<local_norm, double>);

}  // namespace addloss
