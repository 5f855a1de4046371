// SPDX-License-Identifier: MIT
#include "cuda/peers.cuh"

#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <cub/device/device_reduce.cuh>

#include <addloss/cuda/context.cuh>

namespace peers {
namespace {

struct distillation_term {
  float const* student;
  float const* target;
  addloss::noise_level const* levels;
  std::int64_t const* t;
  std::int32_t row;
  float factor;
  __device__ float operator()(std::int32_t i) const {
    float const d = student[i] - target[i];
    return static_cast<float>(levels[t[i / row]].alpha) * factor * (d * d);
  }
};

struct r1_term {
  float const* g;
  float factor;
  __device__ float operator()(std::int32_t i) const { return factor * (g[i] * g[i]); }
};

template <class Term>
void sum(void* memory, std::size_t& bytes, Term const& term, std::int64_t size, float* out,
         cudaStream_t stream) {
  auto const terms =
      thrust::make_transform_iterator(thrust::counting_iterator<std::int32_t>(0), term);
  addloss::cuda::check(
      "cub::DeviceReduce::Sum",
      cub::DeviceReduce::Sum(memory, bytes, terms, out, static_cast<std::int32_t>(size), stream));
}

}  // namespace

void cub_distillation(void* memory, std::size_t& bytes, float const* student, float const* target,
                      addloss::noise_level const* levels, std::int64_t const* t,
                      std::int64_t samples, std::int64_t row, float* out, cudaStream_t stream) {
  std::int64_t const size = samples * row;
  distillation_term const term{
      student, target, levels, t, static_cast<std::int32_t>(row), 1 / static_cast<float>(size)};
  sum(memory, bytes, term, size, out, stream);
}

void cub_r1(void* memory, std::size_t& bytes, float const* g, double gamma, std::int64_t samples,
            std::int64_t row, float* out, cudaStream_t stream) {
  r1_term const term{g, static_cast<float>(gamma / static_cast<double>(samples))};
  sum(memory, bytes, term, samples * row, out, stream);
}

}  // namespace peers
