// SPDX-License-Identifier: MIT
/// Named tensors of float and double in files of the safetensors format, which PyTorch, JAX and
/// others read and write.
///
///   8 bytes   length of the header, little-endian
///   header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
///                    "__metadata__": {"key": "text", ...}}, perhaps spaces at its end
///   data      little-endian, C order, without gaps; data_offsets are [first, last) within it
/// Saving is atomic: a file of a temporary name in the same directory is written, flushed to the
/// disk and renamed, so `path` is the old file or the whole new one. Doubles come first, so all
/// data are aligned. Loading checks the whole header, against the size of the file too, before it
/// uses any of it; on an error nothing has been written to the memory of the caller.
/// NaN, infinity and -0 keep their bits. Both allocate. Needs POSIX and a little-endian machine.
/// Errors: "save_safetensors: A (expected E, got G)", "load_safetensors: ..."; A is the name of the
/// tensor, or the path where it is the file that is wrong.
/// Source: https://github.com/huggingface/safetensors, section Format.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>

namespace addloss {

static_assert(std::endian::native == std::endian::little);

/// A tensor of a file: `Data` is void const for saving, void for loading.
template <class Data>
struct file_tensor {
  std::string_view name;
  std::span<std::int64_t const> shape;  ///< empty: one number
  Data* data = nullptr;  ///< dense, C order
  bool wide = false;  ///< of double, not float

  file_tensor() = default;
  file_tensor(std::string_view tensor_name, std::span<std::int64_t const> extents, auto* values)
    requires(arithmetic_scalar<std::remove_const_t<std::remove_pointer_t<decltype(values)>>> &&
             std::convertible_to<decltype(values), Data*>)
      : name(tensor_name), shape(extents), data(values), wide(sizeof *values == sizeof(double)) {}
};
using saved_tensor = file_tensor<void const>;
using loaded_tensor = file_tensor<void>;

struct load_options {
  bool allow_extra = false;  ///< tensors in the file that were not asked for are no error
};

/// Texts that a file carries beside its tensors.
using safetensors_metadata = std::map<std::string, std::string>;

namespace detail {

/// For messages: what a file contains is not sent to a terminal as it is.
inline std::string printable(std::string_view piece) {
  std::string result(piece);
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return result;
}

/// fail() for texts made at run time.
[[noreturn]] inline void fail_file(char const* function, std::string_view what,
                                   std::string const& expected, std::string const& got) {
  fail(function, printable(what).c_str(), printable(expected).c_str(), printable(got).c_str());
}

[[nodiscard]] inline std::string shape_text(std::span<std::int64_t const> shape) {
  std::string result = "[";
  for (std::int64_t const extent : shape) {
    if (result.size() > 1) result += ", ";
    result += std::to_string(extent);
  }
  return result + "]";
}

/// Bytes of a tensor; -1 where an extent is negative or the bytes do not fit 63 bits.
[[nodiscard]] inline std::int64_t bytes_of(std::span<std::int64_t const> shape,
                                           std::int64_t element) {
  bool empty = false;
  for (std::int64_t const extent : shape) {
    if (extent < 0) return -1;
    empty = empty || extent == 0;
  }
  if (empty) return 0;
  std::int64_t bytes = element;
  for (std::int64_t const extent : shape) {
    if (bytes > std::numeric_limits<std::int64_t>::max() / extent) return -1;
    bytes *= extent;
  }
  return bytes;
}

/// Length of the UTF-8 sequence at the start of `bytes`; 0 if there is none.
[[nodiscard]] inline std::size_t utf8_length(std::string_view bytes) {
  auto const at = [&](std::size_t i) {
    return i < bytes.size() ? static_cast<unsigned>(static_cast<unsigned char>(bytes[i])) : 0U;
  };
  unsigned const lead = at(0);
  if (bytes.empty() || lead < 0x80) return bytes.empty() ? 0 : 1;
  std::size_t const length = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0U) != 0x80U) return 0;
  }
  // Overlong sequences, surrogates, and what lies above U+10FFFF.
  bool const refused = (lead == 0xe0 && at(1) < 0xa0) || (lead == 0xed && at(1) >= 0xa0) ||
                       (lead == 0xf0 && at(1) < 0x90) || (lead == 0xf4 && at(1) >= 0x90);
  return refused ? 0 : length;
}

