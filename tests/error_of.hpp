// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include <addloss/core/error.hpp>

/// The text of the error that a call raises, or "no error".
std::string error_of(auto const& call) {
  try {
    call();
  } catch (addloss::error const& e) {
    return e.what();
  }
  return "no error";
}
