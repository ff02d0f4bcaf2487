// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/best_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "runtime/checkpoint/directory.h"
#include "runtime/core/error.h"
#include "runtime/core/json.h"
#include "runtime/core/text.h"
#include "runtime/metrics/names.h"

namespace neoloom::train {
namespace {

using core::ErrorKind;

struct Metric {
  std::string prefix;  // name of the set and "_"; empty: the only set
  std::string name;    // as metrics::metric_names has it
};

// Returns the metric of metric_for_best_model, of the set with the longest name that fits.
template <typename Sets, typename NameOf>
Metric metric_of(const Options& options, const Sets& sets, const NameOf& name_of) {
  const std::string& given = options.metric_for_best_model;
  std::string text = given.starts_with("eval_") ? given.substr(5) : given;
  Metric metric;
  const auto find_set = [&] {
    for (const auto& set : sets) {
      const std::string prefix = name_of(set) + "_";
      if (prefix.size() > std::max<size_t>(1, metric.prefix.size()) && text.starts_with(prefix)) metric.prefix = prefix;
    }
  };
  find_set();
  if (metric.prefix.empty() && text != given) {  // a set may be named eval
    std::string stripped = std::exchange(text, given);
    find_set();
    if (metric.prefix.empty()) text = std::move(stripped);
  }
  metric.name = metrics::metric_name(text.substr(metric.prefix.size()));
  return metric;
}

}  // namespace

Judge judge_of(const Options& options, const ValidationHashes& validation) {
  const auto [prefix, name] = metric_of(options, validation, [](const auto& set) { return set.first; });
  Judge judge{"eval_" + prefix + name, options.greater_is_better.value_or(!metrics::smaller_is_better(name)), ""};
  for (const auto& [set, hash] : validation) {
    if (prefix == (set.empty() ? "" : set + "_")) judge.data = hash;
  }
  return judge;
}

std::string check_metric(const Options& options, data::Task task, int64_t num_labels,
                         const std::vector<data::ValidationFiles>& validation) {
  if (!options.compares_evaluations()) return "";
  const std::vector<std::string> of_task = metrics::metric_names(task, num_labels);
  std::vector<std::string> names;
  for (const data::ValidationFiles& set : validation) {
    if (set.name.empty()) continue;
    for (const std::string& name : of_task) names.push_back(set.name + "_" + name);
  }
  if (names.empty()) names = of_task;
  const auto [prefix, metric] = metric_of(options, validation, [](const auto& set) { return set.name; });
  const std::string name = prefix + metric;
  const std::string near = core::nearest(name, names);
  core::require(std::find(names.begin(), names.end(), name) != names.end(), ErrorKind::kUsage,
                "trainer_config.metric_for_best_model: an evaluation of this task{} gives no \"{}\"{}; "
                "choose one of {}",
                num_labels > 0 ? fmt::format(" with {} labels", num_labels) : "", options.metric_for_best_model,
                near.empty() ? "" : fmt::format("; did you mean {}?", near), fmt::join(names, ", "));
  const bool greater = !metrics::smaller_is_better(metric);
  if (options.greater_is_better.value_or(greater) == greater) return "";
  return fmt::format("trainer_config.greater_is_better: {} with metric_for_best_model: {} keeps the worst model",
                     !greater, name);
}

double judged_value(const Judge& judge, const nlohmann::ordered_json& values) {
  const auto found = values.find(judge.metric);
  return found == values.end() || !found->is_number() ? std::nan("") : found->get<double>();
}

bool BestModel::consider(int64_t step, const nlohmann::ordered_json& values, const at::Tensor& params) {
  const double value = judged_value(judge_, values);
  if (!std::isfinite(value)) return false;
  if (step_ >= 0 && (judge_.greater_is_better ? value <= metric_ : value >= metric_)) return false;
  metric_ = value;
  step_ = step;
  if (!keeps_params_) return true;
  const at::Tensor host = params.cpu();
  const float* const numbers = host.const_data_ptr<float>();
  params_.assign(numbers, numbers + host.numel());
  return true;
}

std::string BestModel::restore(const checkpoint::State& state, const std::string& folder) {
  if (state.best_step < 0) return "";
  const auto history = core::parse_json(state.history, "the checkpoint's history", core::ErrorKind::kCheckpoint);
  // Checkpoints of older versions have no best_judge.
  if (const auto found = history.find("best_judge"); found != history.end()) {
    const Judge before{found->at("metric"), found->at("greater_is_better"), found->at("data")};
    if (before.metric != judge_.metric) return forget(fmt::format("it was chosen by {}", before.metric));
    if (before.greater_is_better != judge_.greater_is_better) return forget("greater_is_better has changed");
    if (before.data != judge_.data) return forget("the validation data have changed");
  }
  metric_ = state.best_metric;
  step_ = state.best_step;
  if (!keeps_params_ || find_params(state, folder)) return "";
  return forget(fmt::format("the parameters of step {} were not kept", state.best_step));
}

bool BestModel::find_params(const checkpoint::State& state, const std::string& folder) {
  if (state.best_step == state.step) {
    params_ = state.params;
  } else if (!state.best_params.empty()) {
    params_ = state.best_params;
  } else {
    try {
      params_ = checkpoint::load(folder + "/" + checkpoint::file_name(state.best_step)).params;
    } catch (const core::Error&) {
      return false;
    }
  }
  return params_.size() == state.params.size();
}

std::string BestModel::forget(const std::string& why) {
  metric_ = 0.0;
  step_ = -1;
  params_.clear();
  return fmt::format("the best model so far is discarded: {}. The comparison by {} starts again at the next evaluation",
                     why, judge_.metric);
}

void BestModel::store(checkpoint::State& state) const {
  state.best_metric = metric_;
  state.best_step = step_;
  if (step_ >= 0 && step_ != state.step) state.best_params = params_;
}

nlohmann::json BestModel::judge_json() const {
  return {{"metric", judge_.metric}, {"greater_is_better", judge_.greater_is_better}, {"data", judge_.data}};
}

}  // namespace neoloom::train
