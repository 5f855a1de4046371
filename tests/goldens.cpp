// SPDX-License-Identifier: MIT
// addloss_goldens FOLDER...: runs every reference case below the folders, in double and in float.
//
// A case names its kind, settings, inputs and expected outputs. It fails on a kind or setting that
// is not known, a setting or an output that was not used, and a difference beyond the bound.
//
// What a setting chooses is chosen at run time wherever the library lets it: a weighting, a
// distance and a loss on logits are any type with the right functions, so one type that switches
// stands for all of them. Each combination of types that is left is one more inner loop to compile.
#include <addloss/addloss.hpp>
#include <addloss/heads/projected_head.hpp>
#include <addloss/heads/spectral_weights.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "safetensors.hpp"

namespace {

namespace add = addloss;
using nlohmann::json;

struct tally {
  int cases = 0;
  int arrays = 0;
  int failed = 0;
};

/// The array checked may differ by at most this much of its largest magnitude.
template <class T>
constexpr double bound = std::is_same_v<T, double> ? 1e-12 : 2e-5;

/// One case in one arithmetic type; remembers what was used and what was wrong.
template <class T>
class reference_case {
 public:
  reference_case(safetensors::file const& file, tally& counts)
      : file_(file), counts_(counts), params_(json::parse(file.metadata.at("params"))) {}

  template <class Value>
  Value setting(std::string const& name) {
    used_.insert(name);
    if (!params_.contains(name)) throw std::runtime_error("setting " + name + " is missing");
    return params_.at(name).template get<Value>();
  }
  template <class Value>
  Value setting(std::string const& name, Value otherwise) {
    return params_.contains(name) ? setting<Value>(name) : otherwise;
  }
  [[nodiscard]] bool has(std::string const& name) const { return file_.tensors.contains(name); }

  /// Inputs rounded to the arithmetic type.
  std::vector<T> input(std::string const& label) const {
    auto const& numbers = reals(label);
    return {numbers.begin(), numbers.end()};
  }
  std::vector<T> input_if_present(std::string const& label) const {
    return has("in." + label) ? input(label) : std::vector<T>{};
  }
  /// Inputs as they are written: for times, which are double for every storage type.
  [[nodiscard]] std::vector<double> const& reals(std::string const& label) const {
    return of_type(label, "F64").reals;
  }
  [[nodiscard]] std::vector<std::int64_t> const& timesteps() const {
    return of_type("timestep", "I64").integers;
  }
  [[nodiscard]] std::vector<std::int64_t> const& shape(std::string const& label) const {
    return tensor("in." + label).shape;
  }
  /// Extent of axis 0.
  [[nodiscard]] std::int64_t samples(std::string const& label) const {
    auto const& shape = tensor("in." + label).shape;
    if (shape.empty() || shape[0] < 1) throw std::runtime_error("in." + label + ": no batch");
    return shape[0];
  }

  void check(std::string const& label, std::vector<double> const& got, double limit = bound<T>) {
    std::string const name = "out." + label;
    auto const& array = tensor(name);
    checked_.insert(name);
    ++counts_.arrays;
    std::vector<double> expected = array.reals;
    for (auto const integer : array.integers) expected.push_back(static_cast<double>(integer));
    if (expected.size() != got.size()) throw std::runtime_error(name + ": another size");
    double scale = 0;
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::isfinite(expected[i])) scale = std::max(scale, std::abs(expected[i]));
      bool const both_nan = std::isnan(expected[i]) && std::isnan(got[i]);
      // Of two equal infinities the difference is NaN.
      if (both_nan || expected[i] == got[i]) continue;
      // NaN compares false with everything, so it must not reach std::max.
      double const difference = std::abs(expected[i] - got[i]);
      worst = std::isnan(difference) ? HUGE_VAL : std::max(worst, difference);
    }
    if (!(worst <= limit * (scale > 0 ? scale : 1))) {
      throw std::runtime_error(name + ": off by " +
                               std::to_string(worst / (scale > 0 ? scale : 1) / limit) +
                               " times the bound");
    }
  }
  void check_scalar(std::string const& label, double got) { check(label, {got}); }
  /// For outputs that only some files of a kind carry.
  void check_if_present(std::string const& label, std::vector<double> const& got) {
    if (has("out." + label)) check(label, got);
  }

  void finish() const {
    if (checked_.empty()) throw std::runtime_error("no output was checked");
    for (auto const& [name, value] : params_.items()) {
      if (!used_.contains(name)) throw std::runtime_error("unknown setting " + name);
    }
    for (auto const& [name, value] : file_.tensors) {
      if (name.starts_with("out.") && !checked_.contains(name)) {
        throw std::runtime_error("unchecked output " + name);
      }
    }
  }

 private:
  [[nodiscard]] safetensors::tensor const& tensor(std::string const& name) const {
    if (!has(name)) throw std::runtime_error("no " + name + " in the file");
    return file_.tensors.at(name);
  }
  [[nodiscard]] safetensors::tensor const& of_type(std::string const& label,
                                                   char const* dtype) const {
    auto const& found = tensor("in." + label);
    if (found.dtype != dtype) {
      throw std::runtime_error("in." + label + ": dtype " + found.dtype + ", expected " + dtype);
    }
    return found;
  }

  safetensors::file const& file_;
  tally& counts_;
  json params_;
  std::set<std::string> used_;
  std::set<std::string> checked_;
};

template <class T>
std::vector<double> widened(std::vector<T> const& numbers) {
  return {numbers.begin(), numbers.end()};
}

