// SPDX-License-Identifier: MIT
/// Reads the Fashion-MNIST images of the Debian package dataset-fashion-mnist: gzipped IDX files.
#pragma once

#include <zlib.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace fashion_mnist {

inline constexpr std::size_t side = 28;
inline constexpr std::size_t pixels = side * side;
inline constexpr char const* default_folder = "/usr/share/datasets/fashion-mnist";

/// The first `count` images of `file`, [count, 1, 28, 28], scaled to [-1, 1].
inline std::vector<float> read_images(std::string const& file, std::size_t count) {
  gzFile const stream = gzopen(file.c_str(), "rb");
  if (stream == nullptr) {
    throw std::runtime_error("cannot open " + file +
                             " (./cmake/setup.sh installs the package dataset-fashion-mnist)");
  }
  auto const read = [&](void* to, std::size_t size, char const* what) {
    if (gzread(stream, to, static_cast<unsigned>(size)) != static_cast<int>(size)) {
      gzclose(stream);
      throw std::runtime_error(file + ": cut off in its " + what);
    }
  };
  // Four big-endian numbers: magic 2051 (unsigned bytes, three axes), images, rows, columns.
  std::array<unsigned char, 16> bytes{};
  read(bytes.data(), bytes.size(), "header");
  auto const number = [&](std::size_t i) {
    return std::uint32_t{bytes[4 * i]} << 24 | std::uint32_t{bytes[4 * i + 1]} << 16 |
           std::uint32_t{bytes[4 * i + 2]} << 8 | std::uint32_t{bytes[4 * i + 3]};
  };
  if (number(0) != 2051 || number(1) < count || number(2) != side || number(3) != side) {
    gzclose(stream);
    throw std::runtime_error(file + ": not an IDX file of enough 28 x 28 images");
  }
  std::vector<unsigned char> raw(count * pixels);
  read(raw.data(), raw.size(), "images");
  gzclose(stream);
  std::vector<float> images(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    images[i] = static_cast<float>(raw[i]) / 127.5F - 1.0F;
  }
  return images;
}

}  // namespace fashion_mnist
