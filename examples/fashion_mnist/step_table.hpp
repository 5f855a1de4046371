// SPDX-License-Identifier: MIT
/// A table of numbers that grows as a training goes on, and its file of comma-separated values.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whole_file.hpp"

namespace demo {

/// The first column is the step, rising from row to row; the others are called `names`.
class step_table {
 public:
  explicit step_table(std::vector<std::string> names) : names_(std::move(names)) {
    names_.insert(names_.begin(), "step");
  }

  void add(std::int64_t step, std::vector<double> const& values) {
    if (values.size() + 1 != names_.size()) {
      throw std::invalid_argument("step_table: expected " + std::to_string(names_.size() - 1) +
                                  " values, got " + std::to_string(values.size()));
    }
    rows_.push_back({static_cast<double>(step)});
    rows_.back().insert(rows_.back().end(), values.begin(), values.end());
  }

  [[nodiscard]] std::int64_t rows() const { return std::ssize(rows_); }

  [[nodiscard]] std::vector<double> column(std::string_view name) const {
    auto const found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) {
      throw std::invalid_argument("step_table: no column " + std::string(name));
    }
    auto const place = static_cast<std::size_t>(found - names_.begin());
    std::vector<double> result;
    for (auto const& row : rows_) result.push_back(row[place]);
    return result;
  }

  /// Nine digits a number: read back and saved again, they are the same.
  void save(std::string const& path) const {
    std::string text = header() + "\n";
    for (auto const& row : rows_) {
      for (std::size_t i = 0; i < row.size(); ++i) {
        char number[32];
        std::snprintf(number, sizeof number, "%s%.9g", i == 0 ? "" : ",", row[i]);
        text += number;
      }
      text += "\n";
    }
    write_file(path, text);
  }

  /// The rows of a file whose steps are below `end`, in place of those that there are.
  /// Errors: std::runtime_error "path: what was expected, what was found".
  void read(std::string const& path, std::int64_t end) {
    std::ifstream file(path, std::ios::binary);
    auto const refuse = [&](std::string const& expected, std::string const& found) {
      throw std::runtime_error(path + ": expected " + expected + ", found " + found);
    };
    if (!file) throw std::runtime_error(path + ": cannot be read");
    std::string line;
    std::getline(file, line);
    if (line != header()) refuse("the header '" + header() + "'", "'" + line.substr(0, 200) + "'");
    std::vector<std::vector<double>> rows;
    for (std::int64_t number = 2; std::getline(file, line); ++number) {
      std::vector<double> row = numbers_of(line);
      std::string const place = " in line " + std::to_string(number);
      if (row.size() != names_.size()) {
        refuse(std::to_string(names_.size()) + " numbers" + place, "'" + line.substr(0, 200) + "'");
      }
      double const least = rows.empty() ? 0 : rows.back()[0] + 1;
      if (!(row[0] >= least)) {
        refuse("a step after the one before" + place, "'" + line.substr(0, 200) + "'");
      }
      if (row[0] >= static_cast<double>(end)) break;
      rows.push_back(std::move(row));
    }
    rows_ = std::move(rows);
  }

 private:
  [[nodiscard]] std::string header() const {
    std::string result;
    for (auto const& name : names_) result += (result.empty() ? "" : ",") + name;
    return result;
  }

  /// None where one of them is no number.
  static std::vector<double> numbers_of(std::string_view line) {
    std::vector<double> result;
    char const* at = line.data();
    char const* const end = at + line.size();
    while (true) {
      double value = 0;
      auto const [stop, error] = std::from_chars(at, end, value);
      if (error != std::errc{}) return {};
      result.push_back(value);
      if (stop == end) return result;
      if (*stop != ',') return {};
      at = stop + 1;
    }
  }

  std::vector<std::string> names_;
  std::vector<std::vector<double>> rows_;
};

}  // namespace demo
