// SPDX-License-Identifier: MIT
/// Tensors of DLPack, which every framework can export, as tensors here, where they lie.
///
///   dlpack_ptr<DLManagedTensorVersioned> const owner(exported);  // calls its deleter at its end
///   auto const student = from_dlpack<float const, 4, device_space>(*owner, "student");
/// A DLTensor knows type, rank and device only when the program runs; from_dlpack checks them:
/// | type   | code, bits of `T`, one lane; bfloat16 is DLPack's bfloat, half its float of 16 bits |
/// | device | host_space: CPU, also pinned or managed memory; device_space: CUDA, also managed    |
/// | shape  | `Rank` extents >= 0 whose product fits 63 bits; without strides, row-major          |
/// | memory | not null; aligned as T, byte_offset counted in                                      |
/// | flags  | `T` must be const where the tensor is read-only                                     |
/// `name` stands for the tensor in errors. `device_id`: the GPU it must be on, or -1 for any.
/// Works with the structs of DLPack 0.5 and later, and includes none: they are known by their
/// members. Of managed tensors only `dl_tensor`, `version` and `flags` are read.
/// Errors: whatever fails a check; a managed tensor whose major version is not 1.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <type_traits>

#include <addloss/core/error.hpp>
#include <addloss/core/tensor_view.hpp>

