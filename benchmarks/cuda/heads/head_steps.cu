// SPDX-License-Identifier: MIT
// The steps that train a discriminator of K heads on a GPU: results against the CPU's, times, and
// what each layer takes. A program of its own:
//   cuda_head_steps [--heads K] [--batch B] [--channels C] [--length L] [--spectral] [--json]
// --json: only the times of the discriminator's step, for compare_with_torch.py.
#include <addloss/cuda/heads/cublas_product.cuh>
#include <addloss/cuda_heads.cuh>

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "head_reference.hpp"

namespace {

using namespace addloss;
using namespace bench;

template <class T>
class device_vector {
 public:
  explicit device_vector(std::int64_t size) : size_(static_cast<std::size_t>(size)) {
    void* memory = nullptr;
    cuda::check("cudaMalloc", cudaMalloc(&memory, std::max<std::size_t>(size_, 1) * sizeof(T)));
    data_ = static_cast<T*>(memory);
    cuda::check("cudaMemset", cudaMemset(data_, 0, size_ * sizeof(T)));
  }
  explicit device_vector(std::vector<T> const& values)
      : device_vector(static_cast<std::int64_t>(values.size())) {
    cuda::check("cudaMemcpy",
                cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  device_vector(device_vector const&) = delete;
  device_vector& operator=(device_vector const&) = delete;
  ~device_vector() { cudaFree(data_); }
  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::span<T> all() const { return {data_, size_}; }
  [[nodiscard]] std::span<T const> constant() const { return {data_, size_}; }
  [[nodiscard]] std::vector<T> read() const {
    std::vector<T> result(size_);
    cuda::check("cudaMemcpy",
                cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

/// A stream, and cuBLAS on it with a workspace of its own.
struct machine {
  cudaStream_t stream = nullptr;
  cublasHandle_t handle = nullptr;
  static constexpr std::size_t bytes = std::size_t{64} << 20;
  device_vector<char> memory{bytes};

  machine() {
    cuda::check("cudaStreamCreate", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cuda::check("cublasCreate", cublasCreate(&handle));
    cuda::check("cublasSetStream", cublasSetStream(handle, stream));
    cuda::check("cublasSetWorkspace", cublasSetWorkspace(handle, memory.data(), bytes));
  }
  ~machine() {
    cublasDestroy(handle);
    cudaStreamDestroy(stream);
  }
};

template <class Product>
struct device_step {
  using context = cuda_heads<Product>;
  settings s;
  decltype(projected_heads<float>({})) stack;
  device_vector<float> parameters, state, gradients, real, fake, x_bar, conditions, workspace;
  device_vector<char> loss_memory;
  context ctx;
  device_vector<discriminator_result> result{1};
  device_vector<generator_result> generated{1};
  double gamma;

  device_step(settings const& given, host_step<float> const& host, machine const& on,
              Product product, double strength)
      : s(given),
        stack(host.stack),
        parameters(host.parameters),
        state(host.state),
        gradients(stack.parameter_count()),
        real(host.real),
        fake(host.fake),
        x_bar(static_cast<std::int64_t>(host.fake.size())),
        conditions(host.condition),
        workspace(std::max(
            stack.template discriminator_workspace<context>(shapes_of(s), options_of(strength)),
            stack.template generator_workspace<context>(shapes_of(s)))),
        loss_memory(static_cast<std::int64_t>(head_loss_bytes(stack, shapes_of(s)))),
        ctx{cuda_context{.stream = on.stream,
                         .workspace = loss_memory.data(),
                         .bytes = loss_memory.all().size()},
            product},
        gamma(strength) {
    zero_workspace(ctx.gpu);
    // The copies above went another way than the stream.
    cuda::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  }

  void discriminator() {
    auto const reals = maps<device_space, float const>(s, real.data());
    auto const fakes = maps<device_space, float const>(s, fake.data());
    condition<float> const c[] = {{s.condition, conditions.data(), nullptr}};
    if (s.normalisation == weight_normalisation::spectral) {
      stack.update_state(ctx, parameters.constant(), state.all());
    }
    stack.discriminator_step(ctx, adversarial<>{}, parameters.constant(), state.constant(),
                             {reals, c}, {fakes, c}, {gradients.all()}, workspace.all(),
                             options_of(gamma), result.data());
  }
  void generator() {
    auto const fakes = maps<device_space, float const>(s, fake.data());
    auto const out = maps<device_space, float>(s, x_bar.data());
    condition<float> const c[] = {{s.condition, conditions.data(), nullptr}};
    stack.generator_step(ctx, adversarial<>{}, parameters.constant(), state.constant(), {fakes, c},
                         out, workspace.all(), {}, generated.data());
  }
};

// --- times ---------------------------------------------------------------------------------------

/// The median of `count` runs, in milliseconds.
double median_ms(machine const& on, int count, std::function<void()> const& run) {
  std::vector<cudaEvent_t> events(static_cast<std::size_t>(2 * count));
  for (auto& event : events) cuda::check("cudaEventCreate", cudaEventCreate(&event));
  for (int i = 0; i < 3; ++i) run();
  for (int i = 0; i < count; ++i) {
    cudaEventRecord(events[static_cast<std::size_t>(2 * i)], on.stream);
    run();
    cudaEventRecord(events[static_cast<std::size_t>(2 * i + 1)], on.stream);
  }
  cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(on.stream));
  std::vector<float> times;
  for (int i = 0; i < count; ++i) {
    float ms = 0;
    cudaEventElapsedTime(&ms, events[static_cast<std::size_t>(2 * i)],
                         events[static_cast<std::size_t>(2 * i + 1)]);
    times.push_back(ms);
  }
  for (auto& event : events) cudaEventDestroy(event);
  std::nth_element(times.begin(), times.begin() + count / 2, times.end());
  return static_cast<double>(times[static_cast<std::size_t>(count / 2)]);
}

/// The same of a graph that captured a run.
double graph_ms(machine const& on, int count, std::function<void()> const& run) {
  run();
  cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(on.stream));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cuda::check("begin", cudaStreamBeginCapture(on.stream, cudaStreamCaptureModeGlobal));
  run();
  cuda::check("end", cudaStreamEndCapture(on.stream, &graph));
  cuda::check("instantiate", cudaGraphInstantiate(&exec, graph, 0));
  double const ms = median_ms(
      on, count, [&] { cuda::check("cudaGraphLaunch", cudaGraphLaunch(exec, on.stream)); });
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  return ms;
}

/// Multiplications and additions of the products of a discriminator's step: those of the kernel of
/// 9 taps, then that of 1.
template <class Product>
double operations(settings const& s) {
  conv1d<float> const nine{s.channels, s.channels, 9, s.method};
  bool const by_toom_cook = !Product::template rounds_operands<float> &&
                            nine.by_toom_cook({s.batch, s.channels, s.length});
  // A tile is 40 products for 18 tokens.
  double const taps = by_toom_cook ? 40.0 * static_cast<double>((s.length + 17) / 18) /
                                         static_cast<double>(s.length)
                                   : 9;
  double const unit = 2.0 * static_cast<double>(s.batch * s.length * s.channels * s.channels);
  return unit * s.heads * (9 * taps + 7);
}

/// What a square product reaches, in TFLOP/s.
template <class Product>
double peak(machine const& on, Product product) {
  using S = typename Product::template operand<float>;
  constexpr std::int64_t n = 8192;
  device_vector<S> const a(n * n);
  device_vector<S> const b(n * n);
  device_vector<float> const c(n * n);
  cuda_context const ctx{.stream = on.stream};
  double const ms = median_ms(on, 10, [&] {
    product.template multiply<float>(ctx, {.rows = n,
                                           .columns = n,
                                           .depth = n,
                                           .batches = 1,
                                           .a = {a.data(), n},
                                           .b = {b.data(), n, 0, true},
                                           .c = c.data(),
                                           .c_ld = n});
  });
  return 2e-9 * n * n * n / ms;
}

/// Each pass of each layer of a head by itself.
template <class Product>
void print_layers(settings const& s, machine const& on, Product product) {
  using context = cuda_heads<Product>;
  context const ctx{cuda_context{.stream = on.stream}, product};
  feature_shape const shape{s.batch, s.channels, s.length};
  double const unit = 2e-9 * static_cast<double>(s.batch * s.length * s.channels * s.channels);
  device_vector<float> const c(s.batch * s.condition);
  condition<float> const conditions[] = {{s.condition, c.data(), nullptr}};
  auto const layer = [&](char const* name, auto const& l, double taps) {
    using on_layer = layer_on<context, std::remove_cvref_t<decltype(l)>>;
    layer_sizes const sizes = on_layer::sizes(l, shape);
    feature_shape const out = l.output_shape("bench", shape);
    device_vector<float> const w(l.parameter_count());
    device_vector<float> const w_bar(l.parameter_count());
    device_vector<float> const x(shape.size());
    device_vector<float> const x_dot(shape.size());
    device_vector<float> const x_bar(shape.size());
    device_vector<float> const y(out.size());
    device_vector<float> const y_dot(out.size());
    device_vector<float> const y_bar(out.size());
    device_vector<float> const y_dot_bar(out.size());
    device_vector<float> const saved(sizes.saved);
    device_vector<float> const saved_bar(sizes.saved_bar + 1);
    device_vector<float> const saved_dot(sizes.saved_dot);
    device_vector<float> const workspace(sizes.workspace);
    layer_pass<float> p;
    p.shape = shape;
    p.w = w.data();
    p.x = x.data();
    p.y = y.data();
    p.x_dot = x_dot.data();
    p.y_dot = y_dot.data();
    p.y_bar = y_bar.data();
    p.y_dot_bar = y_dot_bar.data();
    p.x_bar = x_bar.data();
    p.saved = saved.data();
    p.saved_bar = saved_bar.data();
    p.saved_dot = saved_dot.data();
    p.workspace = workspace.data();
    p.conditions = conditions;
    auto const time = [&](char const* pass, double products, auto const& run) {
      double const ms = graph_ms(on, 21, run);
      std::printf("  %-12s %-18s %8.1f us", name, pass, 1e3 * ms);
      if (taps > 0) std::printf("  %7.1f TFLOP/s", products * taps * unit / ms);
      std::printf("\n");
    };
    time("forward", 1, [&] { on_layer::forward(l, ctx, p); });
    time("backward of x", 1, [&] { on_layer::backward(l, ctx, p); });
    p.w_bar = w_bar.data();
    time("backward", 2, [&] { on_layer::backward(l, ctx, p); });
    time("tangent", 1, [&] { on_layer::tangent(l, ctx, p); });
    time("tangent_backward", 3, [&] { on_layer::tangent_backward(l, ctx, p); });
  };
  auto const head = projected_head<float>(heads_of(s)[0]);
  layer("conv 1", head.template get<0>().template get<0>(), 1);
  layer("conv 9", head.template get<1>().body.template get<0>(), 9);
  layer("norm", head.template get<0>().template get<1>(), 0);
  layer("projection", head.template get<2>(), 0);
  device_vector<float> const x(shape.size());
  device_vector<float> const y(shape.size());
  using executor = head_executor<context>;
  auto const time = [&](char const* name, auto const& run) {
    std::printf("  %-31s %8.1f us\n", name, 1e3 * graph_ms(on, 21, run));
  };
  time("read features", [&] { executor::read_features(ctx, shape, x.data(), y.data()); });
  time("add elements", [&] {
    executor::each_element(ctx, shape.size(), detail::add_elements<float>{x.data(), y.data()});
  });
  spectral_norm const norm{s.channels, 9 * s.channels};
  device_vector<float> const W(norm.rows * norm.columns);
  device_vector<float> const u(norm.rows);
  device_vector<float> const v(norm.columns);
  device_vector<double> const sigma(norm.rows);
  device_vector<double> const scratch(norm.rows);
  time("spectral update", [&] { executor::update(ctx, norm, W.data(), u.data(), v.data()); });
  time("spectral sigma, divide", [&] {
    executor::sigma(ctx, norm, W.data(), u.data(), v.data(), sigma.data());
    executor::divide(ctx, norm, W.data(), sigma.data(), W.data());
  });
  time("spectral divide_backward", [&] {
    executor::divide_backward(ctx, norm, W.data(), u.data(), v.data(), sigma.data(), W.data(),
                              scratch.data());
  });
}

// --- results -------------------------------------------------------------------------------------

double relative_error(std::vector<float> const& got, std::vector<double> const& expected) {
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const d = static_cast<double>(got[i]) - expected[i];
    error += d * d;
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

/// An activation on the other side of its kink, by rounding, changes the gradients by some 1e-3.
/// False where the step differs from the CPU's by more than `allowed`.
template <class Product>
bool compare(char const* name, settings const& s, host_step<float> const& host,
             expected_step const& expected, machine const& on, Product product, double gamma,
             double allowed) {
  device_step<Product> step(s, host, on, product, gamma);
  step.discriminator();
  cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(on.stream));
  auto const result = step.result.read()[0];
  auto const gradients = step.gradients.read();
  // update_state moved the state: the second run starts from the first one's.
  device_step<Product> again(s, host, on, product, gamma);
  again.ctx.gpu.blocks = 7;
  again.discriminator();
  cuda::check("cudaStreamSynchronize", cudaStreamSynchronize(on.stream));
  bool const same = std::memcmp(gradients.data(), again.gradients.read().data(),
                                gradients.size() * sizeof(float)) == 0;
  double const error = relative_error(gradients, expected.gradients);
  double const loss = std::abs(result.total / expected.result.total - 1);
  bool const good = error <= allowed && loss <= allowed && same;
  std::printf("  %-10s gradients %.1e  total %.1e  penalty %.1e  %s%s\n", name, error, loss,
              std::abs(result.penalty / expected.result.penalty - 1),
              same ? "same bits on 7 blocks" : "OTHER BITS ON 7 BLOCKS", good ? "" : "  WRONG");
  return good;
}

/// The discriminator's step of K stacks of one head each, on as many streams, in one graph.
template <class MakeProduct>
double streams_ms(settings const& s, machine const& on, int streams, MakeProduct const& make) {
  using product = decltype(make(on));
  settings one = s;
  one.heads = 1;
  host_step<float> const host(one);
  std::vector<std::unique_ptr<machine>> machines;
  for (int i = 0; i < streams; ++i) machines.push_back(std::make_unique<machine>());
  std::vector<std::unique_ptr<device_step<product>>> steps;
  for (int k = 0; k < s.heads; ++k) {
    machine const& of = *machines[static_cast<std::size_t>(k % streams)];
    steps.push_back(std::make_unique<device_step<product>>(one, host, of, make(of), 1e-5));
  }
  std::vector<cudaEvent_t> events(static_cast<std::size_t>(streams) + 1);
  for (auto& event : events) {
    cuda::check("cudaEventCreate", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  double const ms = graph_ms(on, 21, [&] {
    cudaEventRecord(events.back(), on.stream);
    for (auto const& of : machines) cudaStreamWaitEvent(of->stream, events.back());
    for (auto const& step : steps) step->discriminator();
    for (std::size_t i = 0; i < machines.size(); ++i) {
      cudaEventRecord(events[i], machines[i]->stream);
      cudaStreamWaitEvent(on.stream, events[i]);
    }
  });
  for (auto& event : events) cudaEventDestroy(event);
  return ms;
}

template <class Product>
void time_steps(char const* name, settings const& s, host_step<float> const& host,
                machine const& on, Product product, bool json) {
  device_step<Product> step(s, host, on, product, 1e-5);
  double const eager = median_ms(on, 21, [&] { step.discriminator(); });
  double const graph = graph_ms(on, 21, [&] { step.discriminator(); });
  if (json) {
    std::printf("{\"precision\": \"%s\", \"eager_ms\": %.4f, \"graph_ms\": %.4f}\n", name, eager,
                graph);
    return;
  }
  double const generator = graph_ms(on, 21, [&] { step.generator(); });
  double const reached = peak(on, product);
  double const limit = 1e-9 * operations<Product>(s) / reached;
  std::printf(
      "%s: discriminator %.3f ms, in a graph %.3f ms; generator in a graph %.3f ms; "
      "products alone at the measured peak of %.0f TFLOP/s %.3f ms (%.0f %%); workspace %.0f MB\n",
      name, eager, graph, generator, reached, limit, 100 * limit / graph,
      4e-6 * static_cast<double>(step.workspace.all().size()));
  for (int const streams : {1, 2, 3, 5}) {
    std::printf("  a stack for each head, on %d streams, in a graph: %.3f ms\n", streams,
                streams_ms(s, on, streams, [](machine const& of) { return Product{of.handle}; }));
  }
  print_layers(s, on, product);
}

}  // namespace

int main(int count, char** values) {
  settings s;
  bool json = false;
  for (int i = 1; i < count; ++i) {
    auto const is = [&](char const* name) { return std::strcmp(values[i], name) == 0; };
    auto const number = [&] { return i + 1 < count ? std::atoll(values[++i]) : 0; };
    if (is("--heads")) {
      s.heads = static_cast<int>(number());
    } else if (is("--batch")) {
      s.batch = number();
    } else if (is("--channels")) {
      s.channels = number();
    } else if (is("--length")) {
      s.length = number();
    } else if (is("--spectral")) {
      s.normalisation = weight_normalisation::spectral;
    } else if (is("--json")) {
      json = true;
    } else {
      std::fprintf(stderr, "%s: not known\n", values[i]);
      return 2;
    }
  }
  machine const on;
  cublas_product<> const full{on.handle};
  cublas_product<cublas_precision::tf32> const tf32{on.handle};
  cublas_product<cublas_precision::bfloat16> const half{on.handle};
  bool good = true;
  if (!json) {
    cudaDeviceProp device{};
    cuda::check("cudaGetDeviceProperties", cudaGetDeviceProperties(&device, 0));
    std::printf("%s\nK %d, B %d, C %d, L %d, float\n", device.name, s.heads,
                static_cast<int>(s.batch), static_cast<int>(s.channels),
                static_cast<int>(s.length));
    for (auto const normalisation : {weight_normalisation::none, weight_normalisation::spectral}) {
      // Small, for the CPU.
      settings const small{2, 8, 96, 33, 40, normalisation};
      host_step<float> const host(small);
      double const gamma = 0.02;
      expected_step const expected = on_cpu(small, host, gamma);
      std::printf("against the CPU in double, %s:\n", normalisation == weight_normalisation::none
                                                          ? "weights as they are"
                                                          : "spectral normalisation");
      good &= compare("tiled", small, host, expected, on, tiled_product<>{}, gamma, 5e-3);
      good &= compare("float", small, host, expected, on, full, gamma, 5e-3);
      good &= compare("tf32", small, host, expected, on, tf32, gamma, 1e-1);
      good &= compare("bfloat16", small, host, expected, on, half, gamma, 5e-1);
    }
  }
  host_step<float> const host(s);
  time_steps("float", s, host, on, full, json);
  settings direct = s;
  direct.method = convolution_method::direct;
  time_steps("float, direct", direct, host_step<float>(direct), on, full, json);
  time_steps("tf32", s, host, on, tf32, json);
  time_steps("bfloat16", s, host, on, half, json);
  return good ? 0 : 1;
}
