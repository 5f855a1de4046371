// SPDX-License-Identifier: MIT
#include "limits.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace limits {
namespace {

constexpr float scale = 3;

/// Calls `loop(first, size)` once, or on each thread for its share of whole cache lines.
template <class Loop>
void share_out(std::int64_t size, int threads, Loop const& loop) {
  if (threads == 1) return loop(std::int64_t{0}, size);
  constexpr std::int64_t line = 16;
  std::int64_t const share = (size / threads + line - 1) / line * line;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int i = 0; i < threads; ++i) {
    std::int64_t const first = i * share;
    loop(first, i + 1 < threads ? share : size - first);
  }
}

void copy_loop(float* __restrict out, float const* __restrict a, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) out[i] = a[i];
}

float read_loop(float const* __restrict a, float const* __restrict b, std::int64_t size) {
  float sum[64] = {};  // enough lanes to hide the latency of addition
  std::int64_t const whole = size / 64 * 64;
  for (std::int64_t i = 0; i < whole; i += 64) {
    for (int lane = 0; lane < 64; ++lane) sum[lane] += a[i + lane] * b[i + lane];
  }
  for (std::int64_t i = whole; i < size; ++i) sum[0] += a[i] * b[i];
  for (int lane = 1; lane < 64; ++lane) sum[0] += sum[lane];
  return sum[0];
}

void triad_loop(float* __restrict out, float const* __restrict a, float const* __restrict b,
                std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) out[i] = a[i] + scale * b[i];
}

void streaming_triad_loop(float* __restrict out, float const* __restrict a,
                          float const* __restrict b, std::int64_t size) {
  std::int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= size; i += 16) {
    _mm512_stream_ps(out + i, _mm512_loadu_ps(a + i) + scale * _mm512_loadu_ps(b + i));
  }
#elif defined(__AVX__)
  for (; i + 8 <= size; i += 8) {
    _mm256_stream_ps(out + i, _mm256_loadu_ps(a + i) + scale * _mm256_loadu_ps(b + i));
  }
#elif defined(__SSE2__)
  for (; i + 4 <= size; i += 4) {
    _mm_stream_ps(out + i, _mm_loadu_ps(a + i) + scale * _mm_loadu_ps(b + i));
  }
#endif
#if defined(__SSE2__)
  _mm_sfence();
#endif
  triad_loop(out + i, a + i, b + i, size - i);
}

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

}  // namespace

void copy(float* out, float const* a, std::int64_t size, int threads) {
  share_out(size, threads, [=](std::int64_t first, std::int64_t count) {
    copy_loop(out + first, a + first, count);
  });
}

float read(float const* a, float const* b, std::int64_t size, int threads) {
  float total = 0;
  share_out(size, threads, [=, &total](std::int64_t first, std::int64_t count) {
    float const sum = read_loop(a + first, b + first, count);
#pragma omp atomic
    total += sum;
  });
  return total;
}

void triad(float* out, float const* a, float const* b, std::int64_t size, int threads) {
  share_out(size, threads, [=](std::int64_t first, std::int64_t count) {
    triad_loop(out + first, a + first, b + first, count);
  });
}

void streaming_triad(float* out, float const* a, float const* b, std::int64_t size, int threads) {
  share_out(size, threads, [=](std::int64_t first, std::int64_t count) {
    streaming_triad_loop(out + first, a + first, b + first, count);
  });
}

double multiply_adds() {
  using lanes [[gnu::vector_size(register_bytes)]] = float;
  constexpr int width = register_bytes / sizeof(float);
  constexpr int chains = 12;  // enough to hide the latency, and registers for all
  constexpr int steps = 1 << 14;
  static float volatile number = 0.5F;  // read and written: nothing is known or left out
  lanes const factor = number - lanes{};
  lanes sum[chains];
#pragma GCC unroll 12
  for (int i = 0; i < chains; ++i) sum[i] = static_cast<float>(i) - lanes{};
  for (int step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sum[i] = sum[i] * factor + factor;
  }
  lanes all = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < chains; ++i) all += sum[i];
  float total = 0;
  for (int lane = 0; lane < width; ++lane) total += all[lane];
  number = total / (2 * chains * width);  // 0.5 again, as every sum has become 1
  return 2.0 * chains * steps * width;
}

}  // namespace limits
