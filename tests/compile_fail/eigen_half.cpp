// EXPECT: (of|satisfy) '(addloss::)?storage_scalar
// SPDX-License-Identifier: MIT
/// An image of Eigen::half, which cannot be read as addloss::half.
#include <addloss/adapters/eigen.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/schedule/flow.hpp>

#ifdef ADDLOSS_EXPECT_COMPILES
using element = addloss::half;
#else
using element = Eigen::half;
#endif
using images = Eigen::Matrix<element, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

auto use(images const& student, images const& target, Eigen::VectorXd const& timesteps) {
  return addloss::distillation<>{}(addloss::rectified_flow{}, student, target, timesteps);
}
