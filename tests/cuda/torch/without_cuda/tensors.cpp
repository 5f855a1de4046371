// SPDX-License-Identifier: MIT
// Tensors on a GPU for a LibTorch that is built for the CPU alone: their memory is CUDA's, what
// LibTorch itself does with them is done on copies on the CPU.
#include <cuda_runtime_api.h>

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/FakeGuardImpl.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuardImpl<DeviceType::CUDA>);
}

namespace {

/// Autograd asks whether it has to look after streams.
struct hooks final : at::CUDAHooksInterface {
  explicit hooks(at::CUDAHooksArgs /*none*/) {}
  [[nodiscard]] bool hasCUDA() const override { return true; }
  [[nodiscard]] bool hasPrimaryContext(std::int64_t /*device*/) const override { return true; }
};

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, hooks);
}

namespace {

using at::Tensor;

void check(cudaError_t code) { TORCH_CHECK(code == cudaSuccess, cudaGetErrorString(code)); }

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                     c10::optional<at::ScalarType> type, c10::optional<at::Layout> /*layout*/,
                     c10::optional<at::Device> device, c10::optional<bool> /*pinned*/) {
  std::int64_t elements = 1;
  for (std::size_t axis = 0; axis < size.size(); ++axis) {
    elements = size[axis] == 0 ? 0 : elements + (size[axis] - 1) * stride[axis];
    if (elements == 0) break;
  }
  at::Device const on(at::kCUDA, device && device->has_index() ? device->index() : 0);
  auto const options = at::TensorOptions(type.value_or(at::kFloat)).device(on);
  void* memory = nullptr;
  std::size_t const bytes = static_cast<std::size_t>(elements) * options.dtype().itemsize();
  check(cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)));
  return at::for_blob(memory, size)
      .strides(stride)
      .deleter([](void* block) { cudaFree(block); })
      .options(options)
      .target_device(on)
      .make_tensor();
}

Tensor empty(at::IntArrayRef size, c10::optional<at::ScalarType> type,
             c10::optional<at::Layout> layout, c10::optional<at::Device> device,
             c10::optional<bool> pinned, c10::optional<at::MemoryFormat> format) {
  // The strides of a tensor without memory.
  auto const like = at::empty(size, at::TensorOptions(at::kByte).device(at::kMeta),
                              format.value_or(at::MemoryFormat::Contiguous));
  return empty_strided(size, like.strides(), type, layout, device, pinned);
}

/// A tensor on the CPU of the same strides, over the same elements.
Tensor on_cpu(Tensor const& tensor) {
  auto const type = at::TensorOptions(tensor.scalar_type());
  if (!tensor.is_cuda()) return tensor;
  Tensor result = at::empty_strided(tensor.sizes(), tensor.strides(), type);
  check(cudaMemcpy(result.data_ptr(), tensor.data_ptr(), result.storage().nbytes(),
                   cudaMemcpyDeviceToHost));
  return result;
}

Tensor& copy(Tensor& to, Tensor const& from, bool /*non_blocking*/) {
  Tensor there = on_cpu(to);
  there.copy_(on_cpu(from));
  if (to.is_cuda()) {
    check(cudaMemcpy(to.data_ptr(), there.data_ptr(), there.storage().nbytes(),
                     cudaMemcpyHostToDevice));
  }
  return to;
}

Tensor copy_and_resize(Tensor const& from, Tensor const& to) {
  Tensor result = to;
  return copy(result, from, false);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("copy_", copy);
  library.impl("_copy_from_and_resize", copy_and_resize);
  // Views of the same memory.
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&at::native::cpu_fallback>());
}
