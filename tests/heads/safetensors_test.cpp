// SPDX-License-Identifier: MIT
#include <addloss/heads/safetensors.hpp>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include <addloss/core/philox.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "temporary_directory.hpp"

namespace {

using namespace addloss;
using namespace std::string_literals;

static_assert(std::is_constructible_v<saved_tensor, std::string_view, std::span<std::int64_t const>,
                                      float const*>);
static_assert(std::is_constructible_v<loaded_tensor, std::string_view,
                                      std::span<std::int64_t const>, double*>);
static_assert(!std::is_constructible_v<loaded_tensor, std::string_view,
                                       std::span<std::int64_t const>, double const*>);
static_assert(!std::is_constructible_v<saved_tensor, std::string_view,
                                       std::span<std::int64_t const>, int const*>);

void write(std::string const& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
std::string contents(std::string const& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string length_of(std::uint64_t n) {
  std::string result;
  for (int i = 0; i < 8; ++i) result += static_cast<char>((n >> (8 * i)) & 0xffU);
  return result;
}
std::string with_header(std::string const& header, std::string const& data) {
  return length_of(header.size()) + header + data;
}

bool contains(std::string const& whole, std::string const& part) {
  return whole.find(part) != std::string::npos;
}

std::int64_t const two_by_three[] = {2, 3};
std::int64_t const two[] = {2};

/// The same two tensors for many tests: "a", float [2, 3], and "b", double [2].
struct pair {
  float a[6] = {1, -2, 3.5F, 0, 1e30F, 6};
  double b[2] = {0.1, -7};

  [[nodiscard]] std::vector<saved_tensor> saved() const {
    return {{"a", two_by_three, a}, {"b", two, b}};
  }
  [[nodiscard]] std::vector<loaded_tensor> loaded() {
    return {{"a", two_by_three, a}, {"b", two, b}};
  }
  [[nodiscard]] bool same(pair const& other) const { return data() == other.data(); }
  [[nodiscard]] std::string data() const {
    std::string bytes(sizeof b + sizeof a, '\0');
    std::memcpy(bytes.data(), b, sizeof b);
    std::memcpy(bytes.data() + sizeof b, a, sizeof a);
    return bytes;
  }
};

pair filled(int byte) {
  pair p;
  std::memset(p.a, byte, sizeof p.a);
  std::memset(p.b, byte, sizeof p.b);
  return p;
}

std::string const pair_header = R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[16,40]},)"
                                R"("b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})";

/// What loading the two tensors from a file of these bytes says; what was not to be written is
/// checked.
std::string load_error(std::string const& path, std::string_view bytes, load_options options = {}) {
  write(path, bytes);
  pair p = filled(0x55);
  std::string result = error_of([&] { load_safetensors(path, p.loaded(), options); });
  if (result != "no error" && !p.same(filled(0x55))) return "written to in spite of: " + result;
  return result;
}

}  // namespace

TEST_CASE("tensors come back as they were saved") {
  temporary_directory const place;
  pair const p;
  save_safetensors(place.file(), p.saved(), {{"step", "12"}, {"note \"\\\n\x01", "\u00fc\u4e16"}});
  pair q = filled(0);
  auto const metadata = load_safetensors(place.file(), q.loaded());
  CHECK(q.same(p));
  CHECK(metadata == safetensors_metadata{{"step", "12"}, {"note \"\\\n\x01", "\u00fc\u4e16"}});
  CHECK(place.names() == std::vector<std::string>{"x.safetensors"});

  // In another order, and some of them.
  float a[6] = {};
  double b[2] = {};
  loaded_tensor const turned[] = {{"b", two, b}, {"a", two_by_three, a}};
  load_safetensors(place.file(), turned);
  CHECK(a[4] == p.a[4]);
  CHECK(b[1] == p.b[1]);
  b[0] = 0;
  load_safetensors(place.file(), std::span(turned, 1), {.allow_extra = true});
  CHECK(b[0] == p.b[0]);
}

TEST_CASE("the file has the layout of the format") {
  temporary_directory const place;
  pair const p;
  save_safetensors(place.file(), p.saved(), {{"format", "pt"}});
  std::string header = R"({"__metadata__":{"format":"pt"},)"
                       R"("b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},)"
                       R"("a":{"dtype":"F32","shape":[2, 3],"data_offsets":[16,40]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  CHECK(contents(place.file()) == with_header(header, p.data()));
}

