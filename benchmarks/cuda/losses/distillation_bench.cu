// SPDX-License-Identifier: MIT
// The distillation loss and its gradient on a GPU, from a target and from a teacher's predictions;
// the value alone, beside CUB's sum.
#include <addloss/losses/distillation.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include <addloss/cuda.cuh>

#include "cuda/device_turns.cuh"
#include "cuda/peers.cuh"

namespace {

namespace add = addloss;

/// One set of tensors [B, ...].
template <class T>
struct tensors {
  tensors(std::int64_t size, std::int64_t offset, bool teacher)
      : student(size, offset), target(size, offset, 1), gradient(size, offset) {
    if (!teacher) return;
    unconditional = std::make_unique<bench::device_numbers<T>>(size, offset);
    noise = std::make_unique<bench::device_numbers<T>>(size, offset);
  }
  bench::device_numbers<T> student, target, gradient;
  std::unique_ptr<bench::device_numbers<T>> unconditional, noise;
};

enum class form { target, teacher, teacher_generated, value };

/// Arguments: B, elements of a sample, calls in a graph. `Offset`: elements that the tensors lie
/// beyond an aligned address.
template <class T, form Form, std::int64_t Offset = 0>
void distillation(benchmark::State& state) {
  constexpr bool from_teacher = Form == form::teacher || Form == form::teacher_generated;
  std::int64_t const samples = state.range(0);
  std::int64_t const row = state.range(1);
  std::int64_t const size = samples * row;
  auto const bytes = size * static_cast<std::int64_t>(sizeof(T));
  std::int64_t moved = 3;
  if (Form == form::value) moved = 2;
  if (Form == form::teacher) moved = 5;
  if (Form == form::teacher_generated) moved = 4;
  std::vector<tensors<T>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(moved * bytes); ++i) {
    sets.emplace_back(size, Offset, from_teacher);
  }
  bench::device_schedule const schedule(samples);
  bench::device_numbers<double> const value(1);
  auto const view = [&](T* data) { return add::view<add::device_space>(data, samples, row); };
  auto const loss_of = [&](tensors<T> const& set) {
    auto const table = schedule.table();
    auto const times = schedule.timesteps();
    if constexpr (from_teacher) {
      add::teacher_predictions<T, add::device_space> teacher{
          .conditional = view(set.target.data()),
          .unconditional = view(set.unconditional->data()),
          .guidance_scale = 7.5};
      if constexpr (Form == form::teacher) {
        teacher.noise = view(set.noise->data());
      } else {
        teacher.noise = add::normal_noise{{.seed = 42}};
      }
      return add::distillation<>{}.from_teacher(add::v_prediction{}, table,
                                                view(set.student.data()), teacher, times);
    } else {
      return add::distillation<>{}(table, view(set.student.data()), view(set.target.data()), times);
    }
  };
  bench::device const gpu(add::workspace_bytes(loss_of(sets[0])));
  auto const out = add::view<add::device_space>(value.data());
  bench::device_peer peer;
  bench::device_numbers<float> const value_of_peer(1);
  std::unique_ptr<bench::device_numbers<unsigned char>> memory;
  std::size_t bytes_of_peer = 0;
  if constexpr (Form == form::value) {
    auto const call = [&, samples, row](std::int64_t i) {
      auto const& set = sets[static_cast<std::size_t>(i)];
      peers::cub_distillation(memory ? memory->data() : nullptr, bytes_of_peer, set.student.data(),
                              set.target.data(), schedule.table().levels, schedule.timesteps().data,
                              samples, row, value_of_peer.data(), gpu.context().stream);
    };
    call(0);
    memory = std::make_unique<bench::device_numbers<unsigned char>>(
        static_cast<std::int64_t>(bytes_of_peer));
    peer = {"cub", call, {value_of_peer.data()}, value.data()};
  }
  bench::take_device_turns(
      state, gpu.context().stream,
      {.graph = state.range(2), .sets = std::ssize(sets), .elements = size, .bytes = moved * bytes},
      [&](std::int64_t i) {
        auto const& set = sets[static_cast<std::size_t>(i)];
        if constexpr (Form == form::value) {
          add::value(gpu.context(), loss_of(set), out);
        } else {
          add::value_and_grad(gpu.context(), loss_of(set), out, view(set.gradient.data()));
        }
      },
      peer);
}

/// More latents, larger ones, and rows of an odd length.
void others(benchmark::internal::Benchmark* benchmark) {
  for (int const samples : {64, 512, 4096}) benchmark->Args({samples, bench::latent, 0});
  benchmark->Args({64, 4 * 128 * 128, 0})->Args({48, bench::image - 1, 0});
  bench::image_settings(benchmark);
}

using enum form;
BENCHMARK(distillation<float, target>)->Apply(bench::latents);
BENCHMARK(distillation<float, target>)->Apply(bench::images);
BENCHMARK(distillation<float, target>)->Apply(others);
BENCHMARK(distillation<float, target, 1>)->Apply(bench::images);
BENCHMARK(distillation<add::half, target>)->Apply(bench::latents);
BENCHMARK(distillation<add::half, target>)->Apply(bench::images);
BENCHMARK(distillation<add::bfloat16, target>)->Apply(bench::images);
BENCHMARK(distillation<add::bfloat16, target, 1>)->Apply(bench::images);
BENCHMARK(distillation<double, target>)->Apply(bench::images);
BENCHMARK(distillation<float, value>)->Apply(bench::latents);
BENCHMARK(distillation<float, value>)->Apply(bench::images);
BENCHMARK(distillation<float, teacher>)->Apply(bench::latents);
BENCHMARK(distillation<float, teacher>)->Apply(bench::images);
BENCHMARK(distillation<add::half, teacher>)->Apply(bench::images);
BENCHMARK(distillation<add::bfloat16, teacher>)->Apply(bench::images);
BENCHMARK(distillation<float, teacher_generated>)->Apply(bench::images);
BENCHMARK(distillation<add::bfloat16, teacher_generated>)->Apply(bench::images);

}  // namespace
