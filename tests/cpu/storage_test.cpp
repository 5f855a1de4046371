// SPDX-License-Identifier: MIT
#include <addloss/cpu/storage.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "catch.hpp"

namespace {

using addloss::bfloat16;
using addloss::half;
using pack = addloss::native_pack<float>;
using wide_pack = addloss::native_pack<double>;

/// Equal bits, or both NaN: F16C keeps another payload than the scalar conversion.
bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

/// Every number of the type, `pack::width` at a time.
template <class T>
std::int64_t wrong_loads() {
  std::int64_t wrong = 0;
  for (std::uint32_t first = 0; first < 0x10000; first += pack::width) {
    T stored[pack::width];
    for (int lane = 0; lane < pack::width; ++lane) {
      auto const bits = static_cast<std::uint16_t>(first + static_cast<std::uint32_t>(lane));
      stored[lane] = std::bit_cast<T>(bits);
    }
    float loaded[pack::width];
    addloss::detail::load_pack<pack>(stored).store(loaded);
    for (int lane = 0; lane < pack::width; ++lane) {
      wrong += same(loaded[lane], static_cast<float>(stored[lane])) ? 0 : 1;
    }
  }
  return wrong;
}

/// Floats over the whole range, among them all ties and both sides of each: `stride` steps through
/// the bit patterns.
template <class T>
std::int64_t wrong_stores(std::uint64_t stride) {
  std::int64_t wrong = 0;
  for (std::uint64_t first = 0; first < 0x100000000; first += stride * pack::width) {
    float numbers[pack::width];
    for (int lane = 0; lane < pack::width; ++lane) {
      numbers[lane] = std::bit_cast<float>(
          static_cast<std::uint32_t>(first + stride * static_cast<std::uint64_t>(lane)));
    }
    T stored[pack::width];
    addloss::detail::store_pack(stored, pack::load(numbers));
    for (int lane = 0; lane < pack::width; ++lane) {
      auto const scalar = static_cast<float>(T(numbers[lane]));
      wrong += same(static_cast<float>(stored[lane]), scalar) ? 0 : 1;
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("every half and bfloat16 is loaded as the scalar conversion has it") {
  CHECK(wrong_loads<half>() == 0);
  CHECK(wrong_loads<bfloat16>() == 0);
}

TEST_CASE("floats are rounded as the scalar conversion rounds them") {
  // 4096 hits the ties of half (13 dropped bits) and those of bfloat16 (16); odd strides the rest.
  for (std::uint64_t const stride : {4096U, 4095U, 20011U}) {
    CAPTURE(stride);
    CHECK(wrong_stores<half>(stride) == 0);
    CHECK(wrong_stores<bfloat16>(stride) == 0);
  }
}

TEST_CASE("half types widen to double and narrow from it through float") {
  half halves[wide_pack::width];
  for (int lane = 0; lane < wide_pack::width; ++lane)
    halves[lane] = half(0.1F * static_cast<float>(lane));
  double loaded[wide_pack::width];
  auto const x = addloss::detail::load_pack<wide_pack>(halves);
  x.store(loaded);
  half stored[wide_pack::width];
  addloss::detail::store_pack(stored, x);
  for (int lane = 0; lane < wide_pack::width; ++lane) {
    CHECK(loaded[lane] == static_cast<double>(static_cast<float>(halves[lane])));
    CHECK(std::memcmp(&stored[lane], &halves[lane], sizeof(half)) == 0);
  }
}
