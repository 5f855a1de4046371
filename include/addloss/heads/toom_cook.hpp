// SPDX-License-Identifier: MIT
/// The nine-tap circular convolution of a head with 4 times fewer multiplications.
///
/// A tile of 18 outputs y[3 i + j] = sum_{a,b} w[3 a + b] x[3 (i + a) + (j + b)], i < 6, j < 3, is
/// a six-output three-tap correlation of three-output three-tap ones, each done by Toom-Cook:
///   y = A^T [ (G w) . (B^T x) ],   A, G, B Kronecker products of an outer and an inner matrix,
/// F(6, 3) at the points 0, 1, -1, 2, -2, 1/2, -1/2, infinity and F(3, 3) at 0, 1, -1, 2, infinity:
/// 8 x 5 = 40 multiplications for 18 x 9. The sum over input channels moves inside: with tiles as
/// rows,
///   y = A^T M,  M_k = V_k U_k,  V = B^T x [tiles, in],  U = G w [in, out],  k < 40
/// and, each step transposed,
///   x_bar = B D,  D_k = E_k U_k^T,  E = A y_bar;   w_bar = G^T Z,  Z_k = V_k^T E_k
/// V and E serve several of these products, so the caller keeps them.
/// Layout of V, E, M, D: [point][panel of channels][tile][channel in the panel], a panel as wide as
/// the matrix products (heads/matrix_product.hpp): rows, transposed rows and panels of a product
/// are all read from it as they are, and nothing is packed. Missing channels and tiles hold zeros.
/// Error in float: B^T and A^T have entries up to 21/4 and 32, so roundings grow to some units of
/// the last place of the largest |w| |x| (conv1d.hpp gives what is measured).
/// Source: Lavin, Gray, Fast Algorithms for Convolutional Neural Networks, 2016; nested: Agarwal,
/// Cooley, New Algorithms for Digital Convolution, 1977; matrices: Cook and Toom's interpolation at
/// the points above, inner rows of B^T scaled to integers, outer ones so that every entry is exact.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <addloss/core/math.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/simd.hpp>
#include <addloss/core/tasks.hpp>
#include <addloss/heads/lanes.hpp>
#include <addloss/heads/matrix_product.hpp>

namespace addloss::detail {

/// A^T [outputs, points], G [points, 3] and B^T [points, points] of F(6, 3). The rows of G at x and
/// -x differ in the sign of their odd column alone: such points are transformed together.
struct outer_toom_cook {
  static constexpr int outputs = 6;
  static constexpr int points = 8;
  static constexpr int groups = 5;  ///< of points whose weights are transformed together
  static constexpr int first_of_group[groups + 1] = {0, 1, 3, 5, 7, 8};
  static constexpr int largest_group = 2;
  static constexpr double a[outputs][points] = {{1, 1, 1, 1, 1, 1, 1, 0},
                                                {0, 1, -1, 2, -2, 1. / 2, -1. / 2, 0},
                                                {0, 1, 1, 4, 4, 1. / 4, 1. / 4, 0},
                                                {0, 1, -1, 8, -8, 1. / 8, -1. / 8, 0},
                                                {0, 1, 1, 16, 16, 1. / 16, 1. / 16, 0},
                                                {0, 1, -1, 32, -32, 1. / 32, -1. / 32, 1}};
  static constexpr double g[points][3] = {{1, 0, 0},
                                          {-2. / 9, -2. / 9, -2. / 9},
                                          {-2. / 9, 2. / 9, -2. / 9},
                                          {1. / 90, 1. / 45, 2. / 45},
                                          {1. / 90, -1. / 45, 2. / 45},
                                          {32. / 45, 16. / 45, 8. / 45},
                                          {32. / 45, -16. / 45, 8. / 45},
                                          {0, 0, 1}};
  static constexpr double b[points][points] = {{1, 0, -21. / 4, 0, 21. / 4, 0, -1, 0},
                                               {0, 1, 1, -17. / 4, -17. / 4, 1, 1, 0},
                                               {0, -1, 1, 17. / 4, -17. / 4, -1, 1, 0},
                                               {0, 1. / 2, 1. / 4, -5. / 2, -5. / 4, 2, 1, 0},
                                               {0, -1. / 2, 1. / 4, 5. / 2, -5. / 4, -2, 1, 0},
                                               {0, 2, 4, -5. / 2, -5, 1. / 2, 1, 0},
                                               {0, -2, 4, 5. / 2, -5, -1. / 2, 1, 0},
                                               {0, -1, 0, 21. / 4, 0, -21. / 4, 0, 1}};

