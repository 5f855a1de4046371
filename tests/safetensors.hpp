// SPDX-License-Identifier: MIT
/// Reads a safetensors file: 8-byte little-endian header length, JSON header, raw data in C order.
/// Every header field is checked against the size of the file before it is used.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace safetensors {

struct tensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<double> reals;           ///< of dtype F64
  std::vector<std::int64_t> integers;  ///< of dtype I64
};

struct file {
  std::map<std::string, std::string> metadata;
  std::map<std::string, tensor> tensors;
};

inline file read(std::string const& path) {
  auto const refuse = [&](std::string const& what) {
    throw std::runtime_error(path + ": " + what);
  };
  std::ifstream stream(path, std::ios::binary);
  if (!stream) refuse("cannot be opened");
  std::string const bytes{std::istreambuf_iterator<char>(stream), {}};
  std::uint64_t header_size = 0;
  if (bytes.size() < 8) refuse("shorter than a header length");
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > bytes.size() - 8) refuse("header length exceeds the file");
  auto const header = nlohmann::json::parse(bytes.substr(8, header_size));
  std::string const data = bytes.substr(8 + header_size);

  file result;
  std::uint64_t covered = 0;
  for (auto const& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      for (auto const& [key, value] : entry.items()) result.metadata[key] = value;
      continue;
    }
    tensor t;
    t.dtype = entry.at("dtype");
    if (t.dtype != "F64" && t.dtype != "I64") refuse(name + ": dtype " + t.dtype);
    t.shape = entry.at("shape").get<std::vector<std::int64_t>>();
    std::uint64_t count = 1;
    for (std::int64_t const extent : t.shape) {
      if (extent < 0 || (extent > 0 && count > data.size() / static_cast<std::uint64_t>(extent))) {
        refuse(name + ": shape exceeds the file");
      }
      count *= static_cast<std::uint64_t>(extent);
    }
    auto const offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size() ||
        offsets[1] - offsets[0] != 8 * count) {
      refuse(name + ": data_offsets do not fit shape and file");
    }
    covered += 8 * count;
    if (t.dtype == "F64") {
      t.reals.resize(count);
      std::memcpy(t.reals.data(), data.data() + offsets[0], 8 * count);
    } else {
      t.integers.resize(count);
      std::memcpy(t.integers.data(), data.data() + offsets[0], 8 * count);
    }
    result.tensors[name] = std::move(t);
  }
  if (covered != data.size()) refuse("data that no tensor covers");
  return result;
}

}  // namespace safetensors
