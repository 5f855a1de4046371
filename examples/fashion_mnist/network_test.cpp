// SPDX-License-Identifier: MIT
// Networks and optimiser of the example: derivatives against finite differences in double, the same
// bits for any number of threads, files.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"
#include "denoiser.hpp"
#include "feature_network.hpp"
#include "image_shape.hpp"
#include "network.hpp"
#include "optimiser.hpp"
#include "temporary_directory.hpp"

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class T = double>
std::vector<T> random_numbers(std::int64_t count, std::uint32_t stream, double scale = 1) {
  std::vector<T> x(at(count));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<T>(scale * addloss::normal_at({.seed = 3, .stream = stream}, 0, i));
  }
  return x;
}

/// First values, and a random number added to each: nothing is 0, all derivatives are seen.
template <class T>
demo::basic_parameters<T> random_parameters(demo::part_list const& parts) {
  demo::basic_parameters<T> w(parts, 1);
  auto const more = random_numbers<T>(parts.size, 17, 0.05);
  for (std::size_t i = 0; i < more.size(); ++i) w.values[i] += more[i];
  return w;
}

double inner(std::span<double const> a, std::span<double const> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// The derivative of f() by x in some random directions, against <gradient, direction>.
template <class Function>
void check_gradient(std::span<double> x, std::span<double const> gradient, Function const& f,
                    std::uint32_t trials = 1) {
  double const h = 1e-5;
  std::vector<double> const before(x.begin(), x.end());
  for (std::uint32_t trial = 0; trial < trials; ++trial) {
    auto direction = random_numbers(std::ssize(x), 100 + trial);
    double const norm = std::sqrt(inner(direction, direction));
    for (double& d : direction) d /= norm;
    auto const moved = [&](double step) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = before[i] + step * direction[i];
      double const value = f();
      std::copy(before.begin(), before.end(), x.begin());
      return value;
    };
    // Of fourth order in h.
    double const difference =
        (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
    double const expected = inner(gradient, direction);
    CAPTURE(trial, expected, difference);
    REQUIRE(expected != 0);
    CHECK(std::abs(difference - expected) <= 1e-7 * std::max(1.0, std::abs(expected)));
  }
}

/// The same for every part of the parameters.
template <class Function>
void check_parts(demo::basic_parameters<double>& w, std::span<double const> gradient,
                 Function const& f) {
  for (demo::part const& p : w.parts) {
    CAPTURE(p.name);
    auto const part_of = [&](auto values) { return values.subspan(at(p.offset), at(p.size)); };
    check_gradient(part_of(std::span<double>(w.values)), part_of(gradient), f);
  }
}

/// Of the checks of derivatives; few, as they take many forward passes.
constexpr std::int64_t batch = 2;

template <class T>
struct denoiser_case {
  demo::denoiser network;
  demo::basic_parameters<T> w = random_parameters<T>(network.parts());
  demo::denoiser::activations<T> memory;
  std::vector<T> x, v_bar, v;
  std::vector<std::int64_t> t;
  std::vector<int> y;

  explicit denoiser_case(std::int64_t count)
      : x(random_numbers<T>(count * demo::image_pixels, 1)),
        v_bar(random_numbers<T>(count * demo::image_pixels, 2)),
        v(x.size()) {
    for (std::int64_t b = 0; b < count; ++b) {
      t.push_back(b * 997 % 1000);
      y.push_back(static_cast<int>(b * 3 % 11));
    }
  }
  void forward(int threads) { network.forward<T>(w, {x, t, y}, memory, v, threads); }
};

}  // namespace