[[noreturn]] void unknown(std::string const& what, std::string const& name) {
  throw std::runtime_error("unknown " + what + " " + name);
}

template <class Case>
add::discrete_schedule discrete_schedule(Case& c, std::string const& name) {
  auto const timesteps = c.template setting<std::int64_t>("num_train_timesteps");
  auto const rescale = c.template setting<bool>("zero_terminal_snr");
  auto const betas = [&](double start, double end) {
    return add::beta_range{c.setting("beta_start", start), c.setting("beta_end", end), timesteps};
  };
  auto const make = [&] {
    if (name == "linear") return add::linear_schedule(betas(1e-4, 2e-2));
    if (name == "scaled_linear") return add::scaled_linear_schedule(betas(8.5e-4, 1.2e-2));
    if (name == "cosine") return add::cosine_schedule(timesteps);
    unknown("schedule", name);
  };
  return rescale ? add::zero_terminal_snr(make()) : make();
}

template <class Case>
add::discrete_schedule discrete_schedule(Case& c) {
  return discrete_schedule(c, c.template setting<std::string>("schedule"));
}

template <class Case>
void check_levels(Case& c, std::vector<add::noise_level> const& levels) {
  std::vector<double> alpha;
  std::vector<double> sigma;
  for (auto const level : levels) {
    alpha.push_back(level.alpha);
    sigma.push_back(level.sigma);
  }
  c.check("alpha", alpha);
  c.check("sigma", sigma);
}

template <class T>
void run_noise_schedule(reference_case<T>& c) {
  auto const name = c.template setting<std::string>("schedule");
  std::vector<add::noise_level> levels;
  auto const continuous = [&](auto const& schedule) {
    for (double const t : c.reals("t")) levels.push_back(schedule.at(t));
    check_levels(c, levels);
  };
  if (name == "rectified_flow") {
    continuous(add::rectified_flow{c.template setting<double>("shift")});
  } else if (name == "trigflow") {
    continuous(add::trigflow{});
  } else if (name == "karras") {
    add::karras const schedule{c.template setting<double>("sigma_min"),
                               c.template setting<double>("sigma_max"),
                               c.template setting<double>("rho")};
    auto const steps = c.template setting<std::int64_t>("steps");
    std::vector<double> sigma;
    for (std::int64_t i = 0; i < steps; ++i) sigma.push_back(schedule.sigma(i, steps));
    c.check("sigma", sigma);
  } else {
    auto const schedule = discrete_schedule(c, name);
    for (std::int64_t t = 0; t < schedule.size(); ++t) levels.push_back(schedule.at(t));
    check_levels(c, levels);
  }
}

using weighting_choice = std::variant<add::uniform, add::exponential, add::sds,
                                      add::basic_sds<add::unit>, add::nfsd, add::snr, add::min_snr>;

/// Any weighting of the library, chosen at run time. In the teacher form nfsd stands for itself:
/// the loss knows it by its type.
struct any_weighting {
  weighting_choice choice;
  [[nodiscard]] double at(add::noise_level level) const {
    return std::visit([&](auto const& weighting) { return weighting.at(level); }, choice);
  }
};

/// Those that also give c(t) / alpha(t), which is another path through the loss.
struct any_weighting_without_pole : any_weighting {
  [[nodiscard]] static bool holds(weighting_choice const& choice) {
    return std::visit(
        []<class W>(W const& /*weighting*/) { return add::weighting_without_pole<W>; }, choice);
  }
  [[nodiscard]] double over_alpha(add::noise_level level) const {
    return std::visit(
        [&]<class W>(W const& weighting) {
          if constexpr (add::weighting_without_pole<W>) return weighting.over_alpha(level);
          return std::numeric_limits<double>::quiet_NaN();
        },
        choice);
  }
};
static_assert(add::weighting_without_pole<any_weighting_without_pole> &&
              !add::weighting_without_pole<any_weighting>);

/// The weighting that the settings name; `gamma` is the name of min_snr's.
template <class Case>
weighting_choice weighting_of(Case& c, std::string const& gamma = "gamma") {
  auto const name = c.template setting<std::string>("weighting");
  if (name == "uniform") return add::uniform{};
  if (name == "exponential") return add::exponential{};
  if (name == "sds") {
    auto const w = c.setting("w", std::string("sigma_squared"));
    if (w == "sigma_squared") return add::sds{};
    if (w == "unit" || w == "one") return add::basic_sds<add::unit>{};
    unknown("w", w);
  }
  if (name == "nfsd") {
    add::nfsd nfsd;
    nfsd.negative_threshold = c.setting("negative_threshold", nfsd.negative_threshold);
    return nfsd;
  }
  if (name == "snr") return add::snr{};
  if (name == "min_snr") return add::min_snr{c.setting(gamma, 5.0)};
  unknown("weighting", name);
}

template <class T>
void run_weighting(reference_case<T>& c) {
  auto const schedule = discrete_schedule(c);
  any_weighting const weighting{weighting_of(c)};
  std::vector<double> weights;
  for (auto const t : c.timesteps()) weights.push_back(weighting.at(schedule.at(t)));
  c.check("weight", weights);
}

/// A batch of samples, its inner axes as one: all that these cases need to know of their shape.
template <class T>
auto batch_view(std::vector<T>& numbers, std::int64_t batch) {
  return add::view(numbers.data(), batch, static_cast<std::int64_t>(numbers.size()) / batch);
}