  static constexpr bool groups_are_mirrored() {
    bool mirrored = true;
    for (int group = 0; group < groups; ++group) {
      int const p = first_of_group[group];
      if (first_of_group[group + 1] - p == 1) continue;
      mirrored &= g[p + 1][0] == g[p][0] && g[p + 1][1] == -g[p][1] && g[p + 1][2] == g[p][2];
    }
    return mirrored;
  }
};
static_assert(outer_toom_cook::groups_are_mirrored());

/// The same of F(3, 3).
struct inner_toom_cook {
  static constexpr int outputs = 3;
  static constexpr int points = 5;
  static constexpr double a[outputs][points] = {{1, 1, 1, 1, 0}, {0, 1, -1, 2, 0}, {0, 1, 1, 4, 1}};
  static constexpr double g[points][3] = {{1. / 2, 0, 0},
                                          {1. / 2, 1. / 2, 1. / 2},
                                          {1. / 6, -1. / 6, 1. / 6},
                                          {1. / 6, 1. / 3, 2. / 3},
                                          {0, 0, 1}};
  static constexpr double b[points][points] = {
      {2, -1, -2, 1, 0}, {0, 2, 1, -1, 0}, {0, -2, 3, -1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}};
};

inline namespace ADDLOSS_ISA_NAMESPACE {

/// body(integral_constant<0>), ..., body(integral_constant<Count - 1>)
template <int Count, class Body>
ADDLOSS_INLINE void unrolled(Body const& body) {
  [&]<int... N>(std::integer_sequence<int, N...>) ADDLOSS_INLINE_LAMBDA {
    (body(std::integral_constant<int, N>{}), ...);
  }(std::make_integer_sequence<int, Count>{});
}

template <auto const& Matrix, int Row>
struct matrix_row {
  static constexpr double at(int n) { return Matrix[Row][n]; }
  template <int N>
  static constexpr double term = Matrix[Row][N];  // which device code can read
};
template <auto const& Matrix, int Column>
struct matrix_column {
  static constexpr double at(int n) { return Matrix[n][Column]; }
  template <int N>
  static constexpr double term = Matrix[N][Column];
};

template <class Coefficients>
constexpr int first_term() {
  int n = 0;
  while (Coefficients::at(n) == 0) ++n;
  return n;
}

/// sum_n Coefficients::at(n) value(n): terms of 0 are left out, those of +-1 not multiplied.
/// `value` is called with an integral_constant.
template <class Pack, class Coefficients, int Count, class Value>
ADDLOSS_INLINE Pack linear_combination(Value const& value) {
  using number = typename Pack::value_type;
  Pack sum(number(0));
  unrolled<Count>([&](auto n) ADDLOSS_INLINE_LAMBDA {
    constexpr double c = Coefficients::at(n);
    constexpr bool first = first_term<Coefficients>() == n;
    if constexpr (c == 0) {
    } else if constexpr (first) {
      if constexpr (c == 1) sum = value(n);
      else if constexpr (c == -1) sum = -value(n);
      else sum.lanes = static_cast<number>(c) * value(n).lanes;
    } else {
      if constexpr (c == 1) sum.lanes += value(n).lanes;
      else if constexpr (c == -1) sum.lanes -= value(n).lanes;
      else sum.lanes += static_cast<number>(c) * value(n).lanes;
    }
  });
  return sum;
}

/// Rows of a product, [row][column of the panel], times a panel of columns.
template <arithmetic_scalar T>
struct panel_term {
  T const* rows;
  T const* columns;
  std::int64_t depth;
};

/// c[i][j] = sum over terms and p of  a(i, p) b(p, j)  for one tile of a panel; b(p, j) =
/// columns[p][j]. a(i, p) = rows[i][p], or rows[p][i] where `Transposed`. `add`: the sum goes on
/// from what is in c.
template <arithmetic_scalar T, bool Transposed, class Terms>
[[gnu::noinline]] void multiply_panel_tile(Terms const& term, std::int64_t terms, bool add, T* c) {
  using tile = product_tile<T>;
  using pack = typename tile::pack;
  constexpr int width = pack::width;
  constexpr std::int64_t row_stride = Transposed ? 1 : tile::columns;
  constexpr std::int64_t depth_stride = Transposed ? tile::columns : 1;
  pack sum[tile::rows][tile::vectors];
  ADDLOSS_UNROLL(8)
  for (int i = 0; i < tile::rows; ++i) {
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < tile::vectors; ++j) {
      sum[i][j] = add ? pack::load(c + i * tile::columns + j * width) : pack(T(0));
    }
  }
  for (std::int64_t n = 0; n < terms; ++n) {
    panel_term<T> const t = term(n);
    T const* a = t.rows;
    T const* b = t.columns;
    for (std::int64_t p = 0; p < t.depth; ++p, a += depth_stride, b += tile::columns) {
      pack factor[tile::vectors];
      ADDLOSS_UNROLL(3)
      for (int j = 0; j < tile::vectors; ++j) factor[j] = pack::load(b + j * width);
      ADDLOSS_UNROLL(8)
      for (int i = 0; i < tile::rows; ++i) {
        T const scale = a[i * row_stride];
        ADDLOSS_UNROLL(3)
        for (int j = 0; j < tile::vectors; ++j) sum[i][j].lanes += scale * factor[j].lanes;
      }
    }
  }
  ADDLOSS_UNROLL(8)
  for (int i = 0; i < tile::rows; ++i) {
    ADDLOSS_UNROLL(3)
    for (int j = 0; j < tile::vectors; ++j) sum[i][j].store(c + i * tile::columns + j * width);
  }
}

/// The convolution of one shape. Buffers: `tensor_size(channels)` numbers for V, E, M, D;
/// `scratch_size()` for all else, which is a transposed copy of a tensor, or the weights of each
/// panel. These are transformed, and products taken, for one group of outer points at a time, so
/// that what a thread works on stays in its second-level cache.
template <arithmetic_scalar T>
struct toom_cook {
  using outer = outer_toom_cook;
  using inner = inner_toom_cook;
  using tile = product_tile<T>;
  using pack = native_pack<T>;
  static constexpr int taps = 9;
  static constexpr int step = outer::outputs * inner::outputs;
  static constexpr int points = outer::points * inner::points;
  static constexpr int window = 3 * (outer::points - 1) + inner::points;
  static_assert(tile::columns % tile::rows == 0);

