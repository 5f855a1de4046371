// SPDX-License-Identifier: MIT
// A whole step of ADD on the GPU: what the CPU says, how many launches, and replayed.
#include "cuda/add_step.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <addloss/cuda.cuh>

#include "catch.hpp"
#include "cuda/device_memory.cuh"
#include "cuda/replay.hpp"

namespace {

using namespace addloss;

int launches = 0;

}  // namespace

// The linker lets all launches of this program pass here.
extern "C" cudaError_t __real_cudaLaunchKernelExC(cudaLaunchConfig_t const* config,
                                                  void const* kernel, void** arguments);
extern "C" cudaError_t __wrap_cudaLaunchKernelExC(cudaLaunchConfig_t const* config,
                                                  void const* kernel, void** arguments) {
  ++launches;
  return __real_cudaLaunchKernelExC(config, kernel, arguments);
}

namespace {

class device_step {
 public:
  device_step(step_shape const& shape, step_memory const& m)
      : memory_{device_array(m.inputs),   device_array(m.outputs), device_array(m.weights),
                device_array(m.settings), device_array(m.t),       device_array(m.key),
                device_array(m.values),   device_array(m.health),  device_array(m.non_finite)},
        step_(shape, pointers_to(memory_)),
        schedule_(scaled_linear_schedule()),
        context_(
            workspace_bytes(step_.student_loss(schedule_.table()), step_.discriminator_loss())) {
    check("cudaStreamCreate", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  }
  device_step(device_step const&) = delete;
  device_step& operator=(device_step const&) = delete;
  ~device_step() { cudaStreamDestroy(stream_); }

  [[nodiscard]] add_step<device_space> const& views() const { return step_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] cuda_context context() const {
    auto result = context_();
    result.stream = stream_;
    return result;
  }
  void run() const { step_.run(context(), schedule_.table()); }
  /// What may change from step to step.
  void write(step_memory const& m) {
    // The stream does not wait for copies, nor they for it.
    check("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
    memory_.weights.write(m.weights);
    memory_.settings.write(m.settings);
    memory_.t.write(m.t);
    memory_.key.write(m.key);
    check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  }
  /// What came out, once all steps are done.
  void read(step_memory& m) const {
    check("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
    m.outputs = memory_.outputs.read();
    m.values = memory_.values.read();
    m.health = memory_.health.read();
    m.non_finite = memory_.non_finite.read();
  }

 private:
  static void check(char const* call, cudaError_t code) { cuda::check(call, code); }

  struct arrays {
    device_array<float> inputs;
    device_array<float> outputs;
    device_array<float> weights;
    device_array<double> settings;
    device_array<std::int64_t> t;
    device_array<random_key> key;
    device_array<double> values;
    device_array<head_statistics> health;
    device_array<std::int64_t> non_finite;
  };

  arrays memory_;
  add_step<device_space> step_;
  device_schedule schedule_;
  device_context context_;
  cudaStream_t stream_ = nullptr;
};

/// The largest difference of any tensor, relative to its largest element.
double worst(std::vector<add_step<device_space>::tensor> const& tensors,
             std::vector<float> const& got, std::vector<float> const& right) {
  double result = 0;
  for (auto const [first, count] : tensors) {
    double error = 0;
    double largest = 0;
    for (std::size_t i = first; i < first + count; ++i) {
      double const e = std::abs(static_cast<double>(got[i]) - static_cast<double>(right[i]));
      if (!(e <= error)) error = e;
      largest = std::fmax(largest, std::abs(static_cast<double>(right[i])));
    }
    if (!(error / largest <= result)) result = error / largest;
  }
  return result;
}

void check_agreement(device_step const& device, step_memory const& got, step_memory const& right) {
  CHECK(worst(device.views().outputs, got.outputs, right.outputs) < 1e-6);
  for (std::size_t i = 0; i < right.values.size(); ++i) {
    CAPTURE(i);
    CHECK(got.values[i] == Approx(right.values[i]).epsilon(1e-6));
  }
  CHECK(got.values[add_step<device_space>::total_g] ==
        Approx(got.values[add_step<device_space>::adversarial] +
               right.settings[add_step<device_space>::lambda] *
                   got.values[add_step<device_space>::distilled])
            .epsilon(1e-12));
  CHECK(got.values[add_step<device_space>::total_d] ==
        Approx(got.values[add_step<device_space>::hinge] +
               got.values[add_step<device_space>::penalty])
            .epsilon(1e-12));
  for (std::size_t k = 0; k < right.health.size(); ++k) {
    auto const same = [](logit_statistics const& a, logit_statistics const& b) {
      CHECK(a.mean == Approx(b.mean).epsilon(0).margin(1e-6));
      CHECK(a.positive == b.positive);
      CHECK(a.active == b.active);
      CHECK(a.non_finite == b.non_finite);
    };
    same(got.health[k].real, right.health[k].real);
    same(got.health[k].fake, right.health[k].fake);
  }
  CHECK(got.non_finite == right.non_finite);
}

step_shape const large{3, 9001, {257, 66, 4, 4097, 1}, {700, 66, 2052, 5, 9000}};
step_shape const small{3, 68, {17, 4}, {20, 9}};

}  // namespace

TEST_CASE("a step of ADD is on the GPU what it is on the CPU") {
  for (step_shape const& shape : {large, small}) {
    auto memory = make_step(shape);
    device_step const device(shape, memory);
    device.run();
    auto got = memory;
    device.read(got);
    run_on_cpu(shape, memory);
    check_agreement(device, got, memory);
  }
}

TEST_CASE("a non-finite number in either term of an objective is counted on the GPU") {
  auto memory = make_step(small);
  // The first numbers are the real images, which only noising reads; then come the student's.
  memory.inputs[3 * small.size + 5] = std::nanf("");
  // The last ones are the features, and one that fills up 16 bytes.
  memory.inputs[memory.inputs.size() - 2] = INFINITY;
  device_step const device(small, memory);
  device.run();
  device.read(memory);
  CHECK(memory.non_finite == std::vector<std::int64_t>{1, 1});
  CHECK(std::isnan(memory.values[add_step<device_space>::total_g]));
  CHECK(std::isinf(memory.values[add_step<device_space>::total_d]));
}

TEST_CASE("all heads of a loss are one launch") {
  auto const memory = make_step(large);
  device_step const device(large, memory);
  auto const& views = device.views();
  auto const ctx = device.context();
  device_array<double> const loss(1);
  auto const count = [&](auto const& calls) {
    launches = 0;
    calls();
    return launches;
  };
  CHECK(count([&] {
          value_and_grad(ctx,
                         views.objective.adversarial.discriminator<float, device_space>(
                             views.real_logits, views.fake_logits),
                         loss.scalar(), {.real = views.real_gradient, .fake = views.fake_gradient},
                         {.statistics = views.health});
        }) == 1);
  CHECK(count([&] {
          value_and_grad(ctx, views.objective.penalty.on<float, device_space>(views.features),
                         loss.scalar(), {.features = views.cotangents});
        }) == 1);
  // Noising, L_G, L_distill, L_D, R1.
  CHECK(count([&] { device.run(); }) == 5);
}

TEST_CASE("a step is replayed with the timesteps, weights, settings and noise that memory holds") {
  auto memory = make_step(small);
  device_step device(small, memory);
  replay const again(device.stream(), [&] { device.run(); });
  auto previous = memory;
  for (int i = 1; i <= replay::count; ++i) {
    change_step(memory, static_cast<unsigned>(i));
    device.write(memory);
    again();
    if (i % 250 == 0) {
      auto got = memory;
      device.read(got);
      run_on_cpu(small, memory);
      CAPTURE(i);
      check_agreement(device, got, memory);
      CHECK(got.values != previous.values);
      // By calls, and once more: the same bits.
      for (bool const by_calls : {true, false}) {
        if (by_calls) {
          device.run();
        } else {
          again();
        }
        device.read(previous);
        CHECK(previous.values == got.values);
        CHECK(std::memcmp(previous.outputs.data(), got.outputs.data(),
                          got.outputs.size() * sizeof(float)) == 0);
      }
    }
  }
}
