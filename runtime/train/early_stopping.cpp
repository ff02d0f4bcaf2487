// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/early_stopping.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/train/best_model.h"

namespace neoloom::train {

void EarlyStopping::note(double value, const BestModel& best) {
  const bool greater = best.judge().greater_is_better;
  const bool first = best.step() < 0;
  const bool better = first ? std::isfinite(value) : greater ? value > best.metric() : value < best.metric();
  const bool improves = better && (first || std::abs(value - best.metric()) > threshold_);
  failed_ = improves ? 0 : failed_ + 1;
}

std::string EarlyStopping::reason(const BestModel& best) const {
  const std::string enough = threshold_ > 0 ? fmt::format(" by more than {}", threshold_) : "";
  const std::string best_one = best.step() < 0
                                   ? "there is no finite value yet"
                                   : fmt::format("the best is {:.6g}, of step {}", best.metric(), best.step());
  return fmt::format("early stopping: {} has not improved{} in {} evaluation{} ({})", best.judge().metric, enough,
                     failed_, failed_ == 1 ? "" : "s", best_one);
}

nlohmann::json EarlyStopping::json() const { return {{"failed_evaluations", failed_}}; }

void EarlyStopping::restore(const nlohmann::json& history) {
  const auto found = history.find("early_stopping");
  failed_ = found == history.end() ? 0 : found->at("failed_evaluations").get<int64_t>();
}

}  // namespace neoloom::train
