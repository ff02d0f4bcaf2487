// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/metric_schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/optim/schedule_arguments.h"

namespace neoloom::optim {
namespace {

using nlohmann::json;

// All formulas keep the order of torch's and transformers' floating-point operations.

/// The best value so far, and what is better than it.
class Best {
 public:
  Best(Arguments& arguments, bool greater_is_better, double threshold, const std::string& threshold_mode)
      : greater_(arguments.choice("mode", greater_is_better ? "max" : "min", {"min", "max"}) == "max"),
        threshold_(arguments.number("threshold", threshold)),
        relative_(arguments.choice("threshold_mode", threshold_mode, {"rel", "abs"}) == "rel") {
    reset();
  }

  void reset() { value_ = (greater_ ? -1.0 : 1.0) * std::numeric_limits<double>::infinity(); }

  /// Keeps a better value. Returns whether it is one.
  bool take(double value) {
    const double limit = greater_ ? (relative_ ? value_ * (threshold_ + 1.0) : value_ + threshold_)
                                  : (relative_ ? value_ * (1.0 - threshold_) : value_ - threshold_);
    const bool better = std::isfinite(value) && (greater_ ? value > limit : value < limit);
    if (better) value_ = value;
    return better;
  }

  json state() const { return std::isfinite(value_) ? json(value_) : json(); }  // JSON has no infinity
  void restore(const json& state) {
    reset();
    if (!state.is_null()) value_ = state;
  }

 private:
  bool greater_;
  double threshold_;
  bool relative_;
  double value_ = 0.0;
};

double factor_below_one(Arguments& arguments, double otherwise) {
  const double factor = arguments.number("factor", otherwise);
  if (factor >= 1.0) arguments.refuse("factor", "less than 1");
  return factor;
}

class ReduceOnPlateau final : public MetricSchedule {
 public:
  ReduceOnPlateau(const ScheduleSettings& settings, Arguments& arguments, bool greater_is_better)
      : best_(arguments, greater_is_better, 1e-4, "rel"),
        factor_(factor_below_one(arguments, 0.1)),
        patience_(arguments.count("patience").value_or(10)),
        cooldown_(arguments.count("cooldown").value_or(0)),
        least_(arguments.number("min_lr", 0.0)),
        eps_(arguments.number("eps", 1e-8)) {
    learning_rate_ = settings.learning_rate;
  }

  void step(double value) override {
    bad_ = best_.take(value) ? 0 : bad_ + 1;
    if (cooling_ > 0) {
      --cooling_;
      bad_ = 0;
    }
    if (bad_ <= patience_) return;
    const double next = std::max(learning_rate_ * factor_, least_);
    if (learning_rate_ - next > eps_) learning_rate_ = next;
    cooling_ = cooldown_;
    bad_ = 0;
  }

  json state() const override {
    return {{"learning_rate", learning_rate_}, {"best", best_.state()}, {"bad", bad_}, {"cooling", cooling_}};
  }

  void restore(const nlohmann::json& state) override {
    learning_rate_ = state.at("learning_rate");
    best_.restore(state.at("best"));
    bad_ = state.at("bad");
    cooling_ = state.at("cooling");
  }

 private:
  Best best_;
  double factor_;
  int64_t patience_, cooldown_;
  double least_, eps_;
  int64_t bad_ = 0;      // evaluations in a row without an improvement
  int64_t cooling_ = 0;  // evaluations that do not count yet
};

/// Mean of the last values.
class StreamingMean {
 public:
  explicit StreamingMean(int64_t window) : window_(static_cast<size_t>(window)) {}

  double add(double value) {
    values_.push_back(value);
    sum_ += value;
    if (values_.size() > window_) {
      sum_ -= values_.front();
      values_.erase(values_.begin());
    }
    return sum_ / static_cast<double>(values_.size());
  }
  void reset() {
    values_.clear();
    sum_ = 0.0;
  }

  json state() const { return {{"values", values_}, {"sum", sum_}}; }
  void restore(const json& state) {
    values_ = state.at("values").get<std::vector<double>>();
    sum_ = state.at("sum");
  }

