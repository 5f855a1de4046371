// SPDX-License-Identifier: MIT
#include <addloss/cuda/heads/cublas_product.cuh>

#include <addloss/cuda/heads/product.cuh>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cuda/device_memory.cuh"
#include "error_of.hpp"
#include "storage_types.hpp"

namespace {

using namespace addloss;

/// A stream, and cuBLAS on it with a workspace of its own.
class cublas {
 public:
  static constexpr std::size_t bytes = std::size_t{32} << 20;
  cublas() {
    cuda::check("cudaStreamCreate", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    cuda::check("cublasCreate", cublasCreate(&handle_));
    cuda::check("cublasSetStream", cublasSetStream(handle_, stream_));
    cuda::check("cublasSetWorkspace", cublasSetWorkspace(handle_, memory_.data(), bytes));
  }
  cublas(cublas const&) = delete;
  cublas& operator=(cublas const&) = delete;
  ~cublas() {
    cublasDestroy(handle_);
    cudaStreamDestroy(stream_);
  }
  [[nodiscard]] cublasHandle_t handle() const { return handle_; }
  [[nodiscard]] cuda_context context() const { return {.stream = stream_}; }

 private:
  device_array<unsigned char> memory_{bytes};
  cudaStream_t stream_ = nullptr;
  cublasHandle_t handle_ = nullptr;
};

template <class S>
std::vector<S> some(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<S> result(count);
  for (S& x : result) x = stored_as<S>(uniform(random));
  return result;
}

/// Products of batches that overlap, of all orders of storage, against the plain kernel.
template <class T, class Product>
void check_products(cublas const& on, Product const& product, double allowed) {
  using S = typename Product::template operand<T>;
  using plain = tiled_product<std::conditional_t<std::is_same_v<S, T>, void, S>>;
  constexpr std::int64_t rows = 24;
  constexpr std::int64_t columns = 40;
  constexpr std::int64_t depth = 56;
  constexpr std::int64_t batches = 3;
  constexpr std::size_t size = 8192;
  device_array<S> const a(some<S>(size, 1));
  device_array<S> const b(some<S>(size, 2));
  for (int order = 0; order < 8; ++order) {
    bool const a_turned = order % 2 != 0;
    bool const b_turned = order / 2 % 2 != 0;
    bool const adds = order / 4 != 0;
    CAPTURE(a_turned, b_turned, adds);
    device_array<T> const c(some<T>(size, 3));
    device_array<T> const expected(some<T>(size, 3));
    cuda::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
    cuda::product_call<T, S> call{.rows = rows,
                                  .columns = columns,
                                  .depth = depth,
                                  .batches = batches,
                                  .a = {a.data(), 64, 8, a_turned},
                                  .b = {b.data(), 64, 16, b_turned},
                                  .c = c.data(),
                                  .c_ld = batches * columns,
                                  .c_batch_stride = columns,
                                  .adds = adds};
    product.multiply(on.context(), call);
    call.c = expected.data();
    plain{}.multiply(on.context(), call);
    cuda::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
    auto const got = c.read();
    auto const wanted = expected.read();
    double most = 0;
    for (std::size_t i = 0; i < size; ++i) {
      double const d = std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i]));
      if (!(d <= most)) most = d;
    }
    CHECK(most <= allowed);
  }
}

}  // namespace

TEST_CASE("cuBLAS computes what the plain kernel computes") {
  cublas const on;
  check_products<double>(on, cublas_product<>{on.handle()}, 1e-13);
  check_products<float>(on, cublas_product<>{on.handle()}, 1e-4);
  check_products<float>(on, cublas_product<cublas_precision::tf32>{on.handle()}, 5e-2);
  check_products<float>(on, cublas_product<cublas_precision::bfloat16>{on.handle()}, 1e-4);
}

TEST_CASE("a handle of cuBLAS on another stream is refused") {
  cublas const on;
  device_array<float> const x(64);
  cuda::product_call<float, float> const call{.rows = 2,
                                              .columns = 2,
                                              .depth = 2,
                                              .batches = 1,
                                              .a = {x.data(), 2},
                                              .b = {x.data(), 2},
                                              .c = x.data(),
                                              .c_ld = 2};
  CHECK(error_of([&] { cublas_product<>{on.handle()}.multiply(cuda_context{}, call); }) ==
        "cublas_product: handle (expected the stream of the context, got another one)");
  auto wrong = call;
  wrong.c_ld = 1;
  CHECK(error_of([&] { cublas_product<>{on.handle()}.multiply(on.context(), wrong); }) ==
        "cublas_product: cublasGemmStridedBatchedEx (expected CUBLAS_STATUS_SUCCESS, got "
        "CUBLAS_STATUS_INVALID_VALUE)");
}

TEST_CASE("a handle of cuBLAS that reads scalars from the GPU is refused") {
  cublas const on;
  cuda::check("cublasSetPointerMode",
              cublasSetPointerMode(on.handle(), CUBLAS_POINTER_MODE_DEVICE));
  CHECK(error_of([&] { cublas_product<>{on.handle()}.check<double>(on.context()); }) ==
        "cublas_product: handle (expected CUBLAS_POINTER_MODE_HOST, got "
        "CUBLAS_POINTER_MODE_DEVICE)");
}

TEST_CASE("full float is refused where the handle of cuBLAS rounds it") {
  cublas const on;
  auto const error_in = [&](cublasMath_t mode, auto check) {
    cuda::check("cublasSetMathMode", cublasSetMathMode(on.handle(), mode));
    return error_of(check);
  };
  auto const full = [&] { cublas_product<>{on.handle()}.check<float>(on.context()); };
  CHECK(error_in(CUBLAS_TF32_TENSOR_OP_MATH, full) ==
        "cublas_product: handle (expected a math mode that reads float as it is, got "
        "CUBLAS_TF32_TENSOR_OP_MATH)");
  CHECK(error_in(CUBLAS_DEFAULT_MATH, full) == "no error");
  CHECK(error_in(CUBLAS_TF32_TENSOR_OP_MATH, [&] {
          cublas_product<>{on.handle()}.check<double>(on.context());
          cublas_product<cublas_precision::tf32>{on.handle()}.check<float>(on.context());
        }) == "no error");
}
