// SPDX-License-Identifier: MIT
#include <addloss/cuda_heads.cuh>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "cuda/device_memory.cuh"
#include "cuda/heads/compare.hpp"
#include "cuda/heads/device_layer.cuh"
#include "cuda/heads/stack_steps.hpp"
#include "cuda/replay.hpp"
#include "error_of.hpp"

namespace {

/// Launches of this program on other streams than this.
cudaStream_t expected_stream = nullptr;
int launches = 0;
int launches_elsewhere = 0;

}  // namespace

// The linker lets all launches of this program pass here.
extern "C" cudaError_t __real_cudaLaunchKernelExC(cudaLaunchConfig_t const* config,
                                                  void const* kernel, void** arguments);
extern "C" cudaError_t __wrap_cudaLaunchKernelExC(cudaLaunchConfig_t const* config,
                                                  void const* kernel, void** arguments) {
  ++launches;
  if (config->stream != expected_stream) ++launches_elsewhere;
  return __real_cudaLaunchKernelExC(config, kernel, arguments);
}

namespace {

using namespace addloss;

template <class T>
constexpr double step_tolerance = std::is_same_v<T, double> ? 1e-11 : 1e-4;

/// Vectors in memory of the GPU.
template <class T>
class device_arrays {
 public:
  device_array<T>& add(std::vector<T> const& values) {
    arrays_.push_back(std::make_unique<device_array<T>>(values));
    return *arrays_.back();
  }
  device_array<T>& operator[](std::size_t i) const { return *arrays_[i]; }
  [[nodiscard]] std::size_t size() const { return arrays_.size(); }
  [[nodiscard]] std::vector<numbers> read() const {
    std::vector<numbers> result;
    for (auto const& array : arrays_) result.push_back(as_doubles(array->read()));
    return result;
  }

 private:
  std::vector<std::unique_ptr<device_array<T>>> arrays_;
};

/// The plain kernel, which may refuse its context as cuBLAS does that of another stream.
struct choosy_product : tiled_product<> {
  bool refuses = false;
  template <class T>
  void check(cuda_context const& /*ctx*/) const {
    if (refuses) detail::fail("choosy_product", "context", "another", "this");
  }
};

/// A stack with all that its steps read and write, in memory of the GPU.
template <class T>
struct device_stack {
  using context = cuda_heads<choosy_product>;

  stack_inputs in;
  decltype(projected_heads<T>({})) stack;
  discriminator_options options;
  std::size_t loss_bytes;
  device_context losses;
  context ctx;
  device_array<T> w;
  device_array<T> state;
  device_array<T> w_bar;
  device_arrays<T> real, fake, logits, x_bar;
  device_arrays<T> real_values, fake_values, real_c_bar, fake_c_bar;
  device_array<generator_result> generator_out{1};
  device_array<discriminator_result> discriminator_out{1};
  device_array<head_statistics> generator_statistics, statistics;
  device_array<double> real_penalties, fake_penalties;
  std::vector<rows<T const, device_space>> real_rows, fake_rows;
  std::vector<rows<T, device_space>> logit_rows, gradient_rows;
  std::vector<condition<T>> real_conditions, fake_conditions;
  std::int64_t workspace_size;
  blank_memory<T> workspace;

