// SPDX-License-Identifier: MIT
// The steps of a discriminator as a shared library, for compare_with_torch.py: functions that
// Python's ctypes can call. One that throws ends the program with the text of the error.
#include <cstdint>
#include <string_view>

#include "exported.hpp"
#include "head_steps.hpp"

namespace {

struct named_step {
  char const* name;
  bench::step value;
};
constexpr named_step steps[] = {{"logits", bench::step::logits},
                                {"generator", bench::step::generator},
                                {"discriminator", bench::step::discriminator},
                                {"real_side", bench::step::real_side},
                                {"adversarial", bench::step::adversarial}};

bench::step step_of(std::string_view name) {
  for (named_step const& known : steps) {
    if (known.name == name) return known.value;
  }
  addloss::detail::fail("head_library", "step", "a known one", name.data());
}

}  // namespace

EXPORTED char const* head_compiler() { return bench::compiler; }

EXPORTED bench::head_steps* head_create(std::int64_t batch, std::int64_t channels,
                                        std::int64_t length, std::int64_t condition_size,
                                        int threads, int toom_cook, int spectral) noexcept {
  using method = addloss::convolution_method;
  using normalisation = addloss::weight_normalisation;
  return new bench::head_steps(
      {.batch = batch,
       .channels = channels,
       .length = length,
       .condition_size = condition_size,
       .threads = threads,
       .method = toom_cook != 0 ? method::toom_cook : method::direct,
       .normalisation = spectral != 0 ? normalisation::spectral : normalisation::none});
}
EXPORTED void head_destroy(bench::head_steps* steps_of_head) noexcept { delete steps_of_head; }

/// One of the arrays, null for a name that there is not, and the numbers in it.
EXPORTED float* head_array(bench::head_steps const* head, char const* name,
                           std::int64_t* size) noexcept {
  struct {
    char const* name;
    bench::untouched_floats const& floats;
  } const arrays[] = {{"parameters", head->parameters},
                      {"gradients", head->gradients},
                      {"state", head->state},
                      {"real", head->real},
                      {"fake", head->fake},
                      {"feature_gradients", head->feature_gradients},
                      {"condition", head->condition},
                      {"logits", head->logits}};
  for (auto const& array : arrays) {
    if (array.name != std::string_view(name)) continue;
    *size = static_cast<std::int64_t>(array.floats.size());
    return array.floats.data();
  }
  return nullptr;
}

EXPORTED int head_parameters(bench::head_steps const* head) noexcept {
  return head->stack().parameters();
}
/// The name of part i of the parameters, where it begins and how long it is.
EXPORTED char const* head_parameter(bench::head_steps const* head, int i, std::int64_t* offset,
                                    std::int64_t* size) noexcept {
  addloss::parameter_view const part = head->stack().parameter(i);
  *offset = part.offset;
  *size = part.size();
  return part.name;
}

/// Runs a step; its loss.
EXPORTED double head_run(bench::head_steps* head, char const* name, double gamma) noexcept {
  return head->run(step_of(name), gamma);
}
EXPORTED void head_update_state(bench::head_steps* head) noexcept { head->update_state(); }
EXPORTED std::int64_t head_workspace_bytes(bench::head_steps const* head,
                                           char const* name) noexcept {
  return head->workspace_bytes(step_of(name));
}