[[nodiscard]] inline bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    std::size_t const length = utf8_length(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

inline void append_utf8(std::string& out, std::uint32_t code) {
  auto const byte = [&](std::uint32_t bits) { out += static_cast<char>(bits); };
  auto const rest = [&](int shift) { byte(0x80U | ((code >> shift) & 0x3fU)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0U | (code >> 6));
    rest(0);
  } else if (code < 0x10000) {
    byte(0xe0U | (code >> 12));
    rest(6);
    rest(0);
  } else {
    byte(0xf0U | (code >> 18));
    rest(12);
    rest(6);
    rest(0);
  }
}

/// `bytes` as a JSON string.
[[nodiscard]] inline std::string quoted(std::string_view bytes) {
  std::string result = "\"";
  for (char const c : bytes) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      result += escape;
    } else {
      result += c;
    }
  }
  return result + "\"";
}

/// What a header says of one tensor.
struct file_entry {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// Bytes of an element; 0 for types that are not known.
[[nodiscard]] inline std::int64_t dtype_bytes(std::string_view dtype) {
  using row = std::pair<std::string_view, std::int64_t>;
  constexpr row table[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                           {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                           {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  for (auto const& [name, bytes] : table) {
    if (name == dtype) return bytes;
  }
  return 0;
}

/// Reads the JSON that headers consist of: objects of known depth, strings, whole numbers >= 0.
class header_reader {
 public:
  header_reader(char const* function, std::string const& path, std::string_view header)
      : function_(function), path_(path), text_(header) {}

  void read(std::map<std::string, file_entry>& tensors, safetensors_metadata& metadata) {
    // The format wants the brace first, without space before it.
    if (text_.empty() || text_[0] != '{') refuse("'{'");
    bool has_metadata = false;
    members([&](std::string const& name) {
      if (name == "__metadata__") {
        if (has_metadata) refuse("one __metadata__");
        has_metadata = true;
        members([&](std::string const& key) {
          if (!metadata.emplace(key, string()).second) refuse("different keys in __metadata__");
        });
      } else if (!tensors.emplace(name, entry()).second) {
        refuse("different names of tensors");
      }
    });
    skip_space();
    if (at_ < text_.size()) refuse("nothing but spaces after '}'");
  }

 private:
  [[noreturn]] void refuse(std::string const& expected) const {
    fail_file(function_, path_, expected + " before byte " + std::to_string(at_) + " of the header",
              at_ < text_.size() ? "'" + std::string(text_.substr(at_, 12)) + "'" : "its end");
  }

  void skip_space() {
    while (at_ < text_.size() &&
           std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  [[nodiscard]] bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) refuse(std::string("'") + c + "'");
  }

  /// An object; `member` reads the value of a key.
  template <class Member>
  void members(Member const& member) {
    expect('{');
    if (take('}')) return;
    do {
      std::string const key = string();
      expect(':');
      member(key);
    } while (take(','));
    expect('}');
  }

  file_entry entry() {
    file_entry result;
    std::vector<std::int64_t> offsets;
    unsigned seen = 0;
    auto const once = [&](unsigned bit) {
      if ((seen & bit) != 0) refuse("dtype, shape and data_offsets once each");
      seen |= bit;
    };
    members([&](std::string const& key) {
      if (key == "dtype") {
        once(1);
        result.dtype = string();
      } else if (key == "shape") {
        once(2);
        result.shape = numbers();
      } else if (key == "data_offsets") {
        once(4);
        offsets = numbers();
      } else {
        refuse("dtype, shape or data_offsets");
      }
    });
    if (seen != 7) refuse("dtype, shape and data_offsets");
    if (offsets.size() != 2) refuse("two data_offsets");
    result.first = offsets[0];
    result.last = offsets[1];
    return result;
  }

  std::vector<std::int64_t> numbers() {
    std::vector<std::int64_t> result;
    expect('[');
    if (take(']')) return result;
    do {
      result.push_back(number());
    } while (take(','));
    expect(']');
    return result;
  }

  std::int64_t number() {
    skip_space();
    auto const digit = [&] { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; };
    std::size_t const start = at_;
    std::int64_t result = 0;
    for (; digit(); ++at_) {
      int const value = text_[at_] - '0';
      if (result > (std::numeric_limits<std::int64_t>::max() - value) / 10) {
        refuse("a number below 2^63");
      }
      result = 10 * result + value;
    }
    if (at_ == start || (text_[start] == '0' && at_ > start + 1)) refuse("a whole number");
    return result;
  }

  std::string string() {
    expect('"');
    std::string result;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\') {
        ++at_;
        escape(result);
        continue;
      }
      std::size_t const length = utf8_length(text_.substr(at_));
      if (length == 0 || static_cast<unsigned char>(text_[at_]) < 0x20) refuse("UTF-8 text");
      result += text_.substr(at_, length);
      at_ += length;
    }
    if (at_ >= text_.size()) refuse("'\"'");
    ++at_;
    return result;
  }

  void escape(std::string& result) {
    constexpr std::string_view letters = "\"\\/bfnrt";
    constexpr std::string_view meanings = "\"\\/\b\f\n\r\t";
    char const letter = at_ < text_.size() ? text_[at_] : '\0';
    if (std::size_t const i = letters.find(letter); i != std::string_view::npos) {
      ++at_;
      result += meanings[i];
      return;
    }
    if (letter != 'u') refuse("an escape");
    std::uint32_t code = hexadecimal();
    if (code >= 0xd800 && code < 0xdc00) {  // the first half of a surrogate pair
      if (text_.substr(at_, 2) != "\\u") refuse("the second half of a surrogate pair");
      ++at_;
      std::uint32_t const low = hexadecimal();
      if (low < 0xdc00 || low >= 0xe000) refuse("the second half of a surrogate pair");
      code = 0x10000U + ((code - 0xd800U) << 10) + (low - 0xdc00U);
    } else if (code >= 0xdc00 && code < 0xe000) {
      refuse("the first half of a surrogate pair");
    }
    append_utf8(result, code);
  }

  /// At 'u' and four digits.
  std::uint32_t hexadecimal() {
    ++at_;
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      constexpr std::string_view digits = "0123456789abcdefABCDEF";
      std::size_t const value =
          at_ < text_.size() ? digits.find(text_[at_]) : std::string_view::npos;
      if (value == std::string_view::npos) refuse("four hexadecimal digits");
      code = code * 16 + static_cast<std::uint32_t>(value < 16 ? value : value - 6);
    }
    return code;
  }

  char const* function_;
  std::string const& path_;
  std::string_view text_;
  std::size_t at_ = 0;
};

/// A file descriptor that is closed, and a temporary file that is removed, when it goes.
struct open_file {
  int descriptor = -1;
  std::string temporary;  ///< to remove

