// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace neoloom::train {

class BestModel;

/// Ends a run whose evaluations no longer improve, as transformers' EarlyStoppingCallback (5.17): an evaluation
/// improves if it is better than the best one before it, and differs from that by more than the threshold.
class EarlyStopping {
 public:
  EarlyStopping() = default;  // never stops
  EarlyStopping(std::optional<int64_t> patience, double threshold) : patience_(patience), threshold_(threshold) {}

  /// Takes an evaluation's value. Call before `best` takes it.
  void note(double value, const BestModel& best);
  /// Whether the last early_stopping_patience evaluations were no improvement.
  bool stops() const { return patience_ && failed_ >= *patience_; }
  /// Why it stops, for people.
  std::string reason(const BestModel& best) const;

  /// Its state, for the checkpoint's history.
  nlohmann::json json() const;
  /// Reads its state from a history. One without it, of a run that did not stop early, counts from 0.
  void restore(const nlohmann::json& history);

 private:
  std::optional<int64_t> patience_;
  double threshold_ = 0.0;
  int64_t failed_ = -1;  // evaluations since the last improvement; the first evaluation is one, whatever its value
};

}  // namespace neoloom::train