TEST_CASE("a file as Python's safetensors writes it") {
  // save_file({"b": ..., "a": ..., "n": np.int64([7])}, path, metadata={"format": "pt"})
  std::string const header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},)"
      R"("n":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[24,48]}}     )";
  pair const p;
  std::string data = p.data();
  data.insert(16, length_of(7));
  temporary_directory const place;
  write(place.file(), with_header(header, data));
  pair q = filled(0);
  auto const metadata = load_safetensors(place.file(), q.loaded(), {.allow_extra = true});
  CHECK(q.same(p));
  CHECK(metadata == safetensors_metadata{{"format", "pt"}});
  CHECK(load_error(place.file(), with_header(header, data)) ==
        "load_safetensors: n (expected no such tensor, got one in the file)");
  // Space between all tokens, keys in another order, escapes.
  CHECK(load_error(place.file(),
                   with_header("{ \"\\u0061\" :\t{ \"data_offsets\" : [ 16 , 40 ] , \"shape\" : [ "
                               "2 ,\r\n3 ] , \"dtype\" : \"\\u00463\\u0032\" } , \"b\":"
                               "{\"shape\":[2],\"dtype\":\"F64\",\"data_offsets\":[0,16]} } \n",
                               p.data())) == "no error");
}

TEST_CASE("NaN, infinity, -0 and subnormal numbers keep their bits") {
  temporary_directory const place;
  std::int64_t const shape[] = {6};
  double const x[6] = {std::bit_cast<double>(0x7ff4000000000123ULL),
                       std::bit_cast<double>(0xfff8000000000001ULL),
                       -INFINITY,
                       -0.0,
                       std::numeric_limits<double>::denorm_min(),
                       std::numeric_limits<double>::max()};
  double y[6] = {};
  saved_tensor const saved[] = {{"x", shape, x}};
  loaded_tensor const loaded[] = {{"x", shape, y}};
  save_safetensors(place.file(), saved);
  load_safetensors(place.file(), loaded);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(std::bit_cast<std::uint64_t>(x[i]) == std::bit_cast<std::uint64_t>(y[i]));
  }
}

TEST_CASE("no tensor, a number without extents, tensors without elements, strange names") {
  temporary_directory const place;
  save_safetensors(place.file(), {});
  CHECK(contents(place.file()) == with_header("{}      ", ""));
  CHECK(load_safetensors(place.file(), {}).empty());
  CHECK(load_error(place.file(), with_header("{}", "")) ==
        "load_safetensors: a (expected F32 [2, 3], got no such tensor)");

  std::int64_t const none[] = {4, 0, std::numeric_limits<std::int64_t>::max()};
  float const one = 3;
  float got = 0;
  std::string const name = "\"\\\t/\u00e9\U0001f600 {}[]:,"s + '\0' + "\x7f";
  saved_tensor const saved[] = {{"empty", none, static_cast<float const*>(nullptr)},
                                {name, {}, &one},
                                {"", none, static_cast<double const*>(nullptr)}};
  loaded_tensor const loaded[] = {{name, {}, &got},
                                  {"empty", none, static_cast<float*>(nullptr)},
                                  {"", none, static_cast<double*>(nullptr)}};
  save_safetensors(place.file(), saved);
  load_safetensors(place.file(), loaded);
  CHECK(got == 3);
  // The same name, in escapes only.
  CHECK(error_of([&] {
          write(place.file(), with_header(R"({"\"\\\t\/\u00E9\ud83D\uDE00 {}[]:,\u0000\u007f":)"
                                          R"({"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                                          "\0\0\x20\x41"s));
          load_safetensors(place.file(), std::span(loaded, 1));
        }) == "no error");
  CHECK(got == 10);
}

