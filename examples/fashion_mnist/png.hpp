// SPDX-License-Identifier: MIT
/// PNG pictures of 8 bits a channel, and sheets of 28 x 28 images with labels.
///
/// A PNG file is a signature and chunks: length, name, data, checksum of name and data.
///   IHDR  width, height, bits, kind of colour
///   IDAT  by zlib: each row's filter (0: none) and its bytes
///   IEND
/// Source: W3C, Portable Network Graphics (PNG) Specification.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "image_shape.hpp"
#include "whole_file.hpp"

namespace demo {

/// [height, width, channels] bytes: 1 channel is grey, 3 are red, green and blue.
struct picture {
  int width = 0;
  int height = 0;
  int channels = 1;
  std::vector<std::uint8_t> bytes;

  picture(int columns, int rows, int planes, std::uint8_t fill = 255)
      : width(columns),
        height(rows),
        channels(planes),
        bytes(static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows) *
                  static_cast<std::size_t>(planes),
              fill) {}

  /// The channels of one pixel.
  [[nodiscard]] std::uint8_t* at(int x, int y) {
    return bytes.data() + (static_cast<std::ptrdiff_t>(y) * width + x) * channels;
  }

  /// Fills a rectangle, as far as it lies inside the picture.
  void fill(int left, int top, int columns, int rows, std::uint8_t value) {
    for (int y = std::max(top, 0); y < std::min(top + rows, height); ++y) {
      for (int x = std::max(left, 0); x < std::min(left + columns, width); ++x) {
        std::fill_n(at(x, y), channels, value);
      }
    }
  }
};

/// The bytes of a PNG file.
inline std::string encode_png(picture const& image) {
  auto const append_number = [](std::string& to, std::uint32_t value) {
    for (int const shift : {24, 16, 8, 0}) to += static_cast<char>(value >> shift & 0xffU);
  };
  std::string result = "\x89PNG\r\n\x1a\n";
  auto const append_chunk = [&](std::string_view name, std::string_view data) {
    append_number(result, static_cast<std::uint32_t>(data.size()));
    std::size_t const start = result.size();
    result.append(name).append(data);
    auto const* const first = reinterpret_cast<Bytef const*>(result.data() + start);
    auto const sum = crc32(0, first, static_cast<uInt>(result.size() - start));
    append_number(result, static_cast<std::uint32_t>(sum));
  };

  std::string header;
  append_number(header, static_cast<std::uint32_t>(image.width));
  append_number(header, static_cast<std::uint32_t>(image.height));
  header += '\x08';  // bits
  header += image.channels == 1 ? '\x00' : '\x02';
  header.append(3, '\x00');  // compression, filter method, no interlacing
  append_chunk("IHDR", header);

  std::string rows;
  auto const row_bytes =
      static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) {
    rows += '\x00';
    rows.append(reinterpret_cast<char const*>(image.bytes.data()) + y * row_bytes, row_bytes);
  }
  uLongf size = compressBound(static_cast<uLong>(rows.size()));
  std::string packed(size, '\0');
  int const code = compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
                             reinterpret_cast<Bytef const*>(rows.data()),
                             static_cast<uLong>(rows.size()), Z_BEST_COMPRESSION);
  if (code != Z_OK) throw std::runtime_error("zlib cannot compress a picture");
  packed.resize(size);
  append_chunk("IDAT", packed);
  append_chunk("IEND", "");
  return result;
}

inline void save_png(std::string const& path, picture const& image) {
  write_file(path, encode_png(image));
}

