// SPDX-License-Identifier: MIT
/// Fashion-MNIST from the gzipped IDX files of the Debian package dataset-fashion-mnist, and the
/// order in which training sees it.
///
/// An IDX file is a big-endian header and bytes:
///   magic  0x0000 08 <axes>   unsigned bytes; 3 axes for images, 1 for labels
///   extent of each axis       32 bits each: images, rows, columns; or labels
/// Every field is checked, and so are the length, the checksum of gzip and the range of the labels.
/// Errors: std::runtime_error "file: what was expected, what was found".
/// Source of the images: Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <addloss/core/philox.hpp>

#include "image_shape.hpp"

namespace demo {

inline constexpr std::array<char const*, class_count> class_names = {
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"};
inline constexpr char const* default_folder = "/usr/share/datasets/fashion-mnist";

struct images {
  std::vector<float> pixels;  ///< [count, 784], in [-1, 1]
  std::vector<int> labels;  ///< [count], 0 ... 9
  std::int64_t count = 0;
};

/// One IDX file that is being read.
class idx_file {
 public:
  explicit idx_file(std::string path) : path_(std::move(path)), file_(gzopen(path_.c_str(), "rb")) {
    if (!file_) {
      throw std::runtime_error(path_ +
                               ": cannot be opened (the package dataset-fashion-mnist has it; "
                               "./cmake/setup.sh installs it)");
    }
  }

  [[noreturn]] void refuse(std::string const& expected, std::string const& found) const {
    throw std::runtime_error(path_ + ": expected " + expected + ", found " + found);
  }

  /// The next `bytes` bytes. They grow as they come, so that a header that lies costs no memory.
  std::vector<unsigned char> read(std::int64_t bytes, std::string const& what) {
    std::vector<unsigned char> result;
    while (std::ssize(result) < bytes) {
      auto const piece = std::min<std::int64_t>(1 << 20, bytes - std::ssize(result));
      result.resize(result.size() + static_cast<std::size_t>(piece));
      auto const got = read_some(result.data() + (std::ssize(result) - piece), piece);
      if (got < piece) {
        refuse(std::to_string(bytes) + " bytes of " + what,
               "the end after " + std::to_string(std::ssize(result) - piece + got));
      }
    }
    return result;
  }

  /// A big-endian number.
  std::uint32_t number(std::string const& what) {
    auto const b = read(4, what);
    return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
  }

  void expect(std::uint32_t expected, std::string const& what) {
    auto const found = number(what);
    if (found != expected) refuse(what + " " + std::to_string(expected), std::to_string(found));
  }

  /// Nothing may follow. Only here does zlib compare its checksum.
  void expect_end() {
    unsigned char byte = 0;
    if (read_some(&byte, 1) != 0) refuse("the end of the file", "more bytes");
  }

 private:
  std::int64_t read_some(unsigned char* to, std::int64_t bytes) {
    int const got = gzread(file_.get(), to, static_cast<unsigned>(bytes));
    int code = Z_OK;
    std::string const message = gzerror(file_.get(), &code);
    // A file that was cut off is Z_BUF_ERROR, and its bytes so far are given.
    if (got < 0 || code == Z_DATA_ERROR) refuse("a whole gzip file", message);
    if (got < bytes && code == Z_BUF_ERROR) refuse("a whole gzip file", "one that is cut off");
    return got;
  }

  struct closer {
    void operator()(gzFile file) const { gzclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::remove_pointer_t<gzFile>, closer> file_;
};

/// The first `limit` images of `split`, "train" or "t10k", with their labels.
inline images read_images(std::string const& folder, std::string const& split,
                          std::int64_t limit = std::numeric_limits<std::int64_t>::max()) {
  idx_file image_file(folder + "/" + split + "-images-idx3-ubyte.gz");
  image_file.expect(0x803, "the magic number");
  std::int64_t const count = image_file.number("the number of images");
  if (count == 0) image_file.refuse("images", "none");
  image_file.expect(image_side, "rows");
  image_file.expect(image_side, "columns");
  auto const raw = image_file.read(count * image_pixels, "images");
  image_file.expect_end();

  idx_file label_file(folder + "/" + split + "-labels-idx1-ubyte.gz");
  label_file.expect(0x801, "the magic number");
  label_file.expect(static_cast<std::uint32_t>(count), "the number of labels");
  auto const labels = label_file.read(count, "labels");
  label_file.expect_end();
  for (unsigned char const label : labels) {
    if (label >= class_count) label_file.refuse("labels 0 to 9", std::to_string(label));
  }

  images result;
  result.count = std::min(count, limit);
  result.labels.assign(labels.begin(), labels.begin() + result.count);
  result.pixels.resize(static_cast<std::size_t>(result.count * image_pixels));
  std::transform(raw.begin(), raw.begin() + result.count * image_pixels, result.pixels.begin(),
                 [](unsigned char byte) { return static_cast<float>(byte) / 127.5F - 1.0F; });
  return result;
}

/// A permutation of 0 ... count - 1: a pure function of its arguments.
inline std::vector<std::int32_t> shuffled(std::int64_t count, std::uint64_t seed,
                                          std::uint32_t epoch) {
  constexpr std::uint32_t stream = 0x6f726472;  // "ordr": no other use has it
  std::vector<std::uint64_t> draw(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < draw.size(); ++i) {
    auto const block = addloss::philox4x32_10(addloss::random_key{seed, epoch, stream, 0},
                                              static_cast<std::uint32_t>(i), 0);
    draw[i] = std::uint64_t{block.word[0]} << 32 | block.word[1];
  }
  std::vector<std::int32_t> order(draw.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return std::pair(draw[static_cast<std::size_t>(a)], a) <
           std::pair(draw[static_cast<std::size_t>(b)], b);
  });
  return order;
}

/// Which images each step of a training sees. Every epoch has a new order, and its last images that
/// fill no batch are left out. A function of the step: a training that resumes sees what an
/// uninterrupted one does.
class batch_order {
 public:
  batch_order(std::int64_t count, std::int64_t batch, std::uint64_t seed)
      : count_(count), batch_(batch), seed_(seed) {
    if (batch < 1 || batch > count) {
      throw std::invalid_argument("batch: expected 1 to " + std::to_string(count) + ", got " +
                                  std::to_string(batch));
    }
  }

  /// [batch]; valid until the next call.
  std::span<std::int32_t const> at(std::int64_t step) {
    std::int64_t const per_epoch = count_ / batch_;
    if (step / per_epoch != epoch_) {
      epoch_ = step / per_epoch;
      order_ = shuffled(count_, seed_, static_cast<std::uint32_t>(epoch_));
    }
    return std::span<std::int32_t const>(order_).subspan(
        static_cast<std::size_t>(step % per_epoch * batch_), static_cast<std::size_t>(batch_));
  }

 private:
  std::int64_t count_;
  std::int64_t batch_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;
  std::vector<std::int32_t> order_;
};

/// Copies the images of `order` to batch_pixels [B, 784] and batch_labels [B].
inline void gather(images const& from, std::span<std::int32_t const> order,
                   std::span<float> batch_pixels, std::span<int> batch_labels) {
  for (std::size_t b = 0; b < order.size(); ++b) {
    auto const image = static_cast<std::size_t>(order[b]);
    std::copy_n(from.pixels.begin() + static_cast<std::ptrdiff_t>(image * image_pixels),
                image_pixels, batch_pixels.begin() + static_cast<std::ptrdiff_t>(b * image_pixels));
    batch_labels[b] = from.labels[image];
  }
}

}  // namespace demo
