// SPDX-License-Identifier: MIT
// Trains a teacher and distils it on Fashion-MNIST in an ordinary loop of LibTorch: its modules,
// its autograd, its optimisers, and the losses and discriminator heads of the library.
//
// The discriminator's features are those of the frozen teacher's encoder. What training does in a
// step is a function of the seed and the step alone: a run that resumes goes on to the same bits.
#include <addloss/addloss.hpp>
#include <addloss/torch/heads.hpp>
#include <addloss/torch/losses.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../fashion_mnist/data.hpp"
#include "../fashion_mnist/png.hpp"
#include "unet.hpp"

namespace {

using torch::Tensor;

struct settings {
  std::int64_t teacher_steps = 2000;
  std::int64_t steps = 2000;
  std::int64_t batch = 64;
  std::int64_t images = 60000;
  std::int64_t width = 32;
  std::int64_t save_every = 200;
  double rate = 1e-3;
  double student_rate = 2e-4;
  std::uint64_t seed = 1;
  std::string device = "cpu";
  std::string data = demo::default_folder;
  std::string out = "libtorch_out";
  bool resume = false;
};

/// Where losses and heads run: on a GPU if the program was built for that.
torch::Device place_of_losses(torch::Device device) {
#if defined(ADDLOSS_TORCH_CUDA)
  return device;
#else
  return device.is_cuda() ? torch::Device(torch::kCPU) : device;
#endif
}

class trainer {
 public:
  explicit trainer(settings const& s)
      : settings_(s),
        device_(s.device),
        place_(place_of_losses(device_)),
        images_(demo::read_images(s.data, "train", s.images)),
        order_(images_.count, s.batch, s.seed),
        levels_(addloss::cosine_schedule()),
        schedule_(levels_, place_),
        objective_{.lambda = 2.5, .penalty = {.gamma = 1e-4}} {
    torch::manual_seed(s.seed);
    teacher_ = std::make_shared<demo::unet>(s.width);
    student_ = std::make_shared<demo::unet>(s.width);
    std::vector<addloss::head_settings> heads;
    for (std::int64_t const channels : {s.width, 2 * s.width}) {
      heads.push_back({.channels = channels, .condition_sizes = {demo::class_count}});
    }
    heads_ = std::make_shared<addloss::torch_heads<>>(heads, s.seed);
    heads_->to(place_);
    teacher_->to(device_);
    student_->to(device_);
    teacher_optimiser_ = adam(*teacher_, s.rate);
    student_optimiser_ = adam(*student_, s.student_rate);
    heads_optimiser_ = adam(*heads_, s.rate);
    std::filesystem::create_directories(s.out);
    if (s.resume) load();
  }

  void run() {
    std::int64_t const end = settings_.teacher_steps + settings_.steps;
    for (; step_ < end; ++step_) {
      next_batch();
      if (step_ < settings_.teacher_steps) {
        teacher_step();
      } else {
        if (step_ == settings_.teacher_steps) start_student();
        add_step();
      }
      bool const last = step_ + 1 == end;
      if (last || (step_ + 1) % settings_.save_every == 0) {
        save(step_ + 1);
        std::printf("\n");
      }
      std::fflush(stdout);
    }
    draw();
  }

 private:
  using optimiser = std::unique_ptr<torch::optim::Adam>;

  static optimiser adam(torch::nn::Module const& module, double rate) {
    return std::make_unique<torch::optim::Adam>(module.parameters(),
                                                torch::optim::AdamOptions(rate).betas({0.0, 0.99}));
  }

  [[nodiscard]] addloss::random_key key(std::uint32_t stream) const {
    return {settings_.seed, static_cast<std::uint32_t>(step_), stream};
  }

  void next_batch() {
    std::vector<int> labels(static_cast<std::size_t>(settings_.batch));
    real_ = torch::empty({settings_.batch, 1, demo::image_side, demo::image_side});
    demo::gather(images_, order_.at(step_),
                 {real_.data_ptr<float>(), static_cast<std::size_t>(real_.numel())}, labels);
    labels_ = torch::tensor(labels, torch::kLong);
    conditions_ = torch::one_hot(labels_, demo::class_count).to(torch::kFloat).to(place_);
    times_ = torch::empty({settings_.batch}, torch::kLong);
  }

  /// Draws the timesteps of the batch.
  template <class Sampler>
  void draw_times(Sampler const& sampler, std::uint32_t stream) {
    addloss::sample_timesteps(
        sampler, key(stream),
        {times_.data_ptr<std::int64_t>(), static_cast<std::size_t>(times_.numel())});
  }

