// SPDX-License-Identifier: MIT
/// For the shared libraries that Python's ctypes call.
#pragma once

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace bench {

/// What compiled this library, and for which instructions.
constexpr char const* compiler =
#if defined(__clang__)
    "clang++ " __clang_version__
#else
    "g++ " __VERSION__
#endif
#if defined(__AVX512F__)
    ", AVX-512"
#elif defined(__AVX2__)
    ", AVX2"
#endif
#if !defined(_OPENMP)
    ", no OpenMP"
#endif
    ;

}  // namespace bench