template <class T>
void run_parameterization(reference_case<T>& c) {
  auto const schedule = discrete_schedule(c);
  auto t = c.timesteps();
  auto const batch = static_cast<std::int64_t>(t.size());
  auto x0 = c.input("x0");
  auto noise = c.input("noise");
  auto epsilon = c.input("epsilon_prediction");
  auto v = c.input("v_prediction");
  std::vector<T> noisy(x0.size());
  std::vector<T> out(x0.size());
  add::cpu_context const ctx;
  auto const table = schedule.table();
  auto const see = [&](auto& numbers) { return batch_view(numbers, batch); };
  auto const times = add::view(t.data(), batch);
  add::add_noise(ctx, table, see(x0), times, see(noise), see(noisy));
  c.check("noisy", widened(noisy));
  add::velocity(ctx, table, see(x0), times, see(noise), see(out));
  c.check("velocity", widened(out));
  add::to_sample(add::epsilon_prediction{}, ctx, table, see(noisy), times, see(epsilon), see(out));
  c.check("x0_from_epsilon", widened(out));
  // v = alpha eps - sigma x_0, from the x_0 of the same prediction.
  auto velocity = out;
  add::velocity(ctx, table, see(out), times, see(epsilon), see(velocity));
  c.check("v_from_epsilon", widened(velocity));
  add::to_sample(add::v_prediction{}, ctx, table, see(noisy), times, see(v), see(out));
  c.check("x0_from_v", widened(out));
  add::to_epsilon(add::v_prediction{}, ctx, table, see(noisy), times, see(v), see(out));
  c.check("epsilon_from_v", widened(out));
}

/// The noise levels at the times of a batch.
struct batch_levels {
  std::vector<add::noise_level> levels;
  std::vector<std::int64_t> timesteps;

  [[nodiscard]] add::schedule_table<> table() const {
    return {levels.data(), static_cast<std::int64_t>(levels.size())};
  }
  [[nodiscard]] std::int64_t samples() const { return static_cast<std::int64_t>(timesteps.size()); }
};

template <class Case>
batch_levels batch_levels_of(Case& c) {
  batch_levels result;
  auto const name = c.template setting<std::string>("schedule");
  // Continuous times become a table of the levels of this batch: one type of schedule for all.
  auto const continuous = [&](auto const& schedule) {
    if (c.setting("zero_terminal_snr", false)) unknown("zero_terminal_snr of", name);
    // Its threshold is a timestep.
    if (c.setting("weighting", std::string()) == "nfsd") unknown("nfsd with", name);
    for (double const t : c.reals("timestep")) {
      schedule.check("addloss_goldens", static_cast<std::int64_t>(result.levels.size()), t);
      result.timesteps.push_back(static_cast<std::int64_t>(result.levels.size()));
      result.levels.push_back(schedule.at(t));
    }
  };
  if (name == "rectified_flow") {
    continuous(add::rectified_flow{c.setting("shift", 1.0)});
  } else if (name == "trigflow") {
    continuous(add::trigflow{});
  } else {
    auto const schedule = discrete_schedule(c, name);
    for (std::int64_t t = 0; t < schedule.size(); ++t) result.levels.push_back(schedule.at(t));
    result.timesteps = c.timesteps();
  }
  return result;
}

/// Memory for a result, every element of it NaN until it is written.
template <class T>
std::vector<T> unwritten(std::size_t size) {
  return std::vector<T>(size, std::numeric_limits<T>::quiet_NaN());
}

/// Calls `use` with the reduction of that name.
template <class Use>
void with_reduction(std::string const& name, Use const& use) {
  if (name == "mean") return use(add::mean{});
  if (name == "sum") return use(add::sum{});
  unknown("reduction", name);
}

/// Any distance but the squared one, which the teacher form treats apart.
struct other_distance {
  bool absolute = false;
  add::pseudo_huber pseudo_huber{};

  template <class V>
  add::value_grad<V> operator()(V d) const {
    return absolute ? add::absolute{}(d) : pseudo_huber(d);
  }
};

/// The tensors of the distillation loss; those that a case lacks are empty.
template <class T>
struct distillation_inputs {
  batch_levels levels;
  weighting_choice weighting;
  std::vector<T> student, target, noise, conditional, unconditional, negative;
  double guidance_scale = 1;

  [[nodiscard]] auto see(std::vector<T>& numbers) const {
    return batch_view(numbers, levels.samples());
  }
  [[nodiscard]] auto times() const { return add::view(levels.timesteps.data(), levels.samples()); }
  [[nodiscard]] add::teacher_predictions<T> teacher() {
    add::teacher_predictions<T> result;
    if (!noise.empty()) result.noise = see(noise);
    if (!conditional.empty()) result.conditional = see(conditional);
    if (!unconditional.empty()) result.unconditional = see(unconditional);
    if (!negative.empty()) result.negative = see(negative);
    result.guidance_scale = guidance_scale;
    return result;
  }
};

template <class T>
distillation_inputs<T> distillation_inputs_of(reference_case<T>& c, std::string const& gamma) {
  distillation_inputs<T> in{.levels = batch_levels_of(c),
                            .weighting = weighting_of(c, gamma),
                            .student = c.input("student"),
                            .target = c.input_if_present("target"),
                            .noise = c.input_if_present("noise"),
                            .conditional = c.input_if_present("conditional"),
                            .unconditional = c.input_if_present("unconditional"),
                            .negative = c.input_if_present("negative")};
  if (c.samples("student") != in.levels.samples()) {
    throw std::runtime_error("in.student and in.timestep: another number of samples");
  }
  if (in.target.empty()) in.guidance_scale = c.template setting<double>("guidance_scale");
  return in;
}