TEST_CASE("exponential is exp within 2e-7") {
  double worst = 0;
  for (int i = -870000; i <= 870000; ++i) {
    float const x = static_cast<float>(i) * 1e-4F;
    double const exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(demo::exponential(x)) - exact) / exact);
  }
  INFO("largest relative error " << worst);
  CHECK(worst <= 2e-7);
  CHECK(worst > 1e-9);
  CHECK(demo::exponential(0.0F) == 1.0F);
  CHECK(demo::exponential(1e30F) == demo::exponential(87.0F));
  CHECK(demo::exponential(-1e30F) == demo::exponential(-87.0F));
  CHECK(std::isnan(demo::exponential(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("silu and its slope") {
  demo::silu_units<float> units;
  units.reserve(401);
  for (int i = 0; i < 401; ++i) units.slope.data()[i] = static_cast<float>(i - 200) * 0.5F;
  units.apply(401);
  for (int i = 0; i < 401; ++i) {
    double const u = (i - 200) * 0.5;
    double const gate = 1 / (1 + std::exp(-u));
    CAPTURE(u);
    CHECK(static_cast<double>(units.value.data()[i]) ==
          Approx(u * gate).margin(1e-30).epsilon(1e-6));
    CHECK(static_cast<double>(units.slope.data()[i]) ==
          Approx(gate * (1 + u * (1 - gate))).margin(1e-6));
  }
}

TEST_CASE("patches") {
  auto const images = random_numbers(3 * demo::image_pixels, 1);
  std::vector<double> patches(images.size());
  std::vector<double> back(images.size());
  demo::to_patches(images.data(), 3, patches.data());
  demo::to_images(patches.data(), 3, back.data());
  CHECK(back == images);
  // Row 5, column 10 of image 2: token (1, 2), row 1, column 2 of it.
  CHECK(patches[(1 * 7 + 2) * 3 * 16 + 2 * 16 + 1 * 4 + 2] == images[2 * 784 + 5 * 28 + 10]);
}

TEST_CASE("convolution of padded images") {
  constexpr std::int64_t in = 2;
  constexpr std::int64_t out = 3;
  constexpr std::int64_t samples = 2;
  demo::part_list list;
  demo::convolution const conv(list, "conv", in, out);
  auto const w = random_parameters<double>(list);
  auto const images = random_numbers(in * samples * demo::image_pixels, 1);
  std::vector<double> padded(at(demo::padded_images::size(samples, in)));
  std::vector<double> result(at(demo::padded_images::size(samples, out)));
  for (std::int64_t c = 0; c < in; ++c) {
    demo::padded_images::put(images.data() + c * samples * demo::image_pixels, samples, in, c,
                             padded.data());
  }
  conv.forward(w.values.data(), padded.data(), samples, result.data());

  for (std::int64_t s = 0; s < samples; ++s) {
    for (std::int64_t y = 0; y < 28; ++y) {
      for (std::int64_t x = 0; x < 28; ++x) {
        for (std::int64_t o = 0; o < out; ++o) {
          double expected = w.values[at(conv.bias + o)];
          for (std::int64_t c = 0; c < in; ++c) {
            for (std::int64_t k = 0; k < 9; ++k) {
              std::int64_t const from_y = y + k / 3 - 1;
              std::int64_t const from_x = x + k % 3 - 1;
              if (from_y < 0 || from_y >= 28 || from_x < 0 || from_x >= 28) continue;
              expected += w.values[at(conv.weight + (k * in + c) * out + o)] *
                          images[at((c * samples + s) * 784 + from_y * 28 + from_x)];
            }
          }
          double const got = result[at(demo::padded_images::at(s, y, x) * out + o)];
          if (std::abs(got - expected) > 1e-12) {
            CAPTURE(s, y, x, o, got, expected);
            FAIL_CHECK("another value");
          }
        }
      }
    }
  }
}

TEST_CASE("gradients of the denoiser") {
  denoiser_case<double> c(batch);
  auto const loss = [&] {
    c.forward(2);
    return inner(c.v, c.v_bar);
  };
  loss();
  std::vector<double> w_bar(c.w.values.size(), std::nan(""));
  std::vector<double> x_bar(c.x.size(), std::nan(""));
  c.network.backward<double>(c.w, c.v_bar, c.memory, w_bar, x_bar, 2);
  check_gradient(c.x, x_bar, loss, 5);
  check_parts(c.w, w_bar, loss);

  // Each alone is the same.
  std::vector<double> alone(c.w.values.size());
  c.forward(1);
  c.network.backward<double>(c.w, c.v_bar, c.memory, alone, {}, 1);
  CHECK(alone == w_bar);
  alone.assign(c.x.size(), 0);
  c.forward(1);
  c.network.backward<double>(c.w, c.v_bar, c.memory, {}, alone, 1);
  CHECK(alone == x_bar);
}

TEST_CASE("the gradient of a batch is the sum of those of its samples") {
  std::int64_t const many = demo::slice_samples + 1;
  denoiser_case<double> c(many);
  c.forward(2);
  std::vector<double> w_bar(c.w.values.size());
  std::vector<double> x_bar(c.x.size());
  c.network.backward<double>(c.w, c.v_bar, c.memory, w_bar, x_bar, 2);

  std::vector<double> sum(w_bar.size());
  std::vector<double> one(w_bar.size());
  std::vector<double> v(at(demo::image_pixels));
  std::vector<double> x_bar_one(v.size());
  double worst = 0;
  auto const compare = [&](double a, double b) { worst = std::max(worst, std::abs(a - b)); };
  for (std::int64_t b = 0; b < many; ++b) {
    auto const image = [&](std::vector<double> const& of) {
      return std::span<double const>(of).subspan(at(b) * v.size(), v.size());
    };
    demo::denoiser::activations<double> memory;
    c.network.forward<double>(
        c.w, {image(c.x), std::span(c.t).subspan(at(b), 1), std::span(c.y).subspan(at(b), 1)},
        memory, v, 1);
    c.network.backward<double>(c.w, image(c.v_bar), memory, one, x_bar_one, 1);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += one[i];
    for (std::size_t i = 0; i < v.size(); ++i) {
      compare(v[i], image(c.v)[i]);
      compare(x_bar_one[i], image(x_bar)[i]);
    }
  }
  for (std::size_t i = 0; i < sum.size(); ++i) compare(sum[i], w_bar[i]);
  CHECK(worst < 1e-9);
}

TEST_CASE("the denoiser begins as 0 and depends on time and class") {
  denoiser_case<float> c(batch);
  auto const trained = c.w;
  c.w = demo::parameters(c.network.parts(), 5);
  c.forward(1);
  CHECK(std::all_of(c.v.begin(), c.v.end(), [](float v) { return v == 0; }));
  c.w = trained;
  c.forward(1);
  auto const before = c.v;
  ++c.t[0];
  c.forward(1);
  CHECK(c.v != before);
  --c.t[0];
  c.y[0] = demo::no_class;
  c.forward(1);
  CHECK(c.v != before);
  CHECK(std::equal(before.begin() + 784, before.end(), c.v.begin() + 784));
}

TEST_CASE("the denoiser gives the same bits for any number of threads, and without keeping") {
  denoiser_case<float> c(37);
  c.forward(1);
  auto const v = c.v;
  std::vector<float> w_bar(c.w.values.size());
  std::vector<float> x_bar(c.x.size());
  c.network.backward<float>(c.w, c.v_bar, c.memory, w_bar, x_bar, 1);
  for (int const threads : {1, 2, 3}) {
    CAPTURE(threads);
    denoiser_case<float> other(37);
    other.forward(threads);
    CHECK(other.v == v);
    std::vector<float> w_other(w_bar.size());
    std::vector<float> x_other(x_bar.size());
    other.network.backward<float>(other.w, other.v_bar, other.memory, w_other, x_other, threads);
    CHECK(w_other == w_bar);
    CHECK(x_other == x_bar);
    std::fill(other.v.begin(), other.v.end(), 0.0F);
    other.network.predict<float>(other.w, {other.x, other.t, other.y}, other.memory, other.v,
                                 threads);
    CHECK(other.v == v);
    CHECK_THROWS_AS(other.network.backward<float>(other.w, other.v_bar, other.memory, w_other,
                                                  x_other, threads),
                    std::invalid_argument);
  }
}

TEST_CASE("gradients of the feature network") {
  demo::feature_network const network;
  auto w = random_parameters<double>(network.parts());
  demo::feature_network::activations<double> memory;
  demo::feature_network::features<double> out;
  auto x = random_numbers(batch * demo::image_pixels, 1);

  // Of the images, through all maps.
  std::array<std::vector<double>, demo::feature_network::maps> bars;
  std::array<std::span<double const>, demo::feature_network::maps> map_bar;
  for (std::size_t k = 0; k < bars.size(); ++k) {
    bars[k] =
        random_numbers(batch * demo::feature_network::map_size, 10 + static_cast<unsigned>(k));
    map_bar[k] = bars[k];
  }
  auto const of_maps = [&] {
    network.forward<double>(w, x, memory, out, 2);
    double sum = 0;
    for (std::size_t k = 0; k < bars.size(); ++k) sum += inner(out.map[k], bars[k]);
    return sum;
  };
  of_maps();
  std::vector<double> x_bar(x.size(), std::nan(""));
  network.backward<double>(w, map_bar, memory, x_bar, 2);
  check_gradient(x, x_bar, of_maps, 5);

  // Of the parameters, through the logits and a map.
  auto const logits_bar = random_numbers(batch * 10, 4);
  auto const of_logits = [&] {
    network.forward<double>(w, x, memory, out, 2);
    return inner(out.logits, logits_bar) + inner(out.map[2], bars[2]);
  };
  of_logits();
  std::vector<double> w_bar(w.values.size());
  std::fill(x_bar.begin(), x_bar.end(), std::nan(""));
  std::array<double const*, demo::feature_network::maps> pointers{};
  pointers[2] = bars[2].data();
  for (std::int64_t i = 0; i < demo::slice_count(batch); ++i) {
    std::int64_t const first = i * demo::slice_samples;
    demo::slice const s{first, std::min(demo::slice_samples, batch - first), i, 0};
    network.backward_slice<double>(w.values.data(), logits_bar.data(), pointers, s,
                                   memory.slices[at(i)], w_bar.data(), x_bar.data());
  }
  check_gradient(x, x_bar, of_logits);
  check_parts(w, w_bar, of_logits);
}

TEST_CASE("features: layout, embedding, threads") {
  demo::feature_network const network;
  auto const w = random_parameters<float>(network.parts());
  demo::feature_network::activations<float> memory;
  demo::feature_network::features<float> out;
  auto const x = random_numbers<float>(21 * demo::image_pixels, 1);
  network.forward<float>(w, x, memory, out, 1);

  // Map 0 is the embedding of the patches: channel c of token l of image b.
  std::int64_t const b = 13;
  std::int64_t const l = 23;
  std::int64_t const c = 40;
  auto const& parts = w.parts;
  auto const offset = [&](std::string const& name) {
    return std::find_if(parts.begin(), parts.end(), [&](auto const& p) { return p.name == name; })
        ->offset;
  };
  float expected = w.values[at(offset("embed.bias") + c)] +
                   w.values[at(offset("position") + l * demo::feature_network::channels + c)];
  for (std::int64_t p = 0; p < 16; ++p) {
    expected += w.values[at(offset("embed.weight") + c * 16 + p)] *
                x[at(b * 784 + (l / 7 * 4 + p / 4) * 28 + l % 7 * 4 + p % 4)];
  }
  CHECK(out.map[0][at((b * 64 + c) * 49 + l)] == Approx(expected).epsilon(1e-5));

  for (std::int64_t i = 0; i < 21; ++i) {
    double square = 0;
    for (std::int64_t j = 0; j < 64; ++j) square += std::pow(out.embedding[at(i * 64 + j)], 2);
    CHECK(square == Approx(64).epsilon(1e-5));
  }
  for (int const threads : {2, 3}) {
    demo::feature_network::activations<float> other_memory;
    demo::feature_network::features<float> other;
    network.forward<float>(w, x, other_memory, other, threads);
    CHECK(other.map == out.map);
    CHECK(other.embedding == out.embedding);
    CHECK(other.logits == out.logits);
  }
}

TEST_CASE("wrong sizes are refused") {
  denoiser_case<float> c(2);
  c.y[1] = 11;
  CHECK_THROWS_AS(c.forward(1), std::invalid_argument);
  c.y[1] = 3;
  c.v.pop_back();
  CHECK_THROWS_AS(c.forward(1), std::invalid_argument);
  c.v.push_back(0);
  c.w.values.pop_back();
  CHECK_THROWS_AS(c.forward(1), std::invalid_argument);
}

TEST_CASE("adam is the formula, clipped and decayed") {
  std::int64_t const size = 3 * demo::element_block / 2;
  auto const start = random_numbers<float>(size, 1);
  auto w = start;
  demo::adam adam(w.size(), {.beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1});
  std::vector<double> m(w.size()), v(w.size()), expected(start.begin(), start.end());
  for (int step = 1; step <= 3; ++step) {
    auto const g = random_numbers<float>(size, static_cast<std::uint32_t>(10 + step));
    double square = 0;
    for (float const x : g) square += static_cast<double>(x) * static_cast<double>(x);
    double const norm = demo::global_norm(g, 2);
    CHECK(norm == Approx(std::sqrt(square)).epsilon(1e-6));
    CHECK(norm == demo::global_norm(g, 1));
    double const factor = demo::clip_factor(norm, 1);
    CHECK(factor * norm == Approx(1));
    adam.step(w, g, 1e-2, factor, 2);
    for (std::size_t i = 0; i < w.size(); ++i) {
      double const x = factor * static_cast<double>(g[i]);
      m[i] = 0.9 * m[i] + 0.1 * x;
      v[i] = 0.99 * v[i] + 0.01 * x * x;
      double const root = std::sqrt(v[i] / (1 - std::pow(0.99, step))) + 1e-8;
      expected[i] -= 1e-2 * (m[i] / (1 - std::pow(0.9, step)) / root + 0.1 * expected[i]);
    }
  }
  double worst = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(w[i]) - expected[i]));
  }
  CHECK(worst < 1e-6);
  CHECK(demo::clip_factor(0.5, 1) == 1);
}

