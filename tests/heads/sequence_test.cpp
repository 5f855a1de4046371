// SPDX-License-Identifier: MIT
#include <addloss/heads/sequence.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <addloss/heads/leaky_relu.hpp>
#include <addloss/heads/residual.hpp>

#include "catch.hpp"
#include "error_of.hpp"
#include "heads/check_layer.hpp"
#include "heads/gated.hpp"

namespace {

using namespace addloss;
using layer_checks::guarded;
using layer_checks::numbers;
using layer_checks::passes;

using block = sequence<gated, leaky_relu>;
static_assert(layer<block, float> && layer<block, double>);
static_assert(layer<residual<block>, float> && layer<residual<block>, double>);
static_assert(layer<sequence<leaky_relu>, float>);
static_assert(layer<sequence<block, residual<block>, gated>, double>);
static_assert(!layer<named<gated>, float>);
static_assert(std::same_as<decltype(sequence(named("a", gated{1, 1}), leaky_relu{})),
                           sequence<gated, leaky_relu>>);

/// Of the form of a StyleGAN-T head: every way to nest layers, and a condition.
auto small_head(std::int64_t channels, std::int64_t condition_size) {
  auto const conv = [&] {
    return sequence(named("conv", gated{channels, channels}), leaky_relu{});
  };
  return sequence(named("first", conv()), named("second", residual{conv()}),
                  named("out", gated{channels, 2, condition_size}));
}

template <class Item>
std::int64_t last_condition(Item const& l) {
  auto const sizes = l.condition_sizes();
  return sizes.empty() ? 0 : sizes.back();
}

}  // namespace

TEST_CASE("a sequence is a layer") {
  auto const check = [](auto const& s, feature_shape shape) {
    check_layer<float>(s, shape);
    check_layer<double>(s, shape);
    check_float(s, s, shape);
  };
  check(sequence(leaky_relu{}), {2, 3, 5});
  check(sequence(gated{3, 2, 1}), {2, 3, 5});
  check(sequence(gated{3, 5}, gated{5, 2}), {2, 3, 4});
  check(sequence(leaky_relu{}, gated{2, 6}, leaky_relu{}, gated{6, 1}, leaky_relu{-0.5}),
        {2, 2, 3});
  check(sequence(gated{3, 4, 2}, leaky_relu{}, gated{4, 2, 2}), {3, 3, 3});
  check(sequence(sequence(gated{2, 3}, leaky_relu{}), sequence(leaky_relu{}, gated{3, 2})),
        {1, 2, 4});
  check(residual{sequence(gated{3, 2}, leaky_relu{}, gated{2, 3})}, {2, 3, 4});
  check(small_head(3, 2), {2, 3, 4});
  // Gradients of the last pass: over the outputs behind, in the workspace where those are too
  // small, next to one that is there; layers in place and ones that change y_bar side by side.
  check(sequence(gated{2, 3}, gated{3, 3}, gated{3, 3}, gated{3, 2}), {2, 2, 3});
  check(sequence(gated{2, 17}, gated{17, 9}, gated{9, 2}, gated{2, 1}), {1, 2, 3});
  check(sequence(gated{3, 3}, gated{3, 3}, leaky_relu{}, gated{3, 3}, gated{3, 3}), {2, 3, 3});
  check(sequence(gated{3, 3}, leaky_relu{}, leaky_relu{-0.5}, gated{3, 3}), {2, 3, 3});
  check(sequence(residual{gated{3, 3}}, leaky_relu{}, residual{gated{3, 3}}, residual{gated{3, 3}},
                 leaky_relu{}, gated{3, 1}),
        {2, 3, 3});
  check(residual{sequence(gated{3, 3}, residual{sequence(gated{3, 3}, leaky_relu{})})}, {2, 3, 4});
}

TEMPLATE_TEST_CASE("a sequence gives the same bits on several threads", "", float, double) {
  check_threads<TestType>(
      sequence(leaky_relu{}, residual{sequence(residual{leaky_relu{-0.5}}, gated{8, 8, 3})}),
      {6, 8, 1031});
}

TEST_CASE("a sequence is its layers, one after the other") {
  gated const first{3, 4};
  gated const second{4, 2, 5};
  sequence const both(first, leaky_relu{}, second);
  feature_shape const shape{2, 3, 5};
  feature_shape const middle{2, 4, 5};
  REQUIRE(both.output_shape("f", shape) == feature_shape{2, 2, 5});
  passes<double, std::decay_t<decltype(both)>> whole(both, shape, 1);
  passes<double, gated> a(first, shape, 1);
  passes<double, leaky_relu> relu(both.get<1>(), middle, 1);
  passes<double, gated> b(second, middle, 1);
  auto const w = whole.w.content();
  a.w = guarded<double>(numbers<double>(w.begin(), w.begin() + 16));
  b.w = guarded<double>(numbers<double>(w.begin() + 16, w.end()));
  relu.x = guarded<double>(a.forward());
  b.x = guarded<double>(relu.forward());
  CHECK(whole.forward() == b.forward());

  relu.y_bar = guarded<double>(b.backward(b.y_bar).x_bar);
  a.y_bar = guarded<double>(relu.backward(relu.y_bar).x_bar);
  CHECK(whole.backward(whole.y_bar).x_bar == a.backward(a.y_bar).x_bar);

  relu.x_dot = guarded<double>(a.tangent());
  b.x_dot = guarded<double>(relu.tangent());
  CHECK(whole.tangent() == b.tangent());

  // What the layers keep, and two outputs of 40 numbers between them, but one gradient: the leaky
  // ReLU's is made again. The larger workspace, and one gradient, that the last layer gives. Each
  // begins at a multiple of 16 numbers.
  auto const whole_lines = [](std::int64_t count) { return (count + 15) / 16 * 16; };
  layer_sizes const sizes = both.sizes(shape);
  layer_sizes const of_first = first.sizes(shape);
  layer_sizes const of_second = second.sizes(middle);
  CHECK(sizes.saved == whole_lines(of_first.saved) + whole_lines(of_second.saved) + 2 * 48);
  CHECK(sizes.saved_bar == whole_lines(of_first.saved_bar) + whole_lines(of_second.saved_bar) + 48);
  CHECK(sizes.saved_dot ==
        whole_lines(of_first.saved_dot) + whole_lines(of_second.saved_dot) + 2 * 48);
  CHECK(sizes.workspace == of_first.workspace + 48);
}

