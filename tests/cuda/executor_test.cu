// SPDX-License-Identifier: MIT
#include <addloss/cuda.cuh>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "cuda/device_memory.cuh"
#include "error_of.hpp"
#include "storage_types.hpp"

// Not in the unnamed namespace: kernels are named after it.
namespace cuda_executor_test {

/// alpha = sigma = 1/2 at every time.
struct constant_schedule {
  using time_type = std::int64_t;
  static ADDLOSS_HOST_DEVICE addloss::noise_level at(time_type) { return {0.5, 0.5}; }
  static void check(char const*, std::int64_t, time_type) {}
};

template <class = void>
__global__ void nothing() {
  addloss::cuda::wait_for_earlier_kernels();
}

}  // namespace cuda_executor_test

namespace {

using namespace addloss;
using cuda_executor_test::constant_schedule;

using plain = distillation<uniform, squared, sum>;

template <class T>
std::vector<T> numbers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> out(count);
  for (auto& x : out) x = stored_as<T>(static_cast<double>(random()) / 4294967296.0 - 0.25);
  return out;
}

template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Losses of single samples, their sum, and the gradient.
template <class T>
struct outcome {
  std::vector<double> losses;
  std::vector<double> total;
  std::vector<T> gradient;

  bool operator==(outcome const& other) const {
    return same_bits(losses, other.losses) && same_bits(total, other.total) &&
           same_bits(gradient, other.gradient);
  }
};

/// Rows `stride` elements apart, the first of them `offset` elements into its memory.
template <class T>
struct placed_rows {
  std::size_t rows;
  std::size_t size;
  std::int64_t stride;
  std::int64_t first;
  device_array<T> memory;

  placed_rows(std::vector<T> const& dense, std::size_t count, std::size_t row_size,
              std::int64_t row_stride, std::size_t offset)
      : rows(count),
        size(row_size),
        stride(row_stride),
        first(row_stride < 0 ? -row_stride * static_cast<std::int64_t>(count - 1) : 0),
        memory(spread(dense), offset) {}

  [[nodiscard]] std::vector<T> spread(std::vector<T> const& dense) const {
    auto const apart = static_cast<std::size_t>(stride < 0 ? -stride : stride);
    std::vector<T> out(apart * (rows - 1) + size, guard());
    for (std::size_t b = 0; b < rows; ++b) {
      for (std::size_t i = 0; i < size; ++i) out[place(b) + i] = dense[b * size + i];
    }
    return out;
  }
  [[nodiscard]] std::size_t place(std::size_t row) const {
    return static_cast<std::size_t>(first + stride * static_cast<std::int64_t>(row));
  }
  static T guard() { return stored_as<T>(768); }
  [[nodiscard]] auto view() const {
    auto result = addloss::view<device_space>(memory.data() + first, rows, size);
    result.strides[0] = stride;
    return result;
  }
  /// The rows, or nothing where memory between them was written.
  [[nodiscard]] std::vector<T> dense() const {
    auto const all = memory.read();
    std::vector<T> out(rows * size);
    for (std::size_t b = 0; b < rows; ++b) {
      for (std::size_t i = 0; i < size; ++i) out[b * size + i] = all[place(b) + i];
    }
    if (!same_bits(spread(out), all)) out.clear();
    return out;
  }
};

template <class T>
outcome<T> run(device_context const& device, unsigned blocks, std::size_t rows, std::size_t size,
               std::vector<T> const& student, std::vector<T> const& target, std::int64_t stride,
               std::size_t offset) {
  auto const ctx = device.with_blocks(blocks);
  placed_rows<T> const x(student, rows, size, stride, offset);
  placed_rows<T> const y(target, rows, size, stride, offset);
  placed_rows<T> const g(std::vector<T>(rows * size), rows, size, stride, offset);
  device_array<std::int64_t> const t(rows);
  device_array<double> const losses(rows);
  device_array<double> const total(1);
  auto const bound = plain{}(constant_schedule{}, x.view(), y.view(), t.view(rows));
  value_and_grad<per_sample>(ctx, bound, losses.view(rows), g.view());
  value<sum>(ctx, bound, total.scalar());
  return {losses.read(), total.read(), g.dense()};
}

