// SPDX-License-Identifier: MIT
/// Discriminator heads on a GPU: heads/head_stack.hpp in a `cuda_heads` context.
///
///   auto const stack = projected_heads<float>(settings);
///   using product = cublas_product<cublas_precision::tf32>;  // cuda/heads/cublas_product.cuh
///   using context = cuda_heads<product>;
///   cuda_context gpu{.stream = stream, .bytes = head_loss_bytes(stack, shapes)};
///   cudaMalloc(&gpu.workspace, gpu.bytes);
///   zero_workspace(gpu);
///   std::span<float> workspace(memory, stack.discriminator_workspace<context>(shapes, options));
///   context const ctx{gpu, product{handle}};
///   stack.update_state(ctx, parameters, state);
///   stack.discriminator_step(ctx, adversarial<>{}, parameters, state, {real}, {fake}, {gradients},
///                            workspace, options, result);
/// All spans, rows and pointers lead to memory of the GPU, but for the lists of them. A step is
/// about a hundred launches a head, which are only enqueued: nothing is allocated or waited for,
/// and a captured graph can be replayed. Exactly as on the CPU, R1 needs no double backward.
/// Parameters and state that are not finite are not refused, as nobody looks at them: they make
/// logits that are not finite, which are counted.
/// The same bits from run to run and for any cuda_context::blocks, if the product's are.
/// Includes all but cuda/heads/cublas_product.cuh, which needs cuBLAS; without it, tiled_product<>
/// is a plain kernel.
#pragma once

#include <addloss/cuda.cuh>
#include <addloss/cuda/heads/context.cuh>
#include <addloss/cuda/heads/conv1d.cuh>
#include <addloss/cuda/heads/norm.cuh>
#include <addloss/cuda/heads/product.cuh>
#include <addloss/cuda/heads/projection.cuh>
#include <addloss/heads/group_norm.hpp>
#include <addloss/heads/head_stack.hpp>
#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/linear.hpp>
#include <addloss/heads/projected_head.hpp>
