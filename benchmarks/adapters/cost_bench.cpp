// SPDX-License-Identifier: MIT
// What it takes to view a tensor [8, 4, 64, 64] of another library, beside a view of its pointer.
#include <addloss/core/rows.hpp>

#include <cstdint>

#include "turns.hpp"

#if __has_include(<Eigen/Core>)
#include <addloss/adapters/eigen_tensor.hpp>
#endif
#if __has_include(<xtl/xtl_config.hpp>)
#include <addloss/adapters/xtensor.hpp>
#endif
#if __has_include(<xtensor/containers/xtensor.hpp>)  // 0.26
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#elif __has_include(<xtensor/xtensor.hpp>)
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#endif
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#include <addloss/adapters/dlpack.hpp>
#endif

namespace {

constexpr double target_ns = 100;

/// `rows_of()`: what a loss makes of the tensor before anything else.
void compare(benchmark::State& state, auto const& rows_of) {
  float* pointer = nullptr;
  auto const [seconds, share] = bench::take_turns(
      state, [&] { benchmark::DoNotOptimize(rows_of()); },
      [&] {
        benchmark::DoNotOptimize(pointer);
        benchmark::DoNotOptimize(addloss::rows<float const>(addloss::view(pointer, 8, 4, 64, 64)));
      });
  state.counters["added_ns"] = 1e9 * seconds * (1 - share[0]);
  state.counters["added_ns_at_most"] = target_ns;
}

void compare_tensor(benchmark::State& state, auto& tensor) {
  compare(state, [&] {
    benchmark::DoNotOptimize(tensor);
    return addloss::rows<float const>(tensor);
  });
}

#if __has_include(<Eigen/Core>)
void eigen_tensor(benchmark::State& state) {
  Eigen::Tensor<float, 4, Eigen::RowMajor> tensor(8, 4, 64, 64);
  compare_tensor(state, tensor);
}
BENCHMARK(eigen_tensor)->UseManualTime();

void eigen_matrix(benchmark::State& state) {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> tensor(8, 4 * 64 * 64);
  compare_tensor(state, tensor);
}
BENCHMARK(eigen_matrix)->UseManualTime();
#endif

#if __has_include(<xtl/xtl_config.hpp>)
void xtensor(benchmark::State& state) {
  xt::xtensor<float, 4> tensor({8, 4, 64, 64});
  compare_tensor(state, tensor);
}
BENCHMARK(xtensor)->UseManualTime();

void xarray(benchmark::State& state) {
  xt::xarray<float> tensor = xt::zeros<float>({8, 4, 64, 64});
  compare(state, [&] {
    benchmark::DoNotOptimize(tensor);
    return addloss::rows<float const>(addloss::from_xtensor<4>(tensor));
  });
}
BENCHMARK(xarray)->UseManualTime();
#endif

#if __has_include(<dlpack/dlpack.h>)
void dlpack(benchmark::State& state) {
  alignas(64) float memory[1] = {};
  std::int64_t shape[] = {8, 4, 64, 64};
  DLTensor tensor{memory, {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, shape, nullptr, 0};
  compare(state, [&] {
    benchmark::DoNotOptimize(tensor);
    return addloss::rows<float const>(addloss::from_dlpack<float const, 4>(tensor));
  });
}
BENCHMARK(dlpack)->UseManualTime();
#endif

}  // namespace