TEST_CASE("decays and averages") {
  CHECK(demo::linear_decay(0) == 1);
  CHECK(demo::linear_decay(0.5, 0.2) == Approx(0.6));
  CHECK(demo::linear_decay(2, 0.2) == Approx(0.2));
  CHECK(demo::warm_up(0, 10) == Approx(0.1));
  CHECK(demo::warm_up(50, 10) == 1);
  CHECK(demo::average_decay(0, 0.99) == Approx(0.05));
  CHECK(demo::average_decay(100000, 0.99) == 0.99);
  std::vector<float> average{1, 2};
  std::vector<float> const w{3, 2};
  demo::update_average(average, w, 0.75, 1);
  CHECK(average == std::vector<float>{1.5F, 2});
}

TEST_CASE("parameters and the state of adam come back from a file") {
  temporary_directory const folder;
  std::string const path = folder.file();
  demo::denoiser const network;
  demo::parameters w(network.parts(), 1);
  demo::adam adam(w.values.size(), {});
  adam.m = random_numbers<float>(std::ssize(w.values), 1);
  adam.v = random_numbers<float>(std::ssize(w.values), 2);
  adam.steps = 12345;
  demo::saved_contents saved;
  saved.add("student.", w);
  adam.add_to(saved, "adam.");
  saved.save(path, {{"what", "a test"}});

  demo::parameters w_back(network.parts(), 2);
  CHECK(w_back.values != w.values);
  demo::adam adam_back(w.values.size(), {});
  demo::loaded_contents loaded;
  loaded.add("student.", w_back);
  adam_back.add_to(loaded, "adam.");
  CHECK(loaded.load(path).at("what") == "a test");
  CHECK(w_back.values == w.values);
  CHECK(adam_back.m == adam.m);
  CHECK(adam_back.v == adam.v);
  CHECK(adam_back.steps == adam.steps);
}

