// SPDX-License-Identifier: MIT
// The loop of a warp alone: rows of many steps, which whole passes have only from about half a
// billion elements on.
#include <addloss/cuda/row_runner.cuh>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "catch.hpp"
#include "cuda/device_memory.cuh"

namespace cuda_row_runner_test {

/// Sums x, counts x > 0, writes 2 x.
struct element {
  template <class V>
  __host__ __device__ addloss::element_result<V, 1, 1, 1> operator()(V const (&x)[1]) const {
    return {{x[0]}, {V(2) * x[0]}, {x[0] > V(0)}};
  }
};

template <class T, class A, int Packet>
__global__ void run(T const* in, T* out, std::int64_t size, double* totals) {
  using runner = addloss::cuda::row_runner<element, A, 1, 1, T, 1, Packet>;
  runner const warp{{out}, addloss::detail::store_mode::overwrite};
  auto const result = warp.run(
      size, {0, size}, 0, 1, [] { return element{}; }, addloss::cuda::stored_row<T>{in});
  if (threadIdx.x == 0) {
    for (int i = 0; i < 3; ++i) totals[i] = result.value[i];
  }
}

}  // namespace cuda_row_runner_test

namespace {

template <class T, class A, int Packet>
void check() {
  constexpr std::int64_t step = addloss::cuda::step_elements(Packet);
  for (std::int64_t const size : {std::int64_t{1}, step - 1, step, step + 1, 16 * step,
                                  16 * step + 5, 17 * step, 40 * step + 70}) {
    auto const count = static_cast<std::size_t>(size);
    std::vector<T> numbers(count);
    long double sum = 0;
    double positive = 0;
    for (std::size_t i = 0; i < count; ++i) {
      numbers[i] = static_cast<T>(std::sin(static_cast<double>(i)) + 0.3);
      sum += static_cast<long double>(numbers[i]);
      positive += numbers[i] > T(0) ? 1 : 0;
    }
    std::vector<double> aligned;
    for (std::size_t const offset : {std::size_t{0}, std::size_t{1}}) {
      device_array<T> const in(numbers, offset);
      device_array<T> const out(std::vector<T>(count), offset);
      device_array<double> const totals(3);
      cuda_row_runner_test::run<T, A, Packet>
          <<<1, 32>>>(in.data(), out.data(), size, totals.data());
      auto const got = totals.read();
      auto const written = out.read();
      CAPTURE(Packet, size, offset);
      CHECK(got[0] == Approx(static_cast<double>(sum)).epsilon(sizeof(A) == 4 ? 2e-7 : 1e-14));
      CHECK(got[1] == positive);
      CHECK(got[2] == 0);
      int wrong = 0;
      for (std::size_t i = 0; i < count; ++i) wrong += written[i] == 2 * numbers[i] ? 0 : 1;
      CHECK(wrong == 0);
      // Packets and single elements are added in one order.
      if (offset == 0) aligned = got;
      CHECK(std::memcmp(got.data(), aligned.data(), 3 * sizeof(double)) == 0);
    }
  }
}

}  // namespace

TEST_CASE("one warp on rows of up to forty steps, in packets and element by element") {
  check<float, float, 4>();
  check<double, double, 2>();
  // As where another operand has a smaller type.
  check<float, float, 8>();
  check<double, double, 4>();
}
