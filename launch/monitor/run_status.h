// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "launch/report/run_record.h"
#include "runtime/checkpoint/run_lock.h"

namespace neoloom::launch {

/// Two heartbeats of a holder on another host.
inline constexpr double kWatchSeconds = 11;

/// A state and the exit code that tells it to scripts.
struct RunState {
  const char* name;
  int exit_code;
};
inline constexpr RunState kFinished{"finished", 0};
inline constexpr RunState kRunning{"running", 10};
inline constexpr RunState kStopped{"stopped", 11};
inline constexpr RunState kFailed{"failed", 12};
inline constexpr RunState kDead{"dead", 13};

/// What metrics.jsonl told so far. A start forgets the end of the one before.
class RunHistory {
 public:
  explicit RunHistory(std::string run);
  RunHistory(const RunHistory&) = delete;
  RunHistory& operator=(const RunHistory&) = delete;

  void take(nlohmann::ordered_json event);
  /// The same of a line of metrics.jsonl. Parses few of a million train events.
  void take_line(std::string_view line);
  /// The last event of each kind; nullopt: none that counts.
  const std::optional<nlohmann::ordered_json>& start() const { return start_; }
  const std::optional<nlohmann::ordered_json>& train() const;
  const std::optional<nlohmann::ordered_json>& eval() const { return eval_; }
  const std::optional<nlohmann::ordered_json>& end() const { return end_; }
  /// Loss, evaluations and warnings of all steps, without devices.
  const RunRecord& record() const { return record_; }
  int64_t step() const;
  /// Unix time of the last event; NaN: unknown.
  double last_seconds() const { return last_seconds_; }

 private:
  std::optional<nlohmann::ordered_json> start_, eval_, end_;
  mutable std::optional<nlohmann::ordered_json> train_;
  mutable std::string train_line_;  // newer than train_, not yet parsed; "": none
  int64_t resumed_step_ = 0;
  double last_seconds_;
  RunRecord record_;
  RecordReader reader_{record_, /*devices=*/false};
};

/// The best evaluation by metric_for_best_model and greater_is_better, which `config` holds as RunRecord::config has
/// them; nullopt: no evaluation has this metric.
struct BestEvaluation {
  std::string metric;  // with "eval_"
  double value = 0.0;
  int64_t step = 0;
};
std::optional<BestEvaluation> best_evaluation(const RunRecord& record,
                                              const std::map<std::string, std::string>& config);

/// What `neoloom status --json` prints of a run folder: state, exit_code, step, loss, checkpoint and so on.
/// Throws: Error(kCheckpoint) when the folder of checkpoints cannot be read.
nlohmann::ordered_json describe_run(const std::string& run, const RunHistory& history,
                                    const checkpoint::LockReport& lock);

/// Of such a description: "350 of 1000 (35.0 %), epoch 1.40, about 12:34 left". Where that is wider than `columns`, the
/// epoch goes first, then the share.
std::string step_text(const nlohmann::ordered_json& told, size_t columns = SIZE_MAX);
/// What the same train command would do; "" for a run that is running or finished.
std::string advice_text(const nlohmann::ordered_json& told);

/// Throws: Error(kUsage) unless the folder has a metrics.jsonl or a run.lock.
void require_run_folder(const std::string& run);

}  // namespace neoloom::launch