  int threads;
  std::int64_t batch;
  std::int64_t length;
  std::int64_t in_channels;
  std::int64_t out_channels;

  [[nodiscard]] std::int64_t tiles() const { return (length + step - 1) / step; }
  [[nodiscard]] std::int64_t rows() const { return batch * tiles(); }
  [[nodiscard]] std::int64_t padded_rows() const { return round_up(rows(), tile::rows); }
  static std::int64_t panels(std::int64_t channels) {
    return (channels + tile::columns - 1) / tile::columns;
  }
  static std::int64_t groups(std::int64_t channels) {
    return (channels + pack::width - 1) / pack::width;
  }
  [[nodiscard]] std::int64_t panel_stride() const { return padded_rows() * tile::columns; }
  /// Not a multiple of 4096 bytes: a transform writes to all points at once, and they would share
  /// few lines of the first-level cache.
  [[nodiscard]] std::int64_t point_stride(std::int64_t channels) const {
    constexpr std::int64_t page = 4096 / sizeof(T);
    constexpr std::int64_t line = 64 / sizeof(T);
    return round_up(panels(channels) * panel_stride(), page) + line;
  }
  [[nodiscard]] std::int64_t tensor_size(std::int64_t channels) const {
    return points * point_stride(channels);
  }
  [[nodiscard]] std::int64_t scratch_size() const {
    std::int64_t result = 0;
    auto const at_least = [&](std::int64_t size) { result = size > result ? size : result; };
    at_least(batch * groups(in_channels) * length * pack::width);
    at_least(batch * groups(out_channels) * length * pack::width);
    at_least(panels(out_channels) * panel_weights::size(weights_depth(in_channels)));
    at_least(panels(in_channels) * panel_weights::size(weights_depth(out_channels)));
    return result;
  }

