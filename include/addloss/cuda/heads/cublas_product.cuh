// SPDX-License-Identifier: MIT
/// Matrix products of heads by cuBLAS. The one header that needs it: link CUDA::cublas.
///
///   cublasHandle_t handle;
///   cublasCreate(&handle);
///   cublasSetStream(handle, stream);
///   cublasSetWorkspace(handle, memory, bytes);
///   cuda_heads const ctx{gpu, cublas_product<cublas_precision::tf32>{handle}};
/// | precision | operands                                                | sums  |
/// | full      | float, double as they are                               | same  |
/// | tf32      | float, read with 10 bits of mantissa (Ampere and later) | float |
/// | bfloat16  | rounded to bfloat16 in memory                           | float |
/// Handle, stream and workspace are the caller's: the stream that of the context, the workspace set
/// after it (cublasSetStream takes it away), of 32 MiB on Hopper and 4 MiB before, as NVIDIA
/// recommends. Then cuBLAS allocates nothing in a call, a CUDA graph can capture it, and as long as
/// no other stream uses the handle's workspace, the bits are the same from run to run on GPUs of
/// one kind.
/// Errors: of the handle a stream that is not the context's, a pointer mode that is not the host's
/// and, for `full`, a math mode that rounds float, as Toom-Cook's method would magnify that;
/// dimensions above 2^31 - 1; cublas_error with its status where cuBLAS refuses.
#pragma once

#include <cublas_v2.h>

#include <cstdint>
#include <type_traits>

#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/heads/product.cuh>

namespace addloss {

/// A call of cuBLAS that failed.
class cublas_error : public error {
 public:
  cublas_error(char const* text, cublasStatus_t status) noexcept : error(text), status_(status) {}
  [[nodiscard]] cublasStatus_t status() const noexcept { return status_; }

 private:
  cublasStatus_t status_;
};

namespace cuda {

inline void check(char const* call, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  addloss::detail::text message;
  message << "cublas_product: " << call << " (expected CUBLAS_STATUS_SUCCESS, got "
          << cublasGetStatusName(status) << ")";
  cublas_error const e(message.c_str(), status);
#if defined(ADDLOSS_ERROR_HANDLER) || !defined(__cpp_exceptions)
  addloss::detail::raise(e);
#else
  throw e;  // as its own type
#endif
}

template <class S>
constexpr cudaDataType_t cuda_type_of() {
  if constexpr (std::is_same_v<S, double>) return CUDA_R_64F;
  if constexpr (std::is_same_v<S, float>) return CUDA_R_32F;
  return CUDA_R_16BF;
}

}  // namespace cuda

enum class cublas_precision { full, tf32, bfloat16 };

template <cublas_precision Precision = cublas_precision::full>
struct cublas_product {
  template <arithmetic_scalar T>
  using operand =
      std::conditional_t<Precision == cublas_precision::bfloat16 && std::is_same_v<T, float>,
                         bfloat16, T>;

  template <arithmetic_scalar T>
  static constexpr bool rounds_operands =
      Precision != cublas_precision::full && std::is_same_v<T, float>;

  cublasHandle_t handle = nullptr;

  template <arithmetic_scalar T>
  void multiply(cuda_context const& ctx, cuda::product_call<T, operand<T>> const& call) const {
    if (call.rows == 0 || call.columns == 0 || call.batches == 0) return;
    check<T>(ctx);
    constexpr cublasComputeType_t compute = std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F
                                            : Precision == cublas_precision::tf32
                                                ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                : CUBLAS_COMPUTE_32F;
    constexpr cudaDataType_t type = cuda::cuda_type_of<operand<T>>();
    T const one = 1;
    T const start = call.adds ? T(1) : T(0);
    // cuBLAS counts in columns: a row-major matrix is the transpose of what it sees, and
    // C^T = B^T A^T.
    cuda::check("cublasGemmStridedBatchedEx",
                cublasGemmStridedBatchedEx(
                    handle, call.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                    call.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, size(call.columns),
                    size(call.rows), size(call.depth), &one, call.b.data, type, size(call.b.ld),
                    call.b.batch_stride, call.a.data, type, size(call.a.ld), call.a.batch_stride,
                    &start, call.c, cuda::cuda_type_of<T>(), size(call.c_ld), call.c_batch_stride,
                    size(call.batches), compute, CUBLAS_GEMM_DEFAULT));
  }

  template <arithmetic_scalar T>
  void check(cuda_context const& ctx) const {
    cudaStream_t stream = nullptr;
    cuda::check("cublasGetStream", cublasGetStream(handle, &stream));
    if (stream != ctx.stream) {
      detail::fail("cublas_product", "handle", "the stream of the context", "another one");
    }
    cublasPointerMode_t scalars = CUBLAS_POINTER_MODE_HOST;
    cuda::check("cublasGetPointerMode", cublasGetPointerMode(handle, &scalars));
    if (scalars != CUBLAS_POINTER_MODE_HOST) {
      detail::fail("cublas_product", "handle", "CUBLAS_POINTER_MODE_HOST",
                   "CUBLAS_POINTER_MODE_DEVICE");
    }
    if constexpr (Precision == cublas_precision::full && std::is_same_v<T, float>) {
      cublasMath_t mode = CUBLAS_DEFAULT_MATH;
      cuda::check("cublasGetMathMode", cublasGetMathMode(handle, &mode));
      int const rounding = static_cast<int>(mode) & 3;  // flags are higher bits
      if (rounding == CUBLAS_TENSOR_OP_MATH || rounding == CUBLAS_TF32_TENSOR_OP_MATH) {
        detail::fail("cublas_product", "handle", "a math mode that reads float as it is",
                     rounding == CUBLAS_TF32_TENSOR_OP_MATH ? "CUBLAS_TF32_TENSOR_OP_MATH"
                                                            : "CUBLAS_TENSOR_OP_MATH");
      }
    }
  }

 private:
  static int size(std::int64_t number) {
    constexpr std::int64_t most = 0x7fffffff;
    if (number > most) {
      detail::fail("cublas_product", "extents", detail::text() << "at most " << most,
                   detail::text() << number);
    }
    return static_cast<int>(number);
  }
};

}  // namespace addloss