namespace addloss {

/// DLTensor of any version.
template <class T>
concept dlpack_tensor = requires(T const tensor) {
  requires std::is_pointer_v<decltype(tensor.data)>;
  { static_cast<int>(tensor.device.device_type) };
  { tensor.device.device_id } -> std::convertible_to<std::int32_t>;
  { tensor.ndim } -> std::convertible_to<std::int32_t>;
  { tensor.dtype.code } -> std::convertible_to<int>;
  { tensor.dtype.bits } -> std::convertible_to<int>;
  { tensor.dtype.lanes } -> std::convertible_to<int>;
  { tensor.shape } -> std::convertible_to<std::int64_t const*>;
  { tensor.strides } -> std::convertible_to<std::int64_t const*>;
  { tensor.byte_offset } -> std::convertible_to<std::uint64_t>;
};

/// DLManagedTensor, or DLManagedTensorVersioned of DLPack 1.
template <class M>
concept dlpack_managed_tensor = requires(M managed) {
  requires dlpack_tensor<std::remove_cvref_t<decltype(managed.dl_tensor)>>;
  managed.deleter(&managed);
};

/// Calls the deleter of a managed tensor, where it has one.
struct dlpack_deleter {
  template <dlpack_managed_tensor M>
  void operator()(M* managed) const {
    if (managed->deleter != nullptr) managed->deleter(managed);
  }
};

/// Owns a managed tensor that was handed over, and gives it back once. Views must not outlive it.
template <dlpack_managed_tensor M>
using dlpack_ptr = std::unique_ptr<M, dlpack_deleter>;

namespace detail {

/// Codes of DLDataTypeCode and DLDeviceType.
enum class dlpack_code { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4 };
enum class dlpack_device { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };

template <class T>
consteval dlpack_code dlpack_code_of() {
  if constexpr (std::same_as<T, bfloat16>) {
    return dlpack_code::bfloat;
  } else if constexpr (storage_scalar<T>) {
    return dlpack_code::floating;
  } else {
    static_assert(std::integral<T> && !std::same_as<T, bool>,
                  "addloss: tensors have elements of a storage scalar or an integer");
    return std::signed_integral<T> ? dlpack_code::integer : dlpack_code::unsigned_integer;
  }
}

/// "float32", or "float32 in 4 lanes", or "type code 5 of 64 bits".
inline text dlpack_type_text(int code, int bits, int lanes) {
  text out;
  switch (static_cast<dlpack_code>(code)) {
    case dlpack_code::integer: out << "int" << bits; break;
    case dlpack_code::unsigned_integer: out << "uint" << bits; break;
    case dlpack_code::floating: out << "float" << bits; break;
    case dlpack_code::bfloat: out << "bfloat" << bits; break;
    default: out << "type code " << code << " of " << bits << " bits";
  }
  if (lanes != 1) out << " in " << lanes << " lanes";
  return out;
}

template <class Space>
constexpr bool dlpack_reaches(dlpack_device device) {
  if (device == dlpack_device::cuda_managed) return true;
  if constexpr (std::same_as<Space, host_space>) {
    return device == dlpack_device::cpu || device == dlpack_device::cuda_host;
  } else {
    return device == dlpack_device::cuda;
  }
}

}  // namespace detail

template <class T, int Rank, class Space = host_space, dlpack_tensor Tensor>
tensor_view<T, Rank, Space> from_dlpack(Tensor const& tensor, char const* name = "tensor",
                                        int device_id = -1) {
  using detail::fail;
  using detail::text;
  using value_type = std::remove_const_t<T>;
  char const* const function = "from_dlpack";
  int constexpr bits = 8 * static_cast<int>(sizeof(value_type));
  auto constexpr code = static_cast<int>(detail::dlpack_code_of<value_type>());
  auto const device = static_cast<int>(tensor.device.device_type);
  if (!detail::dlpack_reaches<Space>(static_cast<detail::dlpack_device>(device)) ||
      (device_id >= 0 && tensor.device.device_id != device_id)) {
    text expected = std::same_as<Space, host_space> ? "memory of the CPU" : "memory of a CUDA GPU";
    if (device_id >= 0) expected << ", device " << device_id;
    fail(function, name, expected,
         text() << "device type " << device << ", device " << tensor.device.device_id);
  }
  if (tensor.dtype.code != code || tensor.dtype.bits != bits || tensor.dtype.lanes != 1) {
    fail(function, name, detail::dlpack_type_text(code, bits, 1),
         detail::dlpack_type_text(tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes));
  }
  if (tensor.ndim != Rank) {
    fail(function, name, text() << "rank " << Rank, text() << "rank " << tensor.ndim);
  }
  tensor_view<T, Rank, Space> result;
  for (int axis = 0; axis < Rank; ++axis) result.extents[axis] = tensor.shape[axis];
  detail::check_extents(function, name, result.extents, Rank);
  if (tensor.strides == nullptr) {
    detail::write_dense_strides(result.extents, Rank, result.strides);
  } else {
    for (int axis = 0; axis < Rank; ++axis) result.strides[axis] = tensor.strides[axis];
  }
  if (tensor.data == nullptr && detail::checked_product(result.extents, Rank) > 0) {
    fail(function, name, "memory", "a null pointer");
  }
  auto* const start = static_cast<unsigned char*>(tensor.data);
  auto* const first = start == nullptr ? start : start + tensor.byte_offset;
  if (reinterpret_cast<std::uintptr_t>(first) % alignof(value_type) != 0) {
    auto const off = reinterpret_cast<std::uintptr_t>(start) % alignof(value_type);
    fail(function, name,
         text() << "memory aligned to " << static_cast<int>(alignof(value_type)) << " bytes",
         off != 0 ? text() << "data " << static_cast<std::int64_t>(off) << " bytes off"
                  : text() << "a byte_offset of " << static_cast<std::int64_t>(tensor.byte_offset));
  }
  result.data = reinterpret_cast<T*>(first);
  return result;
}

template <class T, int Rank, class Space = host_space, dlpack_managed_tensor Managed>
tensor_view<T, Rank, Space> from_dlpack(Managed const& managed, char const* name = "tensor",
                                        int device_id = -1) {
  if constexpr (requires { managed.flags; }) {
    if (managed.version.major != 1) {
      detail::fail(
          "from_dlpack", name, "version 1 of DLPack",
          detail::text() << "version " << static_cast<std::int64_t>(managed.version.major));
    }
    constexpr std::uint64_t read_only = 1;
    if (!std::is_const_v<T> && (managed.flags & read_only) != 0) {
      detail::fail("from_dlpack", name, "a tensor that may be written", "a read-only one");
    }
  }
  return from_dlpack<T, Rank, Space>(managed.dl_tensor, name, device_id);
}

}  // namespace addloss