  /// V = B^T x
  void transform(T const* x, T* scratch, T* v) const {
    each_group(in_channels, scratch, [&](group const& g) {
      gather_channels(x + g.first(in_channels) * length, length, length, g.channels(in_channels),
                      g.lanes);
      for (std::int64_t q = 0; q < tiles(); ++q) {
        array_of<T const*, window> token;
        for (int r = 0; r < window; ++r) token[r] = g.lanes + wrapped(q, r) * pack::width;
        T* const to = v + place(g, q);
        std::int64_t const stride = point_stride(in_channels);
        unrolled<inner::points>([&](auto s) ADDLOSS_INLINE_LAMBDA {
          pack part[outer::points];
          unrolled<outer::points>([&](auto k) ADDLOSS_INLINE_LAMBDA {
            part[k] = linear_combination<pack, matrix_row<inner::b, s>, inner::points>(
                [&](auto m) ADDLOSS_INLINE_LAMBDA { return pack::load(token[3 * k + m]); });
          });
          unrolled<outer::points>([&](auto p) ADDLOSS_INLINE_LAMBDA {
            linear_combination<pack, matrix_row<outer::b, p>, outer::points>(
                [&](auto k) ADDLOSS_INLINE_LAMBDA { return part[k]; })
                .store(to + (p * inner::points + s) * stride);
          });
        });
      }
      clear_padding(g, in_channels, v);
    });
  }

  /// y = A^T M + bias; bias null: 0
  void inverse(T const* m, T const* bias, T* scratch, T* y) const {
    each_group(out_channels, scratch, [&](group const& g) {
      std::int64_t const channels = g.channels(out_channels);
      T start[pack::width] = {};
      for (std::int64_t j = 0; bias != nullptr && j < channels; ++j) {
        start[j] = bias[g.index * pack::width + j];
      }
      for (std::int64_t q = 0; q < tiles(); ++q) {
        T const* const from = m + place(g, q);
        std::int64_t const stride = point_stride(out_channels);
        pack sum[outer::outputs][inner::outputs];
        unrolled<outer::points>([&](auto p) ADDLOSS_INLINE_LAMBDA {
          pack value[inner::points];
          unrolled<inner::points>([&](auto s) ADDLOSS_INLINE_LAMBDA {
            value[s] = pack::load(from + (p * inner::points + s) * stride);
          });
          unrolled<inner::outputs>([&](auto j) ADDLOSS_INLINE_LAMBDA {
            pack const part = linear_combination<pack, matrix_row<inner::a, j>, inner::points>(
                [&](auto s) ADDLOSS_INLINE_LAMBDA { return value[s]; });
            unrolled<outer::outputs>([&](auto i) ADDLOSS_INLINE_LAMBDA {
              constexpr double c = outer::a[i][p];
              if constexpr (p == 0) sum[i][j] = pack::load(start);
              if constexpr (c != 0) sum[i][j].lanes += static_cast<T>(c) * part.lanes;
            });
          });
        });
        std::int64_t const first = q * step;
        unrolled<step>([&](auto n) ADDLOSS_INLINE_LAMBDA {
          std::int64_t const l = first + n;
          if (l >= length) return;
          sum[n / inner::outputs][n % inner::outputs].store(g.lanes + l * pack::width);
        });
      }
      scatter_channels(g.lanes, length, channels, y + g.first(out_channels) * length);
    });
  }

  /// E = A y_bar
  void transform_gradient(T const* y_bar, T* scratch, T* e) const {
    each_group(out_channels, scratch, [&](group const& g) {
      gather_channels(y_bar + g.first(out_channels) * length, length, length,
                      g.channels(out_channels), g.lanes);
      alignas(64) static constexpr T zeros[pack::width] = {};
      for (std::int64_t q = 0; q < tiles(); ++q) {
        array_of<T const*, step> token;
        for (int n = 0; n < step; ++n) {
          std::int64_t const l = q * step + n;
          token[n] = l < length ? g.lanes + l * pack::width : zeros;
        }
        T* const to = e + place(g, q);
        std::int64_t const stride = point_stride(out_channels);
        unrolled<inner::points>([&](auto s) ADDLOSS_INLINE_LAMBDA {
          pack part[outer::outputs];
          unrolled<outer::outputs>([&](auto i) ADDLOSS_INLINE_LAMBDA {
            part[i] = linear_combination<pack, matrix_column<inner::a, s>, inner::outputs>(
                [&](auto j) ADDLOSS_INLINE_LAMBDA { return pack::load(token[3 * i + j]); });
          });
          unrolled<outer::points>([&](auto p) ADDLOSS_INLINE_LAMBDA {
            linear_combination<pack, matrix_column<outer::a, p>, outer::outputs>(
                [&](auto i) ADDLOSS_INLINE_LAMBDA { return part[i]; })
                .store(to + (p * inner::points + s) * stride);
          });
        });
      }
      clear_padding(g, out_channels, e);
    });
  }

