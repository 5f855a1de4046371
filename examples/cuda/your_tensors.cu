// SPDX-License-Identifier: MIT
// One loss of tensors in memory of the GPU, its gradient written where they lie: pointers, vectors
// of Thrust, mdspans of CUDA, and what another framework exports by DLPack. All must give the same
// bits; the program fails where they do not.
#include <addloss/adapters/mdspan.hpp>
#include <addloss/adapters/thrust.cuh>
#include <addloss/cuda.cuh>

#include <cuda/std/mdspan>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <type_traits>
#include <vector>

#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#include <addloss/adapters/dlpack.hpp>
#endif

namespace {

using addloss::device_space;

constexpr std::int64_t batch = 4;
constexpr std::int64_t size = 48;  // 3 x 4 x 4

/// Evaluates the loss of views, prints it, and compares it and the gradient with the first.
struct comparison {
  thrust::device_vector<double> times;
  thrust::device_vector<float> const& gradient;  ///< what is written to
  std::vector<double> first{};  ///< gradient and loss
  bool same = true;

  void add(char const* name, auto const& student, auto const& target, auto const& out) {
    auto const distilled =
        addloss::distillation<>{}(addloss::rectified_flow{}, student, target, times);
    thrust::device_vector<double> loss(1);
    thrust::device_vector<unsigned char> workspace(
        static_cast<std::size_t>(addloss::workspace_bytes(distilled)), 0);
    addloss::cuda_context const ctx{.workspace = thrust::raw_pointer_cast(workspace.data()),
                                    .bytes = workspace.size()};
    value_and_grad(ctx, distilled, addloss::view(loss.data()), out);
    thrust::host_vector<float> const copy = gradient;
    std::vector<double> result(copy.begin(), copy.end());
    result.push_back(loss[0]);
    if (first.empty()) first = result;
    same = same && result == first;
    std::printf("%-9s loss %.17g, gradient %.9g, ...\n", name, result.back(), result[0]);
  }
};

int run() {
  thrust::host_vector<float> numbers(batch * size);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = 0.01F * static_cast<float>(i % 37);
  }
  thrust::device_vector<float> const student = numbers;
  thrust::device_vector<float> const target(batch * size, 0.25F);
  thrust::device_vector<float> gradient(batch * size);
  comparison all{std::vector<double>{0.1, 0.9, 0.5, 0.3}, gradient};

  // A device_ptr knows its space. A pointer's is named, and not checked.
  auto const images = [](auto pointer) { return addloss::view(pointer, batch, 3, 4, 4); };
  all.add("Thrust", images(student.data()), images(target.data()), images(gradient.data()));

  float const* const x = thrust::raw_pointer_cast(student.data());
  float const* const y = thrust::raw_pointer_cast(target.data());
  float* const out = thrust::raw_pointer_cast(gradient.data());
  auto const pointer = [](auto* p) { return addloss::view<device_space>(p, batch, 3, 4, 4); };
  all.add("pointers", pointer(x), pointer(y), pointer(out));

  // An mdspan's space is named as well, as it is not said by its type.
  using extents = cuda::std::dextents<int, 4>;
  auto const span = [](auto* p) {
    using element = std::remove_pointer_t<decltype(p)>;
    return addloss::view<device_space>(cuda::std::mdspan<element, extents>(p, 4, 3, 4, 4));
  };
  all.add("mdspan", span(x), span(y), span(out));

#if __has_include(<dlpack/dlpack.h>)
  std::int64_t shape[] = {batch, 3, 4, 4};
  auto const exported = [&](float const* p) {
    return DLTensor{const_cast<float*>(p), {kDLCUDA, 0}, 4, {kDLFloat, 32, 1}, shape, nullptr, 0};
  };
  all.add("DLPack", addloss::from_dlpack<float const, 4, device_space>(exported(x), "student"),
          addloss::from_dlpack<float const, 4, device_space>(exported(y), "target"),
          addloss::from_dlpack<float, 4, device_space>(exported(out), "gradient"));
#endif
  if (!all.same) std::fprintf(stderr, "they are not the same\n");
  return all.same ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