/// Letters of 5 x 7 dots. Rows from the top; in a row, bit 4 is the left dot.
struct glyph {
  char letter;
  std::uint8_t row[7];
};
inline constexpr int glyph_width = 5;
inline constexpr int glyph_height = 7;
inline constexpr glyph glyphs[] = {
    {'0', {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}},
    {'1', {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'2', {0x0e, 0x11, 0x01, 0x06, 0x08, 0x10, 0x1f}},
    {'3', {0x0e, 0x11, 0x01, 0x06, 0x01, 0x11, 0x0e}},
    {'4', {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}},
    {'5', {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e}},
    {'6', {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}},
    {'7', {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08}},
    {'8', {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}},
    {'9', {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c}},
    {'A', {0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}},
    {'B', {0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e}},
    {'C', {0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e}},
    {'D', {0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e}},
    {'E', {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f}},
    {'F', {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10}},
    {'G', {0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f}},
    {'H', {0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}},
    {'I', {0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'J', {0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c}},
    {'K', {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11}},
    {'L', {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f}},
    {'M', {0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11}},
    {'N', {0x11, 0x11, 0x19, 0x15, 0x13, 0x11, 0x11}},
    {'O', {0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}},
    {'P', {0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10}},
    {'Q', {0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d}},
    {'R', {0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11}},
    {'S', {0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e}},
    {'T', {0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04}},
    {'U', {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e}},
    {'V', {0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04}},
    {'W', {0x11, 0x11, 0x11, 0x15, 0x15, 0x1b, 0x11}},
    {'X', {0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11}},
    {'Y', {0x11, 0x11, 0x0a, 0x04, 0x04, 0x04, 0x04}},
    {'Z', {0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f}},
    {' ', {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00}},
    {'-', {0x00, 0x00, 0x00, 0x0e, 0x00, 0x00, 0x00}},
    {'+', {0x00, 0x04, 0x04, 0x1f, 0x04, 0x04, 0x00}},
    {'=', {0x00, 0x00, 0x1f, 0x00, 0x1f, 0x00, 0x00}},
    {'.', {0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c}},
    {',', {0x00, 0x00, 0x00, 0x00, 0x0c, 0x04, 0x08}},
    {':', {0x00, 0x0c, 0x0c, 0x00, 0x0c, 0x0c, 0x00}},
    {'/', {0x00, 0x01, 0x02, 0x04, 0x08, 0x10, 0x00}},
    {'(', {0x02, 0x04, 0x08, 0x08, 0x08, 0x04, 0x02}},
    {')', {0x08, 0x04, 0x02, 0x02, 0x02, 0x04, 0x08}},
    {'%', {0x18, 0x19, 0x02, 0x04, 0x08, 0x13, 0x03}},
    {'?', {0x0e, 0x11, 0x01, 0x02, 0x04, 0x00, 0x04}},
};

/// Width of `text` in dots.
inline int text_width(std::string_view text) {
  return text.empty() ? 0 : static_cast<int>(text.size()) * (glyph_width + 1) - 1;
}

/// Writes `text` in black capitals, `dot` pixels a dot; a letter that there is not becomes '?'.
inline void draw_text(picture& image, int left, int top, std::string_view text, int dot) {
  for (char const c : text) {
    auto const wanted = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    auto const* found = std::find_if(std::begin(glyphs), std::end(glyphs) - 1,
                                     [&](glyph const& g) { return g.letter == wanted; });
    for (int y = 0; y < glyph_height; ++y) {
      for (int x = 0; x < glyph_width; ++x) {
        if ((found->row[y] >> (glyph_width - 1 - x) & 1) != 0) {
          image.fill(left + x * dot, top + y * dot, dot, dot, 0);
        }
      }
    }
    left += (glyph_width + 1) * dot;
  }
}

struct sheet_layout {
  int scale = 4;  ///< pixels of the sheet a pixel of an image
  int margin = 4;  ///< between images, in pixels of the sheet
};

/// Images [rows * columns, 784], row by row, one row a label of `rows` and one column a label of
/// `columns`; values outside [-1, 1] are clamped.
inline picture image_sheet(std::span<float const> images, std::span<std::string const> rows,
                           std::span<std::string const> columns, sheet_layout layout = {}) {
  if (images.size() != rows.size() * columns.size() * image_pixels) {
    throw std::invalid_argument("image_sheet: expected " +
                                std::to_string(rows.size() * columns.size()) + " images, got " +
                                std::to_string(images.size()) + " pixels");
  }
  auto const widest = [](std::span<std::string const> labels) {
    int width = 0;
    for (auto const& label : labels) width = std::max(width, text_width(label));
    return width;
  };
  int const cell = image_side * layout.scale + layout.margin;
  // Two pixels a dot where the labels of the columns have room for it.
  int const dot = 2 * widest(columns) < cell ? 2 : 1;
  int const left = widest(rows) * dot + 2 * layout.margin;
  int const top = glyph_height * dot + 2 * layout.margin;
  picture sheet(left + static_cast<int>(columns.size()) * cell,
                top + static_cast<int>(rows.size()) * cell, 1);

  for (int c = 0; c < std::ssize(columns); ++c) {
    auto const& label = columns[static_cast<std::size_t>(c)];
    int const spare = image_side * layout.scale - text_width(label) * dot;
    draw_text(sheet, left + c * cell + std::max(spare, 0) / 2, layout.margin, label, dot);
  }
  for (int r = 0; r < std::ssize(rows); ++r) {
    int const middle = top + r * cell + (image_side * layout.scale - glyph_height * dot) / 2;
    draw_text(sheet, layout.margin, middle, rows[static_cast<std::size_t>(r)], dot);
    for (int c = 0; c < std::ssize(columns); ++c) {
      auto const image = images.subspan(
          (static_cast<std::size_t>(r) * columns.size() + static_cast<std::size_t>(c)) *
              image_pixels,
          image_pixels);
      for (int y = 0; y < image_side; ++y) {
        for (int x = 0; x < image_side; ++x) {
          float const value = image[static_cast<std::size_t>(y * image_side + x)];
          // NaN shows as black.
          float const inside = value > -1 ? std::min(value, 1.0F) : -1.0F;
          sheet.fill(left + c * cell + x * layout.scale, top + r * cell + y * layout.scale,
                     layout.scale, layout.scale,
                     static_cast<std::uint8_t>(std::lround((inside + 1) * 127.5F)));
        }
      }
    }
  }
  return sheet;
}

}  // namespace demo
