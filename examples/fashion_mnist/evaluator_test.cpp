// SPDX-License-Identifier: MIT
// Data, pictures and the judge of the example: broken files, PNG read back, derivatives against
// finite differences in double, distances that are known.
#include <sys/resource.h>
#include <zlib.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <addloss/core/normal.hpp>

#include "catch.hpp"
#include "data.hpp"
#include "evaluator.hpp"
#include "image_shape.hpp"
#include "png.hpp"
#include "svg.hpp"
#include "temporary_directory.hpp"
#include "whole_file.hpp"

namespace {

using bytes = std::string;

/// What an error says, or "no error".
std::string message_of(std::function<void()> const& call) {
  try {
    call();
  } catch (std::exception const& e) {
    return e.what();
  }
  return "no error";
}

bytes read_back(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_gzip(std::string const& path, bytes const& content) {
  gzFile const file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, content.data(), static_cast<unsigned>(content.size())) ==
          static_cast<int>(content.size()));
  REQUIRE(gzclose(file) == Z_OK);
}

bytes big_endian(std::initializer_list<std::uint32_t> numbers) {
  bytes result;
  for (auto const n : numbers) {
    for (int const shift : {24, 16, 8, 0}) result += static_cast<char>(n >> shift & 0xffU);
  }
  return result;
}

std::uint32_t number_at(bytes const& text, std::size_t place) {
  std::uint32_t result = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    result = result << 8 | static_cast<unsigned char>(text.at(place + i));
  }
  return result;
}

/// Three images and labels, as bytes of IDX files before compression.
bytes image_bytes() {
  bytes result = big_endian({0x803, 3, 28, 28});
  for (int i = 0; i < 3 * demo::image_pixels; ++i) result += static_cast<char>(i % 256);
  return result;
}
bytes label_bytes() { return big_endian({0x801, 3}) + bytes("\x00\x09\x04", 3); }

/// What reading these as training images says.
std::string reading(bytes const& image_file, bytes const& label_file) {
  temporary_directory const folder;
  write_gzip(folder.file("train-images-idx3-ubyte.gz"), image_file);
  write_gzip(folder.file("train-labels-idx1-ubyte.gz"), label_file);
  auto text = message_of([&] { demo::read_images(folder.path, "train"); });
  if (auto const place = text.find(folder.path); place != std::string::npos) {
    text.erase(place, folder.path.size() + 1);
  }
  return text;
}

std::vector<float> random_images(std::int64_t count, std::uint32_t stream) {
  std::vector<float> result(static_cast<std::size_t>(count * demo::image_pixels));
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = 0.5F * addloss::normal_at({.seed = 4, .stream = stream}, 0, i);
  }
  return result;
}

}  // namespace

TEST_CASE("IDX files are read") {
  temporary_directory const folder;
  write_gzip(folder.file("t10k-images-idx3-ubyte.gz"), image_bytes());
  write_gzip(folder.file("t10k-labels-idx1-ubyte.gz"), label_bytes());
  auto const all = demo::read_images(folder.path, "t10k");
  CHECK(all.count == 3);
  CHECK(all.labels == std::vector{0, 9, 4});
  REQUIRE(all.pixels.size() == std::size_t{3} * demo::image_pixels);
  CHECK(all.pixels[0] == -1.0F);
  CHECK(all.pixels[255] == 1.0F);
  CHECK(all.pixels[256 + 51] == Approx(-0.6));
  auto const two = demo::read_images(folder.path, "t10k", 2);
  CHECK(two.count == 2);
  CHECK(two.labels == std::vector{0, 9});
  CHECK(std::equal(two.pixels.begin(), two.pixels.end(), all.pixels.begin()));
}

