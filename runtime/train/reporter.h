// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/watchdog.h"
#include "runtime/core/progress.h"
#include "runtime/metrics/console.h"
#include "runtime/metrics/event_sinks.h"
#include "runtime/metrics/events.h"
#include "runtime/train/evaluator.h"
#include "runtime/train/mistakes_file.h"
#include "runtime/train/side_product.h"

namespace neoloom::train {

/// What the GEMMs of this rank need at least, for the share of the limit at the end of a run.
struct StepLimit {
  double seconds_per_token = 0.0;  // 0: unknown
  std::string rates;               // where a known limit comes from
  std::string advice;              // how an unknown one becomes known, or a wrong one right
};

struct ReporterSetup {
  std::string output_dir;
  std::string progress = "auto";  // as metrics::Console has it
  core::LogLevel log_level = core::LogLevel::kInfo;
  metrics::DeviceMeasure self;  // rank, host and device of this rank
  StepLimit limit{};
  int64_t first_step = 0;
  int64_t total_steps = 0;
  std::function<int64_t()> peak_memory_bytes;
  /// Gathers the texts of all ranks, in rank order. Collective: every rank.
  std::function<std::vector<std::string>(const std::string& mine)> gather;
  std::vector<std::string> report_to = {};  // metrics::kSinkNames
  std::string logging_dir = {};
  std::string config_text = {};
  /// Called after the run_end event, on rank 0 only. Returns a warning, or "". May be empty.
  std::function<std::string()> run_ended{};
  MistakesFile::Decode decode{};
  /// Watches the wait of a log line for peers. Empty: nobody does.
  std::function<comm::Watchdog::Guard()> guard;
};

/// Writes events to metrics.jsonl and lines to the console, on rank 0 only, with the throughput of every device.
class Reporter {
 public:
  /// Throws: Error(kUsage) when output_dir cannot be created.
  Reporter(comm::Communicator& communicator, ReporterSetup setup);

  bool writes() const { return events_ != nullptr; }
  /// Writes an event with its `time`, in seconds since 1970.
  void event(nlohmann::ordered_json event);
  void notice(const std::string& text);
  void detail(const std::string& text);  // at logging.level debug alone
  void result(const std::string& text);  // how the run ended
  /// "; eval at step 750:  eval_loss 1.2784", of the last evaluation of this start; empty: there was none.
  const std::string& last_evaluation() const { return last_evaluation_; }
  /// `more`: members of the event beside step and message.
  void warn(int64_t step, const std::string& text,
            const nlohmann::ordered_json& more = nlohmann::ordered_json::object());
  /// Says what became of a file; nothing if there is nothing to say.
  void tell(int64_t step, const SideProduct::Outcome& outcome);
  /// World size of the run that last wrote metrics.jsonl; 0: none did, or this rank does not write.
  int64_t world_size_before() const { return world_size_before_; }

  /// Marks the start of training, from which times count.
  void start();
  /// Counts and times of this rank since the last log line, for the caller to add to.
  metrics::DeviceMeasure& measure() { return since_log_; }
  /// Excludes the time from `since_seconds` to now from throughput: ranks evaluated or saved.
  void leave_out_of_throughput(double since_seconds);

  /// Writes a log line and resets measure(). Fills in rates, total and time left. Collective: every rank.
  void log(metrics::StepLine line);
  /// Whether this rank writes to something that shows histograms.
  bool draws_histograms() const;
  /// Passes lists of numbers by name on to it. metrics.jsonl does not get them: they would be most of it.
  void histograms(int64_t step, const nlohmann::ordered_json& lists);
  /// What an evaluation found.
  struct Evaluation {
    int64_t step = 0;
    double epoch = 0.0;
    const std::string& set;  // name of the validation set
    const EvalResult& result;
    const nlohmann::ordered_json& values;  // for_set(set, result.json())
    const data::TokenStore& store;
    std::string judge;  // key of the metric that chooses the best model
  };
  /// Writes the event with all values and tables, and mistakes.jsonl. The line on the console has the first values and
  /// the judge's.
  void evaluated(const Evaluation& evaluation);
  /// Redraws the progress bar.
  void tick(int64_t step);
  /// Shows how far a piece of work of this rank is. Empty on other ranks than 0; valid as long as this object.
  core::Progress begin_work(const std::string& what, const std::string& unit);
  /// Gathers the measurements of the whole run. Collective: every rank.
  void finish();
  /// Writes the run_end event, and if steps were made the table of devices and the share of the limit. `more`: further
  /// members of the event. Call after finish.
  void run_end(const std::string& status, int64_t step, const nlohmann::ordered_json& more);

 private:
  std::vector<metrics::DeviceMeasure> gather(const metrics::DeviceMeasure& mine) const;
  void measure_sums();
  void pass_on(const nlohmann::ordered_json& event);
  void write_end(const std::string& status, int64_t step, const nlohmann::ordered_json& more);
  double seconds_left(int64_t step) const;
  std::string limit_text(std::optional<double> share) const;

  comm::Communicator& communicator_;
  ReporterSetup setup_;
  std::unique_ptr<metrics::EventLog> events_;               // rank 0
  std::unique_ptr<metrics::Console> console_;               // rank 0
  std::vector<std::unique_ptr<metrics::EventSink>> sinks_;  // rank 0
  bool told_of_sinks_ = false;
  MistakesFile mistakes_;
  std::string last_evaluation_;  // of all validation sets
  int64_t evaluated_step_ = -1;
  metrics::DeviceMeasure since_log_, since_start_;
  std::vector<metrics::DeviceMeasure> devices_;  // of the whole run, after finish
  uint64_t bytes_before_log_ = 0;
  int64_t world_size_before_ = 0;
  std::set<std::string> told_of_one_prediction_;  // validation sets, by their last evaluation
  int64_t logged_step_ = 0;                       // the last log line, or the start
  double start_seconds_ = 0.0;
  double log_seconds_ = 0.0;
  double run_seconds_ = 0.0;  // after finish
};

}  // namespace neoloom::train
