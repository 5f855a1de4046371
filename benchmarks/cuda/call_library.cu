// SPDX-License-Identifier: MIT
// Calls of the library as a shared library, for compare_with_torch.py: functions that Python's
// ctypes can call. A call is bound to its tensors once, and then made as often as wanted. One that
// throws ends the program with the text of the error.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <addloss/cuda.cuh>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

namespace add = addloss;
using space = add::device_space;
using table = add::schedule_table<space>;

/// A call and its workspace.
struct bound_call {
  std::function<void(add::cuda_context const&)> run;
  add::cuda_context ctx{};
};

bound_call* with_workspace(std::size_t bytes, std::function<void(add::cuda_context const&)> run) {
  auto* const result = new bound_call{std::move(run)};
  result->ctx.bytes = bytes;
  if (bytes == 0) return result;
  add::cuda::check("cudaMalloc", cudaMalloc(&result->ctx.workspace, bytes));
  add::zero_workspace(result->ctx);
  add::cuda::check("zero_workspace", cudaDeviceSynchronize());
  return result;
}

/// Calls `make` with an object of the storage type called `name`.
template <class Make>
bound_call* of_type(std::string_view name, Make const& make) {
  if (name == "float") return make(float{});
  if (name == "half") return make(add::half{});
  if (name == "bfloat16") return make(add::bfloat16{});
  if (name == "double") return make(double{});
  add::detail::fail("call_library", "type", "a known one", name.data());
}

template <class T>
auto view_of(void const* data, std::int64_t samples, std::int64_t size) {
  return add::view<space>(static_cast<T const*>(data), samples, size);
}
template <class T>
auto view_of(void* data, std::int64_t samples, std::int64_t size) {
  return add::view<space>(static_cast<T*>(data), samples, size);
}

template <class T>
std::vector<add::rows<T, space>> rows_of(void* const* heads, int count, std::int64_t samples,
                                         std::int64_t size) {
  std::vector<add::rows<T, space>> result;
  for (int k = 0; k < count; ++k) {
    result.emplace_back(add::view<space>(static_cast<T*>(heads[k]), samples, size));
  }
  return result;
}

}  // namespace

/// Tensors [samples, size]; `levels`: alpha and sigma of `count` timesteps.
EXPORTED bound_call* distillation_call(char const* type, std::int64_t samples, std::int64_t size,
                                       void const* levels, std::int64_t count, std::int64_t* t,
                                       void const* student, void const* target, double grad_scale,
                                       double* value, void* gradient) noexcept {
  return of_type(type, [&]<class T>(T) {
    auto const loss =
        add::distillation<>{}(table{static_cast<add::noise_level const*>(levels), count},
                              view_of<T>(student, samples, size), view_of<T>(target, samples, size),
                              add::view<space>(t, samples));
    return with_workspace(add::workspace_bytes(loss), [=](add::cuda_context const& ctx) {
      add::value_and_grad(ctx, loss, add::view<space>(value), view_of<T>(gradient, samples, size),
                          {.grad_scale = grad_scale});
    });
  });
}

/// From v-predictions of the teacher, guided.
EXPORTED bound_call* teacher_call(char const* type, std::int64_t samples, std::int64_t size,
                                  void const* levels, std::int64_t count, std::int64_t* t,
                                  void const* student, void const* noise, void const* conditional,
                                  void const* unconditional, double guidance, double grad_scale,
                                  double* value, void* gradient) noexcept {
  return of_type(type, [&]<class T>(T) {
    auto const loss = add::distillation<>{}.from_teacher(
        add::v_prediction{}, table{static_cast<add::noise_level const*>(levels), count},
        view_of<T>(student, samples, size),
        add::teacher_predictions<T, space>{
            .noise = view_of<T>(noise, samples, size),
            .conditional = view_of<T>(conditional, samples, size),
            .unconditional = view_of<T>(unconditional, samples, size),
            .guidance_scale = guidance},
        add::view<space>(t, samples));
    return with_workspace(add::workspace_bytes(loss), [=](add::cuda_context const& ctx) {
      add::value_and_grad(ctx, loss, add::view<space>(value), view_of<T>(gradient, samples, size),
                          {.grad_scale = grad_scale});
    });
  });
}

/// `noise`: null to generate it.
EXPORTED bound_call* noising_call(char const* type, std::int64_t samples, std::int64_t size,
                                  void const* levels, std::int64_t count, std::int64_t* t,
                                  void const* x0, void const* noise, void* out) noexcept {
  return of_type(type, [&]<class T>(T) {
    return with_workspace(0, [=](add::cuda_context const& ctx) {
      table const schedule{static_cast<add::noise_level const*>(levels), count};
      auto const times = add::view<space>(t, samples);
      auto const from = view_of<T>(x0, samples, size);
      auto const to = view_of<T>(out, samples, size);
      if (noise == nullptr) {
        add::add_noise(ctx, schedule, from, times, add::normal_noise{{.seed = 42}}, to);
      } else {
        add::add_noise(ctx, schedule, from, times, view_of<T>(noise, samples, size), to);
      }
    });
  });
}

/// The hinge loss of a discriminator's heads, with the gradients of all logits and with statistics.
EXPORTED bound_call* hinge_call(char const* type, int heads, std::int64_t samples,
                                std::int64_t tokens, void* const* real, void* const* fake,
                                double grad_scale, double* value, void* const* real_gradient,
                                void* const* fake_gradient) noexcept {
  return of_type(type, [&]<class T>(T) {
    auto const r = rows_of<T const>(real, heads, samples, tokens);
    auto const f = rows_of<T const>(fake, heads, samples, tokens);
    auto const dr = rows_of<T>(real_gradient, heads, samples, tokens);
    auto const df = rows_of<T>(fake_gradient, heads, samples, tokens);
    auto const bytes = add::workspace_bytes(add::adversarial<>{}.discriminator<T, space>(r, f));
    auto const count = static_cast<std::size_t>(heads);
    void* statistics = nullptr;
    add::cuda::check("cudaMalloc", cudaMalloc(&statistics, count * sizeof(add::head_statistics)));
    return with_workspace(bytes, [=](add::cuda_context const& ctx) {
      add::value_and_grad(ctx, add::adversarial<>{}.discriminator<T, space>(r, f),
                          add::view<space>(value), {.real = dr, .fake = df},
                          {.grad_scale = grad_scale,
                           .statistics = {static_cast<add::head_statistics*>(statistics), count}});
    });
  });
}

/// The penalty of R1 and the cotangents of the features' gradients, [samples, size] a head.
EXPORTED bound_call* r1_call(char const* type, int heads, std::int64_t samples, std::int64_t size,
                             void* const* features, double gamma, double grad_scale, double* value,
                             void* const* cotangents) noexcept {
  return of_type(type, [&]<class T>(T) {
    auto const g = rows_of<T const>(features, heads, samples, size);
    auto const out = rows_of<T>(cotangents, heads, samples, size);
    auto const bytes = add::workspace_bytes(add::r1{}.on<T, space>(g));
    return with_workspace(bytes, [=](add::cuda_context const& ctx) {
      add::value_and_grad(ctx, add::r1{.gamma = gamma}.on<T, space>(g), add::view<space>(value),
                          {.features = out}, {.grad_scale = grad_scale});
    });
  });
}

EXPORTED void run_call(bound_call* call, cudaStream_t stream) noexcept {
  call->ctx.stream = stream;
  call->run(call->ctx);
}
