// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/metrics/console.h"
#include "runtime/metrics/events.h"
#include "runtime/train/evaluator.h"

namespace neoloom::train {

struct ReporterSetup {
  std::string output_dir;
  std::string progress = "auto";  // as metrics::Console has it
  core::LogLevel log_level = core::LogLevel::kInfo;
  metrics::DeviceMeasure self;  // rank, host and device of this rank
  int64_t first_step = 0;
  int64_t total_steps = 0;
  std::function<int64_t()> peak_memory_bytes;
  /// Texts of all ranks, in their order. Collective: every rank.
  std::function<std::vector<std::string>(const std::string& mine)> gather;
};

/// The numbers of one log line.
struct StepReport {
  int64_t step = 0;
  double epoch = 0.0;
  double loss = 0.0;
  double grad_norm = 0.0;
  double learning_rate = 0.0;
};

/// What a run tells the outside: events in metrics.jsonl and lines on the console, on rank 0 only, and with them the
/// throughput of every device.
class Reporter {
 public:
  /// Throws: Error(kUsage) when there can be no output_dir.
  Reporter(comm::Communicator& communicator, ReporterSetup setup);

  bool writes() const { return events_ != nullptr; }
  void event(const nlohmann::ordered_json& event);
  void notice(const std::string& text);
  /// `more`: members of the event beside step and message.
  void warn(int64_t step, const std::string& text,
            const nlohmann::ordered_json& more = nlohmann::ordered_json::object());
  /// World size of the run that wrote the log last; 0: there was none, or this rank does not write.
  int64_t world_size_before() const { return world_size_before_; }

  /// Training begins.
  void start();
  /// What this rank counted and took since the last log line.
  metrics::DeviceMeasure& measure() { return since_log_; }
  /// Time from `since_seconds` to now is no training time: ranks did something else, some of them alone.
  void leave_out_of_throughput(double since_seconds);

  /// A log line, after which measure() begins anew. Collective: every rank.
  void log(const StepReport& report);
  void evaluated(int64_t step, double epoch, const EvalResult& result);
  /// Redraws the progress bar.
  void tick(int64_t step);
  /// Takes the last measurements. Collective: every rank.
  void finish();
  /// The run_end event, and the table of devices where steps were made. After finish.
  void run_end(const std::string& status, int64_t step, int64_t skipped_steps);

 private:
  std::vector<metrics::DeviceMeasure> gather(const metrics::DeviceMeasure& mine) const;
  void measure_sums();
  double seconds_left(int64_t step) const;

  comm::Communicator& communicator_;
  ReporterSetup setup_;
  std::unique_ptr<metrics::EventLog> events_;  // rank 0
  std::unique_ptr<metrics::Console> console_;  // rank 0
  metrics::DeviceMeasure since_log_, since_start_;
  std::vector<metrics::DeviceMeasure> devices_;  // of the whole run, after finish
  uint64_t bytes_before_log_ = 0;
  int64_t world_size_before_ = 0;
  int64_t logged_step_ = 0;  // the last log line, or the start
  double start_seconds_ = 0.0;
  double log_seconds_ = 0.0;
  double run_seconds_ = 0.0;  // after finish
};

}  // namespace neoloom::train
