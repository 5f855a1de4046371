// SPDX-License-Identifier: MIT
/// Where the losses of torch/losses.hpp and the heads of torch/heads.hpp run: where their tensors
/// lie.
///
/// | tensors on | code                                                                            |
/// | the CPU    | cpu/executor.hpp                                                                |
/// | a CUDA GPU | what a unit compiled by nvcc made of the loss (cuda/device_loss.cuh), or of     |
/// |            | heads (cuda/heads/device_heads.cuh)                                             |
/// For the second, define ADDLOSS_TORCH_CUDA for all units that include this header, link that
/// unit, and a LibTorch built for CUDA. Such a call takes LibTorch's current stream and memory of
/// its allocator; it is only enqueued, waits for nothing and copies nothing to the CPU, so that a
/// CUDA graph can capture it. Without the macro, tensors on a GPU are refused.
/// In .cpp units only: nvcc cannot read LibTorch's headers.
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#if defined(ADDLOSS_TORCH_CUDA)
#include <c10/cuda/CUDAStream.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <addloss/adapters/torch.hpp>
#include <addloss/core/config.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_view.hpp>
#include <addloss/cuda/device_loss.hpp>

namespace addloss::detail {
inline namespace ADDLOSS_ISA_NAMESPACE {

#if defined(ADDLOSS_TORCH_CUDA)
inline constexpr bool torch_cuda = true;
/// That of the GPU that is current.
inline void* torch_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
#else
inline constexpr bool torch_cuda = false;
void* torch_stream();  // never called
#endif

/// Calls `body<Space>()` for where a tensor lies.
template <class Body>
auto in_torch_space(at::Tensor const& tensor, Body const& body) {
  if constexpr (torch_cuda) {
    if (tensor.is_cuda()) return body.template operator()<device_space>();
  }
  return body.template operator()<host_space>();
}

/// Calls `body<T, Space>()` for the type of a tensor's elements, and where they lie.
template <class Body>
at::Tensor by_torch_type(char const* function, char const* name, at::Tensor const& tensor,
                         Body const& body) {
  if (!tensor.defined()) fail(function, name, "a tensor", "an undefined one");
  return in_torch_space(tensor, [&]<class Space>() {
    switch (tensor.scalar_type()) {
      case at::kFloat: return body.template operator()<float, Space>();
      case at::kDouble: return body.template operator()<double, Space>();
      case at::kHalf: return body.template operator()<half, Space>();
      case at::kBFloat16: return body.template operator()<bfloat16, Space>();
      default:
        fail(function, name, "Float, Double, Half or BFloat16",
             c10::toString(tensor.scalar_type()));
    }
  });
}

/// Where calls run on a GPU, all their tensors must be on that one. (On the CPU, whoever makes a
/// view of a tensor checks that.)
inline void check_same_gpu(char const* function, char const* name, at::Device device,
                           at::Tensor const& tensor) {
  if (!device.is_cuda() || !tensor.defined() || tensor.device() == device) return;
  fail(function, name, text() << "a tensor on " << device.str().c_str(),
       text() << "one on " << tensor.device().str().c_str());
}

/// Rows of a tensor that must lie on `device`.
template <class T, class Space>
rows<T, Space> rows_on(at::Device device, at::Tensor const& tensor, char const* name) {
  check_same_gpu("rows_from_torch", name, device, tensor);
  return rows_from_torch<T, Space>(tensor, name);
}
/// The same of the tensors of K heads.
template <class T, class Space>
std::vector<rows<T, Space>> rows_of_heads(at::Device device, at::TensorList tensors,
                                          char const* name) {
  std::vector<rows<T, Space>> result;
  for (at::Tensor const& tensor : tensors)
    result.push_back(rows_on<T, Space>(device, tensor, name));
  return result;
}

/// `linked` of a table of code for a GPU, which a `maker` of the unit that nvcc compiled has set.
template <class Code>
Code const& linked_code(char const* function, char const* argument, char const* maker) {
  if (Code::linked == nullptr) {
    fail(function, argument, text() << "a " << maker,
         text() << "none " << std::strchr(__PRETTY_FUNCTION__, '['));
  }
  return *Code::linked;
}
template <class Reduction, class Loss>
device_loss<Reduction, Loss> const& linked_device_loss() {
  return linked_code<device_loss<Reduction, Loss>>("value_and_grad", "loss",
                                                   "device_code of it (cuda/device_loss.cuh)");
}

/// Calls body(stream, workspace) on the GPU `device`.
template <class Body>
void call_on_device(at::Device device, std::size_t bytes, Body const& body) {
  c10::DeviceGuard const current(device);
  // Its memory may be given to others when this returns: they run on the same stream, later.
  at::Tensor const workspace =
      at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions(at::kByte).device(device));
  body(torch_stream(), workspace.data_ptr());
}

/// Evaluates a loss of tensors on the GPU `device`.
template <class Reduction, class Loss>
void evaluate_on_device(at::Device device, Loss const& loss,
                        typename device_loss<Reduction, Loss>::values const& value,
                        typename Loss::gradients const& gradients,
                        typename Loss::options const& options) {
  auto const& code = linked_device_loss<Reduction, Loss>();
  std::size_t const bytes = code.workspace_bytes(loss);
  call_on_device(device, bytes, [&](void* stream, void* workspace) {
    code.value_and_grad(stream, workspace, bytes, loss, value, gradients, options);
  });
}

/// c(t) of each sample of a distillation loss on the GPU `device`: [B], Double.
template <class Reduction, class Loss>
at::Tensor weights_on_device(at::Device device, Loss const& loss) {
  auto const& code = linked_device_loss<Reduction, Loss>();
  c10::DeviceGuard const current(device);
  at::Tensor result =
      at::empty({loss.timesteps.count}, at::TensorOptions(at::kDouble).device(device));
  code.weights(torch_stream(), loss, static_cast<double*>(result.data_ptr()));
  return result;
}

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss::detail
