// SPDX-License-Identifier: MIT
/// What the machine can do at most: the loops of the STREAM benchmark, and arithmetic that touches
/// no memory, to run beside ours.
///
/// Defined in limits.cpp, which is always compiled for the machine's own instruction set and with
/// full optimisation, whatever the flags of the program that calls them: the limit stays the same.
/// Arrays are aligned to 64 bytes. `threads` above 1 needs OpenMP.
/// Source: McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers,
/// 1995.
#pragma once

#include <cstdint>

namespace limits {

/// out = a
void copy(float* out, float const* a, std::int64_t size, int threads = 1);
/// The sum of a b, which writes nothing.
float read(float const* a, float const* b, std::int64_t size, int threads = 1);
/// out = a + s b
void triad(float* out, float const* a, float const* b, std::int64_t size, int threads = 1);
/// triad with stores that go past the caches; plain triad where there are none.
void streaming_triad(float* out, float const* a, float const* b, std::int64_t size,
                     int threads = 1);

/// Multiply-adds in registers on one thread, and nothing else. Returns how many operations that
/// were, two for each number.
double multiply_adds();

}  // namespace limits
