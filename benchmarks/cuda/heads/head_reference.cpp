// SPDX-License-Identifier: MIT
// A unit of its own: nvcc cannot compile the CPU's losses.
#include "head_reference.hpp"

#include <algorithm>

#include <addloss/cpu/executor.hpp>

namespace bench {

expected_step on_cpu(settings const& s, host_step<float> const& narrow, double gamma) {
  host_step<double> host(s);
  std::copy(narrow.parameters.begin(), narrow.parameters.end(), host.parameters.begin());
  std::copy(narrow.state.begin(), narrow.state.end(), host.state.begin());
  std::copy(narrow.real.begin(), narrow.real.end(), host.real.begin());
  std::copy(narrow.fake.begin(), narrow.fake.end(), host.fake.begin());
  std::copy(narrow.condition.begin(), narrow.condition.end(), host.condition.begin());
  cpu_context const ctx;
  expected_step out;
  out.gradients.resize(host.parameters.size());
  std::vector<double> workspace(static_cast<std::size_t>(
      host.stack.discriminator_workspace(shapes_of(s), options_of(gamma))));
  condition<double> const c[] = {{s.condition, host.condition.data(), nullptr}};
  if (s.normalisation == weight_normalisation::spectral) {
    host.stack.update_state(ctx, std::span<double const>(host.parameters), host.state);
  }
  out.result =
      host.stack.discriminator_step(ctx, adversarial<>{}, host.parameters, host.state,
                                    {maps<host_space, double const>(s, host.real.data()), c},
                                    {maps<host_space, double const>(s, host.fake.data()), c},
                                    {out.gradients}, workspace, options_of(gamma));
  return out;
}

}  // namespace bench
