// SPDX-License-Identifier: MIT
#include "network.hpp"

#include <string>

#include <addloss/heads/safetensors.hpp>

namespace demo {

void save_parameters(std::string const& path, parameters const& network,
                     addloss::safetensors_metadata const& metadata) {
  saved_contents contents;
  contents.add("", network);
  contents.save(path, metadata);
}

addloss::safetensors_metadata load_parameters(std::string const& path, parameters& network) {
  loaded_contents contents;
  contents.add("", network);
  return contents.load(path);
}

}  // namespace demo
