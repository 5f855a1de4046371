// SPDX-License-Identifier: MIT
/// A small U-Net for images [B, 1, 28, 28] with a timestep and a class: teacher and student.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace demo {

/// Two normalised convolutions around the embedding of time and class, and a connection past them.
struct residual_block : torch::nn::Module {
  residual_block(std::int64_t in, std::int64_t out, std::int64_t embedding)
      : norm1(register_module("norm1", torch::nn::GroupNorm(8, in))),
        norm2(register_module("norm2", torch::nn::GroupNorm(8, out))),
        conv1(register_module("conv1", convolution(in, out, 3))),
        conv2(register_module("conv2", convolution(out, out, 3))),
        past(register_module("past", convolution(in, out, 1))),
        shift(register_module("shift", torch::nn::Linear(embedding, out))) {}

  static torch::nn::Conv2d convolution(std::int64_t in, std::int64_t out, std::int64_t kernel) {
    return torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, kernel).padding(kernel / 2));
  }
  torch::Tensor forward(torch::Tensor const& x, torch::Tensor const& embedding) {
    torch::Tensor h = conv1(torch::silu(norm1(x)));
    h = h + shift(embedding).unsqueeze(-1).unsqueeze(-1);
    return past(x) + conv2(torch::silu(norm2(h)));
  }

  torch::nn::GroupNorm norm1, norm2;
  torch::nn::Conv2d conv1, conv2, past;
  torch::nn::Linear shift;
};

struct unet : torch::nn::Module {
  static constexpr std::int64_t embedding_size = 64;

  explicit unet(std::int64_t width)
      : classes(register_module("classes", torch::nn::Embedding(10, embedding_size))),
        time(register_module("time", torch::nn::Linear(embedding_size, embedding_size))),
        first(register_module("first", residual_block::convolution(1, width, 3))),
        last(register_module("last", residual_block::convolution(width, 1, 3))) {
    auto const block = [&](char const* name, std::int64_t in, std::int64_t out) {
      return register_module(name, std::make_shared<residual_block>(in, out, embedding_size));
    };
    down1 = block("down1", width, width);
    down2 = block("down2", width, 2 * width);
    middle = block("middle", 2 * width, 2 * width);
    up2 = block("up2", 4 * width, width);
    up1 = block("up1", 2 * width, width);
  }

  /// Its feature maps [B, width, 28, 28], [B, width, 14, 14] and [B, 2 width, 7, 7].
  std::vector<torch::Tensor> encode(torch::Tensor const& x, torch::Tensor const& embedding) {
    torch::Tensor const h0 = first(x);
    torch::Tensor const h1 = down1->forward(torch::avg_pool2d(h0, 2), embedding);
    torch::Tensor const h2 = down2->forward(torch::avg_pool2d(h1, 2), embedding);
    return {h0, h1, h2};
  }

  torch::Tensor embed(torch::Tensor const& timesteps, torch::Tensor const& labels) {
    auto const half = embedding_size / 2;
    auto const frequencies = torch::exp(torch::arange(half, timesteps.device()) *
                                        (-std::log(1e4) / static_cast<double>(half)));
    auto const angles = timesteps.to(torch::kFloat).unsqueeze(1) * frequencies;
    auto const waves = torch::cat({torch::sin(angles), torch::cos(angles)}, 1);
    return torch::silu(time(waves)) + classes(labels);
  }

  torch::Tensor forward(torch::Tensor const& x, torch::Tensor const& timesteps,
                        torch::Tensor const& labels) {
    auto const embedding = embed(timesteps, labels);
    auto const maps = encode(x, embedding);
    auto const twice = [](torch::Tensor const& map) {
      return torch::upsample_nearest2d(map, {2 * map.size(2), 2 * map.size(3)});
    };
    torch::Tensor h = middle->forward(maps[2], embedding);
    h = up2->forward(torch::cat({h, maps[2]}, 1), embedding);
    h = up1->forward(torch::cat({twice(h), maps[1]}, 1), embedding);
    return last(torch::silu(twice(h) + maps[0]));
  }

  torch::nn::Embedding classes;
  torch::nn::Linear time;
  torch::nn::Conv2d first, last;
  std::shared_ptr<residual_block> down1, down2, middle, up2, up1;
};

}  // namespace demo