/// What was given to the teacher and the target that it makes of it, which the loss never stores.
template <class T, class Prediction>
void check_target(reference_case<T>& c, distillation_inputs<T>& in, Prediction prediction) {
  add::cpu_context const ctx;
  auto const table = in.levels.table();
  bool const noise_free = std::holds_alternative<add::nfsd>(in.weighting);
  auto noisy = unwritten<T>(in.student.size());
  auto const make_noisy = [&](std::vector<T>& noise) {
    add::add_noise(ctx, table, in.see(in.student), in.times(), in.see(noise), in.see(noisy));
  };
  if (c.has("out.noisy")) {
    make_noisy(in.noise);
    c.check("noisy", widened(noisy));
  }
  if (!c.has("out.target")) return;
  auto guided = in.conditional;
  auto const s = static_cast<T>(in.guidance_scale);
  std::size_t const row_size = guided.size() / in.levels.timesteps.size();
  for (std::size_t i = 0; i < guided.size(); ++i) {
    T const u = in.unconditional.empty() ? guided[i] : in.unconditional[i];
    guided[i] = u + s * (guided[i] - u);
    if (auto const* nfsd = std::get_if<add::nfsd>(&in.weighting)) {
      // delta_D + s delta_C stands for the prediction minus the noise.
      bool const subtracts = in.levels.timesteps[i / row_size] >= nfsd->negative_threshold;
      if (subtracts) guided[i] -= in.negative[i];
    }
  }
  // Neither the residual of nfsd nor a predicted x_0 depends on the noise.
  std::vector<T> no_noise(in.student.size());
  make_noisy(noise_free || in.noise.empty() ? no_noise : in.noise);
  auto target = unwritten<T>(in.student.size());
  add::to_sample(prediction, ctx, table, in.see(noisy), in.times(), in.see(guided), in.see(target));
  c.check("target", widened(target));
}

/// Calls `use` with the distillation loss that the settings name, bound to its inputs.
template <class Elements, class Distance, class T, class Use>
void with_distillation(reference_case<T>& c, distillation_inputs<T>& in, Distance distance,
                       Use const& use) {
  auto const table = in.levels.table();
  any_weighting const weighting{in.weighting};
  if (!in.target.empty()) {
    add::distillation<any_weighting, Distance, Elements> const loss{weighting, distance};
    return use(loss(table, in.see(in.student), in.see(in.target), in.times()));
  }
  auto const bind = [&]<class Weighting>(auto prediction, Weighting const& weights) {
    check_target(c, in, prediction);
    add::distillation<Weighting, Distance, Elements> const loss{weights, distance};
    use(loss.from_teacher(prediction, table, in.see(in.student), in.teacher(), in.times()));
  };
  auto const* const nfsd = std::get_if<add::nfsd>(&in.weighting);
  auto const name = nfsd != nullptr ? c.setting("prediction", std::string("epsilon"))
                                    : c.template setting<std::string>("prediction");
  if (nfsd != nullptr && name != "epsilon") unknown("prediction for nfsd", name);
  if (nfsd != nullptr) return bind(add::epsilon_prediction{}, *nfsd);
  if (name == "epsilon") {
    if constexpr (std::same_as<Distance, add::squared>) {
      if (any_weighting_without_pole::holds(in.weighting)) {
        return bind(add::epsilon_prediction{}, any_weighting_without_pole{in.weighting});
      }
    }
    return bind(add::epsilon_prediction{}, weighting);
  }
  if (name == "v") return bind(add::v_prediction{}, weighting);
  if (name == "sample" || name == "x0" || name == "x_0") {
    return bind(add::sample_prediction{}, weighting);
  }
  if (name == "flow") return bind(add::flow_prediction{}, weighting);
  unknown("prediction", name);
}

template <class T>
void run_distillation(reference_case<T>& c) {
  auto in = distillation_inputs_of(c, "gamma");
  auto const batch = in.levels.samples();
  auto const check = [&]<class Loss>(Loss const& loss) {
    add::cpu_context const ctx;
    auto gradient = unwritten<T>(in.student.size());
    auto losses = unwritten<T>(in.levels.timesteps.size());
    auto const see_losses = add::view(losses.data(), batch);
    double value = 0;
    if constexpr (!std::same_as<decltype(loss.loss.distance), add::squared>) {
      // The gradient of the mean is an upstream gradient of 1 / B for each sample.
      std::vector<T> upstream(losses.size(), static_cast<T>(1.0 / static_cast<double>(batch)));
      add::value_and_grad<add::per_sample>(ctx, loss, see_losses, in.see(gradient),
                                           {.upstream = add::view(upstream.data(), batch)});
      for (T const one : losses) value += static_cast<double>(one) / static_cast<double>(batch);
    } else if (c.has("out.loss")) {
      T mean = std::numeric_limits<T>::quiet_NaN();
      add::value_and_grad(ctx, loss, mean, in.see(gradient));
      add::value<add::per_sample>(ctx, loss, see_losses);
      value = static_cast<double>(mean);
    } else {
      // Where alpha is 0 an epsilon prediction has a gradient, but no value.
      add::grad(ctx, loss, in.see(gradient));
    }
    c.check_if_present("loss", {value});
    c.check_if_present("per_sample", widened(losses));
    c.check_if_present("grad", widened(gradient));
  };
  auto const distance = c.setting("distance", std::string("squared"));
  with_reduction(c.setting("element_reduction", std::string("mean")), [&]<class R>(R) {
    if (distance == "squared") return with_distillation<R>(c, in, add::squared{}, check);
    other_distance other;
    if (distance == "l1" || distance == "absolute") {
      other.absolute = true;
    } else if (distance == "pseudo_huber") {
      other.pseudo_huber.c = c.setting("c", other.pseudo_huber.c);
    } else {
      unknown("distance", distance);
    }
    with_distillation<R>(c, in, other, check);
  });
}

