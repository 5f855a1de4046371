// SPDX-License-Identifier: MIT
// Distils on a GPU, without a framework: plain pointers, the CUDA runtime and the library.
//
//   cuda_train [--copy-steps 2000] [--steps 5000] [--batch 256] [--hidden 512] [--images 2048]
//              [--seed 1] [--graph 1] [--sheet samples.png]
//              [--folder /usr/share/datasets/fashion-mnist]
// The teacher is the exact denoiser of `images` Fashion-MNIST images (networks.cuh). The student
// learns to copy it, which makes blurred images in few steps, and then by ADD to draw in 1 to 4
// steps. The sheet has images of both. A step (trainer.cuh) is captured in a CUDA graph and
// replayed; with --graph 0 it is enqueued anew each time. Status 1 where a loss is not finite or
// the copy's loss has not fallen.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../fashion_mnist/data.hpp"
#include "../fashion_mnist/png.hpp"
#include "trainer.cuh"

namespace {

#if defined(DEMO_WITHOUT_GRAPHS)
// Where a simulator takes the place of the CUDA runtime.
struct captured_calls {
  captured_calls(cudaStream_t /*stream*/, std::function<void()> const& calls) : launch(calls) {}
  std::function<void()> launch;
};
#else
/// A CUDA graph of what `calls` enqueues on `stream`. CUDA loads a kernel when it is first
/// launched, so they must have been called before.
class captured_calls {
 public:
  captured_calls(cudaStream_t stream, std::function<void()> const& calls) : stream_(stream) {
    cudaGraph_t graph = nullptr;
    demo::check("cudaStreamBeginCapture",
                cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    calls();
    demo::check("cudaStreamEndCapture", cudaStreamEndCapture(stream, &graph));
    demo::check("cudaGraphInstantiate", cudaGraphInstantiate(&graph_, graph, 0));
    demo::check("cudaGraphDestroy", cudaGraphDestroy(graph));
  }
  captured_calls(captured_calls const&) = delete;
  captured_calls& operator=(captured_calls const&) = delete;
  ~captured_calls() { cudaGraphExecDestroy(graph_); }
  void launch() const { demo::check("cudaGraphLaunch", cudaGraphLaunch(graph_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};
#endif

struct options {
  std::map<std::string, std::string> values = {
      {"--copy-steps", "2000"}, {"--steps", "5000"},  {"--batch", "256"},
      {"--hidden", "512"},      {"--images", "2048"}, {"--seed", "1"},
      {"--graph", "1"},         {"--sheet", ""},      {"--folder", demo::default_folder}};

  options(int count, char** arguments) {
    for (int i = 1; i < count; i += 2) {
      auto const found = values.find(arguments[i]);
      if (found == values.end() || i + 1 == count) {
        std::string known;
        for (auto const& [name, value] : values) known += " " + name + " " + value;
        throw std::invalid_argument(std::string(arguments[i]) + ": expected" + known);
      }
      found->second = arguments[i + 1];
    }
  }
  [[nodiscard]] int number(std::string const& name, int least) const {
    std::string const& text = values.at(name);
    int const result = std::atoi(text.c_str());
    if (result < least || std::to_string(result) != text) {
      throw std::invalid_argument(name + ": expected a whole number >= " + std::to_string(least) +
                                  ", got " + text);
    }
    return result;
  }
};

/// What a sheet shows: rows of images, all from the same noise.
struct drawn_rows {
  std::vector<float> images;
  std::vector<std::string> labels;

  void add(demo::trainer& trainer, int columns, std::string const& who) {
    for (int const steps : {1, 2, 4}) {
      auto const drawn = trainer.sample(steps);
      images.insert(images.end(), drawn.begin(), drawn.begin() + columns * demo::image_pixels);
      labels.push_back(who + ", " + std::to_string(steps) + (steps == 1 ? " step" : " steps"));
    }
  }
};

/// Told how many steps since the last report, how many in all, and microseconds a step.
using reporter = std::function<void(int count, int done, double microseconds)>;

/// `steps` steps, the first of which is enqueued and not reported: CUDA loads the kernels. The
/// others are a graph, where it replays.
void train(cudaStream_t stream, bool replays, int steps, std::function<void()> const& step,
           std::function<void()> const& first_done, reporter const& report) {
  step();
  captured_calls const graph(stream, step);
  demo::check("cudaStreamSynchronize", cudaStreamSynchronize(stream));
  first_done();
  int const interval = steps < 100 ? (steps + 1) / 2 : steps / 10;
  int reported = 1;
  auto started = std::chrono::steady_clock::now();
  for (int done = 1; done < steps;) {
    if (replays) {
      graph.launch();
    } else {
      step();
    }
    if (++done % interval != 0 && done != steps) continue;
    demo::check("cudaStreamSynchronize", cudaStreamSynchronize(stream));
    std::chrono::duration<double, std::micro> const time =
        std::chrono::steady_clock::now() - started;
    report(done - reported, done, time.count() / (done - reported));
    reported = done;
    started = std::chrono::steady_clock::now();
  }
}

int run(options const& chosen) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    throw std::runtime_error("no GPU found");
  }
  demo::trainer_settings const settings{
      .batch = chosen.number("--batch", 1),
      .hidden = chosen.number("--hidden", 1),
      .seed = static_cast<std::uint64_t>(chosen.number("--seed", 0))};
  int const copy_steps = chosen.number("--copy-steps", 3);
  int const steps = chosen.number("--steps", 3);
  bool const replays = chosen.number("--graph", 0) != 0;
  int const columns = std::min(settings.batch, 16);
  std::string const& sheet = chosen.values.at("--sheet");
  auto const data =
      demo::read_images(chosen.values.at("--folder"), "train", chosen.number("--images", 1));
  cudaStream_t stream = nullptr;
  demo::check("cudaStreamCreate", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  demo::trainer trainer(stream, settings, data.pixels);
  auto const first_done = [&] { trainer.take_losses(); };
  bool finite = true;
  auto const look_for_nan = [&] {
    for (auto const bad : trainer.non_finite()) finite = finite && bad == 0;
  };

  std::printf("%6s %10s %9s\n", "step", "L_copy", "us a step");
  std::optional<double> first;
  double last = 0;
  train(
      stream, replays, copy_steps, [&] { trainer.copy_step(); }, first_done,
      [&](int count, int done, double microseconds) {
        last = trainer.take_losses().distillation / count;
        if (!first) first = last;
        look_for_nan();
        std::printf("%6d %10.6f %9.1f\n", done, last, microseconds);
      });
  drawn_rows rows;
  if (!sheet.empty()) rows.add(trainer, columns, "copy");

  std::printf("%6s %8s %8s %10s %8s %8s %10s %8s %8s %9s\n", "step", "L_D", "hinge", "gamma R1",
              "L_G", "L_adv", "L_distill", "lambda", "gap", "us a step");
  trainer.begin_distillation();
  train(
      stream, replays, steps, [&] { trainer.step(); }, first_done,
      [&](int count, int done, double microseconds) {
        auto const sums = trainer.take_losses();
        auto const health = trainer.health();
        double gap = 0;
        for (auto const& head : health) {
          gap += (head.real.mean - head.fake.mean) / static_cast<double>(health.size());
        }
        look_for_nan();
        std::printf("%6d %8.4f %8.4f %10.6f %8.4f %8.4f %10.6f %8.4f %8.4f %9.1f\n", done,
                    sums.total_d / count, sums.hinge / count, sums.penalty / count,
                    sums.total_g / count, sums.adversarial / count, sums.distillation / count,
                    trainer.state().lambda, gap, microseconds);
      });
  if (!sheet.empty()) {
    rows.add(trainer, columns, "ADD");
    std::vector<std::string> const no_labels(static_cast<std::size_t>(columns));
    demo::save_png(sheet, demo::image_sheet(rows.images, rows.labels, no_labels, {.scale = 2}));
  }
  bool const fell = last < *first;
  std::printf("\nthe copy's loss %.6f -> %.6f%s%s\n", *first, last,
              fell ? "" : ": it has not fallen", finite ? "" : "; not all losses were finite");
  demo::check("cudaStreamDestroy", cudaStreamDestroy(stream));
  return fell && finite ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(options(argc, argv));
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