TEST_CASE("broken IDX files are refused by name") {
  bytes const good = image_bytes();
  bytes const labels = label_bytes();
  bytes const rest = good.substr(16);
  std::string const image_name = "train-images-idx3-ubyte.gz: expected ";
  std::string const label_name = "train-labels-idx1-ubyte.gz: expected ";
  CHECK(reading(good, labels) == "no error");
  CHECK(reading(big_endian({0x801, 3, 28, 28}) + rest, labels) ==
        image_name + "the magic number 2051, found 2049");
  CHECK(reading(big_endian({0x803, 0, 28, 28}), labels) == image_name + "images, found none");
  CHECK(reading(big_endian({0x803, 3, 27, 28}) + rest, labels) == image_name + "rows 28, found 27");
  CHECK(reading(big_endian({0x803, 3, 28, 29}) + rest, labels) ==
        image_name + "columns 28, found 29");
  CHECK(reading(good.substr(0, 10), labels) ==
        image_name + "4 bytes of rows, found the end after 2");
  CHECK(reading(good.substr(0, good.size() - 1), labels) ==
        image_name + "2352 bytes of images, found the end after 2351");
  CHECK(reading(good + "x", labels) == image_name + "the end of the file, found more bytes");
  CHECK(reading("", labels) == image_name + "4 bytes of the magic number, found the end after 0");
  // A header that promises 4 billion images fails after the few that there are.
  CHECK(reading(big_endian({0x803, 0xffffffff, 28, 28}) + rest, labels) ==
        image_name + "3367254359280 bytes of images, found the end after 2352");

  CHECK(reading(good, good) == label_name + "the magic number 2049, found 2051");
  CHECK(reading(good, big_endian({0x801, 4}) + bytes(4, '\0')) ==
        label_name + "the number of labels 3, found 4");
  CHECK(reading(good, labels.substr(0, 10)) ==
        label_name + "3 bytes of labels, found the end after 2");
  CHECK(reading(good, labels + "x") == label_name + "the end of the file, found more bytes");
  CHECK(reading(good, labels.substr(0, 10) + "\x0a") == label_name + "labels 0 to 9, found 10");
}

TEST_CASE("files that are not there, cut off or damaged are refused by name") {
  temporary_directory const folder;
  std::string const name = folder.file("train-images-idx3-ubyte.gz");
  auto const text = [&] { return message_of([&] { demo::read_images(folder.path, "train"); }); };
  CHECK(text() == name +
                      ": cannot be opened (the package dataset-fashion-mnist has it; "
                      "./cmake/setup.sh installs it)");
  write_gzip(name, image_bytes());
  bytes const packed = read_back(name);
  demo::write_file(name, packed.substr(0, packed.size() / 2));
  CHECK(text().starts_with(name + ": expected a whole gzip file, found "));
  bytes damaged = packed;
  damaged[damaged.size() - 6] ^= 1;  // within the checksum
  demo::write_file(name, damaged);
  CHECK(text().starts_with(name + ": expected a whole gzip file, found "));
  std::filesystem::remove(name);
  std::filesystem::create_directory(name);
  CHECK(text().starts_with(name + ": expected a whole gzip file, found "));
}

TEST_CASE("the order of an epoch is a permutation, a function of seed and epoch") {
  auto const order = demo::shuffled(10007, 5, 2);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int32_t> expected(10007);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(sorted == expected);
  CHECK(order == demo::shuffled(10007, 5, 2));
  // Of a random permutation, about one number stays in its place.
  auto const equal_places = [&](std::vector<std::int32_t> const& other) {
    int count = 0;
    for (std::size_t i = 0; i < order.size(); ++i) count += order[i] == other[i] ? 1 : 0;
    return count;
  };
  CHECK(equal_places(expected) < 10);
  CHECK(equal_places(demo::shuffled(10007, 5, 3)) < 10);
  CHECK(equal_places(demo::shuffled(10007, 6, 2)) < 10);
  CHECK(equal_places(demo::shuffled(10007, 5 + (std::uint64_t{1} << 32), 2)) < 10);
}

