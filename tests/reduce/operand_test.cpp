// SPDX-License-Identifier: MIT
#include <addloss/reduce/operand.hpp>

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <addloss/adapters/span.hpp>

#include "catch.hpp"
#include "error_of.hpp"

namespace {

using namespace addloss;
using addloss::detail::store_mode;

using host = tensor_view<float, 2>;
using device = tensor_view<float, 2, device_space>;
using constant = tensor_view<float const, 2>;

// Noise: what can be read as T, or a key; a bare key is too easily something else.
static_assert(std::constructible_from<noise_source<float>, host>);
static_assert(std::constructible_from<noise_source<float>, constant>);
static_assert(std::constructible_from<noise_source<float>, rows<float>>);
static_assert(std::constructible_from<noise_source<float>, rows<float const>>);
static_assert(std::constructible_from<noise_source<float>, normal_noise>);
static_assert(std::constructible_from<noise_source<half>, normal_noise>);
static_assert(std::constructible_from<noise_source<half>, normal_noise_at>);
static_assert(generated_noise<normal_noise> && generated_noise<normal_noise_at>);
static_assert(!generated_noise<random_key>);
static_assert(std::constructible_from<noise_source<float, device_space>, device>);
static_assert(!std::constructible_from<noise_source<float>, device>);
static_assert(!std::constructible_from<noise_source<double>, host>);
static_assert(!std::constructible_from<noise_source<float>, random_key>);
static_assert(!std::constructible_from<noise_source<float>, std::vector<float>>);

// Gradients: what can be written as T, or such a thing in accumulate(...).
static_assert(std::constructible_from<gradient<float>, host>);
static_assert(std::constructible_from<gradient<float>, rows<float>>);
static_assert(std::constructible_from<gradient<float>, std::vector<float>&>);
static_assert(std::constructible_from<gradient<float>, accumulated<float, host_space>>);
static_assert(!std::constructible_from<gradient<float>, constant>);
static_assert(!std::constructible_from<gradient<float>, rows<float const>>);
static_assert(!std::constructible_from<gradient<float>, std::vector<float> const&>);
static_assert(!std::constructible_from<gradient<float>, std::vector<float>>);
static_assert(!std::constructible_from<gradient<float>, device>);
static_assert(!std::constructible_from<gradient<double>, host>);
static_assert(!std::constructible_from<gradient<double>, accumulated<float, host_space>>);
static_assert(!std::constructible_from<gradient<float>, accumulated<float const, host_space>>);

template <class T>
concept noise_of = requires { typename noise_source<T>; };
static_assert(noise_of<half> && noise_of<double> && !noise_of<int> && !noise_of<float const>);

template <class Tensor>
concept accumulates = requires(Tensor&& tensor) { accumulate(static_cast<Tensor&&>(tensor)); };
static_assert(accumulates<host> && accumulates<std::vector<float>&>);
static_assert(!accumulates<std::vector<float>> && !accumulates<int>);

// Kernels hold these by value.
static_assert(std::is_trivially_copyable_v<detail::noise_operand<half>>);
static_assert(std::is_trivially_copyable_v<detail::output_rows<float>>);

}  // namespace

TEST_CASE("noise is stored or generated") {
  float memory[6] = {};
  auto strided = view(memory, 2, 2);
  strided.strides[0] = 4;
  noise_source<float> const stored = strided;
  CHECK_FALSE(stored.generated);
  CHECK_FALSE(stored.operand().generated);
  CHECK(stored.operand().rows.data == memory);
  CHECK(stored.operand().rows.row_stride == 4);
  noise_source<float> const generated = normal_noise{{.seed = 5, .step = 6, .first_sample = 7}};
  CHECK(generated.operand().generated);
  CHECK(generated.operand().noise.key.seed == 5);
  CHECK(generated.operand().noise.key.step == 6);
  CHECK(generated.operand().noise.key.first_sample == 7);
  CHECK(generated.tensor.absent());
  noise_source<float> const none;
  CHECK(none.tensor.absent());
  CHECK_FALSE(none.generated);
}

TEST_CASE("a gradient is absent, overwritten or added to") {
  float memory[6] = {};
  auto strided = view(memory, 2, 2);
  strided.strides[0] = 4;
  CHECK(gradient<float>{}.output().mode == store_mode::none);
  CHECK(gradient<float>{}.output().data == nullptr);
  gradient<float> const written = strided;
  CHECK(written.output().mode == store_mode::overwrite);
  CHECK(written.output().data == memory);
  CHECK(written.output().row_stride == 4);
  gradient<float> const added = accumulate(strided);
  CHECK(added.output().mode == store_mode::add);
  CHECK(added.output().data == memory);
  CHECK(added.output().row_stride == 4);
  // A copy is a copy, not rows made of a gradient.
  gradient<float> const copy = added;
  CHECK(copy.mode == store_mode::add);
}

TEST_CASE("rows as kernels see them") {
  std::vector<double> memory(12);
  rows<double> const written = view(memory.data(), 3, 4);
  detail::stored<double> const read = detail::stored_rows(written);
  CHECK(read.data == memory.data());
  CHECK(read.row_stride == 4);
}

TEST_CASE("stored noise has the shape of the samples, generated noise has any up to 2^34") {
  float memory[12] = {};
  rows<float const> const model = view(memory, 3, 4);
  auto const check = [&](noise_source<float> const& noise, rows<float const> const& of) {
    return error_of([&] { detail::check_noise("f", "noise", noise, "x0", of); });
  };
  CHECK(check(view(memory, 3, 4), model) == "no error");
  CHECK(check(view(memory, 3, 2), model) ==
        "f: noise (expected the shape of x0, [3,4], got [3,2])");
  CHECK(check({}, model) == "f: noise (expected a tensor, got none)");
  CHECK(check(normal_noise{}, model) == "no error");
  random_key const key;
  CHECK(check(normal_noise_at{&key}, model) == "no error");
  CHECK(check(normal_noise_at{}, model) == "f: noise (expected a key, got a null pointer)");
  constexpr std::int64_t limit = std::int64_t{1} << 34;
  CHECK(check(normal_noise{}, view(memory, 1, limit)) == "no error");
  CHECK(check(normal_noise{}, view(memory, 1, limit + 1)) ==
        "f: noise (expected samples of at most 2^34 elements, got 17179869185)");
  normal_noise const last{{.first_sample = 0xfffffffd}};
  CHECK(check(last, model) == "no error");
  CHECK(check(last, view(memory, 4, 3)) ==
        "f: noise (expected at most 3 samples, whose indices fit 32 bits, got 4)");
  constexpr std::int64_t many = std::int64_t{1} << 32;
  CHECK(check(normal_noise_at{&key}, view(memory, many, 1)) == "no error");
  CHECK(
      check(normal_noise_at{&key}, view(memory, many + 1, 1)) ==
      "f: noise (expected at most 4294967296 samples, whose indices fit 32 bits, got 4294967297)");
  // Stored noise has no such limit.
  CHECK(check(view(memory, 1, limit + 1), view(memory, 1, limit + 1)) == "no error");
}