 private:
  size_t window_;
  std::vector<double> values_;
  double sum_ = 0.0;
};

class Greedy final : public MetricSchedule {
 public:
  Greedy(const ScheduleSettings& settings, Arguments& arguments, bool greater_is_better)
      : best_(arguments, greater_is_better, 1e-6, "abs"),
        first_(settings.learning_rate),
        factor_(factor_below_one(arguments, 0.95)),
        patience_(arguments.count("patience").value_or(10)),
        cooldown_(arguments.count("cooldown").value_or(0)),
        warmup_(arguments.count("warmup").value_or(0)),
        least_(arguments.number("min_lr", 1e-3)),
        most_(arguments.number("max_lr", 1.0)),
        eps_(arguments.number("eps", 1e-8)),
        smooth_(arguments.flag("smooth", false)),
        mean_(std::max<int64_t>(1, arguments.count("window_size").value_or(50))),
        reset_start_(arguments.count("reset_start").value_or(500)),
        left_(reset_start_) {
    arguments.flag("verbose", false);
    learning_rate_ = first_;
  }

  void step(double value) override {
    if (smooth_) value = mean_.add(value);
    if (cooling_ > 0 || warming_ > 0) {
      --(cooling_ > 0 ? cooling_ : warming_);
      bad_ = good_ = 0;
    } else if (best_.take(value)) {
      bad_ = 0;
      ++good_;
    } else {
      ++bad_;
      good_ = 0;
    }
    if (good_ > patience_) {
      raise();
    } else if (bad_ > patience_) {
      lower();
    }
  }

  json state() const override {
    return {{"learning_rate", learning_rate_},
            {"best", best_.state()},
            {"bad", bad_},
            {"good", good_},
            {"cooling", cooling_},
            {"warming", warming_},
            {"left", left_},
            {"mean", mean_.state()}};
  }

  void restore(const nlohmann::json& state) override {
    learning_rate_ = state.at("learning_rate");
    best_.restore(state.at("best"));
    bad_ = state.at("bad");
    good_ = state.at("good");
    cooling_ = state.at("cooling");
    warming_ = state.at("warming");
    left_ = state.at("left");
    mean_.restore(state.at("mean"));
  }

 private:
  void raise() {
    const double next = std::min(learning_rate_ / factor_, most_);
    if (next - learning_rate_ > eps_) learning_rate_ = next;
    left_ = reset_start_;
    warming_ = warmup_;
    good_ = 0;
  }

  void lower() {
    const double next = std::max(learning_rate_ * factor_, least_);
    if (learning_rate_ - next > eps_) learning_rate_ = next;
    if (learning_rate_ <= least_ && --left_ <= 0) start_over();
    cooling_ = cooldown_;
    bad_ = 0;
  }

  // Leaves the least learning rate after reset_start plateaus there.
  void start_over() {
    learning_rate_ = first_;
    best_.reset();
    good_ = warming_ = 0;
    left_ = reset_start_;
    mean_.reset();
  }

  Best best_;
  double first_;
  double factor_;
  int64_t patience_, cooldown_, warmup_;
  double least_, most_, eps_;
  bool smooth_;
  StreamingMean mean_;
  int64_t reset_start_;
  int64_t left_;                       // plateaus at the least learning rate until it starts over
  int64_t bad_ = 0, good_ = 0;         // evaluations in a row without an improvement, with one
  int64_t cooling_ = 0, warming_ = 0;  // evaluations that do not count yet
};

}  // namespace

std::vector<std::string> metric_schedule_names() { return {"reduce_lr_on_plateau", "greedy"}; }

bool follows_metric(const std::string& name) {
  const std::vector<std::string> names = metric_schedule_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::unique_ptr<MetricSchedule> make_metric_schedule(const ScheduleSettings& settings, bool greater_is_better) {
  Arguments arguments(settings);
  std::unique_ptr<MetricSchedule> schedule;
  if (settings.name == "greedy") {
    schedule = std::make_unique<Greedy>(settings, arguments, greater_is_better);
  } else {
    schedule = std::make_unique<ReduceOnPlateau>(settings, arguments, greater_is_better);
  }
  arguments.check_all_read();
  return schedule;
}

}  // namespace neoloom::optim
