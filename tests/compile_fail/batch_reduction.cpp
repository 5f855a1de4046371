// EXPECT: (of|satisfy|because) '(addloss::)?batch_reduction
// SPDX-License-Identifier: MIT
/// A reduction over the batch that is none of mean, sum and per_sample.
#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/flow.hpp>

struct largest {};

#ifdef ADDLOSS_EXPECT_COMPILES
using over_batch = addloss::sum;
#else
using over_batch = largest;
#endif

void use(float* student, float* target, double* timesteps, double& result) {
  auto const loss =
      addloss::distillation<>{}(addloss::rectified_flow{}, addloss::view(student, 2, 3),
                                addloss::view(target, 2, 3), addloss::view(timesteps, 2));
  addloss::value<over_batch>(addloss::cpu_context{}, loss, result);
}
