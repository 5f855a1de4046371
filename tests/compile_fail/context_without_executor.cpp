// EXPECT: executor<(addloss::)?(abacus|Context)
// SPDX-License-Identifier: MIT
/// A context for which no back end is included.
#include <addloss/cpu/executor.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/schedule/flow.hpp>

struct abacus {
  using space = addloss::host_space;
};

#ifdef ADDLOSS_EXPECT_COMPILES
using context = addloss::cpu_context;
#else
using context = abacus;
#endif

void use(float* student, float* target, double* timesteps, double& result) {
  auto const loss =
      addloss::distillation<>{}(addloss::rectified_flow{}, addloss::view(student, 2, 3),
                                addloss::view(target, 2, 3), addloss::view(timesteps, 2));
  addloss::value(context{}, loss, result);
}
