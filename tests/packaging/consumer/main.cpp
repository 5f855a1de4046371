// SPDX-License-Identifier: MIT
#include <complex.h>  // with GNU extensions it defines I, as it does for users of LAPACKE or FFTW

#define slots  // as Qt's headers do

#include <addloss/addloss.hpp>

static_assert(__cplusplus >= 202002L, "addloss::addloss asks for C++20 by itself");

int main() {
  float const logits[] = {1, 2, 3, 4};
  float gradient[4] = {};
  addloss::rows<float const> const fake[] = {addloss::view(logits, 2, 2)};
  addloss::rows<float> const fake_gradient[] = {addloss::view(gradient, 2, 2)};
  double loss = 0;
  addloss::value_and_grad(addloss::cpu_context{},
                          addloss::adversarial<addloss::hinge>{}.generator<float>(fake), loss,
                          {.fake = fake_gradient});
  // Minus the mean of the logits.
  return loss == -2.5 && gradient[0] == -0.25F ? 0 : 1;
}