template <class T>
outcome<T> run(device_context const& device, unsigned blocks, std::size_t rows, std::size_t size,
               std::vector<T> const& student, std::vector<T> const& target) {
  return run(device, blocks, rows, size, student, target, static_cast<std::int64_t>(size), 0);
}

/// Sums against long double, and every gradient; differences are rounded to T's arithmetic first.
template <class T>
bool right(outcome<T> const& out, std::size_t rows, std::size_t size, std::vector<T> const& student,
           std::vector<T> const& target) {
  using real = arithmetic_t<T>;
  long double const allowed = std::same_as<real, float> ? 2e-7L : 2e-15L;
  long double total = 0;
  bool good = out.gradient.size() == rows * size;
  for (std::size_t b = 0; good && b < rows; ++b) {
    long double loss = 0;
    for (std::size_t i = b * size; i < (b + 1) * size; ++i) {
      auto const d =
          static_cast<real>(as_double(student[i])) - static_cast<real>(as_double(target[i]));
      loss += static_cast<long double>(d) * static_cast<long double>(d);
      good = good && as_double(out.gradient[i]) ==
                         as_double(stored_as<T>(static_cast<double>(real(2) * d)));
    }
    total += loss;
    good = good && std::abs(static_cast<long double>(out.losses[b]) - loss) <= allowed * loss;
  }
  return good && std::abs(static_cast<long double>(out.total[0]) - total) <= allowed * total;
}

struct shape {
  std::size_t rows;
  std::size_t size;
};

template <class T>
void check_sizes(std::vector<shape> const& shapes) {
  device_context const device(std::size_t{1} << 20);
  for (auto const [rows, size] : shapes) {
    auto const student = numbers<T>(rows * size, 1);
    auto const target = numbers<T>(rows * size, 2);
    auto const one = run<T>(device, 0, rows, size, student, target);
    CAPTURE(rows, size);
    CHECK(right(one, rows, size, student, target));
    for (unsigned const blocks : {1U, 2U, 7U}) {
      CAPTURE(blocks);
      CHECK(run<T>(device, blocks, rows, size, student, target) == one);
    }
  }
}

}  // namespace

TEST_CASE("right, and the same bits for any number of thread blocks") {
  // A warp a row, one and several segments a row, more rows than threads, in groups.
  check_sizes<float>({{1, 1},
                      {3, 70},
                      {9, 512},
                      {20, 2048},
                      {3, 2049},
                      {2, 4096},
                      {2, 40001},
                      {65, 5000},
                      {700, 3}});
  check_sizes<half>({{3, 70}, {9, 4096}, {2, 40001}});
  check_sizes<bfloat16>({{3, 70}, {2, 8193}});
  check_sizes<double>({{3, 70}, {9, 1024}, {2, 20001}, {300, 5}});
}

TEST_CASE("rows of many segments, whose groups are added up before the end") {
  // 2101 steps of 1024, four of which are a segment: 526 entries, in groups of 64.
  static_assert(cuda::row_segments({1, 2100 * 1024 + 7}, 1, 2) == 526 &&
                cuda::group_size(526) == 64);
  check_sizes<double>({{1, 2100 * 1024 + 7}});
}

