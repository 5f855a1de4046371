// SPDX-License-Identifier: MIT
#include <addloss/adapters/thrust.cuh>

#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include <addloss/testing/conformance.hpp>

#include "catch.hpp"

namespace {

using namespace addloss;
using testing::adapted;
using testing::check_view;

static_assert(adapted<thrust::device_vector<float>> && adapted<thrust::device_vector<__half>>);
static_assert(adapted<thrust::host_vector<std::int64_t>>);
template <class T>
using device_view = tensor_view<T, 1, device_space>;
static_assert(std::same_as<view_of<thrust::device_vector<float>&>, device_view<float>>);
static_assert(std::same_as<view_of<thrust::device_vector<__half>&>, device_view<addloss::half>>);
static_assert(std::same_as<view_of<thrust::device_vector<__nv_bfloat16> const&>,
                           device_view<addloss::bfloat16 const>>);
static_assert(std::same_as<view_of<thrust::host_vector<__half>&>, tensor_view<addloss::half, 1>>);
static_assert(!tensor_like<thrust::device_vector<float>> &&
              !tensor_like<thrust::host_vector<float>>);
static_assert(std::same_as<decltype(view(std::declval<thrust::device_ptr<__half const>>(), 2, 3)),
                           tensor_view<addloss::half const, 2, device_space>>);
static_assert(std::same_as<decltype(view(std::declval<__nv_bfloat16*>(), 2, 3)),
                           tensor_view<addloss::bfloat16, 2>>);

}  // namespace

TEST_CASE("vectors of Thrust are dense and of rank 1, pointers of their extents") {
  thrust::device_vector<__half> half_vector(6);
  thrust::device_vector<__half> const& read = half_vector;
  __half* const memory = thrust::raw_pointer_cast(half_vector.data());
  CHECK(check_view(half_vector, [&](auto i) { return memory + i; }).elements == 6);
  CHECK(check_view(read, [&](auto i) { return memory + i; }).elements == 6);
  auto images = view(half_vector.data(), 2, 3);
  CHECK(check_view(images, [&](auto i, auto j) { return memory + 3 * i + j; }).elements == 6);
  thrust::host_vector<double> host(3);
  CHECK(check_view(host, [&](auto i) { return host.data() + i; }).elements == 3);
  thrust::device_vector<float> const none;
  CHECK(as_view(none).extents[0] == 0);
}
