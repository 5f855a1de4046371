// SPDX-License-Identifier: MIT
// One loss, its gradient written into tensors of several libraries where they lie: an adapter is
// one include, and nothing is copied. All must give the same bits, or the program fails. Tensors of
// a GPU: cuda/your_tensors.cu; of LibTorch and PyTorch: libtorch/, pytorch/.
#include <addloss/adapters/mdspan.hpp>
#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
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

/// A tensor type of one's own.
struct image_batch {
  std::vector<float> pixels;
};

#if defined(__cpp_lib_mdspan)
template <class T>
using mdspan4 = std::mdspan<T, std::dextents<std::int64_t, 4>>;
#else
/// Stands in for std::mdspan, which is C++23: a row-major one of rank 4.
template <class T>
struct mdspan4 {
  struct accessor_type {};
  using element_type = T;
  using data_handle_type = T*;
  using reference = T&;
  using rank_type = std::size_t;

  mdspan4(T* memory, auto... shape) : data(memory), extents{shape...} {}
  static constexpr rank_type rank() { return 4; }
  static constexpr bool is_always_strided() { return true; }
  [[nodiscard]] T* data_handle() const { return data; }
  [[nodiscard]] std::int64_t extent(rank_type axis) const { return extents[axis]; }
  [[nodiscard]] std::int64_t stride(rank_type axis) const {
    return axis == 3 ? 1 : extent(axis + 1) * stride(axis + 1);
  }

  T* data;
  std::array<std::int64_t, 4> extents;
};
#endif

}  // namespace

/// All that the library needs to take the type of one's own.
template <>
struct addloss::tensor_traits<image_batch> {
  static auto view(image_batch& images) {
    return addloss::view(images.pixels.data(), batch, 3, 4, 4);
  }
  static auto view(image_batch const& images) {
    return addloss::view(images.pixels.data(), batch, 3, 4, 4);
  }
};

namespace {

/// Any two tensors [B, ...] that the library can view.
double loss_and_gradient(auto const& student, auto const& target, auto& gradient) {
  double loss = 0;
  value_and_grad(addloss::cpu_context{},
                 addloss::distillation<>{}(addloss::rectified_flow{}, student, target, times), loss,
                 gradient);
  return loss;
}

/// Prints each loss, and compares it and its gradient with the first.
struct comparison {
  double loss = 0;
  std::vector<float> gradient{};
  bool same = true;

  void add(char const* name, double its_loss, float const* its_gradient) {
    std::vector<float> const copy(its_gradient, its_gradient + batch * size);
    if (gradient.empty()) {
      loss = its_loss;
      gradient = copy;
    }
    same = same && its_loss == loss && copy == gradient;
    std::printf("%-9s loss %.17g, gradient %.9g, ...\n", name, its_loss,
                static_cast<double>(copy[0]));
  }
};

int run() {
  std::vector<float> student(batch * size);
  std::vector<float> target(batch * size);
  std::vector<float> gradient(batch * size);
  for (std::size_t i = 0; i < student.size(); ++i) {
    student[i] = 0.25F + 0.01F * static_cast<float>(i % 37);
    target[i] = 0.01F * static_cast<float>(i % 23);
  }
  comparison all;

  auto const image = [&](auto* data) { return addloss::view(data, batch, 3, 4, 4); };
  auto out = image(gradient.data());
  double loss = loss_and_gradient(image(student.data()), image(target.data()), out);
  all.add("pointers", loss, gradient.data());

  image_batch const own_student{student};
  image_batch const own_target{target};
  image_batch own_gradient{std::vector<float>(batch * size)};
  loss = loss_and_gradient(own_student, own_target, own_gradient);
  all.add("your own", loss, own_gradient.pixels.data());

  // A std::mdspan may be passed as it is. Of any other, name the space.
  std::vector<float> md_gradient(batch * size);
  mdspan4<float const> const md_student(student.data(), batch, 3, 4, 4);
  auto md_out =
      addloss::view<addloss::host_space>(mdspan4<float>(md_gradient.data(), batch, 3, 4, 4));
  loss = loss_and_gradient(addloss::view<addloss::host_space>(md_student), image(target.data()),
                           md_out);
  all.add("mdspan", loss, md_gradient.data());

#if __has_include(<Eigen/Core>)
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  matrix const eigen_student = Eigen::Map<matrix>(student.data(), batch, size);
  Eigen::Map<matrix const> const eigen_target(target.data(), batch, size);
  matrix eigen_gradient(batch, size);
  loss = loss_and_gradient(eigen_student, eigen_target, eigen_gradient);
  all.add("Eigen", loss, eigen_gradient.data());
#endif

#if __has_include(<xtl/xtl_config.hpp>)
  xt::xtensor<float, 4> x_student({4, 3, 4, 4});
  xt::xarray<float> x_target(std::vector<std::size_t>{4, 3, 4, 4});
  xt::xtensor<float, 4> x_gradient({4, 3, 4, 4});
  std::copy(student.begin(), student.end(), x_student.data());
  std::copy(target.begin(), target.end(), x_target.data());
  auto const ranked = addloss::from_xtensor<4>(x_target);  // an xarray's rank is checked
  loss = loss_and_gradient(x_student, ranked, x_gradient);
  all.add("xtensor", loss, x_gradient.data());
#endif

#if __has_include(<dlpack/dlpack.h>)
  // As another framework exports them.
  std::int64_t shape[] = {batch, 3, 4, 4};
  auto const exported = [&](std::vector<float>& memory) {
    return DLTensor{memory.data(), {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, shape, nullptr, 0};
  };
  std::vector<float> d_memory(batch * size);
  auto const d_student = addloss::from_dlpack<float const, 4>(exported(student), "student");
  auto const d_target = addloss::from_dlpack<float const, 4>(exported(target), "target");
  auto d_gradient = addloss::from_dlpack<float, 4>(exported(d_memory), "gradient");
  loss = loss_and_gradient(d_student, d_target, d_gradient);
  all.add("DLPack", loss, d_memory.data());
#endif
  if (!all.same) std::fprintf(stderr, "they are not the same\n");
  return all.same ? 0 : 1;
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
