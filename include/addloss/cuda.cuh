// SPDX-License-Identifier: MIT
/// The CUDA back end: include it in units compiled by nvcc, with C++20. The losses and verbs are
/// those of addloss.hpp, on tensors in device_space, with a cuda_context as first argument.
/// Such units include this header in place of addloss.hpp: what runs on the CPU is written for SIMD
/// registers, which nvcc takes for device code, and belongs in other units of the program.
/// After `using namespace addloss` names of CUDA's are ambiguous that the library has too: write
/// ::cuda:: for its namespace, addloss::half beside cuda_fp16.h.
#pragma once

#include <addloss/version.hpp>

#include <addloss/cuda/context.cuh>
#include <addloss/cuda/executor.cuh>
#include <addloss/cuda/pass_kernel.cuh>
#include <addloss/cuda/plan.hpp>

#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_traits.hpp>
#include <addloss/core/tensor_view.hpp>

#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/schedule/karras.hpp>
#include <addloss/schedule/snr.hpp>

#include <addloss/sampler/logit_normal.hpp>
#include <addloss/sampler/mixture.hpp>
#include <addloss/sampler/sample.hpp>
#include <addloss/sampler/shifted.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/sampler/uniform.hpp>

#include <addloss/noising/few_step.hpp>
#include <addloss/noising/forward.hpp>
#include <addloss/noising/prediction.hpp>

#include <addloss/weighting/exponential.hpp>
#include <addloss/weighting/nfsd.hpp>
#include <addloss/weighting/sds.hpp>
#include <addloss/weighting/snr.hpp>
#include <addloss/weighting/uniform.hpp>

#include <addloss/losses/adversarial.hpp>
#include <addloss/losses/distance.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/losses/objective.hpp>
#include <addloss/losses/paired.hpp>
#include <addloss/losses/r1.hpp>
