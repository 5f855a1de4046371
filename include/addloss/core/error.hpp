// SPDX-License-Identifier: MIT
/// The one exception type of the library and the texts it carries.
///
/// Every refused argument is reported before anything is written, as
///   "function: argument (expected E, got G)".
/// The text lives in a fixed buffer inside the exception, so that reporting an error never
/// allocates and copying one never throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>

#include <addloss/core/config.hpp>

#if defined(ADDLOSS_ERROR_HANDLER) || !defined(__cpp_exceptions)
#include <cstdlib>
#endif

namespace addloss {

/// A refused argument. `what()` is "function: argument (expected E, got G)".
class error : public std::exception {
 public:
  static constexpr int capacity = 512;

  /// `text` is copied, cut at `capacity` - 1 characters.
  explicit error(char const* text) noexcept { std::snprintf(text_, sizeof text_, "%s", text); }

  [[nodiscard]] char const* what() const noexcept override { return text_; }

 private:
  char text_[capacity];
};

namespace detail {

/// An argument in an error's text: "name", or "name[3]". Written out only when there is an error.
struct argument_name {
  char const* name;
  std::int64_t index = -1;

  constexpr argument_name(char const* argument) : name(argument) {}  // NOLINT(*-explicit-*)
  constexpr argument_name(char const* argument, std::int64_t element)
      : name(argument), index(element) {}
};

/// A short text built piece by piece in a fixed buffer; what does not fit is cut.
class text {
 public:
  text() noexcept { buffer_[0] = '\0'; }
  text(char const* piece) noexcept : text() { *this << piece; }  // NOLINT(*-explicit-*)

  text& operator<<(char const* piece) noexcept {
    return added(std::snprintf(end(), room(), "%s", piece));
  }
  text& operator<<(text const& piece) noexcept {
    // A copy, as a text may be added to itself.
    text const copy = piece;
    return *this << copy.buffer_;
  }
  text& operator<<(double number) noexcept {
    return added(std::snprintf(end(), room(), "%.17g", number));
  }
  text& operator<<(std::int64_t number) noexcept {
    return added(std::snprintf(end(), room(), "%lld", static_cast<long long>(number)));
  }
  text& operator<<(int number) noexcept { return *this << static_cast<std::int64_t>(number); }
  text& operator<<(argument_name argument) noexcept {
    *this << argument.name;
    return argument.index < 0 ? *this : *this << "[" << argument.index << "]";
  }

  [[nodiscard]] char const* c_str() const noexcept { return buffer_; }

 private:
  [[nodiscard]] char* end() noexcept { return buffer_ + length_; }
  [[nodiscard]] std::size_t room() const noexcept { return sizeof buffer_ - length_; }
  /// `count`: characters that there were to print.
  text& added(int count) noexcept {
    if (count > 0) {
      length_ += static_cast<unsigned>(count);
      if (length_ >= sizeof buffer_) length_ = sizeof buffer_ - 1;
    }
    return *this;
  }

  char buffer_[error::capacity];
  unsigned length_ = 0;
};

[[noreturn]] inline void raise(error const& e) {
#if defined(ADDLOSS_ERROR_HANDLER)
  ADDLOSS_ERROR_HANDLER(e);
  std::abort();  // nothing may go on with what was refused
#elif defined(__cpp_exceptions)
  throw e;  // NOLINT(misc-throw-by-value-catch-by-reference): a copy of e is thrown
#else
  std::fprintf(stderr, "addloss: %s\n", e.what());
  std::abort();
#endif
}

/// Raises "function: argument (expected E, got G)".
[[noreturn]] inline void fail(char const* function, argument_name argument, text const& expected,
                              text const& got) {
  text message;
  message << function << ": " << argument << " (expected " << expected << ", got " << got << ")";
  raise(error(message.c_str()));
}

/// Raises what a policy's own check(function) refuses of its settings; most policies have none.
template <class Policy>
constexpr void check_settings(char const* function, Policy const& policy) {
  if constexpr (requires { policy.check(function); }) policy.check(function);
}

}  // namespace detail
}  // namespace addloss
