// SPDX-License-Identifier: MIT
#include <addloss/adapters/dlpack.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <dlpack/dlpack.h>

#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/testing/conformance.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using addloss::bfloat16;
using addloss::device_space;
using addloss::from_dlpack;
using addloss::half;
using addloss::host_space;
using addloss::tensor_view;

/// The managed tensor of DLPack 1, which Debian's header is too old for.
struct versioned_tensor {
  struct {
    std::uint32_t major;
    std::uint32_t minor;
  } version;
  void* manager_ctx;
  void (*deleter)(versioned_tensor* self);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

static_assert(addloss::dlpack_tensor<DLTensor> && !addloss::dlpack_tensor<DLManagedTensor>);
static_assert(addloss::dlpack_managed_tensor<DLManagedTensor>);
static_assert(addloss::dlpack_managed_tensor<versioned_tensor>);
static_assert(!addloss::dlpack_managed_tensor<DLTensor>);
static_assert(!addloss::dlpack_tensor<std::vector<float>> && !addloss::dlpack_tensor<float*>);
static_assert(std::same_as<decltype(from_dlpack<float const, 4, device_space>(DLTensor{})),
                           tensor_view<float const, 4, device_space>>);

constexpr DLDataType float32{kDLFloat, 32, 1};

/// A DLTensor [2, 3] and what it points to.
struct example {
  float memory[24] = {};
  std::int64_t shape[2] = {2, 3};
  std::int64_t strides[2] = {8, 2};
  DLTensor tensor{memory, {kDLCPU, 0}, 2, float32, shape, nullptr, 0};
};

template <class T = float, int Rank = 2, class Space = host_space>
std::string error_for(DLTensor const& tensor, int device_id = -1) {
  return error_of([&] { from_dlpack<T, Rank, Space>(tensor, "student", device_id); });
}

template <class T>
std::string error_for_type(std::uint8_t code, std::uint8_t bits) {
  example e;
  e.tensor.dtype = {code, bits, 1};
  return error_for<T>(e.tensor);
}

}  // namespace

TEST_CASE("a tensor without strides is row-major") {
  example e;
  auto view = from_dlpack<float, 2>(e.tensor);
  auto const result =
      addloss::testing::check_view(view, [&](auto i, auto j) { return e.memory + 3 * i + j; });
  CHECK(result.passed);
  CHECK(result.elements == 6);
}

TEST_CASE("strides and the byte offset are kept") {
  example e;
  e.tensor.strides = e.strides;
  e.tensor.byte_offset = 4;
  auto view = from_dlpack<float const, 2>(e.tensor);
  auto const result = addloss::testing::check_view(
      view, [&](auto i, auto j) { return e.memory + 1 + 8 * i + 2 * j; });
  CHECK(result.passed);
  CHECK(result.elements == 6);
}

TEST_CASE("every type has its code and its bits") {
  CHECK(error_for_type<float>(kDLFloat, 32) == "no error");
  CHECK(error_for_type<double>(kDLFloat, 64) == "no error");
  CHECK(error_for_type<half>(kDLFloat, 16) == "no error");
  CHECK(error_for_type<bfloat16>(kDLBfloat, 16) == "no error");
  CHECK(error_for_type<std::int64_t const>(kDLInt, 64) == "no error");
  CHECK(error_for_type<std::uint8_t>(kDLUInt, 8) == "no error");
  CHECK(error_for_type<half>(kDLBfloat, 16) ==
        "from_dlpack: student (expected float16, got bfloat16)");
  CHECK(error_for_type<float>(kDLFloat, 64) ==
        "from_dlpack: student (expected float32, got float64)");
  CHECK(error_for_type<std::int64_t>(kDLUInt, 64) ==
        "from_dlpack: student (expected int64, got uint64)");
  CHECK(error_for_type<double>(kDLComplex, 64) ==
        "from_dlpack: student (expected float64, got type code 5 of 64 bits)");
  example e;
  e.tensor.dtype.lanes = 4;
  CHECK(error_for(e.tensor) == "from_dlpack: student (expected float32, got float32 in 4 lanes)");
}

TEST_CASE("the memory must be that of the space") {
  example e;
  auto const reaches = [&](DLDeviceType device) {
    e.tensor.device.device_type = device;
    return std::pair(error_for(e.tensor) == "no error",
                     error_for<float, 2, device_space>(e.tensor) == "no error");
  };
  CHECK(reaches(kDLCPU) == std::pair(true, false));
  CHECK(reaches(kDLCUDAHost) == std::pair(true, false));
  CHECK(reaches(kDLCUDA) == std::pair(false, true));
  CHECK(reaches(kDLCUDAManaged) == std::pair(true, true));
  CHECK(reaches(kDLROCM) == std::pair(false, false));
  e.tensor.device = {kDLCUDA, 1};
  CHECK(error_for(e.tensor) ==
        "from_dlpack: student (expected memory of the CPU, got device type 2, device 1)");
  CHECK(error_for<float, 2, device_space>(e.tensor, 1) == "no error");
  CHECK(error_for<float, 2, device_space>(e.tensor, 0) ==
        "from_dlpack: student (expected memory of a CUDA GPU, device 0, got device type 2, device "
        "1)");
}