  explicit device_stack(stack_inputs const& inputs, unsigned blocks = 0)
      : in(inputs),
        stack(projected_heads<T>(in.heads, in.normalisation)),
        options(in.options),
        loss_bytes(head_loss_bytes(stack, in.shapes)),
        losses(loss_bytes),
        ctx{losses.with_blocks(blocks), {}},
        w(in_type<T>(in.w)),
        state(in_type<T>(in.state)),
        w_bar(in_type<T>(first_gradients(in.w.size()))),
        generator_statistics(in.heads.size()),
        statistics(in.heads.size()),
        real_penalties(in.heads.size()),
        fake_penalties(in.heads.size()),
        workspace_size(largest_workspace()),
        workspace(workspace_size) {
    for (std::size_t k = 0; k < in.heads.size(); ++k) {
      auto const [batch, channels, length] = in.shapes[k];
      auto const place = [&](device_arrays<T>& to, std::vector<T> const& values, auto... extents) {
        return to.add(values).view(extents...);
      };
      std::vector<T> const nan(in.real[k].size(), std::numeric_limits<T>::quiet_NaN());
      std::vector<T> const nan_map(static_cast<std::size_t>(batch * length),
                                   std::numeric_limits<T>::quiet_NaN());
      real_rows.push_back(place(real, in_type<T>(in.real[k]), batch, channels, length));
      fake_rows.push_back(place(fake, in_type<T>(in.fake[k]), batch, channels, length));
      logit_rows.push_back(place(logits, nan_map, batch, length));
      gradient_rows.push_back(place(x_bar, nan, batch, channels, length));
    }
    auto const add = [&](std::vector<numbers> const& from, device_arrays<T>& values,
                         device_arrays<T>& gradients, std::vector<condition<T>>& to) {
      for (std::size_t i = 0; i < from.size(); ++i) {
        T* const first = values.add(in_type<T>(from[i])).data();
        T* const gradient = gradients.add(in_type<T>(first_gradients(from[i].size()))).data();
        to.push_back({in.condition_sizes[i], first, gradient});
      }
    };
    add(in.real_conditions, real_values, real_c_bar, real_conditions);
    add(in.fake_conditions, fake_values, fake_c_bar, fake_conditions);
    std::size_t const heads = in.heads.size();
    options.statistics = {statistics.data(), heads};
    options.real_penalties = {real_penalties.data(), heads};
    options.fake_penalties = {fake_penalties.data(), heads};
  }

  [[nodiscard]] std::int64_t largest_workspace() const {
    std::int64_t const steps =
        stack.template discriminator_workspace<context>(in.shapes, options, in.accumulate);
    std::int64_t const forward = stack.template generator_workspace<context>(in.shapes);
    return steps > forward ? steps : forward;
  }
  [[nodiscard]] std::span<T> memory() const {
    return {workspace.data(), static_cast<std::size_t>(workspace_size)};
  }
  [[nodiscard]] std::span<T const> parameters() const { return {w.data(), in.w.size()}; }
  [[nodiscard]] std::span<T const> states() const { return {state.data(), in.state.size()}; }
  [[nodiscard]] std::span<T> gradients() const { return {w_bar.data(), in.w.size()}; }

  void update() const {
    stack.update_state(ctx, parameters(), std::span<T>{state.data(), in.state.size()});
  }
  void run_logits() const {
    stack.logits(ctx, parameters(), states(), {real_rows, real_conditions}, logit_rows, memory());
  }
  void run_generator() const {
    stack.generator_step(ctx, adversarial<>{}, parameters(), states(), {fake_rows, fake_conditions},
                         gradient_rows, memory(),
                         {.statistics = {generator_statistics.data(), in.heads.size()}},
                         generator_out.data());
  }
  void run_discriminator() const {
    stack.discriminator_step(ctx, adversarial<>{}, parameters(), states(),
                             {real_rows, real_conditions}, {fake_rows, fake_conditions},
                             {.values = gradients(), .accumulate = in.accumulate}, memory(),
                             options, discriminator_out.data());
  }