TEST_CASE("a loader reports what does not match") {
  temporary_directory const place;
  pair p;
  save_safetensors(place.file(), p.saved());
  auto const load = [&](loaded_tensor const& t, load_options options = {.allow_extra = true}) {
    return error_of([&] { load_safetensors(place.file(), std::span(&t, 1), options); });
  };
  std::int64_t const other[] = {3, 2};
  CHECK(load({"c", two, p.b}) == "load_safetensors: c (expected F64 [2], got no such tensor)");
  CHECK(load({"a", other, p.a}) == "load_safetensors: a (expected F32 [3, 2], got F32 [2, 3])");
  CHECK(load({"b", two, p.a}) == "load_safetensors: b (expected F32 [2], got F64 [2])");
  CHECK(load({"b", {}, p.b}) == "load_safetensors: b (expected F64 [], got F64 [2])");
  CHECK(load({"b", two, p.b}) == "no error");
  CHECK(load({"b", two, p.b}, {}) ==
        "load_safetensors: a (expected no such tensor, got one in the file)");
  CHECK(contains(error_of([&] { load_safetensors(place.file("none"), p.loaded()); }),
                 "none (expected a readable file, got No such file"));
  CHECK(contains(error_of([&] { load_safetensors(place.path, p.loaded()); }),
                 "(expected a file, got something else)"));
  REQUIRE(::mkfifo(place.file("pipe").c_str(), 0600) == 0);
  CHECK(contains(error_of([&] { load_safetensors(place.file("pipe"), p.loaded()); }),
                 "(expected a file, got something else)"));
  CHECK(contains(load_error(place.file(), "1234567"), "(expected 8 bytes or more, got 7)"));
}

TEST_CASE("requests that make no sense are reported") {
  temporary_directory const place;
  pair p;
  auto const save = [&](std::vector<saved_tensor> const& tensors) {
    return error_of([&] { save_safetensors(place.file(), tensors); });
  };
  std::int64_t const negative[] = {2, -1};
  std::int64_t const negative_and_none[] = {0, -1};
  std::int64_t const huge[] = {1LL << 31, 1LL << 31};
  CHECK(save({{"a", two, p.b}, {"b", two, p.b}, {"a", two, p.b}}) ==
        "save_safetensors: a (expected one tensor of this name, got two)");
  CHECK(save({{"a", negative, p.b}}) ==
        "save_safetensors: a (expected extents of a tensor that fits memory, got [2, -1])");
  CHECK(contains(save({{"a", negative_and_none, p.b}}), "got [0, -1]"));
  CHECK(contains(save({{"a", huge, p.b}}), "got [2147483648, 2147483648]"));
  CHECK(save({{"a", two, static_cast<float*>(nullptr)}}) ==
        "save_safetensors: a (expected data, got null)");
  CHECK(contains(save({{"__metadata__", two, p.b}}), "expected another name"));
  CHECK(contains(save({{"\xff", two, p.b}}), "expected a name in UTF-8"));
  CHECK(contains(save({{"\xc0\x80", two, p.b}}), "expected a name in UTF-8"));
  CHECK(contains(save({{"\xed\xa0\x80", two, p.b}}), "expected a name in UTF-8"));
  CHECK(contains(save({{"\xf4\x90\x80\x80", two, p.b}}), "expected a name in UTF-8"));
  CHECK(contains(save({{"\xe2\x82", two, p.b}}), "expected a name in UTF-8"));
  CHECK(contains(error_of([&] {
                   save_safetensors(place.file(), {}, {{"k", "\x80"}});
                 }),
                 "save_safetensors: metadata (expected UTF-8"));
  CHECK(place.names().empty());
  loaded_tensor const twice[] = {{"a", two, p.b}, {"a", two, p.b}};
  CHECK(contains(error_of([&] { load_safetensors(place.file(), twice); }),
                 "load_safetensors: a (expected one tensor of this name"));
}

