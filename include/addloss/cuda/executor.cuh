// SPDX-License-Identifier: MIT
/// Runs a pass (reduce/pass.hpp) on a GPU: one kernel launch, on the context's stream.
///
/// Every loss, noising and penalty runs through here, with the same element functors as on the CPU.
/// Results are those of the CPU up to rounding: other products are fused with additions, exp and
/// log1p have last digits of their own, and sums another summation tree. That tree
/// (cuda/row_runner.cuh, cuda/pass_kernel.cuh) depends on the rows and their size, the storage
/// types and on whether noise is generated, on nothing else: the same inputs give the same bits
/// from run to run, on every GPU of one architecture, for any number of thread blocks, and at any
/// address. (The tensors of a head are one row where none has gaps and no sample needs a sum of its
/// own, else a row a sample: losses/heads.hpp.) No float is ever added atomically.
/// Everything that is written lies in the memory of the GPU: values, gradients, statistics, counts.
/// What a GPU cannot refuse: a timestep outside its schedule's table gives NaN; a pole (an epsilon
/// prediction's x_0 at alpha = 0) gives infinity or NaN.
/// Errors: a workspace that is too small or not aligned; more than 2^32 - 1 pieces of work in a
/// pass of many heads; cuda_error where the launch fails. Kernels never throw.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/cuda/context.cuh>
#include <addloss/cuda/launch.cuh>
#include <addloss/cuda/pass_kernel.cuh>
#include <addloss/cuda/plan.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/reduce/pass.hpp>
#include <addloss/reduce/policies.hpp>

namespace addloss {
namespace cuda {

template <class Pass>
planned<Pass::max_parts> plan_of(Pass const& pass) {
  using types = pass_types<Pass>;
  return make_plan<Pass::max_parts>(
      pass.parts(), [&](int part) { return pass.extent(part); }, types::packet, types::finishes);
}

/// Bytes of workspace that a pass needs.
template <class Pass>
std::size_t pass_bytes(planned<Pass::max_parts> const& plan) {
  using types = pass_types<Pass>;
  if constexpr (!types::finishes) return 0;
  return workspace_header +
         static_cast<std::size_t>(plan.entries + plan.groups) * types::entry_size * sizeof(double);
}

/// Calls `run<Generated>()` for the noise of `pass`, if it has any that may be stored or generated.
/// (The other operands may need the memory of the GPU.)
template <class Pass, unsigned N = 0, class Run>
void with_noise(Pass const& pass, Run const& run) {
  using types = pass_types<Pass>;
  if constexpr (N == types::operands) {
    run.template operator()<false>();
  } else if constexpr (!may_be_generated<typename types::template operand<N>>) {
    with_noise<Pass, N + 1>(pass, run);
  } else if (pass.template operand<static_cast<int>(N)>(0, 0).generated) {
    run.template operator()<true>();
  } else {
    run.template operator()<false>();
  }
}

/// Refuses a workspace of less than `bytes`.
inline void check_workspace_bytes(cuda_context const& ctx, std::size_t bytes) {
  using addloss::detail::fail;
  using addloss::detail::text;
  if (bytes == 0) return;
  if (ctx.workspace == nullptr || ctx.bytes < bytes) {
    fail("cuda_context", "workspace",
         text() << "at least " << static_cast<std::int64_t>(bytes) << " bytes",
         ctx.workspace == nullptr ? text() << "a null pointer"
                                  : text() << static_cast<std::int64_t>(ctx.bytes));
  }
  if (reinterpret_cast<std::uintptr_t>(ctx.workspace) % workspace_alignment != 0) {
    fail("cuda_context", "workspace", "an address divisible by 16",
         text() << "one that is "
                << static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(ctx.workspace) %
                                             workspace_alignment)
                << " bytes beyond");
  }
}

template <class Pass>
void check_workspace(cuda_context const& ctx, planned<Pass::max_parts> const& plan) {
  using addloss::detail::text;
  if (!plan.fits) {
    addloss::detail::fail("cuda_context", "extents", "at most 4294967295 pieces of work",
                          text() << (plan.tasks > plan.entries ? plan.tasks : plan.entries));
  }
  check_workspace_bytes(ctx, pass_bytes<Pass>(plan));
}

template <bool Generated, class Pass>
void launch(cuda_context const& ctx, Pass const& pass, planned<Pass::max_parts> const& plan) {
  using types = pass_types<Pass>;
  static_assert(sizeof(Pass) + sizeof(typename types::plan) + sizeof(std::int64_t) +
                        sizeof(workspace_parts) <=
                    4096,
                "addloss: a kernel has 4 KiB of arguments");
  static_assert(sizeof(unsigned) * (1 + max_groups + Pass::max_parts) <= workspace_header,
                "addloss: a ticket for the pass and each of its groups");
  workspace_parts memory;
  if constexpr (types::finishes) {
    memory.tickets = static_cast<unsigned*>(ctx.workspace);
    memory.entries =
        reinterpret_cast<double*>(static_cast<unsigned char*>(ctx.workspace) + workspace_header);
    memory.groups = memory.entries + plan.entries * types::entry_size;
  }
  launch_kernel<run_pass<Pass, Generated>>(ctx, plan.tasks, threads, pass, plan.plan, plan.tasks,
                                           memory);
}

}  // namespace cuda

template <>
struct executor<cuda_context> {
  /// Refuses what `run` would refuse, so that no term of a sum runs where another is refused.
  template <fused_pass Pass>
  static void check(cuda_context const& ctx, Pass const& pass) {
    cuda::check_workspace<Pass>(ctx, cuda::plan_of(pass));
  }

  template <fused_pass Pass>
  static void run(cuda_context const& ctx, Pass const& pass) {
    auto const plan = cuda::plan_of(pass);
    cuda::check_workspace<Pass>(ctx, plan);
    cuda::with_noise(pass, [&]<bool Generated>() { cuda::launch<Generated>(ctx, pass, plan); });
  }
};

namespace cuda {

template <class Pass>
std::size_t bytes_of(Pass const& pass) {
  return pass_bytes<Pass>(plan_of(pass));
}
template <class First, class Second>
std::size_t bytes_of(std::pair<First, Second> const& passes) {
  std::size_t const first = bytes_of(passes.first);
  std::size_t const second = bytes_of(passes.second);
  return first > second ? first : second;
}

template <class Reduction, bound_loss Loss>
std::size_t bytes_for(Loss const& loss) {
  return bytes_of(loss.template pass<Reduction>("workspace_bytes",
                                                typename Loss::template values<double>{}, {}, {}));
}

}  // namespace cuda

/// Bytes of workspace for `loss` in a cuda_context, whatever the reduction, outputs and options: a
/// function of the extents of its tensors, a few hundred kilobytes at most but for batches of many
/// thousand samples. Reads no memory of the GPU. Several losses on one stream share a workspace of
/// the largest size.
template <bound_loss Loss>
  requires(std::same_as<typename Loss::space, device_space>)
std::size_t workspace_bytes(Loss const& loss) {
  // Of one sum over the batch, and of one for each sample.
  std::size_t const reduced = cuda::bytes_for<mean>(loss);
  std::size_t const samples = cuda::bytes_for<per_sample>(loss);
  return reduced > samples ? reduced : samples;
}
template <bound_loss First, bound_loss Second, bound_loss... Others>
std::size_t workspace_bytes(First const& first, Second const& second, Others const&... others) {
  std::size_t const one = workspace_bytes(first);
  std::size_t const rest = workspace_bytes(second, others...);
  return one > rest ? one : rest;
}

}  // namespace addloss