  open_file() = default;
  open_file(open_file const&) = delete;
  open_file& operator=(open_file const&) = delete;
  open_file(open_file&&) = delete;
  open_file& operator=(open_file&&) = delete;
  ~open_file() {
    static_cast<void>(close());
    if (!temporary.empty()) ::unlink(temporary.c_str());
  }
  [[nodiscard]] bool close() {
    int const closing = std::exchange(descriptor, -1);
    return closing < 0 || ::close(closing) == 0;
  }
};

[[noreturn]] inline void fail_system(char const* function, std::string const& path,
                                     char const* expected, int code) {
  fail_file(function, path, expected, std::generic_category().message(code));
}

inline void write_all(char const* function, std::string const& path, int descriptor,
                      void const* data, std::int64_t bytes) {
  auto const* from = static_cast<char const*>(data);
  while (bytes > 0) {
    ssize_t const written = ::write(descriptor, from, static_cast<std::size_t>(bytes));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_system(function, path, "a writable file", errno);
    from += written;
    bytes -= written;
  }
}

inline void read_all(char const* function, std::string const& path, int descriptor, void* data,
                     std::int64_t bytes, std::int64_t offset) {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    ssize_t const got = ::pread(descriptor, to, static_cast<std::size_t>(bytes), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_system(function, path, "a readable file", errno);
    if (got == 0) fail_file(function, path, "a file that stays as it is", "an early end");
    to += got;
    bytes -= got;
    offset += got;
  }
}

/// Refuses names that occur twice and shapes that are no shapes; gives the bytes of each tensor.
template <class Data>
std::vector<std::int64_t> check_tensors(char const* function,
                                        std::span<file_tensor<Data> const> tensors) {
  std::vector<std::int64_t> bytes;
  std::vector<std::string_view> names;
  for (auto const& t : tensors) {
    bytes.push_back(bytes_of(t.shape, t.wide ? 8 : 4));
    names.push_back(t.name);
    if (bytes.back() < 0) {
      fail_file(function, t.name, "extents of a tensor that fits memory", shape_text(t.shape));
    }
    if (bytes.back() > 0 && t.data == nullptr) fail_file(function, t.name, "data", "null");
    if (t.name == "__metadata__") fail_file(function, t.name, "another name", "this one");
    if (!is_utf8(t.name)) fail_file(function, t.name, "a name in UTF-8", "other bytes");
  }
  std::sort(names.begin(), names.end());
  auto const twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail_file(function, *twice, "one tensor of this name", "two");
  return bytes;
}

/// Opens a new file beside `path`.
inline void create_temporary(char const* function, std::string const& path, open_file& file) {
  for (int attempt = 0;; ++attempt) {
    std::string const name =
        path + ".tmp" + std::to_string(::getpid()) + "_" + std::to_string(attempt);
    file.descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file.descriptor >= 0) {
      file.temporary = name;
      return;
    }
    if (errno != EEXIST || attempt == 99) fail_system(function, path, "a writable file", errno);
  }
}

