// SPDX-License-Identifier: MIT
/// Discriminator heads on a GPU: heads/head_stack.hpp in a `cuda_heads` context.
///
///   auto const stack = projected_heads<float>(settings);
///   cuda_heads const ctx{cuda_context{...}, cublas_product<cublas_precision::tf32>{handle}};
///   using context = decltype(ctx);
///   // floats of the GPU:
///   std::span<float> workspace{memory, stack.discriminator_workspace<context>(shapes)};
///   stack.update_state(ctx, parameters, state);
///   stack.discriminator_step(ctx, adversarial<>{}, parameters, state, real, fake, {gradients},
///                            workspace, options, result);
/// All spans, rows and pointers lead to memory of the GPU, but for the lists of them; cuda_context
/// needs the workspace of the losses, `head_loss_bytes`. A step is a few hundred launches that are
/// only enqueued: nothing is allocated or waited for, and a captured graph can be replayed. Exactly
/// as on the CPU, R1 needs no double backward.
/// Parameters and state that are not finite are not refused, as nobody looks at them: they make
/// logits that are not finite, which are counted. A workspace should begin at a multiple of 64 bytes.
/// The same bits from run to run and for any cuda_context::blocks, if the product's are.
/// Includes all but cuda/heads/cublas_product.cuh, which needs cuBLAS.
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