/// Tensors of K heads, "real_0", "real_1", ..., and gradients of the same shapes. Empty where the
/// file has none of that name.
template <class T>
class head_tensors {
 public:
  head_tensors(reference_case<T>& c, std::string const& name, std::int64_t heads) : name_(name) {
    auto const label = [&](std::int64_t head) { return name + "_" + std::to_string(head); };
    if (c.has("in." + label(heads))) {
      throw std::runtime_error("more heads than " + std::to_string(heads));
    }
    if (!c.has("in." + label(0))) return;
    for (std::int64_t head = 0; head < heads; ++head) {
      values_.push_back(c.input(label(head)));
      gradients_.push_back(unwritten<T>(values_.back().size()));
      rows_.emplace_back(batch_view(values_.back(), c.samples(label(head))));
      gradient_rows_.emplace_back(batch_view(gradients_.back(), c.samples(label(head))));
    }
  }
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  [[nodiscard]] std::span<add::rows<T const> const> rows() const { return rows_; }
  [[nodiscard]] std::span<add::rows<T> const> gradients() const { return gradient_rows_; }

  void check_gradients(reference_case<T>& c) const {
    for (std::size_t head = 0; head < gradients_.size(); ++head) {
      c.check_if_present("grad_" + name_ + "_" + std::to_string(head), widened(gradients_[head]));
    }
  }
  [[nodiscard]] std::string const& name() const { return name_; }

 private:
  std::string name_;
  std::vector<std::vector<T>> values_;
  std::vector<std::vector<T>> gradients_;
  std::vector<add::rows<T const>> rows_;
  std::vector<add::rows<T>> gradient_rows_;
};

/// Checks one side of the statistics of all heads.
template <class T, class Statistics>
void check_statistics(reference_case<T>& c, head_tensors<T> const& tensors,
                      std::vector<Statistics> const& heads,
                      add::logit_statistics Statistics::*side) {
  for (std::size_t head = 0; head < heads.size(); ++head) {
    add::logit_statistics const& got = heads[head].*side;
    auto const check = [&](char const* what, double number) {
      c.check_if_present(what + ("_" + tensors.name()) + "_" + std::to_string(head), {number});
    };
    check("mean", got.mean);
    check("positive", got.positive);
    check("active", got.active);
    check("non_finite", static_cast<double>(got.non_finite));
  }
}

/// Any loss on single logits, chosen at run time.
struct any_logit_loss {
  std::variant<add::hinge, add::non_saturating, add::least_squares, add::wasserstein> choice;

  template <class V>
  add::logit_term<V> discriminator(V logit, V label, V weight) const {
    return std::visit([&](auto const& loss) { return loss.discriminator(logit, label, weight); },
                      choice);
  }
  template <class V>
  add::logit_term<V> generator(V logit, V weight) const {
    return std::visit([&](auto const& loss) { return loss.generator(logit, weight); }, choice);
  }
};

any_logit_loss logit_loss(std::string const& name) {
  if (name == "hinge") return {add::hinge{}};
  if (name == "non_saturating") return {add::non_saturating{}};
  if (name == "least_squares") return {add::least_squares{}};
  if (name == "wasserstein") return {add::wasserstein{}};
  unknown("loss", name);
}

/// Calls `use` with the reductions over tokens and over heads.
template <class Case, class Use>
void with_head_reductions(Case& c, Use const& use) {
  auto const tokens = c.setting("token_reduction", std::string("mean"));
  auto const heads = c.setting("head_reduction", std::string("sum"));
  with_reduction(tokens, [&](auto over_tokens) {
    with_reduction(heads, [&](auto over_heads) { use(over_tokens, over_heads); });
  });
}

/// Gradient penalties on the user's gradients: r1 at the reals, r2 at the fakes.
template <class T>
void run_penalty(reference_case<T>& c, std::string const& name, std::string const& tensors,
                 std::int64_t heads) {
  head_tensors<T> const features(c, tensors, heads);
  add::r1 penalty;
  penalty.gamma = c.setting("gamma", penalty.gamma.get());
  penalty.factor = c.setting("factor", penalty.factor);
  penalty.interval = c.setting("interval", penalty.interval);
  T value = std::numeric_limits<T>::quiet_NaN();
  std::vector<double> penalties(static_cast<std::size_t>(heads));
  add::value_and_grad(add::cpu_context{}, penalty.on<T>(features.rows()), value,
                      {.features = features.gradients()}, {.penalties = penalties});
  double total = 0;
  for (std::size_t head = 0; head < penalties.size(); ++head) {
    total += penalties[head];
    c.check_if_present(name + "_" + std::to_string(head), {penalties[head]});
  }
  c.check_if_present(name, {total});
  c.check_if_present("penalty", {static_cast<double>(value)});
  features.check_gradients(c);
}

template <class T>
struct adversarial_inputs {
  std::string loss;
  std::int64_t heads;
  head_tensors<T> real;
  head_tensors<T> fake;
  head_tensors<T> generated;
};