TEST_CASE("groups of several heads, of unequal sizes") {
  // 6 parts of 130 entries: each has two groups of 64 and one of 2.
  constexpr std::size_t samples = 130;
  static_assert(cuda::group_size(6 * samples) == 64);
  std::vector<std::size_t> const tokens = {5, 1, 7};
  std::vector<std::unique_ptr<device_array<float>>> memory;
  std::vector<addloss::rows<float const, device_space>> logits[2];
  std::vector<double> expected(samples);
  std::vector<double> positive[2];
  for (unsigned side = 0; side < 2; ++side) {
    for (std::size_t k = 0; k < tokens.size(); ++k) {
      auto const numbers_of_head =
          numbers<float>(samples * tokens[k], 10 + side * 3 + static_cast<unsigned>(k));
      double count = 0;
      for (std::size_t i = 0; i < numbers_of_head.size(); ++i) {
        // |z| < 1: the hinge is active.
        double const z = numbers_of_head[i];
        expected[i / tokens[k]] += (side == 0 ? 1 - z : 1 + z) / static_cast<double>(tokens[k]);
        count += z > 0 ? 1 : 0;
      }
      positive[side].push_back(count / static_cast<double>(numbers_of_head.size()));
      memory.push_back(std::make_unique<device_array<float>>(numbers_of_head));
      logits[side].emplace_back(memory.back()->view(samples, tokens[k]));
    }
  }
  double mean_loss = 0;
  for (double const loss : expected) mean_loss += loss / static_cast<double>(samples);

  auto const loss = adversarial<>{}.discriminator<float, device_space>(logits[0], logits[1]);
  device_context const gpu(workspace_bytes(loss));
  std::vector<double> first;
  for (unsigned const blocks : {0U, 1U, 7U}) {
    auto const ctx = gpu.with_blocks(blocks);
    device_array<double> const losses(samples);
    device_array<double> const total(1);
    device_array<head_statistics> const health(tokens.size());
    value<per_sample>(ctx, loss, losses.view(samples),
                      {.statistics = {health.data(), tokens.size()}});
    // An upstream gradient keeps rows apart where one number is written, too.
    device_array<float> const ones(std::vector<float>(samples, 1));
    value(ctx, loss, total.scalar(), {.upstream = ones.view(samples)});
    auto const got = losses.read();
    double difference = 0;
    for (std::size_t b = 0; b < samples; ++b) {
      difference = std::max(difference, std::abs(got[b] - expected[b]));
    }
    CAPTURE(blocks);
    CHECK(difference < 1e-6);
    CHECK(std::abs(total.read()[0] - mean_loss) < 1e-6);
    auto const statistics = health.read();
    for (std::size_t k = 0; k < tokens.size(); ++k) {
      CHECK(statistics[k].real.positive == Approx(positive[0][k]));
      CHECK(statistics[k].fake.positive == Approx(positive[1][k]));
      CHECK(statistics[k].fake.active == 1);
    }
    if (first.empty()) first = got;
    CHECK(same_bits(got, first));
  }
}

namespace {

template <class T>
void check_placement(std::size_t size) {
  constexpr std::size_t rows = 3;
  device_context const device(std::size_t{1} << 16);
  auto const student = numbers<T>(rows * size, 7);
  auto const target = numbers<T>(rows * size, 8);
  auto const length = static_cast<std::int64_t>(size);
  auto const expected = run<T>(device, 0, rows, size, student, target, length + 16, 0);
  REQUIRE(right(expected, rows, size, student, target));
  for (std::size_t const offset : {0, 1, 2, 5}) {
    for (std::int64_t const stride : {length, length + 1, -(length + 3), -(length + 64)}) {
      CAPTURE(sizeof(T), size, offset, stride);
      CHECK(run<T>(device, 0, rows, size, student, target, stride, offset) == expected);
    }
  }
}

}  // namespace

TEST_CASE("the same bits at any address and stride; what lies between rows stays as it was") {
  for (std::size_t const size : {5, 700, 2100, 9000}) {
    check_placement<float>(size);
    check_placement<half>(size);
    check_placement<double>(size);
  }
}