TEST_CASE("NaN in a sequence reaches what depends on it and nothing else") {
  auto const head = small_head(3, 2);
  feature_shape const shape{2, 3, 4};
  passes<double, std::decay_t<decltype(head)>> run(head, shape, 1);
  run.x.values()[7] = std::numeric_limits<double>::quiet_NaN();  // sample 0, token 3
  auto const check = [](numbers<double> const& out) {
    for (std::size_t n = 0; n < out.size(); ++n) {
      CHECK(std::isnan(out[n]) == (n < out.size() / 2 && n % 4 == 3));
    }
  };
  check(run.forward());
  check(run.tangent());
  check(run.backward(run.y_dot_bar).x_bar);
  auto const second = run.tangent_backward();
  check(second.x_bar);
  CHECK(std::isnan(second.w_bar[0]));
}

TEST_CASE("a sequence reads the conditions of its layers") {
  CHECK(last_condition(sequence(leaky_relu{}, gated{1, 1})) == 0);
  CHECK(last_condition(sequence(gated{1, 1, 3}, leaky_relu{})) == 3);
  CHECK(last_condition(sequence(gated{1, 1, 3}, gated{1, 1, 3}, gated{1, 1})) == 3);
  CHECK(last_condition(small_head(3, 5)) == 5);
  auto const copy = small_head(3, 6);
  auto const moved = copy;
  CHECK(last_condition(moved) == 6);
}

TEST_CASE("a sequence refuses layers that read conditions of different sizes") {
  auto const refusal = [](auto const& layer) {
    return error_of([&] { (void)layer.output_shape("head", {2, 1, 3}); });
  };
  CHECK(refusal(sequence(gated{1, 1, 3}, leaky_relu{}, gated{1, 1}, gated{1, 1, 3})) == "no error");
  CHECK(refusal(sequence(gated{1, 1, 3}, leaky_relu{}, gated{1, 1, 4})) ==
        "head: conditions (expected sizes [3], got sizes [4])");
  CHECK(refusal(sequence(sequence(gated{1, 1, 2}), gated{1, 1, 1})) ==
        "head: conditions (expected sizes [2], got sizes [1])");
}

TEST_CASE("a sequence names its parameters") {
  auto const head = small_head(3, 2);
  char const* const names[] = {
      "first.conv.weight", "first.conv.bias", "second.conv.weight", "second.conv.bias",
      "out.weight",        "out.bias",        "out.gate",
  };
  auto const copy = head;
  REQUIRE(copy.parameters() == 7);
  std::int64_t offset = 0;
  for (int i = 0; i < 7; ++i) {
    auto const part = copy.parameter(i);
    CHECK(std::string(part.name) == names[i]);
    CHECK(part.offset == offset);
    offset += part.size();
  }
  CHECK(offset == copy.parameter_count());
  CHECK(copy.parameter(4).rank == 2);
  // Without names: positions.
  sequence const plain(leaky_relu{}, gated{2, 3}, named("b", gated{3, 1}));
  CHECK(std::string(plain.parameter(0).name) == "1.weight");
  CHECK(std::string(plain.parameter(2).name) == "b.weight");
  CHECK(plain.parameter(2).offset == 9);
  for (int i : {-1, 4}) {
    CHECK(error_of([&] { (void)plain.parameter(i); }) ==
          "sequence::parameter: i (expected 0 to 3, got " + std::to_string(i) + ")");
  }
}

TEST_CASE("a name lives in the sequence, not where it came from") {
  std::string name = "conv";
  sequence const s(named(name.c_str(), gated{1, 1}));
  name = "gone";
  CHECK(std::string(s.parameter(0).name) == "conv.weight");
}

TEST_CASE("a sequence refuses what its layers refuse, and names that are too long") {
  sequence const s(gated{3, 4}, gated{5, 1});
  auto const shape_error = [&](feature_shape shape) {
    return error_of([&] { (void)s.output_shape("head", shape); });
  };
  CHECK(shape_error({1, 2, 1}) == "head: x (expected 3 channels, got 2)");
  CHECK(shape_error({1, 3, 1}) == "head: x (expected 5 channels, got 4)");
  // ".weight" and ".bias" and two zeros: 14 characters.
  auto const name_error = [](std::size_t length) {
    std::string const name(length, 'x');
    return error_of([&] { sequence(named(name.c_str(), gated{1, 1}), leaky_relu{}); });
  };
  CHECK(name_error(505) == "no error");
  CHECK(name_error(506).starts_with(
      "sequence: name (expected at most 1024 characters for the names of all parameters, got 1026 "
      "up to xxx"));
}