/// Approximate R1 takes pairs of the logits at the reals, approximate R2 of those at the fakes.
template <class T>
void run_approximate_penalty(reference_case<T>& c, adversarial_inputs<T>& in) {
  head_tensors<T> const& logits = in.loss == "approximate_r1" ? in.real : in.fake;
  head_tensors<T> const perturbed(c, "perturbed", in.heads);
  add::approximate_r1<> const penalty{c.template setting<double>("lambda")};
  T value = std::numeric_limits<T>::quiet_NaN();
  add::value_and_grad(add::cpu_context{}, penalty.template on<T>(logits.rows(), perturbed.rows()),
                      value, {.first = logits.gradients(), .second = perturbed.gradients()});
  c.check_if_present(in.loss, {static_cast<double>(value)});
  logits.check_gradients(c);
  perturbed.check_gradients(c);
}

template <class T>
void run_relativistic(reference_case<T>& c, adversarial_inputs<T>& in) {
  add::cpu_context const ctx;
  T value = std::numeric_limits<T>::quiet_NaN();
  std::vector<add::pair_statistics> statistics(static_cast<std::size_t>(in.heads));
  with_head_reductions(c, [&]<class Tokens, class Heads>(Tokens, Heads) {
    add::paired<add::relativistic, Tokens, Heads> const loss;
    if (!in.generated.empty()) {
      // The generator's gradients with respect to the reals lead nowhere: overwritten below.
      add::value_and_grad(ctx, loss.template generator<T>(in.generated.rows(), in.real.rows()),
                          value, {.first = in.generated.gradients(), .second = in.real.gradients()},
                          {.statistics = statistics});
      c.check_if_present("generator_loss", {static_cast<double>(value)});
      in.generated.check_gradients(c);
      check_statistics(c, in.generated, statistics, &add::pair_statistics::first);
    }
    if (in.fake.empty()) return;
    add::value_and_grad(ctx, loss.template discriminator<T>(in.real.rows(), in.fake.rows()), value,
                        {.first = in.real.gradients(), .second = in.fake.gradients()},
                        {.statistics = statistics});
    c.check_if_present("discriminator_loss", {static_cast<double>(value)});
    in.real.check_gradients(c);
    in.fake.check_gradients(c);
    check_statistics(c, in.real, statistics, &add::pair_statistics::first);
    check_statistics(c, in.fake, statistics, &add::pair_statistics::second);
  });
}

template <class T>
void run_adversarial(reference_case<T>& c) {
  auto const name = c.template setting<std::string>("loss");
  auto const heads = c.template setting<std::int64_t>("heads");
  if (name == "r1") return run_penalty(c, name, "feature_gradient", heads);
  if (name == "r2") return run_penalty(c, name, "fake_feature_gradient", heads);
  adversarial_inputs<T> in{
      name, heads, {c, "real", heads}, {c, "fake", heads}, {c, "generated", heads}};
  if (name == "approximate_r1" || name == "approximate_r2") return run_approximate_penalty(c, in);
  if (name == "relativistic") return run_relativistic(c, in);

  add::cpu_context const ctx;
  any_logit_loss const chosen = logit_loss(name);
  T value = std::numeric_limits<T>::quiet_NaN();
  std::vector<add::head_statistics> statistics(static_cast<std::size_t>(heads));
  with_head_reductions(c, [&]<class Tokens, class Heads>(Tokens, Heads) {
    add::adversarial<any_logit_loss, Tokens, Heads> const loss{chosen};
    if (!in.generated.empty()) {
      add::value_and_grad(ctx, loss.template generator<T>(in.generated.rows()), value,
                          {.fake = in.generated.gradients()}, {.statistics = statistics});
      c.check_if_present("generator_loss", {static_cast<double>(value)});
      in.generated.check_gradients(c);
      check_statistics(c, in.generated, statistics, &add::head_statistics::fake);
    }
    if (in.fake.empty()) return;
    add::value_and_grad(ctx, loss.template discriminator<T>(in.real.rows(), in.fake.rows()), value,
                        {.real = in.real.gradients(), .fake = in.fake.gradients()},
                        {.statistics = statistics});
    c.check_if_present("discriminator_loss", {static_cast<double>(value)});
    in.real.check_gradients(c);
    in.fake.check_gradients(c);
    check_statistics(c, in.real, statistics, &add::head_statistics::real);
    check_statistics(c, in.fake, statistics, &add::head_statistics::fake);
  });
}

