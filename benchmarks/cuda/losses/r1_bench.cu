// SPDX-License-Identifier: MIT
// R1 on the feature gradients of K heads on a GPU: the penalty and the cotangents; the penalty
// alone, beside a sum by CUB for each head.
#include <addloss/losses/r1.hpp>

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

template <class T>
struct heads_features {
  heads_features(std::int64_t heads, std::int64_t samples, std::int64_t row) {
    for (std::int64_t k = 0; k < heads; ++k) {
      gradients.push_back(std::make_unique<bench::device_numbers<T>>(samples * row));
      cotangents.push_back(std::make_unique<bench::device_numbers<T>>(samples * row));
      gradient_rows.emplace_back(
          add::view<add::device_space>(gradients.back()->data(), samples, row));
      cotangent_rows.emplace_back(
          add::view<add::device_space>(cotangents.back()->data(), samples, row));
    }
  }
  std::vector<std::unique_ptr<bench::device_numbers<T>>> gradients, cotangents;
  std::vector<add::rows<T const, add::device_space>> gradient_rows;
  std::vector<add::rows<T, add::device_space>> cotangent_rows;
};

enum class form { value, value_and_grad };

/// Arguments: heads, B, elements of a sample's features, calls in a graph.
template <class T, form Form = form::value_and_grad>
void r1(benchmark::State& state) {
  std::int64_t const heads = state.range(0);
  std::int64_t const samples = state.range(1);
  std::int64_t const row = state.range(2);
  std::int64_t const size = heads * samples * row;
  std::int64_t const bytes =
      (Form == form::value ? 1 : 2) * size * static_cast<std::int64_t>(sizeof(T));
  std::vector<std::unique_ptr<heads_features<T>>> sets;
  for (std::int64_t i = 0; i < bench::sets_of(bytes); ++i) {
    sets.push_back(std::make_unique<heads_features<T>>(heads, samples, row));
  }
  add::r1 const penalty{.gamma = 1e-5};
  auto const loss_of = [&](heads_features<T> const& set) {
    return penalty.on<T, add::device_space>(set.gradient_rows);
  };
  bench::device const gpu(add::workspace_bytes(loss_of(*sets[0])));
  bench::device_numbers<double> const value(1);
  bench::device_peer peer;
  bench::device_numbers<float> const values_of_peer(heads);
  std::unique_ptr<bench::device_numbers<unsigned char>> memory;
  std::size_t bytes_of_peer = 0;
  if constexpr (Form == form::value) {
    auto const call = [&, heads, samples, row](std::int64_t i) {
      auto const& set = *sets[static_cast<std::size_t>(i)];
      for (std::int64_t k = 0; k < heads; ++k) {
        peers::cub_r1(memory ? memory->data() : nullptr, bytes_of_peer,
                      set.gradients[static_cast<std::size_t>(k)]->data(), 1e-5, samples, row,
                      values_of_peer.data() + k, gpu.context().stream);
      }
    };
    call(0);
    memory = std::make_unique<bench::device_numbers<unsigned char>>(
        static_cast<std::int64_t>(bytes_of_peer));
    peer = {"cub", call, {}, value.data()};
    for (std::int64_t k = 0; k < heads; ++k) peer.parts.push_back(values_of_peer.data() + k);
  }
  bench::take_device_turns(
      state, gpu.context().stream,
      {.graph = state.range(3), .sets = std::ssize(sets), .elements = size, .bytes = bytes},
      [&](std::int64_t i) {
        auto const& set = *sets[static_cast<std::size_t>(i)];
        auto const out = add::view<add::device_space>(value.data());
        if constexpr (Form == form::value) {
          add::value(gpu.context(), loss_of(set), out);
        } else {
          add::value_and_grad(gpu.context(), loss_of(set), out, {.features = set.cotangent_rows});
        }
      },
      peer);
}

constexpr std::int64_t features = 384 * 197;  // of ViT-S on 224 x 224 pixels

void settings(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"heads", "", "", "graph"});
  bench::settings(benchmark);
}
void five_heads(benchmark::internal::Benchmark* benchmark) {
  for (int const graph : {0, 20}) benchmark->Args({5, 8, features, graph});
  benchmark->Args({5, 256, features, 0});
  settings(benchmark);
}
void other_heads(benchmark::internal::Benchmark* benchmark) {
  for (int const heads : {1, 2, 4, 8}) {
    for (int const graph : {0, 20}) benchmark->Args({heads, 8, features, graph});
    benchmark->Args({heads, 256, features, 0});
  }
  settings(benchmark);
}

BENCHMARK(r1<float>)->Apply(five_heads);
BENCHMARK(r1<add::half>)->Apply(five_heads);
BENCHMARK(r1<add::bfloat16>)->Apply(five_heads);
BENCHMARK(r1<float, form::value>)->Apply(five_heads);
BENCHMARK(r1<float>)->Apply(other_heads);

}  // namespace
