// SPDX-License-Identifier: MIT
#include <addloss/cpu/executor.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <vector>

#include <addloss/adapters/span.hpp>
#include <addloss/addloss.hpp>
#include <addloss/losses/distillation.hpp>
#include <addloss/losses/evaluate.hpp>
#include <addloss/weighting/uniform.hpp>

#include "catch.hpp"
#include "count_allocations.hpp"

namespace {

using addloss::cpu_context;
using addloss::per_sample;
using addloss::sum;
using addloss::view;

constexpr std::size_t never = std::numeric_limits<std::size_t>::max();

/// alpha = sigma = 1/2 at every time.
struct constant_schedule {
  using time_type = std::int64_t;
  static addloss::noise_level at(time_type) { return {0.5, 0.5}; }
  static void check(char const*, std::int64_t, time_type) {}
};

using plain = addloss::distillation<addloss::uniform, addloss::squared, sum>;

template <class T>
std::vector<T> numbers(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> out(count);
  for (auto& x : out) x = static_cast<T>(random()) / static_cast<T>(4294967296.0) - T(0.25);
  return out;
}

template <class T>
struct outcome {
  std::vector<double> losses;
  double total = 0;
  std::vector<T> gradient;

  bool operator==(outcome const& other) const {
    return total == other.total && losses == other.losses &&
           std::memcmp(gradient.data(), other.gradient.data(), gradient.size() * sizeof(T)) == 0;
  }
};

template <class T>
outcome<T> run(cpu_context const& ctx, std::size_t rows, std::size_t size,
               std::vector<T> const& student, std::vector<T> const& target) {
  std::vector<std::int64_t> const t(rows, 1);
  outcome<T> out;
  out.losses.resize(rows);
  out.gradient.resize(rows * size);
  auto const bound = plain{}(constant_schedule{}, view(student.data(), rows, size),
                             view(target.data(), rows, size), t);
  addloss::value_and_grad<per_sample>(ctx, bound, out.losses,
                                      view(out.gradient.data(), rows, size));
  addloss::value<sum>(ctx, bound, out.total);
  return out;
}

/// Sums against long double, and every gradient. The differences themselves are rounded to T first:
/// the error that is measured is that of squaring and summing.
template <class T>
bool right(outcome<T> const& out, std::size_t rows, std::size_t size, std::vector<T> const& student,
           std::vector<T> const& target) {
  // A few elements do not average out the rounding of each.
  long double const allowed = (std::same_as<T, float> ? 1e-7L : 1e-14L) * (size < 100 ? 2 : 1);
  long double total = 0;
  bool good = true;
  for (std::size_t b = 0; b < rows; ++b) {
    long double loss = 0;
    for (std::size_t i = b * size; i < (b + 1) * size; ++i) {
      T const d = student[i] - target[i];
      loss += static_cast<long double>(d) * static_cast<long double>(d);
      good = good && out.gradient[i] == 2 * d;
    }
    total += loss;
    good = good && std::abs(static_cast<long double>(out.losses[b]) - loss) <= allowed * loss;
  }
  return good && std::abs(static_cast<long double>(out.total) - total) <= allowed * total;
}

template <class T>
void check_sizes() {
  struct shape {
    std::size_t rows;
    std::size_t size;
  };
  constexpr auto many = static_cast<std::size_t>(addloss::detail::parallel_elements);
  std::vector<shape> const shapes = {
      {1, many - 1}, {1, many},   {1, many + 1},  {1, 2 * many + 3}, {2, many / 2},
      {3, many / 3}, {63, 700},   {64, 512},      {65, 512},         {66, 3001},
      {200, 200},    {129, 2048}, {7, 16 * 2048}, {5, 17 * 2048 + 5}};
  for (auto const [rows, size] : shapes) {
    auto const student = numbers<T>(rows * size, 1);
    auto const target = numbers<T>(rows * size, 2);
    auto const one = run<T>(cpu_context{1, never}, rows, size, student, target);
    CAPTURE(rows, size);
    CHECK(right(one, rows, size, student, target));
    for (int const threads : {1, 2, 3, 7}) {
      for (std::size_t const streaming : {std::size_t{0}, never}) {
        CAPTURE(threads, streaming);
        CHECK(run<T>(cpu_context{threads, streaming}, rows, size, student, target) == one);
      }
    }
  }
}

/// Rows that start at any address, with a stride, and guards around what is written.
template <class T>
void check_placement(std::size_t offset, std::int64_t stride, std::size_t size,
                     std::size_t streaming) {
  constexpr std::size_t rows = 3;
  auto const dense_student = numbers<T>(rows * size, 7);
  auto const dense_target = numbers<T>(rows * size, 8);
  auto const expected = run<T>({}, rows, size, dense_student, dense_target);
  auto const span = rows * static_cast<std::size_t>(std::abs(stride)) + size + 32;
  T const guard = T(12345);
  std::vector<T> student(span, guard);
  std::vector<T> target(span, guard);
  std::vector<T> gradient(span, guard);
  std::vector<T> right_gradient(span, guard);
  // With a negative stride the first row lies last.
  auto const first = static_cast<std::int64_t>(offset) + (stride < 0 ? -2 * stride : 0);
  for (std::size_t b = 0; b < rows; ++b) {
    auto const row = static_cast<std::size_t>(first + static_cast<std::int64_t>(b) * stride);
    for (std::size_t i = 0; i < size; ++i) {
      student[row + i] = dense_student[b * size + i];
      target[row + i] = dense_target[b * size + i];
      right_gradient[row + i] = expected.gradient[b * size + i];
    }
  }
  auto const student_before = student;
  auto const target_before = target;
  auto const strided = [&](std::vector<T>& memory) {
    auto v = view(memory.data() + first, rows, size);
    v.strides[0] = stride;
    return v;
  };
  std::vector<std::int64_t> const t(rows, 1);
  std::vector<double> losses(rows);
  auto const bound = plain{}(constant_schedule{}, strided(student), strided(target), t);
  addloss::value_and_grad<per_sample>(cpu_context{1, streaming}, bound, losses, strided(gradient));
  bool const good = losses == expected.losses && student == student_before &&
                    target == target_before && gradient == right_gradient;
  CAPTURE(offset, stride, size, streaming);
  CHECK(good);
}

}  // namespace

