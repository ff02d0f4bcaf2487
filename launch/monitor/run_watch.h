// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "launch/monitor/run_status.h"
#include "runtime/metrics/event_follower.h"

namespace neoloom::launch {

/// Looks at a run folder again and again, reads each byte of its metrics.jsonl once, and changes nothing in it.
class RunWatch {
 public:
  explicit RunWatch(std::string run);

  /// Reads what is new. Never waits: where only heartbeats tell whether the holder lives, the state is "unknown" until
  /// one was seen, or until `now_seconds` (monotonic) has gone on by kWatchSeconds.
  void look(double now_seconds);

  /// Whether there is a run folder.
  bool there() const { return there_; }
  /// The share of metrics.jsonl that was read; another look at once reads on.
  double read_share() const;
  bool has_more() const { return follower_.has_more(); }
  /// As describe_run has it; null: there() is false.
  const nlohmann::ordered_json& told() const { return told_; }
  const RunHistory& history() const { return *history_; }

 private:
  checkpoint::LockReport lock(double now_seconds);

  std::string run_;
  metrics::EventFollower follower_;
  std::unique_ptr<RunHistory> history_;
  bool there_ = false;
  nlohmann::ordered_json told_;
  std::string heartbeat_;
  double watched_since_seconds_ = 0.0;
  std::optional<double> beat_seconds_;  // when the heartbeat was last seen to change
};

}  // namespace neoloom::launch
