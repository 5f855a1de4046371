// EXPECT: (of|satisfy) '(addloss::)?prediction_type
// SPDX-License-Identifier: MIT
/// A prediction without the conversions to x_0 and eps.
#include <addloss/cpu/executor.hpp>
#include <addloss/noising/forward.hpp>
#include <addloss/schedule/flow.hpp>

struct score_prediction {};

#ifdef ADDLOSS_EXPECT_COMPILES
using prediction = addloss::flow_prediction;
#else
using prediction = score_prediction;
#endif

void use(float* noisy, double* timesteps, float* predicted, float* out) {
  addloss::to_sample(prediction{}, addloss::cpu_context{}, addloss::rectified_flow{},
                     addloss::view(noisy, 2, 3), addloss::view(timesteps, 2),
                     addloss::view(predicted, 2, 3), addloss::view(out, 2, 3));
}
