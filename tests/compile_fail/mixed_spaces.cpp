// EXPECT: to '(addloss::)?tensor_view<const float.*host_space>'
// SPDX-License-Identifier: MIT
/// A view of device memory where host memory is read.
#include <addloss/core/tensor_view.hpp>

#ifdef ADDLOSS_EXPECT_COMPILES
using space = addloss::host_space;
#else
using space = addloss::device_space;
#endif

float first(addloss::tensor_view<float const, 1, addloss::host_space> x) { return *x.data; }

float use(addloss::tensor_view<float, 1, space> x) { return first(x); }
