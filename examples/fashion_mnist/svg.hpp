// SPDX-License-Identifier: MIT
/// Line plots as SVG: axes with ticks, linear or logarithmic, and a legend.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whole_file.hpp"

namespace demo {

enum class axis_scale { linear, logarithmic };

struct axis {
  std::string label = {};
  axis_scale scale = axis_scale::linear;
};

/// A line through (x[i], y[i]), with dots where there are few. It has a gap where a value is not
/// finite, or not positive on a logarithmic axis. Without a name it is not in the legend.
struct series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
  std::string colour = {};  ///< empty: that of its place
  double opacity = 1;
};

struct line_plot {
  std::string title = {};
  axis horizontal = {};
  axis vertical = {};
  std::vector<series> lines = {};
};

/// Where the values of an axis lie, and its ticks. Positions are in [0, 1].
class axis_range {
 public:
  axis_range(axis_scale scale, double low, double high) : scale_(scale) {
    if (!(low <= high)) {  // nothing to show
      low = logarithmic() ? 1 : 0;
      high = logarithmic() ? 10 : 1;
    }
    if (logarithmic()) {
      make_decades(low, high);
    } else {
      make_steps(low, high);
    }
    first_ = coordinate(ticks_.front());
    last_ = coordinate(ticks_.back());
  }

  [[nodiscard]] double position(double value) const {
    return (coordinate(value) - first_) / (last_ - first_);
  }
  [[nodiscard]] std::vector<double> const& ticks() const { return ticks_; }

 private:
  [[nodiscard]] bool logarithmic() const { return scale_ == axis_scale::logarithmic; }
  [[nodiscard]] double coordinate(double value) const {
    return logarithmic() ? std::log10(value) : value;
  }

  /// About five steps of 1, 2 or 5 times a power of ten.
  void make_steps(double low, double high) {
    // Values that differ by their rounding only are one value.
    double const magnitude = std::max(std::abs(low), std::abs(high));
    if (high - low <= 1e-9 * magnitude || magnitude == 0) high = low + (low == 0 ? 1 : magnitude);
    double const rough = (high - low) / 5;
    double const power = std::pow(10.0, std::floor(std::log10(rough)));
    double const digit = rough / power;
    double const step = (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10) * power;
    for (double i = std::floor(low / step); i <= std::ceil(high / step); ++i) {
      ticks_.push_back(i * step);
    }
  }

  /// The numbers 1, 2 and 5 times a power of ten about the values; of many decades the powers only.
  void make_decades(double low, double high) {
    bool const many = high / low > 1e3;
    auto const candidates = [&](auto const& visit) {
      for (double power = std::floor(std::log10(low)); power <= std::log10(high) + 1; ++power) {
        for (double const digit : {1.0, 2.0, 5.0}) {
          if (!many || digit == 1) visit(digit * std::pow(10.0, power));
        }
      }
    };
    double first = 0;
    double last = 0;
    candidates([&](double tick) {
      if (tick <= low) first = tick;
      if (last < high || last <= first) last = tick;
    });
    candidates([&](double tick) {
      if (tick >= first && tick <= last) ticks_.push_back(tick);
    });
  }

  axis_scale scale_;
  std::vector<double> ticks_;
  double first_ = 0;
  double last_ = 1;
};

/// Of a plot, in units of an SVG file.
inline constexpr double plot_width = 720;
inline constexpr double plot_height = 420;

