// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/loss_spikes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace neoloom::train {

LossSpikes::Spread LossSpikes::spread() const {
  constexpr double kLeastShare = 1e-6;  // of the mean: equal losses have no deviation
  const auto n = static_cast<double>(losses_.size());
  const double mean = std::accumulate(losses_.begin(), losses_.end(), 0.0) / n;
  double squares = 0.0;
  for (const double loss : losses_) squares += (loss - mean) * (loss - mean);
  return {mean, std::max(std::sqrt(squares / std::max(1.0, n - 1.0)), kLeastShare * std::abs(mean))};
}

double LossSpikes::limit() const {
  const int64_t needed = std::min(policy_.window, kLeastLosses);
  if (!given() || std::ssize(losses_) < needed) return kAnyLoss;
  const Spread now = spread();
  return now.mean + policy_.z_score * now.deviation;
}

void LossSpikes::note(const StepResult& result) {
  if (!given()) return;
  count_ += result.spiked ? 1 : 0;
  in_a_row_ = result.spiked ? in_a_row_ + 1 : 0;
  if (result.spiked || result.skipped || !std::isfinite(result.loss)) return;
  losses_.push_back(result.loss);
  if (std::ssize(losses_) > policy_.window) losses_.pop_front();
}

std::string LossSpikes::describe(const StepResult& result) const {
  const Spread now = spread();
  return fmt::format(
      "step {}: its loss {:.4g} is {:.1f} standard deviations above the mean {:.4g} of the last {}; the update is "
      "skipped",
      result.step, result.loss, (result.loss - now.mean) / now.deviation, now.mean, losses_.size());
}

nlohmann::json LossSpikes::state() const { return {{"losses", losses_}, {"count", count_}, {"in_a_row", in_a_row_}}; }

void LossSpikes::restore(const nlohmann::json& state) {
  losses_ = state.at("losses").get<std::deque<double>>();
  count_ = state.at("count");
  in_a_row_ = state.at("in_a_row");
}

}  // namespace neoloom::train