  /// x_bar = B D
  void inverse_gradient(T const* d, T* scratch, T* x_bar) const {
    each_group(in_channels, scratch, [&](group const& g) {
      for (std::int64_t i = 0; i < length * pack::width; ++i) g.lanes[i] = T(0);
      for (std::int64_t q = 0; q < tiles(); ++q) {
        T const* const from = d + place(g, q);
        std::int64_t const stride = point_stride(in_channels);
        unrolled<outer::points>([&](auto k) ADDLOSS_INLINE_LAMBDA {
          pack part[inner::points];
          unrolled<inner::points>([&](auto s) ADDLOSS_INLINE_LAMBDA {
            part[s] = linear_combination<pack, matrix_column<outer::b, k>, outer::points>(
                [&](auto p) ADDLOSS_INLINE_LAMBDA {
                  return pack::load(from + (p * inner::points + s) * stride);
                });
          });
          unrolled<inner::points>([&](auto m) ADDLOSS_INLINE_LAMBDA {
            T* const token = g.lanes + wrapped(q, 3 * k + m) * pack::width;
            pack sum = pack::load(token);
            sum += linear_combination<pack, matrix_column<inner::b, m>, inner::points>(
                [&](auto s) ADDLOSS_INLINE_LAMBDA { return part[s]; });
            sum.store(token);
          });
        });
      }
      scatter_channels(g.lanes, length, g.channels(in_channels),
                       x_bar + g.first(in_channels) * length);
    });
  }

  /// M = V U
  void multiply(T const* w, T const* v, T* scratch, T* m) const {
    products(w, {in_channels, taps}, {out_channels, in_channels * taps}, v, scratch, m);
  }
  /// D = E U^T
  void multiply_transposed(T const* w, T const* e, T* scratch, T* d) const {
    products(w, {out_channels, in_channels * taps}, {in_channels, taps}, e, scratch, d);
  }

  /// w_bar += G^T (V^T E + V_dot^T E_dot); V_dot null: without the second term.
  void add_weight_gradient(T const* v, T const* e, T const* v_dot, T const* e_dot, T* scratch,
                           T* w_bar) const {
    each_weights(in_channels, out_channels, scratch, [&](panel_weights const& weights) {
      std::int64_t const fetched = rows() * tile::columns / (tile::columns / tile::rows);
      std::memset(weights.taps, 0, sizeof(T) * static_cast<std::size_t>(weights.taps_size()));
      unrolled<outer::groups>([&](auto g) {
        int const first = outer::first_of_group[g] * inner::points;
        int const end = outer::first_of_group[g + 1] * inner::points;
        for (int k = first; k < end; ++k) {
          T const* const columns =
              v + k * point_stride(in_channels) + weights.panel * panel_stride();
          T const* const columns_dot = v_dot == nullptr ? nullptr : v_dot + (columns - v);
          for (std::int64_t o = 0; o < weights.channels; o += tile::rows) {
            std::int64_t const row = k * point_stride(out_channels) +
                                     (weights.first + o) / tile::columns * panel_stride() +
                                     o % tile::columns;
            // A share of the next panel, in time: it comes from the third-level cache.
            std::int64_t const share = o % tile::columns / tile::rows * fetched;
            fetch(e + row - o % tile::columns + panel_stride() + share, fetched);
            if (e_dot != nullptr) {
              fetch(e_dot + row - o % tile::columns + panel_stride() + share, fetched);
            }
            multiply_panel_tile<T, true>(
                [&](std::int64_t n) {
                  return n == 0 ? panel_term<T>{e + row, columns, rows()}
                                : panel_term<T>{e_dot + row, columns_dot, rows()};
                },
                v_dot == nullptr ? 1 : 2, false, weights.point(k - first) + o * tile::columns);
          }
        }
        weights.template add_transposed<g>();
      });
      add_panel(weights, w_bar);
    });
  }

