// SPDX-License-Identifier: MIT
// Without exceptions a handler gets the error, before anything is written. Its own main: Catch2
// needs exceptions.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace addloss {
class error;
}
void on_error(addloss::error const& e);
#define ADDLOSS_ERROR_HANDLER(e) on_error(e)

#include <addloss/addloss.hpp>

namespace {
float value_out = -1;
float gradient[4] = {-1, -1, -1, -1};
}  // namespace

void on_error(addloss::error const& e) {
  bool const right =
      std::strcmp(e.what(),
                  "value_and_grad: target (expected the shape of student, [2,2], got [2,3])") ==
          0 &&
      value_out == -1 && gradient[0] == -1;
  if (!right) std::fprintf(stderr, "wrong error or something was written: %s\n", e.what());
  std::_Exit(right ? EXIT_SUCCESS : EXIT_FAILURE);
}

int main() {
  float const student[4] = {1, 2, 3, 4};
  float const target[6] = {};
  auto const schedule = addloss::rectified_flow{};
  double const times[2] = {0.5, 1};
  addloss::value_and_grad(
      addloss::cpu_context{},
      addloss::distillation<>{}(schedule, addloss::view(student, 2, 2), addloss::view(target, 2, 3),
                                addloss::view(times, 2)),
      value_out, addloss::view(gradient, 2, 2));
  std::fprintf(stderr, "no error\n");
  return EXIT_FAILURE;
}
