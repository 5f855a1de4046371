// SPDX-License-Identifier: MIT
// addloss_goldens FOLDER...: runs every reference case below the folders, in double and in float.
//
// A case names its kind, settings, inputs and expected outputs. It fails on a kind or setting that
// is not known, a setting or an output that was not used, and a difference beyond the bound.
#include <addloss/addloss.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
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

  std::vector<std::int64_t> const& shape(std::string const& name) const {
    return file_.tensors.at(name).shape;
  }
  std::vector<T> input(std::string const& label) {
    auto const& reals = file_.tensors.at("in." + label).reals;
    return {reals.begin(), reals.end()};
  }
  std::vector<std::int64_t> timesteps() { return file_.tensors.at("in.timestep").integers; }

  void check(std::string const& label, std::vector<double> const& got, double limit = bound<T>) {
    std::string const name = "out." + label;
    if (!has(name)) throw std::runtime_error("no " + name + " in the file");
    checked_.insert(name);
    ++counts_.arrays;
    auto const& expected = file_.tensors.at(name).reals;
    if (expected.size() != got.size()) throw std::runtime_error(name + ": another size");
    double scale = 0;
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      scale = std::max(scale, std::abs(expected[i]));
      double const difference = std::abs(expected[i] - got[i]);
      bool const both_nan = std::isnan(expected[i]) && std::isnan(got[i]);
      // NaN compares false with everything, so it must not reach std::max.
      worst = both_nan ? worst : std::isnan(difference) ? HUGE_VAL : std::max(worst, difference);
    }
    if (!(worst <= limit * (scale > 0 ? scale : 1))) {
      throw std::runtime_error(name + ": off by " + std::to_string(worst / limit) +
                               " times the bound");
    }
  }
  void check_scalar(std::string const& label, double got) { check(label, {got}); }
  /// For outputs that only some files of a kind carry.
  template <class Make>
  void check_if_present(std::string const& label, Make const& make) {
    if (has("out." + label)) check(label, make());
  }

  void finish() const {
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
    // Times are taken as they are written: schedules compute in double for every storage type.
    for (T const t : c.input("t")) levels.push_back(schedule.at(static_cast<double>(t)));
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

/// Calls `use` with the weighting that the settings name.
template <class Case, class Use>
void with_weighting(Case& c, Use const& use) {
  auto const name = c.template setting<std::string>("weighting");
  if (name == "uniform") return use(add::uniform{});
  if (name == "exponential") return use(add::exponential{});
  if (name == "sds") {
    auto const w = c.setting("w", std::string("sigma_squared"));
    if (w == "sigma_squared") return use(add::sds{});
    if (w == "unit" || w == "one") return use(add::basic_sds<add::unit>{});
    unknown("w", w);
  }
  if (name == "nfsd") {
    add::nfsd nfsd;
    nfsd.negative_threshold = c.setting("negative_threshold", nfsd.negative_threshold);
    return use(nfsd);
  }
  if (name == "snr") return use(add::snr{});
  if (name == "min_snr") return use(add::min_snr{c.setting("gamma", 5.0)});
  unknown("weighting", name);
}

template <class T>
void run_weighting(reference_case<T>& c) {
  auto const schedule = discrete_schedule(c);
  with_weighting(c, [&](auto const& weighting) {
    std::vector<double> weights;
    for (auto const t : c.timesteps()) weights.push_back(weighting.at(schedule.at(t)));
    c.check("weight", weights);
  });
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

template <class T>
using runner = void (*)(reference_case<T>&);

template <class T>
std::map<std::string, runner<T>> const& runners() {
  static std::map<std::string, runner<T>> const table = {
      {"noise_schedule", run_noise_schedule<T>}, {"weighting", run_weighting<T>},
      {"parameterization", run_parameterization<T>},
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