TEST_CASE("rank, extents and memory are checked") {
  example e;
  CHECK(error_for<float, 3>(e.tensor) == "from_dlpack: student (expected rank 3, got rank 2)");
  e.shape[0] = -1;
  CHECK(error_for(e.tensor) ==
        "from_dlpack: student (expected extents >= 0 whose product fits 63 bits, got [-1,3])");
  e.shape[0] = std::int64_t{1} << 62;
  CHECK(error_for(e.tensor).find("63 bits") != std::string::npos);
  e.shape[0] = 2;
  e.tensor.byte_offset = 2;
  CHECK(error_for(e.tensor) ==
        "from_dlpack: student (expected memory aligned to 4 bytes, got a byte_offset of 2)");
  e.tensor.byte_offset = 0;
  e.tensor.data = static_cast<unsigned char*>(e.tensor.data) + 2;
  CHECK(error_for(e.tensor) ==
        "from_dlpack: student (expected memory aligned to 4 bytes, got data 2 bytes off)");
  e.tensor.data = nullptr;
  CHECK(error_for(e.tensor) == "from_dlpack: student (expected memory, got a null pointer)");
  e.shape[1] = 0;
  CHECK(error_for(e.tensor) == "no error");
  e.shape[0] = e.shape[1] = std::int64_t{1} << 62;
  CHECK(error_for(e.tensor).find("63 bits") != std::string::npos);
  std::int64_t empty[] = {0, std::int64_t{1} << 62, 4};
  e.tensor.ndim = 3;
  e.tensor.shape = empty;
  CHECK(from_dlpack<float, 3>(e.tensor).extents[0] == 0);
  float number = 0;
  DLTensor const scalar{&number, {kDLCPU, 0}, 0, float32, nullptr, nullptr, 0};
  CHECK(from_dlpack<float, 0>(scalar).data == &number);
}

TEST_CASE("a read-only tensor can be read only") {
  example e;
  versioned_tensor managed{{1, 1}, nullptr, nullptr, 1, e.tensor};
  CHECK(from_dlpack<float const, 2>(managed).data == e.memory);
  CHECK(error_of([&] { from_dlpack<float, 2>(managed, "gradient"); }) ==
        "from_dlpack: gradient (expected a tensor that may be written, got a read-only one)");
  managed.flags = 2;  // a copy, which may be written
  CHECK(from_dlpack<float, 2>(managed).data == e.memory);
  managed.version.major = 2;
  CHECK(error_of([&] { from_dlpack<float const, 2>(managed); }) ==
        "from_dlpack: tensor (expected version 1 of DLPack, got version 2)");
}

TEMPLATE_TEST_CASE("the deleter is called once, by the last owner", "", DLManagedTensor,
                   versioned_tensor) {
  example e;
  int calls = 0;
  TestType managed{};
  managed.dl_tensor = e.tensor;
  managed.manager_ctx = &calls;
  managed.deleter = [](TestType* self) { ++*static_cast<int*>(self->manager_ctx); };
  if constexpr (requires { managed.flags; }) managed.version.major = 1;
  {
    addloss::dlpack_ptr<TestType> first(&managed);
    addloss::dlpack_ptr<TestType> const second = std::move(first);
    CHECK(from_dlpack<float, 2>(*second).data == e.memory);
    CHECK(calls == 0);
  }
  CHECK(calls == 1);
  managed.deleter = nullptr;
  { addloss::dlpack_ptr<TestType> const nothing_to_give_back(&managed); }
  CHECK(calls == 1);
}

TEST_CASE("a loss gives the same bits through DLPack as through pointers") {
  std::int64_t shape[4] = {3, 2, 5, 7};
  std::int64_t batch[1] = {3};
  std::vector<float> student(210);
  std::vector<float> target(210);
  std::vector<float> gradient(210);
  for (std::size_t i = 0; i < student.size(); ++i) {
    student[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
    target[i] = static_cast<float>(std::sin(1 + 0.7 * static_cast<double>(i)));
  }
  double times[3] = {0.1, 0.9, 0.5};
  auto const exported = [&](std::vector<float>& memory) {
    return DLTensor{memory.data(), {kDLCPU, 0}, 4, float32, shape, nullptr, 0};
  };
  addloss::cpu_context const ctx;
  addloss::distillation<> const loss;
  addloss::rectified_flow const schedule;
  float plain_loss = 0;
  std::vector<float> plain(210);
  addloss::value_and_grad(ctx,
                          loss(schedule, addloss::view(student.data(), 3, 2, 5, 7),
                               addloss::view(target.data(), 3, 2, 5, 7), addloss::view(times, 3)),
                          plain_loss, addloss::view(plain.data(), 3, 2, 5, 7));

  float got = 0;
  DLTensor const t{times, {kDLCPU, 0}, 1, {kDLFloat, 64, 1}, batch, nullptr, 0};
  addloss::value_and_grad(
      ctx,
      loss(schedule, from_dlpack<float const, 4>(exported(student)),
           from_dlpack<float const, 4>(exported(target)), from_dlpack<double const, 1>(t)),
      got, from_dlpack<float, 4>(exported(gradient)));
  CHECK(got == plain_loss);
  CHECK(gradient == plain);
}