TEST_CASE("errors of files name them and change nothing") {
  temporary_directory const folder;
  std::string const path = folder.file();
  demo::denoiser const network;
  demo::feature_network const other;
  demo::parameters w(network.parts(), 1);
  auto const before = w.values;
  auto const refused = [&](std::string const& part) {
    try {
      demo::load_parameters(path, w);
    } catch (std::runtime_error const& e) {
      std::string const message = e.what();
      CAPTURE(message);
      CHECK(message.find(path) != std::string::npos);
      CHECK(message.find(part) != std::string::npos);
      CHECK(w.values == before);
      return;
    }
    FAIL_CHECK("no error");
  };
  refused("No such file");
  demo::save_parameters(path, demo::parameters(other.parts(), 1));
  refused("time.in.weight");
  demo::save_parameters(path, demo::parameters(network.parts(), 2));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
  refused("data_offsets");
  std::ofstream(path) << "not a network";
  refused("header");
  CHECK_THROWS_AS(demo::save_parameters("/nowhere/at/all", w), std::runtime_error);
}

TEST_CASE("the denoiser's file is at most 2.9 MB") {
  temporary_directory const folder;
  std::string const path = folder.file();
  demo::denoiser const network;
  demo::save_parameters(path, demo::parameters(network.parts(), 1));
  CHECK(std::filesystem::file_size(path) <= 2'900'000);
}
