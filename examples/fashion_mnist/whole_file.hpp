// SPDX-License-Identifier: MIT
/// Writes a file whole or not at all.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace demo {

[[noreturn]] inline void refuse_to_write(std::string const& path, int reason) {
  throw std::runtime_error(path + ": cannot be written (" +
                           std::generic_category().message(reason) + ")");
}

/// Writes a file of a temporary name beside `path`, flushes it to the disk and renames it: where
/// anything fails (a full disk, say), what stood at `path` still stands there.
/// Errors: std::runtime_error "path: cannot be written (reason)".
inline void write_file(std::string const& path, std::string_view bytes) {
  std::string const temporary = path + ".tmp" + std::to_string(::getpid());
  std::FILE* const file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) refuse_to_write(path, errno);
  int reason = 0;
  auto const step = [&](bool worked) {
    if (!worked && reason == 0) reason = errno != 0 ? errno : EIO;
  };
  step(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
  step(std::fflush(file) == 0);
  step(::fsync(::fileno(file)) == 0);
  step(std::fclose(file) == 0);
  if (reason == 0) step(std::rename(temporary.c_str(), path.c_str()) == 0);
  if (reason != 0) {
    std::remove(temporary.c_str());
    refuse_to_write(path, reason);
  }
}

/// The same error, where no file can be made beside `path`: to know it before the work.
inline void require_writable(std::string const& path) {
  std::string const probe = path + ".tmp" + std::to_string(::getpid());
  std::FILE* const file = std::fopen(probe.c_str(), "wb");
  if (file == nullptr) refuse_to_write(path, errno);
  std::fclose(file);
  std::remove(probe.c_str());
}

}  // namespace demo
