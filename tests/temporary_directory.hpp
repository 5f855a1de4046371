// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

/// An empty directory that is removed with what is in it.
struct temporary_directory {
  std::string path;
  temporary_directory() {
    path = (std::filesystem::temp_directory_path() / "addloss_test_XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("no temporary directory");
  }
  temporary_directory(temporary_directory const&) = delete;
  temporary_directory(temporary_directory&&) = delete;
  temporary_directory& operator=(temporary_directory const&) = delete;
  temporary_directory& operator=(temporary_directory&&) = delete;
  ~temporary_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  [[nodiscard]] std::string file(char const* name = "x.safetensors") const {
    return path + "/" + name;
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (auto const& entry : std::filesystem::directory_iterator(path)) {
      result.push_back(entry.path().filename().string());
    }
    return result;
  }
};