  /// x_t of images at `times_`, with noise generated on the CPU.
  Tensor noised(Tensor const& images, std::uint32_t stream) {
    Tensor const x_0 = images.to(torch::kCPU).contiguous();
    Tensor x_t = torch::empty_like(x_0);
    addloss::add_noise(ctx(), levels_.table(), addloss::from_torch<float const, 4>(x_0),
                       addloss::from_torch<std::int64_t const, 1>(times_),
                       addloss::normal_noise{key(stream)}, addloss::from_torch<float, 4>(x_t));
    return x_t.to(place_);
  }

  /// v of a network for x_t.
  Tensor predict(demo::unet& network, Tensor const& x_t) {
    return network.forward(x_t.to(device_), times_.to(device_), labels_.to(device_))
        .to(place_)
        .contiguous();
  }

  /// x_0 = alpha x_t - sigma v.
  Tensor to_sample(Tensor const& x_t, Tensor const& v) {
    Tensor alpha = torch::empty({x_t.size(0), 1, 1, 1});
    Tensor sigma = torch::empty_like(alpha);
    for (std::int64_t b = 0; b < x_t.size(0); ++b) {
      auto const level = levels_.table().at(times_[b].item<std::int64_t>());
      alpha[b] = level.alpha;
      sigma[b] = level.sigma;
    }
    return alpha.to(place_) * x_t - sigma.to(place_) * v;
  }

  /// The discriminator's features of images: the teacher's encoder at the first timestep.
  std::vector<Tensor> features(Tensor const& images) {
    auto const start = torch::zeros_like(times_, device_);
    auto maps =
        teacher_->encode(images.to(device_), teacher_->embed(start, labels_.to(device_)).detach());
    return {maps[1].to(place_).contiguous(), maps[2].to(place_).contiguous()};
  }

  void teacher_step() {
    draw_times(addloss::uniform_timesteps{}, 0);
    Tensor const x_t = noised(real_, 1);
    // The images from the prediction, against the real ones.
    Tensor const x_0 = to_sample(x_t, predict(*teacher_, x_t));
    Tensor const loss = addloss::torch_loss::distil(
        addloss::distillation<addloss::snr>{}, schedule_, x_0, real_.to(place_), times_.to(place_));
    update(*teacher_optimiser_, loss);
    std::printf("\rteacher %5lld  loss %.4f", static_cast<long long>(step_ + 1),
                loss.item<double>());
  }

  /// The student begins as the teacher, which does not change from here on.
  void start_student() {
    torch::NoGradGuard const no_grad;
    auto const from = teacher_->parameters();
    auto const to = student_->parameters();
    for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
  }

  void add_step() {
    using namespace addloss;
    for (Tensor& parameter : teacher_->parameters()) parameter.set_requires_grad(false);
    draw_times(student_timesteps::trailing(4), 0);
    Tensor const x_s = noised(real_, 1);
    Tensor const fake = to_sample(x_s, predict(*student_, x_s));
    std::vector<Tensor> const conditions = {conditions_};

    heads_->update_state();
    discriminator_terms terms;
    Tensor const loss_d =
        heads_->discriminator(objective_.adversarial, features(real_), features(fake.detach()),
                              conditions, {.real_penalty = objective_.penalty}, &terms);
    update(*heads_optimiser_, loss_d);

    draw_times(uniform_timesteps{}, 2);
    Tensor const x_t = noised(fake.detach(), 3);
    torch_loss::teacher said{.generated = normal_noise{key(3)}};
    {
      torch::NoGradGuard const no_grad;
      said.conditional = predict(*teacher_, x_t);
    }
    Tensor const distilled = torch_loss::distil(objective_.distillation, v_prediction{}, schedule_,
                                                fake, said, times_.to(place_));
    Tensor const loss_g = heads_->generator(objective_.adversarial, features(fake), conditions);
    update(*student_optimiser_, loss_g + objective_.lambda.get() * distilled);
    std::printf(
        "\rstudent %5lld  adversarial %+.4f  distillation %.5f  discriminator %.4f  R1 %.5f",
        static_cast<long long>(step_ + 1), loss_g.item<double>(), distilled.item<double>(),
        terms.adversarial.item<double>(), terms.penalty.item<double>());
  }

  static void update(torch::optim::Adam& optimiser, Tensor const& loss) {
    optimiser.zero_grad();
    loss.backward();
    optimiser.step();
  }