  stack_outputs run() {
    stack_outputs out;
    update();
    out.state = as_doubles(state.read());
    run_logits();
    out.logits = logits.read();
    run_generator();
    out.generator = generator_out.read()[0];
    out.generator_statistics = generator_statistics.read();
    out.x_bar = x_bar.read();
    out.generator_condition_bar = fake_c_bar.read();
    for (std::size_t i = 0; i < fake_c_bar.size(); ++i) {
      fake_c_bar[i].write(in_type<T>(first_gradients(in.fake_conditions[i].size())));
    }
    run_discriminator();
    out.discriminator = discriminator_out.read()[0];
    out.statistics = statistics.read();
    out.real_penalties = real_penalties.read();
    out.fake_penalties = fake_penalties.read();
    out.w_bar = as_doubles(w_bar.read());
    out.real_condition_bar = real_c_bar.read();
    out.fake_condition_bar = fake_c_bar.read();
    if (!workspace.intact()) out.w_bar.clear();
    return out;
  }
};

void check_near(logit_statistics const& got, logit_statistics const& expected, double allowed) {
  CHECK(got.mean == Approx(expected.mean).epsilon(allowed).margin(allowed));
  CHECK(got.positive == Approx(expected.positive));
  CHECK(got.active == Approx(expected.active));
  CHECK(got.non_finite == expected.non_finite);
}

void check_near(stack_outputs const& got, stack_outputs const& expected, double allowed) {
  auto const near = [&](double a, double b) { return std::abs(a - b) <= allowed * std::abs(b); };
  CHECK(difference(got.state, expected.state) <= allowed);
  CHECK(near(got.generator.loss, expected.generator.loss));
  CHECK(got.generator.non_finite == 0);
  CHECK(near(got.discriminator.adversarial, expected.discriminator.adversarial));
  CHECK(near(got.discriminator.penalty, expected.discriminator.penalty));
  CHECK(got.discriminator.total == got.discriminator.adversarial + got.discriminator.penalty);
  CHECK(got.discriminator.non_finite == 0);
  CHECK(difference(got.w_bar, expected.w_bar) <= allowed);
  CHECK(difference(got.real_penalties, expected.real_penalties) <= allowed);
  CHECK(difference(got.fake_penalties, expected.fake_penalties) <= allowed);
  for (std::size_t k = 0; k < expected.logits.size(); ++k) {
    CHECK(difference(got.logits[k], expected.logits[k]) <= allowed);
    CHECK(difference(got.x_bar[k], expected.x_bar[k]) <= allowed);
    check_near(got.generator_statistics[k].fake, expected.generator_statistics[k].fake, allowed);
    check_near(got.statistics[k].real, expected.statistics[k].real, allowed);
    check_near(got.statistics[k].fake, expected.statistics[k].fake, allowed);
  }
  for (std::size_t i = 0; i < expected.real_condition_bar.size(); ++i) {
    CHECK(difference(got.generator_condition_bar[i], expected.generator_condition_bar[i]) <=
          allowed);
    CHECK(difference(got.real_condition_bar[i], expected.real_condition_bar[i]) <= allowed);
    CHECK(difference(got.fake_condition_bar[i], expected.fake_condition_bar[i]) <= allowed);
  }
}

bool same_outputs(stack_outputs const& a, stack_outputs const& b) {
  auto const lists = [](std::vector<numbers> const& x, std::vector<numbers> const& y) {
    bool same = x.size() == y.size();
    for (std::size_t i = 0; same && i < x.size(); ++i) same = same_bits(x[i], y[i]);
    return same;
  };
  return same_bits(a.state, b.state) && same_bits(a.w_bar, b.w_bar) && lists(a.logits, b.logits) &&
         lists(a.x_bar, b.x_bar) && lists(a.real_condition_bar, b.real_condition_bar) &&
         same_bits(a.real_penalties, b.real_penalties) &&
         std::memcmp(&a.discriminator, &b.discriminator, sizeof a.discriminator) == 0 &&
         std::memcmp(&a.generator, &b.generator, sizeof a.generator) == 0;
}

discriminator_options const both{.real_penalty = r1{.gamma = 0.3},
                                 .fake_penalty = r1{.gamma = 0.2, .factor = 0.5}};

}  // namespace

TEST_CASE("the steps of a stack on a GPU are those of the CPU") {
  for (bool const plain : {false, true}) {
    CAPTURE(plain);
    auto in =
        three_heads(plain ? weight_normalisation::none : weight_normalisation::spectral, !plain);
    in.options = both;
    in.accumulate = !plain;
    auto const expected = on_cpu(in);
    check_near(device_stack<float>(in).run(), expected, step_tolerance<float>);
    if (plain) continue;
    auto const got = device_stack<double>(in).run();
    check_near(got, expected, step_tolerance<double>);
    CHECK(same_outputs(device_stack<double>(in, 3).run(), got));
  }
}

TEST_CASE("penalties of a stack on a GPU: one, none, of the mean, scaled") {
  auto in = three_heads(weight_normalisation::spectral, true);
  for (auto const& options : std::vector<discriminator_options>{
           {.real_penalty = std::nullopt, .fake_penalty = r1{.gamma = 0.2, .interval = 4}},
           {.real_penalty = r1{.gamma = 0.3},
           .penalised = penalised_logits::mean,
           .grad_scale = 1024}}) {
    in.options = options;
    auto const expected = on_cpu(in);
    auto got = device_stack<double>(in).run();
    if (options.real_penalty) {
      // Read when the step runs.
      device_array<double> const gamma(std::vector<double>{0.3});
      device_stack<double> c(in);
      c.options.real_penalty->gamma = number_at{gamma.data()};
      CHECK(same_bits(c.run().w_bar, got.w_bar));
    }
    if (!options.real_penalty) got.real_penalties = expected.real_penalties;
    if (!options.fake_penalty) got.fake_penalties = expected.fake_penalties;
    check_near(got, expected, step_tolerance<double>);
  }
}