/// The rename itself reaches the disk with the directory.
inline void flush_directory(char const* function, std::string const& path) {
  std::size_t const slash = path.rfind('/');
  std::string const directory = slash == std::string_view::npos ? "." : path.substr(0, slash + 1);
  open_file file;
  file.descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // EINVAL: a file system that has no such call.
  if (file.descriptor < 0 || (::fsync(file.descriptor) != 0 && errno != EINVAL)) {
    fail_system(function, path, "a directory that can be flushed", errno);
  }
}

/// Checks dtypes and shapes against data_offsets, and these against each other and the data.
inline void check_entries(char const* function, std::string const& path,
                          std::map<std::string, file_entry> const& entries, std::int64_t data) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  for (auto const& [name, entry] : entries) {
    std::int64_t const element = dtype_bytes(entry.dtype);
    if (element == 0) fail_file(function, name, "a known dtype", entry.dtype);
    std::int64_t const bytes = bytes_of(entry.shape, element);
    bool const inside = entry.first <= entry.last && entry.last <= data;
    if (bytes < 0 || !inside || entry.last - entry.first != bytes) {
      fail_file(function, name,
                "data_offsets within " + std::to_string(data) + " bytes, for " + entry.dtype + " " +
                    shape_text(entry.shape),
                "[" + std::to_string(entry.first) + ", " + std::to_string(entry.last) + "]");
    }
    ranges.emplace_back(entry.first, entry.last);
  }
  std::sort(ranges.begin(), ranges.end());
  std::int64_t covered = 0;
  for (auto const& [first, last] : ranges) {
    if (first != covered) {
      fail_file(function, path, "tensors without gaps or overlap",
                "one from byte " + std::to_string(first) + " after " + std::to_string(covered));
    }
    covered = last;
  }
  if (covered != data) {
    fail_file(function, path, "data of " + std::to_string(covered) + " bytes",
              std::to_string(data));
  }
}

}  // namespace detail

/// Writes the tensors, in their order but doubles first. On an error the file at `path` is what it
/// was (the whole new one, if it is the directory that cannot be flushed). A link at `path` is
/// replaced, not followed.
///
///   std::int64_t const shape[] = {2, 3};
///   saved_tensor const tensors[] = {{"weight", shape, weight.data()}};
///   save_safetensors("head.safetensors", tensors, {{"step", "1000"}});
inline void save_safetensors(std::string const& path, std::span<saved_tensor const> tensors,
                             safetensors_metadata const& metadata = {}) {
  char const* const function = "save_safetensors";
  std::vector<std::int64_t> const bytes = detail::check_tensors(function, tensors);
  for (auto const& [key, value] : metadata) {
    if (!detail::is_utf8(key) || !detail::is_utf8(value)) {
      detail::fail_file(function, "metadata", "UTF-8", key);
    }
  }

  std::string header = "{";
  auto const member = [&](std::string_view name) {
    if (header.back() != '{') header += ',';
    header += detail::quoted(name) + ":";
  };
  if (!metadata.empty()) {
    member("__metadata__");
    header += '{';
    for (auto const& [key, value] : metadata) {
      member(key);
      header += detail::quoted(value);
    }
    header += '}';
  }
  std::int64_t offset = 0;
  for (bool const wide : {true, false}) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].wide != wide) continue;
      member(tensors[i].name);
      header += wide ? R"({"dtype":"F64","shape":)" : R"({"dtype":"F32","shape":)";
      header += detail::shape_text(tensors[i].shape);
      if (bytes[i] > std::numeric_limits<std::int64_t>::max() - offset) {
        detail::fail_file(function, tensors[i].name, "less than 2^63 bytes in all", "more");
      }
      header += ",\"data_offsets\":[" + std::to_string(offset) + ",";
      offset += bytes[i];
      header += std::to_string(offset) + "]}";
    }
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');

  detail::open_file file;
  detail::create_temporary(function, path, file);
  auto const write = [&](void const* data, std::int64_t count) {
    detail::write_all(function, path, file.descriptor, data, count);
  };
  std::uint64_t const header_size = header.size();
  write(&header_size, 8);
  write(header.data(), static_cast<std::int64_t>(header_size));
  for (bool const wide : {true, false}) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].wide == wide) write(tensors[i].data, bytes[i]);
    }
  }
  if (::fsync(file.descriptor) != 0 || !file.close() ||
      std::rename(file.temporary.c_str(), path.c_str()) != 0) {
    detail::fail_system(function, path, "a writable file", errno);
  }
  file.temporary.clear();
  detail::flush_directory(function, path);
}