/// Both objectives of ADD. Here `gamma` is that of the penalty.
template <class T>
void run_objective(reference_case<T>& c) {
  add::cpu_context const ctx;
  auto const heads = c.template setting<std::int64_t>("heads");
  auto const loss_name = c.setting("loss", std::string("hinge"));
  any_logit_loss const loss = logit_loss(loss_name);
  auto in = distillation_inputs_of(c, "min_snr_gamma");
  head_tensors<T> const real(c, "real", heads);
  head_tensors<T> const fake(c, "fake", heads);
  head_tensors<T> const generated(c, "generated", heads);
  head_tensors<T> const features(c, "feature_gradient", heads);
  add::r1 penalty{.gamma = c.template setting<double>("gamma")};
  penalty.factor = c.setting("factor", penalty.factor);
  penalty.interval = c.setting("interval", penalty.interval);
  auto const lambda = c.template setting<double>("lambda");
  auto const elements = c.setting("element_reduction", std::string("mean"));

  auto gradient = unwritten<T>(in.student.size());
  T total = std::numeric_limits<T>::quiet_NaN();
  T adversarial = total;
  T distilled = total;
  std::vector<double> penalties(static_cast<std::size_t>(heads));
  auto const check = [&](char const* label, T got) {
    c.check_if_present(label, {static_cast<double>(got)});
  };
  auto const over_heads = c.setting("head_reduction", std::string("sum"));
  with_reduction(over_heads, [&]<class Heads>(Heads) {
    using adversarial_type = add::adversarial<any_logit_loss, add::mean, Heads>;
    with_reduction(elements, [&]<class Elements>(Elements) {
      with_distillation<Elements>(c, in, add::squared{}, [&](auto const& distillation) {
        add::add_objective<adversarial_type, add::distillation<>> const objective{
            .adversarial = {loss}, .lambda = lambda};
        add::value_and_grad(
            ctx, objective.template student<T>(generated.rows(), distillation),
            add::student_values<T>{total, adversarial, distilled},
            {.logits = {.fake = generated.gradients()}, .student = in.see(gradient)});
      });
    });
    check("student_loss", total);
    check("adversarial_generator", adversarial);
    check("distillation", distilled);
    c.check_if_present("grad", widened(gradient));
    c.check_if_present("grad_student", widened(gradient));
    generated.check_gradients(c);

    if (real.empty()) return;
    add::add_objective<adversarial_type, add::distillation<>> const objective{.adversarial = {loss},
                                                                              .penalty = penalty};
    add::value_and_grad(
        ctx, objective.template discriminator<T>(real.rows(), fake.rows(), features.rows()),
        add::discriminator_values<T>{total, adversarial},
        {.logits = {.real = real.gradients(), .fake = fake.gradients()},
         .cotangents = {.features = features.gradients()}},
        {.penalties = penalties});
    check("discriminator_loss", total);
    check(loss_name.c_str(), adversarial);
    double sum = 0;
    for (double const r1 : penalties) sum += r1;
    c.check_if_present("r1", {sum});
    real.check_gradients(c);
    fake.check_gradients(c);
    features.check_gradients(c);
  });
}

