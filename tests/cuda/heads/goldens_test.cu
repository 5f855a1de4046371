// SPDX-License-Identifier: MIT
#include <addloss/cuda_heads.cuh>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

#include "catch.hpp"
#include "cuda/device_memory.cuh"
#include "cuda/heads/compare.hpp"
#include "cuda/heads/device_layer.cuh"
#include "cuda/heads/golden_heads.hpp"

namespace {

using namespace addloss;

/// A golden head on a GPU, its weights normalised there.
template <class T>
class golden_on_gpu {
 public:
  explicit golden_on_gpu(golden_head const& golden)
      : of_(golden),
        head_(projected_head<T>(golden.settings)),
        spectral_{head_, golden.power_iterations, golden.spectral_epsilon} {}

  void check() {
    in_ = inputs_for(head_, of_.shape);
    for (int i = 0; i < head_.parameters(); ++i) {
      auto const part = head_.parameter(i);
      copy(of_.in.at(part.name), in_.w, part.offset);
    }
    numbers state(static_cast<std::size_t>(spectral_.state_size()));
    each_state([&](std::string const& name, std::int64_t offset, std::int64_t /*size*/) {
      copy(of_.in.at(name), state, offset);
    });
    w_ = std::make_unique<device_array<T>>(in_type<T>(in_.w));
    state_ = std::make_unique<device_array<T>>(in_type<T>(state));
    sigmas_ = std::make_unique<device_array<double>>(
        static_cast<std::size_t>(spectral_.template sigma_numbers<context>()));
    spectral_.update(ctx_, w_->data(), state_->data());
    state = as_doubles(state_->read());
    each_state([&](std::string const& name, std::int64_t offset, std::int64_t size) {
      check_near(name, slice(state, offset, size), bound);
    });
    device_array<T> const w_hat(in_.w.size());
    spectral_.sigmas("test", ctx_, w_->data(), state_->data(), sigmas_->data());
    spectral_.normalise(ctx_, w_->data(), sigmas_->data(), w_hat.data());
    in_.w = as_doubles(w_hat.read());
    in_.x = of_.in.at("features");
    in_.y_bar = of_.in.at("grad_logits");
    in_.y_dot_bar.assign(in_.y_bar.size(), 1);
    if (!in_.conditions.empty()) in_.conditions[0] = of_.in.at("condition");
    // R1 = mean_b |v|^2, v the gradient of the summed logits; d R1 = d (tangent along 2 v / B).
    in_.x_dot = of_.out.at("r1_features_gradient");
    for (double& x : in_.x_dot) x *= 2 / static_cast<double>(of_.shape.batch);

    auto const first = on_gpu<T>(head_, in_, ctx_);
    check_near("logits", first.y, bound);
    check_near("grad_features", first.x_bar, bound);
    check_near("r1_features_gradient", first.first_x_bar, bound);
    check_parameters("grad_", first.w_bar, bound);
    if (!in_.conditions.empty()) {
      check_near("grad_condition", without_start(first.condition_bar[0]), bound);
    }
    in_.y_bar.assign(in_.y_bar.size(), 0);
    check_parameters("r1_grad_", on_gpu<T>(head_, in_, ctx_).second_w_bar,
                     std::is_same_v<T, double> ? bound : 2e-4);
  }

 private:
  using context = cuda_heads<tiled_product<>>;
  static constexpr double bound = std::is_same_v<T, double> ? 1e-12 : 2e-5;

  static void copy(numbers const& from, numbers& to, std::int64_t offset) {
    for (std::size_t i = 0; i < from.size(); ++i) {
      to.at(static_cast<std::size_t>(offset) + i) = from[i];
    }
  }
  static numbers slice(numbers const& all, std::int64_t first, std::int64_t count) {
    return {all.begin() + first, all.begin() + first + count};
  }
  static numbers without_start(numbers sum) {
    auto const start = first_gradients(sum.size());
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] -= start[i];
    return sum;
  }
  template <class Use>
  void each_state(Use const& use) const {
    for (int i = 0; i < spectral_.weights(); ++i) {
      auto const part = spectral_.weight(i);
      std::string const name = head_.parameter(part.parameter).name;
      std::string const layer = name.substr(0, name.rfind('.') + 1);
      use(layer + "u", part.u, part.rows);
      use(layer + "v", part.v, part.columns);
    }
  }
  void check_near(std::string const& name, numbers const& got, double allowed) const {
    CAPTURE(name);
    auto const expected = of_.out.find(name);
    REQUIRE(expected != of_.out.end());
    CHECK(difference(got, expected->second) <= allowed);
  }
  void check_parameters(std::string const& prefix, numbers const& w_hat_bar, double allowed) const {
    device_array<T> const gradient(in_type<T>(without_start(w_hat_bar)));
    device_array<double> const scratch(
        static_cast<std::size_t>(spectral_.template sigma_numbers<context>()));
    spectral_.normalise_backward(ctx_, w_->data(), state_->data(), sigmas_->data(), gradient.data(),
                                 scratch.data());
    auto const w_bar = as_doubles(gradient.read());
    for (int i = 0; i < head_.parameters(); ++i) {
      auto const part = head_.parameter(i);
      check_near(prefix + part.name, slice(w_bar, part.offset, part.size()), allowed);
    }
  }

  golden_head const& of_;
  decltype(projected_head<T>(head_settings{})) head_;
  spectral_weights<decltype(projected_head<T>(head_settings{}))> spectral_;
  context ctx_{};
  layer_inputs in_{};
  std::unique_ptr<device_array<T>> w_, state_;
  std::unique_ptr<device_array<double>> sigmas_;
};

}  // namespace

TEST_CASE("golden heads on a GPU") {
  auto const all = golden_heads();
  REQUIRE(all.size() >= 4);
  for (golden_head const& golden : all) {
    CAPTURE(golden.name);
    golden_on_gpu<double>(golden).check();
    if (&golden == &all.front()) golden_on_gpu<float>(golden).check();
  }
}
