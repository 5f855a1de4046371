// SPDX-License-Identifier: MIT
#include <addloss/cuda/packet.cuh>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cuda/device_memory.cuh"

namespace cuda_packet_test {

template <class T>
__global__ void widen_all(T const* in, float* out, int count) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = addloss::cuda::widen<float>(in[i]);
}
template <class T>
__global__ void narrow_all(float const* in, T* out, int count) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = addloss::cuda::narrow<T>(in[i]);
}
/// Through packets of 8: each type in its own number of accesses.
template <class From, class To>
__global__ void copy_packets(From const* in, To* out) {
  addloss::cuda::packet<From, 8> from;
  from.load(in + 8 * threadIdx.x);
  float numbers[8];
  from.widen_to(numbers);
  addloss::cuda::packet<To, 8> to;
  to.narrow_from(numbers);
  to.store(out + 8 * threadIdx.x);
}

}  // namespace cuda_packet_test

namespace {

using namespace addloss;

template <class T>
std::vector<T> all_numbers() {
  std::vector<T> result(65536);
  for (std::size_t i = 0; i < result.size(); ++i) result[i].bits = static_cast<std::uint16_t>(i);
  return result;
}

bool same(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}
template <class T>
bool same(T a, T b) {
  return a.bits == b.bits ||
         (std::isnan(static_cast<float>(a)) && std::isnan(static_cast<float>(b)));
}

/// Every number of T, half the distance to its neighbour, and a little to both sides of that.
template <class T>
std::vector<float> around_all() {
  std::vector<float> result;
  for (T const x : all_numbers<T>()) {
    T next = x;
    ++next.bits;
    float const here = static_cast<float>(x);
    float const middle = here + 0.5F * (static_cast<float>(next) - here);
    for (float const y : {here, middle, std::nextafter(middle, 0.0F),
                          std::nextafter(middle, std::numeric_limits<float>::infinity())}) {
      result.push_back(y);
    }
  }
  return result;
}

template <class T>
void check_conversions() {
  auto const all = all_numbers<T>();
  device_array<T> const in(all);
  device_array<float> const wide(all.size());
  cuda_packet_test::widen_all<<<256, 256>>>(in.data(), wide.data(), static_cast<int>(all.size()));
  int wrong = 0;
  auto const got = wide.read();
  for (std::size_t i = 0; i < all.size(); ++i) {
    wrong += same(got[i], static_cast<float>(all[i])) ? 0 : 1;
  }
  CHECK(wrong == 0);

  auto const numbers = around_all<T>();
  device_array<float> const from(numbers);
  device_array<T> const to(numbers.size());
  cuda_packet_test::narrow_all<<<1024, 256>>>(from.data(), to.data(),
                                              static_cast<int>(numbers.size()));
  auto const narrow = to.read();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    wrong += same(narrow[i], T(numbers[i])) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

template <class From, class To>
void check_packets() {
  std::vector<From> numbers(256);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = From(static_cast<float>(i) - 99.0F);
  device_array<From> const in(numbers);
  device_array<To> const out(numbers.size());
  cuda_packet_test::copy_packets<<<1, 32>>>(in.data(), out.data());
  auto const got = out.read();
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(static_cast<float>(got[i]) == static_cast<float>(numbers[i]));
  }
}

}  // namespace

TEST_CASE("every half is widened, and every float near one rounded, as on the CPU") {
  check_conversions<half>();
}
TEST_CASE("every bfloat16 is widened, and every float near one rounded, as on the CPU") {
  check_conversions<bfloat16>();
}

TEST_CASE("packets of each storage type") {
  check_packets<float, half>();
  check_packets<half, bfloat16>();
  check_packets<bfloat16, float>();
  check_packets<double, float>();
  check_packets<float, double>();
}
