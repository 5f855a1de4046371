// SPDX-License-Identifier: MIT
// One loss, its gradient written into tensors of several libraries where they lie: an adapter is one
// include, and nothing is copied. All give the same bits.
#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#if __has_include(<Eigen/Core>)
#include <addloss/adapters/eigen.hpp>
#endif
#if __has_include(<xtl/xtl_config.hpp>)
#include <addloss/adapters/xtensor.hpp>
#endif
#if __has_include(<xtensor/containers/xtensor.hpp>)  // 0.26
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#elif __has_include(<xtensor/xtensor.hpp>)
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#endif
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#include <addloss/adapters/dlpack.hpp>
#endif

namespace {

constexpr std::int64_t batch = 4;
constexpr std::int64_t size = 48;  // 3 x 4 x 4
std::vector<double> const times = {0.1, 0.9, 0.5, 0.3};

/// Any two tensors [B, ...] that the library can view.
double loss_and_gradient(auto const& student, auto const& target, auto& gradient) {
  double loss = 0;
  value_and_grad(addloss::cpu_context{},
                 addloss::distillation<>{}(addloss::rectified_flow{}, student, target, times), loss,
                 gradient);
  return loss;
}

int run() {
  std::vector<float> student(batch * size, 0.75F);
  std::vector<float> target(batch * size, 0.25F);
  std::vector<float> gradient(batch * size);

  auto const image = [&](auto* data) { return addloss::view(data, batch, 3, 4, 4); };
  auto out = image(gradient.data());
  std::printf("pointers  %.17g\n",
              loss_and_gradient(image(student.data()), image(target.data()), out));

#if __has_include(<Eigen/Core>)
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  matrix const eigen_student = matrix::Constant(batch, size, 0.75F);
  Eigen::Map<matrix const> const eigen_target(target.data(), batch, size);
  matrix eigen_gradient(batch, size);
  std::printf("Eigen     %.17g\n", loss_and_gradient(eigen_student, eigen_target, eigen_gradient));
#endif

#if __has_include(<xtl/xtl_config.hpp>)
  xt::xtensor<float, 4> const x_student = 0.75F * xt::ones<float>({4, 3, 4, 4});
  xt::xarray<float> const x_target = 0.25F * xt::ones<float>({4, 3, 4, 4});
  xt::xtensor<float, 4> x_gradient({4, 3, 4, 4});
  auto const ranked = addloss::from_xtensor<4>(x_target);  // an xarray's rank is checked
  std::printf("xtensor   %.17g\n", loss_and_gradient(x_student, ranked, x_gradient));
#endif

#if __has_include(<dlpack/dlpack.h>)
  // As another framework exports them.
  std::int64_t shape[] = {batch, 3, 4, 4};
  auto const exported = [&](std::vector<float>& memory) {
    return DLTensor{memory.data(), {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, shape, nullptr, 0};
  };
  auto const d_student = addloss::from_dlpack<float const, 4>(exported(student), "student");
  auto const d_target = addloss::from_dlpack<float const, 4>(exported(target), "target");
  auto d_gradient = addloss::from_dlpack<float, 4>(exported(gradient), "gradient");
  std::printf("DLPack    %.17g\n", loss_and_gradient(d_student, d_target, d_gradient));
#endif
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