 private:
  /// A sample's channels that fill a vector.
  struct group {
    std::int64_t sample;
    std::int64_t index;
    T* lanes;  ///< [length][channels of the group]
    /// Row of its first channel in a tensor of `channels`.
    [[nodiscard]] std::int64_t first(std::int64_t channels) const {
      return sample * channels + index * pack::width;
    }
    [[nodiscard]] std::int64_t channels(std::int64_t all) const {
      return at_most(pack::width, all - index * pack::width);
    }
  };

  template <class Body>
  void each_group(std::int64_t channels, T* scratch, Body const& body) const {
    std::int64_t const count = groups(channels);
    each_task(threads, batch * count, [&](std::int64_t task) {
      body(group{task / count, task % count, scratch + task * length * pack::width});
    });
  }

  /// Token r of the window of a tile.
  [[nodiscard]] std::int64_t wrapped(std::int64_t q, int r) const {
    std::int64_t l = (q * step + r - taps / 2) % length;
    return l < 0 ? l + length : l;
  }

  /// Of a tile's vector in V, E, M, D, at the first point.
  [[nodiscard]] std::int64_t place(group const& g, std::int64_t q) const {
    return g.index / tile::vectors * panel_stride() + (g.sample * tiles() + q) * tile::columns +
           g.index % tile::vectors * pack::width;
  }

  /// Zeros for the channels past the last group, which are summed over, and for the rows past the
  /// last tile, which only should not be read before they are written. The last groups of a sample
  /// write those of their panel.
  void clear_padding(group const& g, std::int64_t channels, T* tensor) const {
    std::int64_t const count = groups(channels);
    std::int64_t const last = g.index + 1 == count ? panels(channels) * tile::vectors : g.index + 1;
    for (int k = 0; k < points; ++k) {
      for (std::int64_t index = g.index; index < last; ++index) {
        std::int64_t const from = index == g.index ? tiles() : 0;
        std::int64_t const end =
            g.sample + 1 == batch ? padded_rows() - g.sample * tiles() : tiles();
        group const padding{g.sample, index, nullptr};
        for (std::int64_t q = from; q < end; ++q) {
          pack(T(0)).store(tensor + k * point_stride(channels) + place(padding, q));
        }
      }
    }
  }

  struct axis {
    std::int64_t size;
    std::int64_t stride;
  };

  /// The weights between `channels` channels from `first` on and the channels of a panel, as
  /// vectors along the panel: taps [depth][9], and their transform for a group of outer points,
  /// [points][depth].
  struct panel_weights {
    std::int64_t panel;
    std::int64_t first;
    std::int64_t channels;
    std::int64_t depth;  ///< the channels, and what is missing of a whole panel
    T* taps;

    /// Not a multiple of 4096 bytes, as in point_stride.
    static std::int64_t point_size(std::int64_t depth) {
      return depth * tile::columns + static_cast<std::int64_t>(64 / sizeof(T));
    }
    static std::int64_t size(std::int64_t depth) {
      return depth * toom_cook::taps * tile::columns + group_points * point_size(depth);
    }
    [[nodiscard]] std::int64_t taps_size() const { return depth * toom_cook::taps * tile::columns; }
    [[nodiscard]] T* point(int k) const { return taps + taps_size() + k * point_size(depth); }