  /// Ten classes by 1, 2 and 4 steps of the student.
  void draw() {
    torch::NoGradGuard const no_grad;
    labels_ = torch::arange(demo::class_count, torch::kLong);
    std::vector<float> pixels;
    std::vector<std::string> const rows = {"1 step", "2 steps", "4 steps"};
    std::vector<std::string> const columns(demo::class_names.begin(), demo::class_names.end());
    for (std::int64_t const steps : {1, 2, 4}) {
      Tensor x_t = torch::empty({demo::class_count, 1, demo::image_side, demo::image_side});
      Tensor x_0 = torch::empty_like(x_t);
      addloss::sample_few_steps(
          addloss::re_noise{}, ctx(), levels_.table(), addloss::student_timesteps::trailing(steps),
          {settings_.seed, 0, 100},
          [&](auto /*x_t*/, std::int64_t t, auto /*x_0*/) {
            times_ = torch::full({demo::class_count}, t, torch::kLong);
            x_0.copy_(to_sample(x_t.to(place_), predict(*student_, x_t)));
          },
          addloss::from_torch<float, 4>(x_t), addloss::from_torch<float, 4>(x_0));
      pixels.insert(pixels.end(), x_0.data_ptr<float>(), x_0.data_ptr<float>() + x_0.numel());
    }
    auto const path = settings_.out + "/samples.png";
    demo::save_png(path, demo::image_sheet(pixels, rows, columns));
    std::printf("%s\n", path.c_str());
  }

  // Checkpoints: everything that a step depends on, but for the settings.

  /// With the device that its tensors are on.
  template <class Visit>
  void each_part(Visit const& visit) {
    visit("teacher", *teacher_, device_);
    visit("student", *student_, device_);
    visit("heads", *heads_, place_);
    visit("teacher_optimiser", *teacher_optimiser_, device_);
    visit("student_optimiser", *student_optimiser_, device_);
    visit("heads_optimiser", *heads_optimiser_, place_);
  }
  [[nodiscard]] std::string checkpoint() const { return settings_.out + "/checkpoint.pt"; }

  void save(std::int64_t next) {
    torch::serialize::OutputArchive archive;
    archive.write("step", torch::tensor(next, torch::kLong));
    each_part([&](char const* name, auto const& part, torch::Device /*device*/) {
      torch::serialize::OutputArchive one(archive.compilation_unit());
      part.save(one);
      archive.write(name, one);
    });
    // An interruption leaves the old one.
    archive.save_to(checkpoint() + ".new");
    std::filesystem::rename(checkpoint() + ".new", checkpoint());
  }
  void load() {
    each_part([&](char const* name, auto& part, torch::Device device) {
      torch::serialize::InputArchive archive;
      archive.load_from(checkpoint(), device);
      Tensor next;
      archive.read("step", next);
      step_ = next.item<std::int64_t>();
      torch::serialize::InputArchive one;
      archive.read(name, one);
      part.load(one);
    });
  }

  [[nodiscard]] addloss::cpu_context ctx() const { return {.threads = torch::get_num_threads()}; }

  settings settings_;
  torch::Device device_, place_;
  demo::images images_;
  demo::batch_order order_;
  addloss::discrete_schedule levels_;
  addloss::torch_schedule schedule_;
  addloss::add_practical<> objective_;
  std::shared_ptr<demo::unet> teacher_, student_;
  std::shared_ptr<addloss::torch_heads<>> heads_;
  optimiser teacher_optimiser_, student_optimiser_, heads_optimiser_;
  std::int64_t step_ = 0;
  Tensor real_, labels_, conditions_, times_;
};

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Trains a teacher and distils it on Fashion-MNIST, in LibTorch"};
  app.add_option("--teacher-steps", s.teacher_steps, "steps of the teacher")->capture_default_str();
  app.add_option("--steps", s.steps, "steps of the student")->capture_default_str();
  app.add_option("--batch", s.batch, "images a step")->capture_default_str();
  app.add_option("--images", s.images, "training images, at most")->capture_default_str();
  app.add_option("--width", s.width, "channels, a multiple of 8")->capture_default_str();
  app.add_option("--rate", s.rate, "learning rate of teacher and heads")->capture_default_str();
  app.add_option("--student-rate", s.student_rate, "learning rate of the student")
      ->capture_default_str();
  app.add_option("--save-every", s.save_every, "steps between checkpoints")->capture_default_str();
  app.add_option("--seed", s.seed, "of everything random")->capture_default_str();
  app.add_option("--device", s.device, "of the networks: cpu, cuda or cuda:1")
      ->capture_default_str();
  app.add_option("--data", s.data, "folder of the data set")->capture_default_str();
  app.add_option("--out", s.out, "folder to write to")->capture_default_str();
  app.add_flag("--resume", s.resume, "go on from the checkpoint in that folder");
  CLI11_PARSE(app, argc, argv);
  try {
    trainer(s).run();
    return 0;
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