/// Reads every tensor asked for, and gives the file's metadata. Missing tensors, other dtypes and
/// other shapes are errors; so are further tensors in the file, unless options.allow_extra.
inline safetensors_metadata load_safetensors(std::string const& path,
                                             std::span<loaded_tensor const> tensors,
                                             load_options options = {}) {
  char const* const function = "load_safetensors";
  std::vector<std::int64_t> const bytes = detail::check_tensors(function, tensors);

  detail::open_file file;
  // A pipe without a writer would block; files do not mind.
  file.descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  if (file.descriptor < 0 || ::fstat(file.descriptor, &status) != 0) {
    detail::fail_system(function, path, "a readable file", errno);
  }
  if (!S_ISREG(status.st_mode)) detail::fail_file(function, path, "a file", "something else");
  std::int64_t const size = status.st_size;
  if (size < 8) {
    detail::fail_file(function, path, "8 bytes or more", std::to_string(size));
  }
  auto const read = [&](void* data, std::int64_t count, std::int64_t offset) {
    detail::read_all(function, path, file.descriptor, data, count, offset);
  };
  std::uint64_t header_size = 0;
  read(&header_size, 8, 0);
  // The format's own limit; without it a sparse file could ask for any amount of memory.
  constexpr std::int64_t limit = 100'000'000;
  std::int64_t const room = size - 8 < limit ? size - 8 : limit;
  if (header_size > static_cast<std::uint64_t>(room)) {
    detail::fail_file(function, path, "a header of at most " + std::to_string(room) + " bytes",
                      std::to_string(header_size));
  }
  std::string header(header_size, '\0');
  auto const data_start = static_cast<std::int64_t>(8 + header_size);
  read(header.data(), static_cast<std::int64_t>(header_size), 8);

  std::map<std::string, detail::file_entry> entries;
  safetensors_metadata metadata;
  detail::header_reader(function, path, header).read(entries, metadata);
  detail::check_entries(function, path, entries, size - data_start);

  std::vector<std::int64_t> starts;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    loaded_tensor const& t = tensors[i];
    auto const found = entries.find(std::string(t.name));
    auto const wanted = (t.wide ? "F64 " : "F32 ") + detail::shape_text(t.shape);
    if (found == entries.end()) detail::fail_file(function, t.name, wanted, "no such tensor");
    auto const got = found->second.dtype + " " + detail::shape_text(found->second.shape);
    if (got != wanted) detail::fail_file(function, t.name, wanted, got);
    starts.push_back(data_start + found->second.first);
    total += bytes[i];
    if (!options.allow_extra) entries.erase(found);
  }
  if (!options.allow_extra && !entries.empty()) {
    detail::fail_file(function, entries.begin()->first, "no such tensor", "one in the file");
  }

  // All is read before any of it is handed over.
  std::vector<char> data(static_cast<std::size_t>(total));
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    read(data.data() + offset, bytes[i], starts[i]);
    offset += bytes[i];
  }
  offset = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (bytes[i] > 0) {
      std::memcpy(tensors[i].data, data.data() + offset, static_cast<std::size_t>(bytes[i]));
    }
    offset += bytes[i];
  }
  return metadata;
}

}  // namespace addloss