TEST_CASE("NaN in features and parameters of a stack on a GPU is counted, in its head alone") {
  auto in = three_heads(weight_normalisation::spectral, true);
  in.options = both;
  double const nan = std::numeric_limits<double>::quiet_NaN();
  SECTION("features") {
    in.real[0][17] = nan;  // sample 1, which sample 0 is normalised with
    auto const got = device_stack<double>(in).run();
    CHECK(std::isnan(got.discriminator.total));
    CHECK(got.discriminator.non_finite == 2 * 5 + 2 * 3 * 5);
    CHECK(got.statistics[0].real.non_finite == 2 * 5);
    CHECK(got.statistics[0].fake.non_finite == 0);
    CHECK(got.statistics[1].real.non_finite == 0);
    CHECK(std::isnan(got.real_penalties[0]));
    CHECK(std::isfinite(got.fake_penalties[0]));
    CHECK(std::isfinite(got.real_penalties[1]));
  }
  SECTION("a weight of zeros, whose sigma is 0") {
    for (std::size_t i = 0; i < 9; ++i) in.w[i] = 0;
    auto const got = device_stack<double>(in).run();
    CHECK(got.statistics[0].real.non_finite == 4 * 5);
    CHECK(got.statistics[1].real.non_finite == 0);
    CHECK(got.generator.non_finite == 4 * 5);
    CHECK(std::isnan(got.discriminator.total));
  }
}

TEST_CASE("what a stack on a GPU refuses") {
  auto const in = three_heads(weight_normalisation::spectral, true);
  device_stack<double> c(in);
  auto const refused = [&](std::string const& text) {
    int const before = launches;
    CHECK(error_of([&] { c.run_discriminator(); }).starts_with(text));
    CHECK(launches == before);
    auto const w_bar = as_doubles(c.w_bar.read());
    CHECK(same_bits(w_bar, first_gradients(w_bar.size())));
  };
  SECTION("a workspace that is too small") {
    --c.workspace_size;
    refused("head_stack::discriminator_step: workspace (expected at least ");
  }
  SECTION("a workspace of the losses that is too small") {
    c.ctx.gpu.bytes = c.loss_bytes - 1;
    refused("cuda_context: workspace (expected at least ");
  }
  SECTION("a context that the product refuses") {
    c.ctx.product.refuses = true;
    refused("choosy_product: context (expected another, got this)");
    CHECK(error_of([&] { c.run_logits(); }).starts_with("choosy_product: "));
    CHECK(error_of([&] { c.update(); }).starts_with("choosy_product: "));
  }
  SECTION("no result") {
    CHECK(error_of([&] {
            c.stack.generator_step(c.ctx, adversarial<>{}, c.parameters(), c.states(),
                                   {c.fake_rows, c.fake_conditions}, c.gradient_rows, c.memory(),
                                   {}, nullptr);
          }) == "head_stack::generator_step: result (expected memory, got a null pointer)");
  }
  SECTION("features of another shape") {
    c.real_rows[1] = c.real_rows[0];
    refused("head_stack::discriminator_step: real.features[1]");
  }
}

TEST_CASE("steps of a stack on a GPU use their stream alone, and can be captured and replayed") {
  auto in = three_heads(weight_normalisation::spectral, true);
  in.options = both;
  auto other = in;
  for (auto& values : other.real) {
    for (double& x : values) x = -x;
  }
  auto const expected = device_stack<double>(other).run();
  auto const before = device_stack<double>(in).run();
  cudaStream_t stream = nullptr;
  cuda::check("cudaStreamCreate", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  device_stack<double> c(in);
  cuda::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  c.ctx.gpu.stream = stream;
  expected_stream = stream;
  launches = 0;
  launches_elsewhere = 0;
  {
    c.update();
    replay const step(stream, [&] { c.run_discriminator(); });
    step();
    cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(stream));
    CHECK(same_bits(as_doubles(c.w_bar.read()), before.w_bar));
    for (std::size_t k = 0; k < other.real.size(); ++k) {
      c.real[k].write(in_type<double>(other.real[k]));
    }
    cuda::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
    step();
    cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(stream));
    CHECK(same_bits(as_doubles(c.w_bar.read()), expected.w_bar));
    CHECK(c.discriminator_out.read()[0].total == expected.discriminator.total);
  }
  CHECK(launches > 0);
  CHECK(launches_elsewhere == 0);
  expected_stream = nullptr;
  cudaStreamDestroy(stream);
}