    /// G w at the outer points of a group.
    template <int Group>
    void transform() const {
      constexpr int begin = outer::first_of_group[Group];
      constexpr int count = outer::first_of_group[Group + 1] - begin;
      each_vector([&](T const* tap, T* point) ADDLOSS_INLINE_LAMBDA {
        array_of<array_of<pack, 3>, count> part;
        unrolled<3>([&](auto b) ADDLOSS_INLINE_LAMBDA {
          auto const weight = [&](auto a) ADDLOSS_INLINE_LAMBDA {
            return pack::load(tap + (3 * a + b) * tile::columns);
          };
          if constexpr (count == 1) {
            part[0][b] = linear_combination<pack, matrix_row<outer::g, begin>, 3>(weight);
          } else {
            pack const even = linear_combination<pack, even_terms<begin>, 3>(weight);
            pack const odd = linear_combination<pack, odd_terms<begin>, 3>(weight);
            part[0][b] = even + odd;
            part[1][b].lanes = even.lanes - odd.lanes;
          }
        });
        unrolled<count>([&](auto p) ADDLOSS_INLINE_LAMBDA {
          unrolled<inner::points>([&](auto s) ADDLOSS_INLINE_LAMBDA {
            linear_combination<pack, matrix_row<inner::g, s>, 3>([&](auto b) ADDLOSS_INLINE_LAMBDA {
              return part[p][b];
            }).store(point + (p * inner::points + s) * point_size(depth));
          });
        });
      });
    }
    /// taps += G^T Z, of the outer points of a group.
    template <int Group>
    void add_transposed() const {
      constexpr int begin = outer::first_of_group[Group];
      constexpr int count = outer::first_of_group[Group + 1] - begin;
      each_vector([&](T* tap, T const* point) ADDLOSS_INLINE_LAMBDA {
        unrolled<3>([&](auto b) ADDLOSS_INLINE_LAMBDA {
          auto const part = [&](int p) ADDLOSS_INLINE_LAMBDA {
            return linear_combination<pack, matrix_column<inner::g, b>, inner::points>(
                [&](auto s) ADDLOSS_INLINE_LAMBDA {
                  return pack::load(point + (p * inner::points + s) * point_size(depth));
                });
          };
          pack even = part(0);
          pack odd = even;
          if constexpr (count == 2) {
            pack const other = part(1);
            odd.lanes -= other.lanes;
            even += other;
          }
          unrolled<3>([&](auto a) ADDLOSS_INLINE_LAMBDA {
            constexpr double c = outer::g[begin][a];
            if constexpr (c != 0) {
              T* const to = tap + (3 * a + b) * tile::columns;
              pack sum = pack::load(to);
              sum.lanes += static_cast<T>(c) * (a % 2 == 0 ? even : odd).lanes;
              sum.store(to);
            }
          });
        });
      });
    }

   private:
    static constexpr int group_points = outer::largest_group * inner::points;

    /// Row P of the outer G, without its odd column, and that column alone.
    template <int P>
    struct even_terms {
      static constexpr double at(int n) { return n % 2 == 0 ? outer::g[P][n] : 0; }
    };
    template <int P>
    struct odd_terms {
      static constexpr double at(int n) { return n % 2 == 0 ? 0 : outer::g[P][n]; }
    };

    template <class Body>
    void each_vector(Body const& body) const {
      for (std::int64_t p = 0; p < depth; ++p) {
        for (int j = 0; j < tile::columns; j += pack::width) {
          body(taps + p * toom_cook::taps * tile::columns + j, point(0) + p * tile::columns + j);
        }
      }
    }
  };

  /// Channels whose weights are worked on at a time: the taps and the transforms of these and a
  /// panel are read once for each outer point, and should stay in the second-level cache.
  static std::int64_t weights_depth(std::int64_t channels) {
    constexpr std::int64_t bytes = 384 << 10;
    constexpr auto a_panel = static_cast<std::int64_t>(sizeof(T)) * tile::columns * tile::columns *
                             (taps + outer::largest_group * inner::points);
    static_assert(a_panel <= bytes);
    constexpr std::int64_t most = bytes / a_panel * tile::columns;
    return at_most(most, panels(channels) * tile::columns);
  }

  /// body(weights) for the weights between all `depth` channels and each panel of `columns`; those
  /// of a panel by the same thread, in order.
  template <class Body>
  void each_weights(std::int64_t columns, std::int64_t depth, T* scratch, Body const& body) const {
    std::int64_t const block = weights_depth(depth);
    each_task(threads, panels(columns), [&](std::int64_t panel) {
      for (std::int64_t first = 0; first < depth; first += block) {
        std::int64_t const channels = at_most(block, depth - first);
        body(panel_weights{panel, first, channels, panels(channels) * tile::columns,
                           scratch + panel * panel_weights::size(block)});
      }
    });
  }