TEST_CASE("headers that are not exactly as they should be are refused") {
  temporary_directory const place;
  pair const p;
  auto const refused = [&](std::string const& header, std::string const& why) {
    CAPTURE(header);
    std::string const got = load_error(place.file(), with_header(header, p.data()));
    CAPTURE(got);
    CHECK(got.starts_with("load_safetensors: "));
    CHECK(contains(got, why));
  };
  std::string const a = R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[16,40]})";
  std::string const b = R"("b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]})";
  REQUIRE(load_error(place.file(), with_header("{" + a + "," + b + "}", p.data())) == "no error");
  refused("", "expected '{'");
  refused(" {" + a + "," + b + "}", "expected '{'");
  refused("[]", "expected '{'");
  refused("{" + a + "," + b, "expected '}'");
  refused("{" + a + "," + b + ",}", "expected '\"'");
  refused("{" + a + " " + b + "}", "expected '}'");
  refused("{" + a + "," + b + "}}", "nothing but spaces");
  refused("{" + a + "," + b + "}\0"s, "nothing but spaces");
  refused("{" + a + "," + b + "," + b + "}", "different names");
  refused("{" + a + "," + R"("\u0061":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
          "different names");
  refused(R"({"__metadata__":{},"__metadata__":{},)" + a + "," + b + "}", "one __metadata__");
  refused(R"({"__metadata__":{"k":"1","k":"2"},)" + a + "," + b + "}", "different keys");
  refused(R"({"__metadata__":{"k":1},)" + a + "," + b + "}", "expected '\"'");
  refused(R"({"__metadata__":null,)" + a + "," + b + "}", "expected '{'");

  auto const entry = [&](std::string const& text, std::string const& why) {
    refused("{\"a\":" + text + "," + b + "}", why);
  };
  entry(R"({"dtype":"F32","shape":[2,3]})", "dtype, shape and data_offsets");
  entry(R"({"dtype":"F32","data_offsets":[16,40]})", "dtype, shape and data_offsets");
  entry(R"({"shape":[2,3],"data_offsets":[16,40]})", "dtype, shape and data_offsets");
  entry(R"({"dtype":"F32","dtype":"F32","shape":[2,3],"data_offsets":[16,40]})", "once each");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[16,40],"x":1})", "dtype, shape or");
  entry(R"({"dtype":"F31","shape":[2,3],"data_offsets":[16,40]})", "expected a known dtype");
  entry(R"({"dtype":"BF16","shape":[12],"data_offsets":[16,40]})", "got BF16 [12]");
  entry(R"({"dtype":32,"shape":[2,3],"data_offsets":[16,40]})", "expected '\"'");
  for (char const* const bad : {"-2", "02", "2.0", "2e0", "+2", "\"2\"", "null", "", "0x2"}) {
    entry(R"({"dtype":"F32","shape":[)"s + bad + R"(,3],"data_offsets":[16,40]})", "of the header");
  }
  entry(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[16,40]})", "below 2^63");
  entry(R"({"dtype":"F32","shape":[9223372036854775807],"data_offsets":[16,40]})",
        "data_offsets within");
  entry(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[16,40]})",
        "data_offsets within");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[16]})", "two data_offsets");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[16,40,40]})", "two data_offsets");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[16,39]})", "data_offsets within 40");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[40,16]})", "data_offsets within 40");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[17,41]})", "data_offsets within 40");
  entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[8,32]})", "without gaps or overlap");
  entry(R"({"dtype":"F32","shape":[5],"data_offsets":[20,40]})", "without gaps or overlap");
  entry(R"({"dtype":"F32","shape":[5],"data_offsets":[16,36]})", "data of 36 bytes");

  auto const name = [&](std::string const& text, std::string const& why) {
    refused(
        "{\"" + text + "\":" + R"({"dtype":"F32","shape":[2,3],"data_offsets":[16,40]},)" + b + "}",
        why);
  };
  name("\n", "UTF-8 text");
  name("\xff", "UTF-8 text");
  name("\xe0\x80\x80", "UTF-8 text");
  name("\\x", "an escape");
  name("\\u12g4", "four hexadecimal digits");
  name("\\ud800", "second half");
  name("\\ud800\\u0041", "second half");
  name("\\udc00", "first half");
  refused("{\"\\u12", "four hexadecimal digits");
  refused("{\"\\", "an escape");
  refused("{\"", "'\"'");
}

TEST_CASE("header lengths beyond the file are refused") {
  temporary_directory const place;
  for (std::uint64_t const n : {std::uint64_t{1}, std::uint64_t{1} << 32, std::uint64_t{1} << 63,
                                ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    CHECK(contains(load_error(place.file(), length_of(n)), "a header of at most 0 bytes"));
  }
  // More than the format allows, in a file without blocks of that size.
  write(place.file(), length_of(100'000'001));
  std::filesystem::resize_file(place.file(), 200'000'000);
  pair p;
  CHECK(contains(error_of([&] { load_safetensors(place.file(), p.loaded()); }),
                 "a header of at most 100000000 bytes"));
}

TEST_CASE("what a damaged file says is printed without control characters") {
  temporary_directory const place;
  CHECK(contains(load_error(place.file(), with_header("{\x1b[2J", "")), "'?[2J'"));
}

TEST_CASE("a file cut at any byte is an error") {
  temporary_directory const place;
  pair const p;
  std::string const whole = with_header(pair_header, p.data());
  REQUIRE(load_error(place.file(), whole) == "no error");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    std::string const got = load_error(place.file(), whole.substr(0, size));
    CHECK(got.starts_with("load_safetensors: "));
  }
  CHECK(contains(load_error(place.file(), whole + "x"), "data of 40 bytes, got 41"));
}