TEST_CASE("batches are functions of the step and see each image once an epoch") {
  demo::batch_order order(100, 32, 1);
  std::vector<int> seen(100);
  for (int step = 0; step < 3; ++step) {
    for (auto const i : order.at(step)) ++seen[static_cast<std::size_t>(i)];
  }
  CHECK(std::count(seen.begin(), seen.end(), 1) == 96);
  std::vector<std::int32_t> fourth(order.at(3).begin(), order.at(3).end());
  auto const in_first_epoch = order.at(0);
  CHECK_FALSE(std::equal(fourth.begin(), fourth.end(), in_first_epoch.begin()));
  // Resumed at step 3.
  demo::batch_order resumed(100, 32, 1);
  auto const again = resumed.at(3);
  CHECK(std::equal(fourth.begin(), fourth.end(), again.begin(), again.end()));

  demo::images some;
  some.count = 3;
  some.labels = {7, 8, 9};
  some.pixels = random_images(3, 1);
  std::vector<float> pixels(std::size_t{2} * demo::image_pixels);
  std::vector<int> labels(2);
  demo::gather(some, std::vector<std::int32_t>{2, 0}, pixels, labels);
  CHECK(labels == std::vector{9, 7});
  CHECK(std::equal(pixels.begin(), pixels.begin() + demo::image_pixels,
                   some.pixels.begin() + 2 * demo::image_pixels));
  CHECK(message_of([] { demo::batch_order(10, 11, 1); }) == "batch: expected 1 to 10, got 11");
}

TEST_CASE("a PNG file is read back") {
  int const channels = GENERATE(1, 3);
  demo::picture image(37, 11, channels);
  for (std::size_t i = 0; i < image.bytes.size(); ++i) {
    image.bytes[i] = static_cast<std::uint8_t>(i * i + 3 * i);
  }
  temporary_directory const folder;
  demo::save_png(folder.file("image.png"), image);
  bytes const file = read_back(folder.file("image.png"));
  REQUIRE(file.substr(0, 8) == "\x89PNG\r\n\x1a\n");

  bytes names;
  bytes header;
  bytes packed;
  for (std::size_t place = 8; place < file.size();) {
    std::uint32_t const length = number_at(file, place);
    bytes const name = file.substr(place + 4, 4);
    bytes const data = file.substr(place + 8, length);
    bytes const both = name + data;
    CHECK(number_at(file, place + 8 + length) ==
          crc32(0, reinterpret_cast<Bytef const*>(both.data()), static_cast<uInt>(both.size())));
    names += name + " ";
    if (name == "IHDR") header = data;
    if (name == "IDAT") packed = data;
    place += 12 + length;
  }
  CHECK(names == "IHDR IDAT IEND ");
  bytes const kind(1, channels == 1 ? '\0' : '\2');
  CHECK(header == big_endian({37, 11}) + "\x08" + kind + bytes(3, '\0'));

  std::size_t const row = std::size_t{37} * static_cast<std::size_t>(channels);
  bytes rows(11 * (row + 1), 'x');
  uLongf size = rows.size();
  REQUIRE(uncompress(reinterpret_cast<Bytef*>(rows.data()), &size,
                     reinterpret_cast<Bytef const*>(packed.data()), packed.size()) == Z_OK);
  REQUIRE(size == rows.size());
  bool equal = true;
  for (std::size_t y = 0; y < 11; ++y) {
    equal = equal && rows[y * (row + 1)] == 0;
    equal = equal && std::equal(rows.begin() + static_cast<std::ptrdiff_t>(y * (row + 1) + 1),
                                rows.begin() + static_cast<std::ptrdiff_t>((y + 1) * (row + 1)),
                                reinterpret_cast<char const*>(image.bytes.data()) + y * row);
  }
  CHECK(equal);
}

TEST_CASE("a sheet has its images and labels in place") {
  std::vector<float> const shades = {-1, 0, 1, 5, -7, std::numeric_limits<float>::quiet_NaN()};
  std::vector<float> images;
  for (float const shade : shades) images.insert(images.end(), demo::image_pixels, shade);
  std::vector<std::string> const rows = {"real", "1 step"};
  std::vector<std::string> const columns = {"Bag", "Boot", "Coat"};
  auto sheet = demo::image_sheet(images, rows, columns, {.scale = 2, .margin = 3});
  // "1 step" is 6 letters of 6 dots but the last gap, a dot 2 pixels.
  int const left = 35 * 2 + 2 * 3;
  int const top = 7 * 2 + 2 * 3;
  REQUIRE(sheet.width == left + 3 * (56 + 3));
  REQUIRE(sheet.height == top + 2 * (56 + 3));
  std::vector<int> const expected = {0, 128, 255, 255, 0, 0};
  for (int i = 0; i < 6; ++i) {
    int const x = left + i % 3 * 59;
    int const y = top + i / 3 * 59;
    CHECK(*sheet.at(x, y) == expected[static_cast<std::size_t>(i)]);
    CHECK(*sheet.at(x + 55, y + 55) == expected[static_cast<std::size_t>(i)]);
    CHECK(*sheet.at(x + 56, y + 55) == 255);
  }
  auto const dark = [&](int x0, int y0, int x1, int y1) {
    int count = 0;
    for (int y = y0; y < y1; ++y) {
      for (int x = x0; x < x1; ++x) count += *sheet.at(x, y) == 0 ? 1 : 0;
    }
    return count;
  };
  CHECK(dark(0, 0, left, top) == 0);
  CHECK(dark(left, 0, left + 56, top) > 100);
  CHECK(dark(0, top, left, top + 56) > 100);
  CHECK(message_of([&] { demo::image_sheet(std::span(images).first(5), rows, columns); }) ==
        "image_sheet: expected 6 images, got 5 pixels");
}