TEST_CASE("the same bits for any number of threads, streaming or not, float") {
  check_sizes<float>();
}
TEST_CASE("the same bits for any number of threads, streaming or not, double") {
  check_sizes<double>();
}

TEST_CASE("1 to 200 rows: same bits for any number of threads") {
  constexpr std::size_t size = 331;
  auto const student = numbers<float>(200 * size, 3);
  auto const target = numbers<float>(200 * size, 4);
  for (std::size_t rows = 1; rows <= 200; ++rows) {
    auto const one = run<float>({}, rows, size, student, target);
    CAPTURE(rows);
    REQUIRE(right(one, rows, size, student, target));
    REQUIRE(run<float>(cpu_context{3, never}, rows, size, student, target) == one);
  }
}

TEST_CASE("rows of 1 to 200 elements") {
  auto const student = numbers<float>(3 * 200, 5);
  auto const target = numbers<float>(3 * 200, 6);
  auto const student64 = numbers<double>(3 * 200, 5);
  auto const target64 = numbers<double>(3 * 200, 6);
  for (std::size_t size = 1; size <= 200; ++size) {
    CAPTURE(size);
    for (std::size_t const streaming : {std::size_t{0}, never}) {
      cpu_context const ctx{1, streaming};
      REQUIRE(right(run(ctx, 3, size, student, target), 3, size, student, target));
      REQUIRE(right(run(ctx, 3, size, student64, target64), 3, size, student64, target64));
    }
  }
}