  void products(T const* w, axis depth, axis columns, T const* from, T* scratch, T* to) const {
    each_weights(columns.size, depth.size, scratch, [&](panel_weights const& weights) {
      load_panel(w, depth, columns, weights);
      unrolled<outer::groups>([&](auto g) {
        weights.template transform<g>();
        int const first = outer::first_of_group[g] * inner::points;
        int const end = outer::first_of_group[g + 1] * inner::points;
        for (int k = first; k < end; ++k) {
          T const* const rows_of =
              from + k * point_stride(depth.size) + weights.first / tile::columns * panel_stride();
          T* const c = to + k * point_stride(columns.size) + weights.panel * panel_stride();
          for (std::int64_t row = 0; row < padded_rows(); row += tile::rows) {
            // These rows of the next point, in time: they come from the third-level cache.
            for (std::int64_t n = 0; n < panels(weights.channels); ++n) {
              fetch(rows_of + point_stride(depth.size) + n * panel_stride() + row * tile::columns,
                    tile::rows * tile::columns);
            }
            multiply_panel_tile<T, false>(
                [&](std::int64_t n) {
                  return panel_term<T>{rows_of + n * panel_stride() + row * tile::columns,
                                       weights.point(k - first) + n * tile::columns * tile::columns,
                                       tile::columns};
                },
                panels(weights.channels), weights.first > 0, c + row * tile::columns);
          }
        }
      });
    });
  }

  /// Weight (p, j) has its taps at w + p depth.stride + j columns.stride.
  void load_panel(T const* w, axis depth, axis columns, panel_weights const& weights) const {
    constexpr int row = taps * tile::columns;
    w += weights.first * depth.stride;
    for (int j = 0; j < tile::columns; j += pack::width) {
      std::int64_t const first = weights.panel * tile::columns + j;
      std::int64_t const count = clamped(columns.size - first);
      T const* const from = w + first * columns.stride;
      if (columns.stride != taps && count > 0) {
        gather_channels(from, columns.stride, weights.channels * taps, count, weights.taps + j,
                        tile::columns);
      }
    }
    if (columns.stride == taps) {
      for (std::int64_t p = 0; p < weights.channels; ++p) {
        for (int j = 0; j < tile::columns; j += pack::width) {
          std::int64_t const first = weights.panel * tile::columns + j;
          std::int64_t const count = clamped(columns.size - first);
          bool const at_end = weights.first + p + 1 == depth.size && first + count == columns.size;
          T const* const from = w + p * depth.stride + first * taps;
          T* const to = weights.taps + p * row + j;
          if (count == pack::width && !at_end) {
            load_taps(from, to, tile::columns);
          } else {
            for (int t = 0; t < taps; ++t) {
              for (std::int64_t i = 0; i < pack::width; ++i) {
                to[t * tile::columns + i] = i < count ? from[i * taps + t] : T(0);
              }
            }
          }
        }
      }
    }
    std::memset(weights.taps + weights.channels * row, 0,
                sizeof(T) * static_cast<std::size_t>((weights.depth - weights.channels) * row));
  }

  /// Asks for numbers that will be read soon.
  static void fetch(T const* from, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += 64 / static_cast<std::int64_t>(sizeof(T))) {
      __builtin_prefetch(from + i, 0, 2);
    }
  }

  /// Of the `left` channels from some place on, those of one vector.
  static std::int64_t clamped(std::int64_t left) {
    return left < 0 ? 0 : at_most(pack::width, left);
  }

  /// w_bar += a panel of input channels.
  void add_panel(panel_weights const& weights, T* w_bar) const {
    for (std::int64_t o = 0; o < weights.channels; ++o) {
      for (int j = 0; j < tile::columns; j += pack::width) {
        std::int64_t const first = weights.panel * tile::columns + j;
        std::int64_t const count = clamped(in_channels - first);
        T const* const from = weights.taps + o * taps * tile::columns + j;
        T* to = w_bar + ((weights.first + o) * in_channels + first) * taps;
        if (count == pack::width) {
          add_taps(from, tile::columns, to);
          continue;
        }
        for (std::int64_t i = 0; i < count; ++i) {
          for (int t = 0; t < taps; ++t) *to++ += from[t * tile::columns + i];
        }
      }
    }
  }
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
