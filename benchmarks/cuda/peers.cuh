// SPDX-License-Identifier: MIT
/// Values of losses by cub::DeviceReduce over an iterator that computes the term of an element, to
/// run beside ours: no gradient, no statistics, sums in float.
///
/// As CUB's own calls: with `memory` null they only write to `bytes` what they need of it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include <addloss/schedule/concept.hpp>

namespace peers {

/// out = mean_b alpha(t_b) mean (student - target)^2, tensors [samples, row] of fewer than 2^31
/// elements.
void cub_distillation(void* memory, std::size_t& bytes, float const* student, float const* target,
                      addloss::noise_level const* levels, std::int64_t const* t,
                      std::int64_t samples, std::int64_t row, float* out, cudaStream_t stream);

/// out = gamma mean_b sum g^2 of one head's g [samples, row].
void cub_r1(void* memory, std::size_t& bytes, float const* g, double gamma, std::int64_t samples,
            std::int64_t row, float* out, cudaStream_t stream);

}  // namespace peers