TEST_CASE("any byte of the header changed is an error or changes nothing") {
  temporary_directory const place;
  pair const p;
  std::string header = pair_header;
  header.insert(1, R"("__metadata__":{"k\u00e9":"v"}, )");
  std::string const whole = with_header(header, p.data());
  std::size_t errors = 0;
  std::size_t wrong = 0;
  auto const check = [&](std::string const& bytes) {
    write(place.file(), bytes);
    pair q = filled(0x55);
    std::string const got = error_of([&] { load_safetensors(place.file(), q.loaded()); });
    bool const failed = got != "no error";
    if (failed) ++errors;
    if (!q.same(failed ? filled(0x55) : p)) ++wrong;
  };
  std::size_t const size = 8 + header.size();
  for (std::size_t i = 0; i < size; ++i) {
    for (int flip = 1; flip < 256; flip = flip < 128 ? flip * 2 : 256) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      check(bytes);
    }
    for (char const token : "{}[]\",:\\0 9-\x80"s) {
      std::string bytes = whole;
      bytes[i] = token;
      check(bytes);
    }
  }
  CHECK(errors > 8 * size);
  // Several at once: bytes written over, removed, doubled.
  for (std::uint32_t trial = 0; trial < 4000; ++trial) {
    std::string bytes = whole;
    philox_block const many = philox4x32_10(philox_block{{trial, 0, 0, 0}}, 5);
    for (std::uint32_t const word : many.word) {
      std::size_t const i = word % size;
      switch ((word >> 16) % 3) {
        case 0: bytes[i] = whole[(word >> 18) % size]; break;
        case 1: bytes.erase(i, 1); break;
        default: bytes.insert(i, 1, whole[(word >> 18) % size]);
      }
    }
    check(bytes);
  }
  CHECK(wrong == 0);
}

TEST_CASE("saving that fails leaves the old file and no other") {
  temporary_directory const place;
  pair const old;
  save_safetensors(place.file(), old.saved());
  std::string const before = contents(place.file());

  // A disk that is full, played by a limit on the size of files.
  std::vector<double> const large(100'000);
  std::int64_t const shape[] = {100'000};
  saved_tensor const tensors[] = {{"large", shape, large.data()}};
  auto const handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  rlimit const small{65536, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string const got = error_of([&] { save_safetensors(place.file(), tensors); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  CHECK(contains(got, "save_safetensors: " + place.file() + " (expected a writable file, got "));
  CHECK(contents(place.file()) == before);
  CHECK(place.names() == std::vector<std::string>{"x.safetensors"});

  std::filesystem::create_directory(place.file("folder"));
  CHECK(contains(error_of([&] { save_safetensors(place.file("folder"), tensors); }),
                 "expected a writable file"));
  CHECK(place.names().size() == 2);
  CHECK(contains(error_of([&] { save_safetensors(place.file("none/x"), tensors); }),
                 "got No such file"));
}

TEST_CASE("saving replaces a file and passes a leftover of another save by") {
  temporary_directory const place;
  write(place.file(), "something else");
  std::string const leftover = place.file() + ".tmp" + std::to_string(::getpid()) + "_0";
  write(leftover, "leftover");
  pair const p;
  save_safetensors(place.file(), p.saved());
  pair q = filled(0);
  load_safetensors(place.file(), q.loaded());
  CHECK(q.same(p));
  CHECK(contents(leftover) == "leftover");
  CHECK(place.names().size() == 2);
}

TEST_CASE("a path without a directory is one in the working directory") {
  temporary_directory const place;
  auto const before = std::filesystem::current_path();
  std::filesystem::current_path(place.path);
  pair const p;
  std::string const got = error_of([&] { save_safetensors("here.safetensors", p.saved()); });
  std::filesystem::current_path(before);
  CHECK(got == "no error");
  CHECK(place.names() == std::vector<std::string>{"here.safetensors"});
}