/// A whole head: forward, backward, spectral state, and R1 with its exact second-order gradient.
template <class T>
void run_head(reference_case<T>& c, add::convolution_method method) {
  add::cpu_context const ctx;
  auto const& extents = c.shape("features");
  if (extents.size() != 3) throw std::runtime_error("in.features: not [B, C, L]");
  add::feature_shape const shape{extents[0], extents[1], extents[2]};
  auto const size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  if (c.template setting<std::int64_t>("channels") != shape.channels ||
      c.template setting<std::int64_t>("tokens") != shape.length) {
    throw std::runtime_error("in.features: not of the size in params");
  }
  auto const condition_size = c.template setting<std::int64_t>("condition_dim");
  std::vector<std::int64_t> condition_sizes;
  if (condition_size > 0) condition_sizes.push_back(condition_size);
  add::head_settings const settings{
      .channels = shape.channels,
      .kernel = c.template setting<int>("kernel_size"),
      .condition_sizes = condition_sizes,
      .width = c.template setting<std::int64_t>("projection_dim"),
      .virtual_batch = c.template setting<std::int64_t>("virtual_batch"),
      .norm_epsilon = c.template setting<double>("norm_epsilon"),
      .negative_slope = c.template setting<double>("negative_slope"),
      .method = method};
  auto const given = c.input_if_present("condition");
  std::vector<T> condition_gradient(given.size());
  std::vector<add::condition<T>> conditions;
  if (condition_size > 0) {
    if (given.size() != size(shape.batch * condition_size)) {
      throw std::runtime_error("in.condition: another size");
    }
    conditions.push_back({condition_size, given.data(), condition_gradient.data()});
  }
  auto const head = add::projected_head<T>(settings);
  add::spectral_weights const spectral{head, c.template setting<int>("power_iterations"),
                                       c.template setting<double>("spectral_epsilon")};

  // The files name the weights of the condition "projection".
  auto const file_name = [](std::string name) {
    std::string const own = "classifier.condition0.";
    return name.starts_with(own) ? "projection." + name.substr(own.size()) : name;
  };
  std::vector<T> w(size(head.parameter_count()));
  for (int i = 0; i < head.parameters(); ++i) {
    auto const part = head.parameter(i);
    auto const numbers = c.input(file_name(part.name));
    if (numbers.size() != size(part.size())) {
      throw std::runtime_error(file_name(part.name) + ": another size");
    }
    std::copy(numbers.begin(), numbers.end(), w.begin() + part.offset);
  }
  auto const each_state = [&](auto const& use) {
    for (int i = 0; i < spectral.weights(); ++i) {
      auto const view = spectral.weight(i);
      std::string const name = head.parameter(view.parameter).name;
      std::string const layer = name.substr(0, name.rfind('.') + 1);
      use(layer + "u", view.u, view.rows);
      use(layer + "v", view.v, view.columns);
    }
  };
  std::vector<T> state(size(spectral.state_size()));
  each_state([&](std::string const& name, std::int64_t offset, std::int64_t count) {
    auto const numbers = c.input(name);
    if (numbers.size() != size(count)) throw std::runtime_error(name + ": another size");
    std::copy(numbers.begin(), numbers.end(), state.begin() + offset);
  });
  spectral.update(ctx, w.data(), state.data());
  each_state([&](std::string const& name, std::int64_t offset, std::int64_t count) {
    c.check_if_present(
        name, widened(std::vector<T>(state.begin() + offset, state.begin() + offset + count)));
  });
  std::vector<T> w_hat(w.size());
  std::vector<double> sigmas(size(spectral.weights()));
  spectral.sigmas("goldens", ctx, w.data(), state.data(), sigmas.data());
  spectral.normalise(ctx, w.data(), sigmas.data(), w_hat.data());
  auto const check_parameters = [&](std::string const& prefix, std::vector<T> w_bar, double limit) {
    spectral.normalise_backward(ctx, w.data(), state.data(), sigmas.data(), w_bar.data());
    for (int i = 0; i < head.parameters(); ++i) {
      auto const part = head.parameter(i);
      auto const first = w_bar.begin() + part.offset;
      c.check(prefix + file_name(part.name), widened(std::vector<T>(first, first + part.size())),
              limit);
    }
  };

  auto const x = c.input("features");
  auto const logits_shape = head.output_shape("projected_head", shape);
  auto const sizes = head.sizes(shape);
  std::vector<T> saved(size(sizes.saved));
  std::vector<T> saved_bar(size(sizes.saved_bar));
  std::vector<T> saved_dot(size(sizes.saved_dot));
  std::vector<T> workspace(size(sizes.workspace));
  std::vector<T> logits(size(logits_shape.size()));
  add::layer_pass<T> pass;
  pass.shape = shape;
  pass.w = w_hat.data();
  pass.x = x.data();
  pass.y = logits.data();
  pass.saved = saved.data();
  pass.workspace = workspace.data();
  pass.conditions = conditions;
  head.forward(ctx, pass);
  c.check("logits", widened(logits));

  std::vector<T> x_bar(x.size());
  std::vector<T> w_bar(w.size());
  auto logits_bar = c.input("grad_logits");
  if (logits_bar.size() != logits.size()) throw std::runtime_error("in.grad_logits: another size");
  pass.y_bar = logits_bar.data();
  pass.x_bar = x_bar.data();
  pass.w_bar = w_bar.data();
  head.backward(ctx, pass);
  c.check("grad_features", widened(x_bar));
  check_parameters("grad_", w_bar, bound<T>);
  c.check_if_present("grad_condition", widened(condition_gradient));

  // R1 = mean_b |v|^2, v the gradient of the summed logits; d R1 = d (tangent along 2 v / B).
  std::vector<T> ones(logits.size(), T(1));
  std::vector<T> zeros(logits.size());
  head.forward(ctx, pass);  // the backward pass used up what was saved
  pass.y_bar = ones.data();
  pass.w_bar = nullptr;
  pass.saved_bar = saved_bar.data();
  pass.saved_dot = saved_dot.data();
  head.backward(ctx, pass);
  c.check("r1_features_gradient", widened(x_bar));
  double r1 = 0;
  std::vector<add::rows<T const>> const features = {
      add::view(static_cast<T const*>(x_bar.data()), shape.batch, shape.channels, shape.length)};
  std::vector<T> direction(x.size());
  std::vector<add::rows<T>> const cotangent = {
      add::view(direction.data(), shape.batch, shape.channels, shape.length)};
  add::value_and_grad(ctx, add::r1{.gamma = 1}.on<T>(features), r1, {.features = cotangent});
  c.check("r1", {r1});
  std::fill(w_bar.begin(), w_bar.end(), T(0));
  pass.x_dot = direction.data();
  head.tangent(ctx, pass);
  pass.y_bar = zeros.data();
  pass.y_dot_bar = ones.data();
  pass.x_bar = nullptr;
  pass.w_bar = w_bar.data();
  head.tangent_backward(ctx, pass);
  check_parameters("r1_grad_", w_bar, std::is_same_v<T, double> ? bound<T> : 2e-4);
}

/// With each way of computing the convolution of the residual block that it can be computed in.
template <class T>
void run_discriminator_head(reference_case<T>& c) {
  run_head(c, add::convolution_method::direct);
  if (c.template setting<int>("kernel_size") == 9) run_head(c, add::convolution_method::toom_cook);
}

template <class T>
using runner = void (*)(reference_case<T>&);

template <class T>
std::map<std::string, runner<T>> const& runners() {
  static std::map<std::string, runner<T>> const table = {
      {"noise_schedule", run_noise_schedule<T>},
      {"weighting", run_weighting<T>},
      {"parameterization", run_parameterization<T>},
      {"distillation", run_distillation<T>},
      {"adversarial", run_adversarial<T>},
      {"objective", run_objective<T>},
      {"discriminator_head", run_discriminator_head<T>},
  };
  return table;
}

template <class T>
void run_case(std::string const& path, char const* type, tally& counts) {
  ++counts.cases;
  try {
    auto const file = safetensors::read(path);
    auto const kind = file.metadata.at("kind");
    auto const found = runners<T>().find(kind);
    if (found == runners<T>().end()) unknown("kind", kind);
    reference_case<T> c(file, counts);
    found->second(c);
    c.finish();
  } catch (std::exception const& e) {
    ++counts.failed;
    std::printf("FAILED %s in %s: %s\n", path.c_str(), type, e.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  tally counts;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      std::fprintf(stderr, "%s: not a folder\n", argv[i]);
      return 2;
    }
    for (auto const& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  for (auto const& path : paths) {
    run_case<double>(path, "double", counts);
    run_case<float>(path, "float", counts);
  }
  std::printf("%d cases (each in double and float), %d arrays compared, %d failed\n",
              counts.cases / 2, counts.arrays, counts.failed);
  return counts.cases > 0 && counts.failed == 0 ? 0 : 1;
}