TEST_CASE("the example of the README") {
  constexpr int B = 2, C = 3, H = 4, W = 5;
  std::size_t const count = B * C * H * W;
  device_schedule const table(scaled_linear_schedule());
  device_array<float> const images[] = {
      device_array(std::vector<float>(count, 3)), device_array(std::vector<float>(count, 2)),
      device_array<float>(count), device_array<float>(count), device_array<float>(1)};
  device_array<std::int64_t> const times(B);
  device_array<random_key> const keys(1);
  auto const* const levels = table.table().levels;
  auto const* const t = times.data();
  auto const* const key = keys.data();
  auto const* const student = images[0].data();
  auto const* const target = images[1].data();
  auto* const x_t = images[2].data();
  auto* const gradient = images[3].data();
  auto* const loss = images[4].data();
  cudaStream_t const stream = nullptr;
  // [gpu]
  // All pointers lead to memory of the GPU: noise_level* levels, std::int64_t* t, random_key* key.
  schedule_table<device_space> const schedule{levels, 1000};
  auto const times_of_batch = view<device_space>(t, B);
  auto const images_of_student = view<device_space>(student, B, C, H, W);
  auto const distilled = distillation<>{}(schedule, images_of_student,
                                          view<device_space>(target, B, C, H, W), times_of_batch);

  cuda_context ctx{.stream = stream, .bytes = workspace_bytes(distilled)};
  cudaMalloc(&ctx.workspace, ctx.bytes);
  zero_workspace(ctx);

  add_noise(ctx, schedule, images_of_student, times_of_batch, normal_noise_at{key},
            view<device_space>(x_t, B, C, H, W));
  value_and_grad(ctx, distilled, view<device_space>(loss),
                 view<device_space>(gradient, B, C, H, W));
  // [gpu]
  auto const alpha = static_cast<float>(scaled_linear_schedule().at(0).alpha);
  CHECK(images[4].read()[0] == Approx(alpha));
  CHECK(images[3].read()[7] == Approx(2 * alpha / count));
  CHECK(images[2].read()[7] == Approx(3 * alpha).margin(0.2));
  cudaFree(ctx.workspace);
}

