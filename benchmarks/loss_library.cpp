// SPDX-License-Identifier: MIT
// Losses and noising as a shared library, for compare_with_torch.py: functions that Python's ctypes
// can call. Tensors are dense; the logits of K heads lie one after the other, [K, B, L]. One that
// throws ends the program with the text of the error.
#include <cstdint>
#include <span>
#include <vector>

#include <addloss/addloss.hpp>

#include "exported.hpp"

namespace {

namespace add = addloss;

constexpr int most_heads = 8;

/// A view [B, size] for each head.
template <class T>
struct views {
  views(T* data, int heads, std::int64_t batch, std::int64_t size) : count(heads) {
    for (int k = 0; k < heads; ++k) {
      head[k] = add::view(data + k * batch * size, batch, size);
    }
  }
  [[nodiscard]] std::span<add::rows<T> const> all() const {
    return {head, static_cast<std::size_t>(count)};
  }

  add::rows<T> head[most_heads];
  int count;
};

add::discrete_schedule const& schedule() {
  static add::discrete_schedule const table = add::scaled_linear_schedule();
  return table;
}

}  // namespace

EXPORTED char const* loss_compiler() { return bench::compiler; }

/// The levels of timesteps 0 to 999.
EXPORTED void loss_levels(double* alpha, double* sigma) noexcept {
  for (std::int64_t t = 0; t < schedule().size(); ++t) {
    alpha[t] = schedule().at(t).alpha;
    sigma[t] = schedule().at(t).sigma;
  }
}

EXPORTED double loss_distillation(int threads, float const* student, float const* target,
                                  std::int64_t const* timesteps, float* gradient,
                                  std::int64_t batch, std::int64_t size) noexcept {
  double value = 0;
  add::value_and_grad(
      add::cpu_context{.threads = threads},
      add::distillation<>{}(schedule().table(), add::view(student, batch, size),
                            add::view(target, batch, size), add::view(timesteps, batch)),
      value, add::view(gradient, batch, size));
  return value;
}

/// From epsilon predictions.
EXPORTED double loss_from_teacher(int threads, float const* student, float const* noise,
                                  float const* conditional, float const* unconditional,
                                  double guidance_scale, std::int64_t const* timesteps,
                                  float* gradient, std::int64_t batch, std::int64_t size) noexcept {
  add::teacher_predictions<float> const teacher{
      .noise = add::view(noise, batch, size),
      .conditional = add::view(conditional, batch, size),
      .unconditional = add::view(unconditional, batch, size),
      .guidance_scale = guidance_scale};
  double value = 0;
  add::value_and_grad(add::cpu_context{.threads = threads},
                      add::distillation<>{}.from_teacher(
                          add::epsilon_prediction{}, schedule().table(),
                          add::view(student, batch, size), teacher, add::view(timesteps, batch)),
                      value, add::view(gradient, batch, size));
  return value;
}

EXPORTED double loss_hinge(int threads, float const* real, float const* fake, float* real_gradient,
                           float* fake_gradient, int heads, std::int64_t batch,
                           std::int64_t tokens) noexcept {
  views<float const> const reals(real, heads, batch, tokens), fakes(fake, heads, batch, tokens);
  views<float> const real_gradients(real_gradient, heads, batch, tokens),
      fake_gradients(fake_gradient, heads, batch, tokens);
  double value = 0;
  add::value_and_grad(add::cpu_context{.threads = threads},
                      add::adversarial<>{}.discriminator<float>(reals.all(), fakes.all()), value,
                      {.real = real_gradients.all(), .fake = fake_gradients.all()});
  return value;
}

EXPORTED double loss_relativistic(int threads, float const* real, float const* fake,
                                  float* real_gradient, float* fake_gradient, int heads,
                                  std::int64_t batch, std::int64_t tokens) noexcept {
  views<float const> const reals(real, heads, batch, tokens), fakes(fake, heads, batch, tokens);
  views<float> const real_gradients(real_gradient, heads, batch, tokens),
      fake_gradients(fake_gradient, heads, batch, tokens);
  double value = 0;
  add::value_and_grad(add::cpu_context{.threads = threads},
                      add::paired<>{}.discriminator<float>(reals.all(), fakes.all()), value,
                      {.first = real_gradients.all(), .second = fake_gradients.all()});
  return value;
}

EXPORTED double loss_r1(int threads, float const* features, double gamma, float* cotangent,
                        int heads, std::int64_t batch, std::int64_t size) noexcept {
  views<float const> const gradients(features, heads, batch, size);
  views<float> const cotangents(cotangent, heads, batch, size);
  double value = 0;
  add::value_and_grad(add::cpu_context{.threads = threads},
                      add::r1{.gamma = gamma}.on<float>(gradients.all()), value,
                      {.features = cotangents.all()});
  return value;
}

/// With generated noise where `noise` is null.
EXPORTED void loss_add_noise(int threads, float const* x0, float const* noise,
                             std::int64_t const* timesteps, float* out, std::int64_t batch,
                             std::int64_t size) noexcept {
  add::cpu_context const ctx{.threads = threads};
  auto const times = add::view(timesteps, batch);
  auto const from = add::view(x0, batch, size);
  auto const to = add::view(out, batch, size);
  if (noise == nullptr) {
    add::add_noise(ctx, schedule().table(), from, times, add::normal_noise{{.seed = 42}}, to);
  } else {
    add::add_noise(ctx, schedule().table(), from, times, add::view(noise, batch, size), to);
  }
}
