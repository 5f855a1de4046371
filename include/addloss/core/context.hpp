// SPDX-License-Identifier: MIT
/// Where a computation runs. A context is passed first to every verb; it is a plain value.
#pragma once

#include <cstddef>

#include <addloss/core/config.hpp>
#include <addloss/core/tensor_view.hpp>

namespace addloss {

/// What runs a pass in a context (see reduce/pass.hpp for the contract). A back end is one
/// specialisation; the primary is disabled. `check(context, pass)` raises what `run(context, pass)`
/// would raise before it writes anything, and writes nothing.
template <class Context>
struct executor;

/// The context's type names the memory space its arguments must live in.
template <class C>
concept context = requires { typename C::space; };

/// A context that a back end has been included for.
template <class C>
concept has_executor = context<C> && requires { sizeof(executor<C>); };

inline namespace ADDLOSS_ISA_NAMESPACE {

/// The calling CPU. Calls return when their work is done; they allocate nothing and have no state.
/// Results are the same bits for any number of threads.
struct cpu_context {
  using space = host_space;
  /// Threads to use, at least 1. More than one takes effect where the translation unit is compiled
  /// with OpenMP (-fopenmp), and only for inputs large enough to gain from it.
  int threads = 1;
  /// Outputs of at least this many bytes are written past the caches (streaming stores), which
  /// pays once they could not stay in the last-level cache anyway.
  std::size_t streaming_bytes = std::size_t{8} << 20;
};

}  // namespace ADDLOSS_ISA_NAMESPACE
}  // namespace addloss