TEST_CASE("a thousand calls give the same bits, and leave the workspace ready") {
  constexpr std::size_t rows = 3;
  constexpr std::size_t size = 5000;
  auto const student = numbers<float>(rows * size, 3);
  auto const target = numbers<float>(rows * size, 4);
  placed_rows<float> const x(student, rows, size, size, 0);
  placed_rows<float> const y(target, rows, size, size, 0);
  device_array<std::int64_t> const t(rows);
  device_context const device(4096);
  auto const bound = plain{}(constant_schedule{}, x.view(), y.view(), t.view(rows));
  device_array<double> const total(1);
  value(device(), bound, total.scalar());
  auto const first = total.read();
  int wrong = 0;
  for (int i = 0; i < 1000; ++i) {
    cudaMemset(total.data(), 0, sizeof(double));
    value(device(), bound, total.scalar());
    wrong += same_bits(total.read(), first) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("calls read what those before them wrote, whether they are started early or not") {
  // A few blocks, and more than a GPU holds.
  for (auto const& [rows, size] : {std::pair<std::size_t, std::size_t>{1, 3000}, {9000, 70}}) {
    auto const run_chain = [rows, size](bool overlap) {
      device_array<float> const x(numbers<float>(rows * size, 1));
      device_array<float> const y(numbers<float>(rows * size, 2));
      device_array<float> const noise(numbers<float>(rows * size, 3));
      device_array<std::int64_t> const t(rows);
      device_array<double> const total(1);
      device_context const device(1 << 18);
      auto ctx = device();
      ctx.overlap = overlap;
      std::vector<double> values;
      for (int i = 0; i < 6; ++i) {
        // Each writes what the next one reads, and reads what the next one overwrites.
        add_noise(ctx, constant_schedule{}, x.view(rows, size), t.view(rows),
                  noise.view(rows, size), y.view(rows, size));
        value_and_grad(
            ctx,
            plain{}(constant_schedule{}, y.view(rows, size), noise.view(rows, size), t.view(rows)),
            total.scalar(), x.view(rows, size));
        add_noise(ctx, constant_schedule{}, x.view(rows, size), t.view(rows), y.view(rows, size),
                  noise.view(rows, size));
        if (i % 3 == 2) values.push_back(total.read()[0]);
      }
      return std::pair(values, noise.read());
    };
    auto const early = run_chain(true);
    auto const late = run_chain(false);
    CAPTURE(rows, size);
    CHECK(same_bits(early.first, late.first));
    CHECK(same_bits(early.second, late.second));
    CHECK(std::isfinite(early.first.back()));
  }
}

// --- what is read from memory when a call runs ---------------------------------------------------

TEST_CASE("timesteps, upstream weights and the noise's key are read from memory") {
  constexpr std::size_t rows = 3;
  constexpr std::size_t size = 700;
  auto const schedule = scaled_linear_schedule();
  device_schedule const levels(schedule);
  auto const x = numbers<float>(rows * size, 5);
  device_array<float> const x0(x);
  device_array<float> const out(rows * size);
  device_array<std::int64_t> t(std::vector<std::int64_t>{10, 420, 900});
  random_key const first{.seed = 5, .step = 1, .stream = 2, .first_sample = 3};
  device_array<random_key> key(std::vector<random_key>{first});
  device_context const device(4096);
  auto const replay = [&] {
    add_noise(device(), levels.table(), x0.view(rows, size), t.view(rows),
              normal_noise_at{key.data()}, out.view(rows, size));
    return out.read();
  };
  auto const by_value = [&](random_key const& k) {
    add_noise(device(), levels.table(), x0.view(rows, size), t.view(rows), normal_noise{k},
              out.view(rows, size));
    return out.read();
  };
  auto const one = replay();
  CHECK(same_bits(one, by_value(first)));
  random_key next = first;
  ++next.step;
  key.write({next});
  auto const two = replay();
  CHECK_FALSE(same_bits(one, two));
  CHECK(same_bits(two, by_value(next)));
  t.write({999, 5, 77});
  auto const three = replay();
  CHECK_FALSE(same_bits(two, three));
  CHECK(same_bits(three, by_value(next)));

  // A loss on teacher's predictions, with weights of the samples.
  device_array<float> upstream(std::vector<float>{1, 0, -2});
  device_array<float> const conditional(numbers<float>(rows * size, 6));
  teacher_predictions<float, device_space> const teacher{
      .noise = normal_noise_at{key.data()}, .conditional = conditional.view(rows, size)};
  auto const bound = distillation<>{}.from_teacher(v_prediction{}, levels.table(),
                                                   x0.view(rows, size), teacher, t.view(rows));
  device_array<double> const losses(rows);
  auto const step = [&] {
    value_and_grad<per_sample>(device(), bound, losses.view(rows), out.view(rows, size),
                               {.upstream = upstream.view(rows)});
    return out.read();
  };
  auto const weighted = step();
  auto const values = losses.read();
  CHECK(weighted[size] == 0);
  CHECK(weighted[0] != 0);
  upstream.write({2, 1, -2});
  auto const again = step();
  CHECK(again[0] == 2 * weighted[0]);
  CHECK(again[size] != 0);
  CHECK(same_bits(losses.read(), values));
  key.write({first});
  static_cast<void>(step());
  CHECK_FALSE(same_bits(losses.read(), values));
}

TEST_CASE("a timestep outside the table gives NaN in its own sample") {
  constexpr std::size_t rows = 3;
  constexpr std::size_t size = 70;
  device_schedule const levels(scaled_linear_schedule());
  device_array<float> const x(numbers<float>(rows * size, 5));
  device_array<float> const y(numbers<float>(rows * size, 6));
  device_array<float> const g(rows * size);
  device_array<double> const losses(rows);
  device_array<std::int64_t> const t(std::vector<std::int64_t>{10, 1000, -1});
  device_context const device(4096);
  value_and_grad<per_sample>(
      device(),
      distillation<>{}(levels.table(), x.view(rows, size), y.view(rows, size), t.view(rows)),
      losses.view(rows), g.view(rows, size));
  auto const values = losses.read();
  auto const gradient = g.read();
  CHECK(std::isfinite(values[0]));
  CHECK(std::isnan(values[1]));
  CHECK(std::isnan(values[2]));
  for (std::size_t i = 0; i < rows * size; ++i) REQUIRE(std::isnan(gradient[i]) == (i >= size));
}

TEST_CASE("sum, count, statistics and the number of non-finite elements are written on the GPU") {
  constexpr std::size_t rows = 4;
  auto logits = numbers<float>(rows * 9, 8);
  logits[7] = std::numeric_limits<float>::quiet_NaN();
  device_array<float> const fake(logits);
  std::vector<addloss::rows<float const, device_space>> const heads = {fake.view(rows, 9)};
  device_array<sum_and_count<double>> const totals(1);
  device_array<std::int64_t> const bad(1);
  device_array<head_statistics> const health(1);
  device_context const device(4096);
  auto const bound = adversarial<>{}.generator<float, device_space>(heads);
  value<sum>(device(), bound, totals.data(),
             {.non_finite = bad.data(), .statistics = {health.data(), 1}});
  CHECK(totals.read()[0].count == 4);
  CHECK(std::isnan(totals.read()[0].sum));
  CHECK(bad.read()[0] == 1);
  CHECK(health.read()[0].fake.non_finite == 1);
  CHECK(health.read()[0].fake.positive > 0.5);
}

// --- errors --------------------------------------------------------------------------------------

namespace {

struct call {
  static constexpr std::size_t rows = 2;
  static constexpr std::size_t size = 70;
  device_array<float> x{numbers<float>(rows * size, 1)};
  device_array<float> y{numbers<float>(rows * size, 2)};
  device_array<float> g{std::vector<float>(rows * size, 768)};
  device_array<std::int64_t> t{rows};
  device_array<double> total{std::vector<double>{768}};

  [[nodiscard]] auto bound() const {
    return plain{}(constant_schedule{}, x.view(rows, size), y.view(rows, size), t.view(rows));
  }
  [[nodiscard]] std::string refusal(cuda_context const& ctx) const {
    auto const text =
        error_of([&] { value_and_grad(ctx, bound(), total.scalar(), g.view(rows, size)); });
    bool clean = total.read()[0] == 768;
    for (float const number : g.read()) clean = clean && number == 768;
    return clean ? text : "written in spite of: " + text;
  }
};

}  // namespace

TEST_CASE("a workspace that is missing, too small or not aligned is refused") {
  call const c;
  std::size_t const bytes = workspace_bytes(c.bound());
  CHECK(bytes == cuda::workspace_header + 2 * 3 * 8);
  device_context const good(bytes);
  CHECK(c.refusal(good()) == "written in spite of: no error");
  call const d;
  auto small = good();
  small.bytes = bytes - 1;
  CHECK(d.refusal(small) == "cuda_context: workspace (expected at least 576 bytes, got 575)");
  auto missing = good();
  missing.workspace = nullptr;
  CHECK(d.refusal(missing) ==
        "cuda_context: workspace (expected at least 576 bytes, got a null pointer)");
  auto shifted = good();
  shifted.workspace = static_cast<unsigned char*>(shifted.workspace) + 8;
  CHECK(d.refusal(shifted) ==
        "cuda_context: workspace (expected an address divisible by 16, got one that is 8 bytes "
        "beyond)");
}

TEST_CASE("more pieces of work than 32 bits count are refused") {
  call const c;
  auto one_logit = c.x.view(std::int64_t{1} << 32, 1);
  one_logit.strides[0] = 0;
  rows<float const, device_space> const heads[] = {one_logit};
  device_context const device(4096);
  CHECK(error_of([&] {
          value(device(), adversarial<>{}.discriminator<float, device_space>(heads, heads),
                c.total.scalar());
        }) == "cuda_context: extents (expected at most 4294967295 pieces of work, got 8589934592)");
  CHECK(c.total.read()[0] == 768);
}

TEST_CASE("no workspace is needed where nothing is summed") {
  call const c;
  add_noise(cuda_context{}, constant_schedule{}, c.x.view(2, 70), c.t.view(2), c.y.view(2, 70),
            c.g.view(2, 70));
  auto const x = c.x.read();
  auto const y = c.y.read();
  auto const out = c.g.read();
  for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == Approx(0.5F * (x[i] + y[i])));
}

TEST_CASE("no term of an objective runs where the workspace of another is too small") {
  call const c;
  // The distillation term needs more than the logits'.
  device_array<float> const logits(numbers<float>(4, 3));
  device_array<float> const logits_gradient(std::vector<float>(4, 768));
  std::vector<rows<float const, device_space>> const fake = {logits.view(2, 2)};
  std::vector<rows<float, device_space>> const out = {logits_gradient.view(2, 2)};
  add_practical<> const objective;
  device_array<float> const student(numbers<float>(2 * 9000, 4));
  auto const distilled = objective.distillation(constant_schedule{}, student.view(2, 9000),
                                                student.view(2, 9000), c.t.view(2));
  auto const bound = objective.student<float>(fake, distilled);
  std::size_t const bytes = workspace_bytes(bound);
  CHECK(bytes > workspace_bytes(objective.adversarial.generator<float, device_space>(fake)));
  CHECK(bytes == workspace_bytes(distilled));
  CHECK(workspace_bytes(bound, c.bound()) == bytes);
  device_context const device(bytes);
  auto small = device();
  small.bytes -= 8;
  auto const text =
      error_of([&] { value_and_grad(small, bound, c.total.scalar(), {.logits = {.fake = out}}); });
  CHECK(text.starts_with("cuda_context: workspace (expected at least "));
  CHECK(logits_gradient.read()[0] == 768);
  value_and_grad(device(), bound, c.total.scalar(), {.logits = {.fake = out}});
  CHECK(logits_gradient.read()[0] != 768);
}

TEST_CASE("a noise's key that is missing is refused, and so are empty tensors and other shapes") {
  call const c;
  CHECK(error_of([&] {
          add_noise(cuda_context{}, constant_schedule{}, c.x.view(2, 70), c.t.view(2),
                    normal_noise_at{}, c.g.view(2, 70));
        }) == "add_noise: noise (expected a key, got a null pointer)");
  CHECK(error_of([&] {
          add_noise(cuda_context{}, constant_schedule{}, c.x.view(0, 70), c.t.view(2),
                    c.y.view(2, 70), c.g.view(2, 70));
        }) == "add_noise: x0 (expected a batch of at least one sample, got [0,70])");
  CHECK(error_of([&] {
          add_noise(cuda_context{}, constant_schedule{}, c.x.view(2, 70), c.t.view(2),
                    c.y.view(2, 35), c.g.view(2, 70));
        }) == "add_noise: noise (expected the shape of x0, [2,70], got [2,35])");
}

TEST_CASE("nfsd's negative is asked for before it is known whether the timesteps need it") {
  call const c;
  auto const text = [&](auto const& negative) {
    teacher_predictions<float, device_space> const teacher{
        .conditional = c.y.view(2, 70), .unconditional = c.y.view(2, 70), .negative = negative};
    return error_of([&] {
      workspace_bytes(distillation<nfsd>{}.from_teacher(epsilon_prediction{}, constant_schedule{},
                                                        c.x.view(2, 70), teacher, c.t.view(2)));
    });
  };
  CHECK(text(rows<float const, device_space>()) ==
        "workspace_bytes: teacher.negative (expected a tensor, got none)");
  CHECK(text(c.y.view(2, 70)) == "no error");
}

TEST_CASE("a launch that fails is a cuda_error with its code, which is not raised twice") {
  try {
    // More threads than a block can have.
    cuda::launch_kernel<cuda_executor_test::nothing<>>(cuda_context{}, 1, 4096);
    FAIL("no error");
  } catch (cuda_error const& e) {
    CHECK(e.code() != cudaSuccess);
    std::string const text = e.what();
    CHECK(text.starts_with("cuda_context: launch (expected "));
    CHECK(text.find(std::string("got ") + cudaGetErrorName(e.code())) != std::string::npos);
    CHECK(cudaGetLastError() == cudaSuccess);
  }
}

TEST_CASE("an error of a call before ours is neither raised nor cleared") {
  call const c;
  device_context const device(workspace_bytes(c.bound()));
  cudaError_t const before = cudaSetDevice(-1);
  REQUIRE(before != cudaSuccess);
  CHECK(c.refusal(device()) == "written in spite of: no error");
  CHECK(cudaGetLastError() == before);
}