/// The elements of an SVG file that draw a plot.
inline std::string draw_plot(line_plot const& plot) {
  bool const legend = std::any_of(plot.lines.begin(), plot.lines.end(),
                                  [](series const& line) { return !line.name.empty(); });
  constexpr double left = 70;
  double const right = legend ? 560 : 700;  // the legend stands right of it
  constexpr double top = 40;
  constexpr double bottom = 360;
  constexpr std::array<char const*, 8> colours = {"#1f6fb4", "#d9542b", "#3a9a48", "#8e5aa8",
                                                  "#b58900", "#16a3a3", "#c13584", "#5f6b76"};

  auto const number = [](double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", std::abs(value) < 1e-300 ? 0.0 : value);
    return std::string(text);
  };
  auto const escaped = [](std::string_view text) {
    std::string result;
    for (char const c : text) {
      if (c == '&') result += "&amp;";
      else if (c == '<') result += "&lt;";
      else if (c == '>') result += "&gt;";
      else result += c;
    }
    return result;
  };
  auto const shown = [](axis const& a, double value) {
    return std::isfinite(value) && (a.scale == axis_scale::linear || value > 0);
  };

  double const infinity = std::numeric_limits<double>::infinity();
  std::pair<double, double> x_bounds(infinity, -infinity);
  std::pair<double, double> y_bounds(infinity, -infinity);
  for (series const& line : plot.lines) {
    if (line.x.size() != line.y.size()) {
      throw std::invalid_argument("line_plot: expected as many x as y in " + line.name);
    }
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      if (!shown(plot.horizontal, line.x[i]) || !shown(plot.vertical, line.y[i])) continue;
      x_bounds = {std::min(x_bounds.first, line.x[i]), std::max(x_bounds.second, line.x[i])};
      y_bounds = {std::min(y_bounds.first, line.y[i]), std::max(y_bounds.second, line.y[i])};
    }
  }
  axis_range const x_range(plot.horizontal.scale, x_bounds.first, x_bounds.second);
  axis_range const y_range(plot.vertical.scale, y_bounds.first, y_bounds.second);
  auto const x_of = [&](double value) { return left + (right - left) * x_range.position(value); };
  auto const y_of = [&](double value) { return bottom - (bottom - top) * y_range.position(value); };

  std::string out;
  auto const text = [&](double x, double y, std::string const& words,
                        std::string const& attributes) {
    out += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" " + attributes + ">" +
           escaped(words) + "</text>\n";
  };
  auto const rule = [&](double x1, double y1, double x2, double y2, std::string const& colour) {
    out += "<path d=\"M" + number(x1) + " " + number(y1) + "L" + number(x2) + " " + number(y2) +
           "\" stroke=\"" + colour + "\"/>\n";
  };

  text((left + right) / 2, 22, plot.title, "text-anchor=\"middle\" font-size=\"15\"");
  for (double const tick : x_range.ticks()) {
    rule(x_of(tick), top, x_of(tick), bottom, "#e4e4e4");
    text(x_of(tick), bottom + 18, number(tick), "text-anchor=\"middle\"");
  }
  for (double const tick : y_range.ticks()) {
    rule(left, y_of(tick), right, y_of(tick), "#e4e4e4");
    text(left - 8, y_of(tick) + 4, number(tick), "text-anchor=\"end\"");
  }
  rule(left, bottom, right, bottom, "#444");
  rule(left, top, left, bottom, "#444");
  text((left + right) / 2, bottom + 42, plot.horizontal.label, "text-anchor=\"middle\"");
  text(0, 0, plot.vertical.label,
       "text-anchor=\"middle\" transform=\"translate(18 " + number((top + bottom) / 2) +
           ") rotate(-90)\"");

  double entry = top + 10;
  for (std::size_t k = 0; k < plot.lines.size(); ++k) {
    series const& line = plot.lines[k];
    std::string const colour = line.colour.empty() ? colours[k % colours.size()] : line.colour;
    std::string path;
    std::string dots;
    char pen = 'M';
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      if (!shown(plot.horizontal, line.x[i]) || !shown(plot.vertical, line.y[i])) {
        pen = 'M';
        continue;
      }
      std::string const x = number(x_of(line.x[i]));
      std::string const y = number(y_of(line.y[i]));
      path += pen + x + " " + y;
      if (pen == 'M') path += "h0";  // with round ends, a value between two gaps is a dot
      pen = 'L';
      if (line.x.size() <= 40) {
        dots += "<circle cx=\"" + x + "\" cy=\"" + y + "\" r=\"3\" fill=\"" + colour + "\"/>\n";
      }
    }
    out += "<path d=\"" + path + "\" fill=\"none\" stroke=\"" + colour + "\" stroke-opacity=\"" +
           number(line.opacity) +
           "\" stroke-width=\"1.8\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>\n" + dots;
    if (line.name.empty()) continue;
    rule(right + 14, entry, right + 34, entry, colour);
    text(right + 40, entry + 4, line.name, "text-anchor=\"start\"");
    entry += 20;
  }
  return out;
}

/// The text of an SVG file of plots, `columns` in a line.
inline std::string encode_svg(std::span<line_plot const> plots, int columns = 1) {
  int const rows = (static_cast<int>(plots.size()) + columns - 1) / columns;
  auto const length = [](double each, int count) {
    return std::to_string(static_cast<int>(each) * count);
  };
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " +
                    length(plot_width, columns) + " " + length(plot_height, rows) +
                    "\" font-family=\"sans-serif\" font-size=\"13\">\n" +
                    "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  for (int i = 0; i < std::ssize(plots); ++i) {
    out += "<g transform=\"translate(" + length(plot_width, i % columns) + " " +
           length(plot_height, i / columns) + ")\">\n" +
           draw_plot(plots[static_cast<std::size_t>(i)]) + "</g>\n";
  }
  return out + "</svg>\n";
}
inline std::string encode_svg(line_plot const& plot) {
  return encode_svg(std::span<line_plot const>(&plot, 1));
}

inline void save_svg(std::string const& path, std::span<line_plot const> plots, int columns = 1) {
  write_file(path, encode_svg(plots, columns));
}
inline void save_svg(std::string const& path, line_plot const& plot) {
  save_svg(path, std::span<line_plot const>(&plot, 1));
}

}  // namespace demo
