// SPDX-License-Identifier: MIT
/// Everything that needs no CUDA and no third party. Adapters for tensor types (adapters/), files
/// of parameters (heads/head_file.hpp, heads/safetensors.hpp) and the test tools (testing/) are
/// included by name.
#pragma once

#if defined(__CUDACC__)
#error "addloss: include <addloss/cuda.cuh> in place of <addloss/addloss.hpp> in units of nvcc"
#endif

#include <addloss/version.hpp>

#include <addloss/core/config.hpp>
#include <addloss/core/context.hpp>
#include <addloss/core/error.hpp>
#include <addloss/core/math.hpp>
#include <addloss/core/normal.hpp>
#include <addloss/core/philox.hpp>
#include <addloss/core/rows.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/core/tensor_traits.hpp>
#include <addloss/core/tensor_view.hpp>

#include <addloss/schedule/concept.hpp>
#include <addloss/schedule/discrete.hpp>
#include <addloss/schedule/flow.hpp>
#include <addloss/schedule/karras.hpp>
#include <addloss/schedule/snr.hpp>

#include <addloss/sampler/concept.hpp>
#include <addloss/sampler/logit_normal.hpp>
#include <addloss/sampler/mixture.hpp>
#include <addloss/sampler/sample.hpp>
#include <addloss/sampler/shifted.hpp>
#include <addloss/sampler/student_timesteps.hpp>
#include <addloss/sampler/uniform.hpp>

#include <addloss/noising/few_step.hpp>
#include <addloss/noising/forward.hpp>
#include <addloss/noising/prediction.hpp>

#include <addloss/weighting/concept.hpp>
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

#include <addloss/reduce/operand.hpp>
#include <addloss/reduce/pass.hpp>
#include <addloss/reduce/policies.hpp>

#include <addloss/heads/group_norm.hpp>
#include <addloss/heads/head_stack.hpp>
#include <addloss/heads/initialise.hpp>
#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/linear.hpp>
#include <addloss/heads/matrix_product.hpp>
#include <addloss/heads/projected_head.hpp>
#include <addloss/heads/spectral_weights.hpp>

#include <addloss/cpu/executor.hpp>
