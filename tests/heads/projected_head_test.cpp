// SPDX-License-Identifier: MIT
// The numbers of a whole head are compared with reference cases (goldens/discriminator_head).
#include <addloss/heads/projected_head.hpp>

#include <limits>
#include <string>
#include <vector>

#include <addloss/heads/spectral_weights.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;

using head_type = decltype(projected_head<float>({}));
static_assert(layer<head_type, float>);
static_assert(!layer<head_type, double>);
static_assert(!layer<int, float>);

}  // namespace

TEST_CASE("parameters are named after the layers they belong to") {
  std::vector<float> const values(2 * 5);
  std::vector<condition<float>> const conditions = {{5, values.data(), nullptr}};
  auto const head = projected_head<float>({.channels = 6, .kernel = 3, .width = 4}, conditions);
  std::vector<std::string> names;
  std::int64_t next = 0;
  for (int i = 0; i < head.parameters(); ++i) {
    names.emplace_back(head.parameter(i).name);
    CHECK(head.parameter(i).offset == next);
    next += head.parameter(i).size();
  }
  CHECK(next == head.parameter_count());
  CHECK(names == std::vector<std::string>{
                     "first.conv.weight", "first.conv.bias", "first.norm.weight", "first.norm.bias",
                     "residual.conv.weight", "residual.conv.bias", "residual.norm.weight",
                     "residual.norm.bias", "classifier.weight", "classifier.bias",
                     "classifier.condition0.weight", "classifier.condition0.bias"});
  CHECK(head.output_shape("test", {2, 6, 9}) == feature_shape{2, 1, 9});
}

TEST_CASE("a head without conditions has one logit channel, whatever the width") {
  auto const head = projected_head<double>({.channels = 6, .width = 64});
  CHECK(head.parameter(8).extents[0] == 1);
}

TEST_CASE("shapes that do not fit a head are refused") {
  auto const refuses = [](auto const& head, feature_shape shape) {
    feature_shape out;
    return error_of([&] { out = head.output_shape("discriminate", shape); })
        .starts_with("discriminate: ");
  };
  auto const head = projected_head<float>({.channels = 6});
  CHECK_FALSE(refuses(head, {8, 6, 4}));
  CHECK(refuses(head, {9, 6, 4}));  // two virtual batches do not divide 9
  CHECK(refuses(head, {8, 5, 4}));
  CHECK(refuses(projected_head<float>({.channels = 6, .kernel = 4}), {8, 6, 4}));
  std::vector<condition<float>> const five(5);
  CHECK(error_of([&] { projected_head<float>({.channels = 6}, five); }) ==
        "projected_head: conditions (expected at most 4, got 5)");
}

TEST_CASE("the convolutions of a head are normalised, all other parameters are not") {
  auto const head = projected_head<double>({.channels = 3, .kernel = 3});
  spectral_weights const spectral{head};
  REQUIRE(spectral.weights() == 3);
  CHECK(spectral.state_size() == (3 + 3) + (3 + 9) + (1 + 3));
  std::vector<double> w(static_cast<std::size_t>(head.parameter_count()));
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = 0.25 + 0.5 * static_cast<double>(i % 5);
  std::vector<double> state(static_cast<std::size_t>(spectral.state_size()), 0.5);
  cpu_context const ctx;
  spectral.update(ctx, w.data(), state.data());
  std::vector<double> w_hat(w.size());
  spectral.normalise(ctx, w.data(), state.data(), w_hat.data());
  for (int i = 0; i < head.parameters(); ++i) {
    auto const part = head.parameter(i);
    auto const first = static_cast<std::size_t>(part.offset);
    bool const changed = w_hat[first] != w[first];
    CHECK(changed == (part.rank == 3));
  }
  // With u, v of a rank-1 step taken often enough, sigma of the normalised weight is 1.
  for (int i = 0; i < 100; ++i) spectral.update(ctx, w.data(), state.data());
  spectral.normalise(ctx, w.data(), state.data(), w_hat.data());
  auto const view = spectral.weight(1);
  spectral_norm const norm{view.rows, view.columns};
  CHECK(norm.sigma(ctx, w_hat.data() + head.parameter(view.parameter).offset, state.data() + view.u,
                   state.data() + view.v) == Approx(1).epsilon(1e-12));
}

TEST_CASE("NaN parameters are refused before anything is written") {
  auto const head = projected_head<double>({.channels = 3, .kernel = 3});
  spectral_weights const spectral{head};
  std::vector<double> w(static_cast<std::size_t>(head.parameter_count()), 0.5);
  w[static_cast<std::size_t>(head.parameter(4).offset)] = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> const state(static_cast<std::size_t>(spectral.state_size()), 0.5);
  std::vector<double> out(w.size(), -1);
  CHECK(error_of([&] { spectral.normalise(cpu_context{}, w.data(), state.data(), out.data()); })
            .starts_with("spectral_weights: residual.conv.weight (expected a weight whose sigma is "
                         "finite and not 0, got "));
  CHECK(out == std::vector<double>(w.size(), -1));
}
