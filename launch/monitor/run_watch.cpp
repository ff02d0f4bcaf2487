// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/run_watch.h"

#include <filesystem>
#include <utility>

namespace neoloom::launch {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

RunWatch::RunWatch(std::string run)
    : run_(std::move(run)), follower_(run_ + "/metrics.jsonl"), history_(std::make_unique<RunHistory>(run_)) {}

double RunWatch::read_share() const {
  const int64_t size = follower_.size_bytes();
  return size > 0 ? 1.0 - static_cast<double>(follower_.unread_bytes()) / static_cast<double>(size) : 1.0;
}

void RunWatch::look(double now_seconds) {
  follower_.poll([this](std::string_view line) { history_->take_line(line); },
                 [this] { history_ = std::make_unique<RunHistory>(run_); });
  std::error_code unknown;
  there_ = follower_.there() || fs::exists(run_ + "/run.lock", unknown);
  told_ = nullptr;
  if (!there_) return;
  const checkpoint::LockReport report = lock(now_seconds);
  told_ = describe_run(run_, *history_, report);
  if (!report.lives && !report.heartbeat.empty() && now_seconds - watched_since_seconds_ < kWatchSeconds) {
    told_["state"] = "unknown";
    told_["holder"] = report.holder;
  }
}

checkpoint::LockReport RunWatch::lock(double now_seconds) {
  checkpoint::LockReport report = checkpoint::look_at_lock(run_, 0);
  if (report.heartbeat.empty()) {
    heartbeat_.clear();
    beat_seconds_.reset();
    return report;
  }
  if (heartbeat_.empty()) watched_since_seconds_ = now_seconds;
  if (!heartbeat_.empty() && heartbeat_ != report.heartbeat) beat_seconds_ = now_seconds;
  heartbeat_ = report.heartbeat;
  report.lives = beat_seconds_ && now_seconds - *beat_seconds_ < kWatchSeconds;
  return report;
}

}  // namespace neoloom::launch