TEST_CASE("a file that cannot be written leaves the old one") {
  temporary_directory const folder;
  std::string const path = folder.file("file");
  demo::write_file(path, "old");
  CHECK(message_of([&] { demo::write_file(folder.file("none/file"), "new"); }) ==
        folder.file("none/file") + ": cannot be written (No such file or directory)");
  // A limit on the size of files stands in for a full disk.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit small = before;
  small.rlim_cur = 1000;
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  auto const text = message_of([&] { demo::write_file(path, bytes(100000, 'x')); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(text == path + ": cannot be written (File too large)");
  CHECK(read_back(path) == "old");
  auto const entries = std::filesystem::directory_iterator(folder.path);
  CHECK(std::distance(begin(entries), end(entries)) == 1);
  demo::write_file(path, "new");
  CHECK(read_back(path) == "new");
  CHECK(message_of([&] { demo::require_writable(path); }) == "no error");
  CHECK(read_back(path) == "new");
  CHECK(message_of([&] { demo::require_writable(folder.file("none/file")); }) ==
        folder.file("none/file") + ": cannot be written (No such file or directory)");
}

TEST_CASE("a plot has axes that hold its values") {
  double const infinity = std::numeric_limits<double>::infinity();
  demo::axis_range const linear(demo::axis_scale::linear, -0.3, 11.2);
  CHECK(linear.ticks() == std::vector<double>{-2, 0, 2, 4, 6, 8, 10, 12});
  CHECK(linear.position(5) == Approx(0.5));
  demo::axis_range const decades(demo::axis_scale::logarithmic, 3, 180);
  CHECK(decades.ticks() == std::vector<double>{2, 5, 10, 20, 50, 100, 200});
  CHECK(decades.position(20) == Approx(0.5));
  for (auto const scale : {demo::axis_scale::linear, demo::axis_scale::logarithmic}) {
    for (auto const& [low, high] : std::vector<std::pair<double, double>>{
             {infinity, -infinity}, {7, 7}, {1e-9, 1e9}, {0.1, 0.1 + 1e-17}, {1000, 1000}}) {
      demo::axis_range const range(scale, low, high);
      REQUIRE(range.ticks().size() >= 2);
      CHECK(range.ticks().size() < 30);
      if (low <= high) {
        CHECK(range.position(low) >= -1e-9);
        CHECK(range.position(high) <= 1 + 1e-9);
      }
    }
  }
  auto const text = demo::encode_svg(
      {.title = "a < b & c",
       .horizontal = {.label = "step"},
       .vertical = {.label = "FID", .scale = demo::axis_scale::logarithmic},
       .lines = {{"one", {0, 1, 2, 3}, {10, std::nan(""), 20, 0}}, {"none", {}, {}}}});
  CHECK(text.find("a &lt; b &amp; c") != std::string::npos);
  CHECK(text.find("nan") == std::string::npos);
  CHECK(text.find("inf") == std::string::npos);
  CHECK(message_of([] {
          demo::encode_svg({.lines = {{"odd", {1, 2}, {1}}}});
        }) == "line_plot: expected as many x as y in odd");
}

TEST_CASE("the classifier's gradients agree with finite differences") {
  demo::image_classifier const classifier;
  demo::basic_parameters<double> w(classifier.parts(), 3);
  constexpr std::int64_t batch = 5;  // two slices
  auto const narrow = random_images(batch, 2);
  std::vector<double> const x(narrow.begin(), narrow.end());
  std::vector<int> const labels = {3, 0, 9, 3, 5};
  std::vector<double> keep(batch * demo::image_classifier::feature_count);
  for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = i % 3 == 0 ? 0 : 1.5;
  std::vector<double> logits_bar(batch * demo::class_count);
  std::vector<double> w_bar(w.values.size(), std::nan(""));
  demo::image_classifier::activations<double> a;
  auto const loss = [&] {
    classifier.forward<double>(w, x, keep, a, 1);
    return demo::cross_entropy<double>(a.logits, labels, logits_bar);
  };
  loss();
  classifier.backward<double>(w, x, keep, logits_bar, a, w_bar, 1);
  for (auto const& part : w.parts) {
    INFO(part.name);
    double largest = 0;
    for (std::int64_t i = 0; i < part.size; ++i) {
      largest = std::max(largest, std::abs(w_bar[static_cast<std::size_t>(part.offset + i)]));
    }
    REQUIRE(largest > 1e-4);
    for (std::int64_t n = 0; n < 24; ++n) {
      auto const i = static_cast<std::size_t>(part.offset + n * 7919 % part.size);
      // So small a step that ReLU and the maxima keep their choices.
      double const step = 1e-6;
      double const value = w.values[i];
      w.values[i] = value + step;
      double const above = loss();
      w.values[i] = value - step;
      double const below = loss();
      w.values[i] = value;
      CHECK(w_bar[i] == Approx((above - below) / (2 * step)).epsilon(1e-5).margin(1e-5 * largest));
    }
  }
}

TEST_CASE("the classifier gives the same bits for any number of threads") {
  demo::image_classifier const classifier;
  demo::parameters const w(classifier.parts(), 3);
  constexpr std::int64_t batch = 70;
  auto const x = random_images(batch, 2);
  std::vector<int> labels(batch);
  for (std::size_t b = 0; b < labels.size(); ++b) labels[b] = static_cast<int>(b % 10);
  std::vector<std::vector<float>> results;
  for (int const threads : {1, 2, 3}) {
    demo::image_classifier::activations<float> a;
    std::vector<float> logits_bar(batch * demo::class_count);
    std::vector<float> w_bar(w.values.size());
    classifier.forward<float>(w, x, {}, a, threads);
    demo::cross_entropy<float>(a.logits, labels, logits_bar);
    classifier.backward<float>(w, x, {}, logits_bar, a, w_bar, threads);
    results.emplace_back(a.logits.begin(), a.logits.end());
    results.back().insert(results.back().end(), w_bar.begin(), w_bar.end());
  }
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("the Frechet distance of known distributions") {
  using matrix = Eigen::MatrixXd;
  auto const random = [](std::uint32_t stream) {
    matrix result(6, 6);
    for (int i = 0; i < 36; ++i) {
      result(i / 6, i % 6) = static_cast<double>(
          addloss::normal_at({.seed = 8, .stream = stream}, 0, static_cast<std::uint64_t>(i)));
    }
    return result;
  };
  // Covariances with common eigenvectors: |m|^2 + sum (sqrt(a_i) - sqrt(b_i))^2.
  matrix const turn = Eigen::HouseholderQR<matrix>(random(1)).householderQ();
  Eigen::VectorXd const mean = random(2).col(0);
  for (double const least : {0.5, 0.0}) {
    Eigen::VectorXd const a = Eigen::VectorXd::LinSpaced(6, least, 4);
    Eigen::VectorXd const b = Eigen::VectorXd::LinSpaced(6, 3, 1);
    demo::moments const first = {mean, turn * a.asDiagonal() * turn.transpose()};
    demo::moments const second = {2 * mean, turn * b.asDiagonal() * turn.transpose()};
    double const expected =
        mean.squaredNorm() + (a.array().sqrt() - b.array().sqrt()).square().sum();
    // The root of an eigenvalue that is 0 but for rounding is 1e-8.
    double const tolerance = least > 0 ? 1e-11 : 1e-7;
    CHECK(demo::frechet_distance(first, second) == Approx(expected).epsilon(tolerance));
    CHECK(demo::frechet_distance(second, first) == Approx(expected).epsilon(tolerance));
    CHECK(std::abs(demo::frechet_distance(first, first)) < tolerance * expected);
  }
  // Covariances that do not commute: tr (C_1 C_2)^1/2 from the eigenvalues of C_1 C_2.
  demo::moments const third = {mean, random(3) * random(3).transpose()};
  demo::moments const fourth = {mean, random(4) * random(4).transpose()};
  Eigen::EigenSolver<matrix> const product(third.covariance * fourth.covariance, false);
  double const root = product.eigenvalues().real().cwiseSqrt().sum();
  CHECK(demo::frechet_distance(third, fourth) ==
        Approx(third.covariance.trace() + fourth.covariance.trace() - 2 * root).epsilon(1e-8));

  std::vector<float> const rows = {1, 10, 3, 10, 5, 40};
  auto const of_rows = demo::moments_of(rows, 2);
  CHECK(of_rows.mean(0) == Approx(3));
  CHECK(of_rows.mean(1) == Approx(20));
  CHECK(of_rows.covariance(0, 0) == Approx(4));
  CHECK(of_rows.covariance(0, 1) == Approx(30));
  CHECK(of_rows.covariance(1, 1) == Approx(300));
  CHECK(message_of([&] { demo::moments_of(std::span(rows).first(2), 2); }) ==
        "FID: expected at least 2 images, got 1");
}

TEST_CASE("the evaluator judges images") {
  demo::image_classifier const classifier;
  demo::images real;
  real.count = 300;  // more than it takes at a time
  real.pixels = random_images(real.count, 5);
  real.labels.assign(300, 0);
  for (float& x : real.pixels) x = std::clamp(x, -1.0F, 1.0F);
  demo::parameters const w(classifier.parts(), 3);
  demo::evaluator const judge(w, real, 1);
  CHECK(judge.evaluate(real.pixels, real.labels).fid == Approx(0).margin(1e-6));

  auto const other = random_images(40, 6);
  std::vector<int> const labels(40, 2);
  auto const one = judge.evaluate(other, labels);
  // The same by hand, all images at once.
  auto const moments_by_hand = [&](std::vector<float> images) {
    for (float& x : images) x = std::clamp(x, -1.0F, 1.0F);
    demo::image_classifier::activations<float> a;
    classifier.forward<float>(w, images, {}, a, 1);
    return demo::moments_of(a.features, demo::image_classifier::feature_count);
  };
  CHECK(one.fid ==
        Approx(demo::frechet_distance(moments_by_hand(real.pixels), moments_by_hand(other)))
            .epsilon(1e-6));
  CHECK(one.fid > 1e-4);
  demo::evaluator const with_threads(w, real, 3);
  auto const three = with_threads.evaluate(other, labels);
  CHECK(one.fid == three.fid);
  CHECK(one.accuracy == three.accuracy);
  // Every image has one class.
  double sum = 0;
  for (int c = 0; c < 10; ++c) sum += judge.evaluate(other, std::vector(40, c)).accuracy;
  CHECK(sum == Approx(1));

  auto beyond = other;
  for (float& x : beyond) x = x > 0.9F ? 50.0F : x;
  auto clamped = other;
  for (float& x : clamped) x = x > 0.9F ? 1.0F : x;
  CHECK(judge.evaluate(beyond, labels).fid == judge.evaluate(clamped, labels).fid);

  auto broken = other;
  broken[17 * demo::image_pixels + 400] = std::nanf("");
  CHECK(std::isnan(judge.evaluate(broken, labels).fid));
  sum = 0;
  for (int c = 0; c < 10; ++c) sum += judge.evaluate(broken, std::vector(40, c)).accuracy;
  CHECK(sum == Approx(39.0 / 40));
  CHECK(message_of([&] { static_cast<void>(judge.evaluate(other, std::vector(39, 1))); }) ==
        "evaluate: expected 784 pixels a label, got 31360 for 39 labels");

  temporary_directory const folder;
  std::string const path = folder.file("weights.safetensors");
  demo::save_parameters(path, w);
  CHECK(demo::evaluator(path, real, 1).evaluate(other, labels).fid == one.fid);
  demo::write_file(path, read_back(path).substr(0, 100000));
  CHECK(message_of([&] { demo::evaluator(path, real, 1); }).find(path) != std::string::npos);
}
