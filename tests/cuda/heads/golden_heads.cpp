// SPDX-License-Identifier: MIT
#include "cuda/heads/golden_heads.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "safetensors.hpp"

namespace {

/// The files name the weights of the condition "projection".
std::string own_name(std::string name) {
  std::string const theirs = "projection.";
  auto const place = name.find(theirs);
  if (place != std::string::npos) name.replace(place, theirs.size(), "classifier.condition0.");
  return name;
}

}  // namespace

std::vector<golden_head> golden_heads() {
  std::vector<std::string> paths;
  for (auto const& entry : std::filesystem::directory_iterator(ADDLOSS_GOLDEN_HEADS)) {
    paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<golden_head> result;
  for (auto const& path : paths) {
    auto const file = safetensors::read(path);
    auto const params = nlohmann::json::parse(file.metadata.at("params"));
    golden_head head;
    head.name = file.metadata.at("name");
    for (auto const& [name, tensor] : file.tensors) {
      auto const dot = name.find('.') + 1;
      (name.starts_with("in.") ? head.in : head.out)[own_name(name.substr(dot))] = tensor.reals;
    }
    auto const& extents = file.tensors.at("in.features").shape;
    head.shape = {extents.at(0), extents.at(1), extents.at(2)};
    head.settings.channels = params.at("channels");
    head.settings.kernel = params.at("kernel_size");
    if (params.at("condition_dim") > 0)
      head.settings.condition_sizes = {params.at("condition_dim")};
    head.settings.width = params.at("projection_dim");
    head.settings.virtual_batch = params.at("virtual_batch");
    head.settings.norm_epsilon = params.at("norm_epsilon");
    head.settings.negative_slope = params.at("negative_slope");
    head.power_iterations = params.at("power_iterations");
    head.spectral_epsilon = params.at("spectral_epsilon");
    result.push_back(head);
  }
  return result;
}