TEST_CASE("rows at any address and stride; inputs and neighbours stay as they were") {
  for (std::size_t const streaming : {std::size_t{0}, never}) {
    for (std::int64_t const size : {5, 64, 200, 2100}) {
      for (std::size_t offset = 0; offset < 5; ++offset) {
        for (std::int64_t const stride : {size, size + 1, size + 16, -(size + 3), -(size + 64)}) {
          check_placement<float>(offset, stride, static_cast<std::size_t>(size), streaming);
          check_placement<double>(offset, stride, static_cast<std::size_t>(size), streaming);
        }
      }
    }
  }
}

TEST_CASE("the size of a training step") {
  constexpr std::size_t size = 3 * 512 * 512;
  auto const student = numbers<float>(8 * size, 9);
  auto const target = numbers<float>(8 * size, 10);
  CHECK(right(run<float>({.threads = 2}, 8, size, student, target), 8, size, student, target));
  auto const student64 = numbers<double>(2 * size, 9);
  auto const target64 = numbers<double>(2 * size, 10);
  CHECK(right(run<double>({.threads = 2}, 2, size, student64, target64), 2, size, student64,
              target64));
}

TEST_CASE("a gradient may be written over its tensor, and added to what is there") {
  constexpr std::size_t rows = 3;
  for (std::size_t const size :
       {std::size_t{7}, std::size_t{64}, std::size_t{5000}, std::size_t{40000}}) {
    for (std::size_t const streaming : {std::size_t{0}, never}) {
      cpu_context const ctx{2, streaming};
      auto const student = numbers<float>(rows * size, 11);
      auto const target = numbers<float>(rows * size, 12);
      auto const expected = run<float>({}, rows, size, student, target);
      std::vector<std::int64_t> const t(rows, 1);
      auto place = student;
      std::vector<double> losses(rows);
      auto const target_view = view(target.data(), rows, size);
      addloss::value_and_grad<per_sample>(
          ctx, plain{}(constant_schedule{}, view(place.data(), rows, size), target_view, t), losses,
          view(place.data(), rows, size));
      CAPTURE(size, streaming);
      CHECK(losses == expected.losses);
      CHECK(place == expected.gradient);

      auto const start = numbers<float>(rows * size, 13);
      auto added = start;
      addloss::grad<sum>(
          ctx, plain{}(constant_schedule{}, view(student.data(), rows, size), target_view, t),
          addloss::accumulate(view(added.data(), rows, size)));
      int wrong = 0;
      for (std::size_t i = 0; i < added.size(); ++i) {
        // One rounding less where multiplication and addition are fused.
        wrong += std::abs(added[i] - (start[i] + expected.gradient[i])) <= 2.5e-7F ? 0 : 1;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("no call allocates") {
  constexpr std::size_t rows = 70;
  constexpr std::size_t size = 1000;
  auto const student = numbers<float>(rows * size, 14);
  auto const target = numbers<float>(rows * size, 15);
  std::vector<std::int64_t> const t(rows, 1);
  std::vector<float> gradient(rows * size);
  std::vector<float> losses(rows);
  float total = 0;
  std::int64_t bad = 0;
  auto broken = student;
  broken[77] = std::numeric_limits<float>::quiet_NaN();
  addloss::teacher_predictions<float> teacher;
  teacher.noise = addloss::normal_noise{{.seed = 1}};
  teacher.conditional = view(target.data(), rows, size);
  auto const out = view(gradient.data(), rows, size);
  auto const target_view = view(target.data(), rows, size);
  auto sample = student;
  std::vector<std::int64_t> drawn(rows);
  std::array const steps = {0.9, 0.5, 0.1};
  addloss::add_practical<> const objective;
  std::vector<addloss::rows<float const>> const logits(3, target_view);
  std::vector<addloss::rows<float>> const logits_out(3, out);
  std::vector<addloss::head_statistics> health(3);
  auto const call_all = [&](cpu_context const& ctx) {
    auto const bound =
        plain{}(constant_schedule{}, view(student.data(), rows, size), target_view, t);
    addloss::value(ctx, bound, total);
    addloss::grad(ctx, bound, out);
    addloss::grad(ctx, bound, addloss::accumulate(out));
    addloss::value_and_grad<per_sample>(ctx, bound, losses, out, {.non_finite = &bad});
    addloss::value_and_grad(ctx,
                            plain{}.from_teacher(addloss::v_prediction{}, constant_schedule{},
                                                 view(student.data(), rows, size), teacher, t),
                            total, out);
    addloss::value(ctx,
                   plain{}(constant_schedule{}, view(broken.data(), rows, size), target_view, t),
                   total, {.non_finite = &bad});
    addloss::value_and_grad(ctx, objective.discriminator<float>(logits, logits, logits),
                            addloss::discriminator_values<float>{.total = total},
                            {.logits = {.real = logits_out, .fake = logits_out},
                             .cotangents = {.features = logits_out}},
                            {.statistics = health});
    addloss::value_and_grad(ctx, objective.student<float>(logits, bound), total,
                            {.logits = {.fake = logits_out}, .student = out});
    addloss::value(ctx, addloss::paired<>{}.discriminator<float>(logits, logits), total);
    addloss::sample_timesteps(addloss::uniform_timesteps{}, {.seed = 2}, drawn);
    addloss::add_noise(ctx, constant_schedule{}, target_view, t, addloss::normal_noise{}, out);
    addloss::sample_few_steps(
        addloss::ancestral{}, ctx, addloss::rectified_flow{}, steps, {.seed = 3},
        [](auto x_t, double /*t*/, auto x_0) { x_0.data[0] = x_t.data[0]; }, out,
        view(sample.data(), rows, size));
  };
  for (int const threads : {1, 2}) {
    std::int64_t const before = allocations;
    call_all({.threads = threads});
    std::int64_t const after = allocations;
    CHECK(after == before);
  }
  CHECK(bad == 1);
  // Nor does an error, the exception object apart, which does not come from operator new.
  std::int64_t const before = allocations;
  bool caught = false;
  try {
    call_all({.threads = 0});
  } catch (addloss::error const&) {
    caught = true;
  }
  std::int64_t const after = allocations;
  CHECK(caught);
  CHECK(after == before);
  // The counter itself counts. (A new-expression or a vector may be optimised away.)
  ::operator delete(::operator new(8));
  std::int64_t const counted = allocations;
  CHECK(counted == after + 1);
}

TEST_CASE("non-finite elements are counted before a gradient is written over them") {
  // An idle infinite logit: loss 0, gradient 0. Read again after it was overwritten, it would count
  // as finite.
  constexpr std::size_t size = 5000;
  std::vector<float> real(size, 0.5F);
  std::vector<float> fake(size, 0.5F);
  real[10] = std::numeric_limits<float>::infinity();
  real[4999] = std::numeric_limits<float>::infinity();
  fake[4500] = std::numeric_limits<float>::quiet_NaN();
  std::vector<addloss::rows<float>> const real_rows = {view(real.data(), 1, size)};
  std::vector<addloss::rows<float>> const fake_rows = {view(fake.data(), 1, size)};
  std::vector<addloss::rows<float const>> const real_read = {real_rows[0]};
  std::vector<addloss::rows<float const>> const fake_read = {fake_rows[0]};
  std::vector<addloss::head_statistics> health(1);
  std::int64_t bad = 0;
  addloss::grad(cpu_context{}, addloss::adversarial<>{}.discriminator<float>(real_read, fake_read),
                {.real = real_rows, .fake = fake_rows}, {.non_finite = &bad, .statistics = health});
  CHECK(bad == 3);
  CHECK(health[0].real.non_finite == 2);
  CHECK(health[0].fake.non_finite == 1);
  CHECK(real[10] == 0);
  CHECK(real[0] == -1.0F / size);
  CHECK(std::isnan(fake[4500]));
}
