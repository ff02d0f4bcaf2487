// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/report/thinned.h"
#include "runtime/metrics/event_line.h"
#include "runtime/metrics/events.h"

namespace neoloom::launch {

/// A number that the events do not tell.
inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// What one device did between two log lines.
struct DevicePoint {
  size_t device = 0;  // index into RunRecord::devices
  double tokens_per_s = 0.0;
  double peak_memory_bytes = 0.0;
  double compute_share = 0.0;
  double comm_share = 0.0;
  double data_share = 0.0;
};

/// The devices of a `train` event. Of a stretch of a thinned series it keeps the first.
struct DeviceLine {
  int64_t step = 0;
  std::vector<DevicePoint> devices;

  void take(const DeviceLine& /*later*/) {}
  bool forget_beyond(int64_t last) const { return step > last; }
};

/// A `train` event. What an event does not have, or has as null, is NaN.
struct TrainPoint {
  int64_t step = 0;
  double epoch = 0.0;
  double loss = 0.0;
  double grad_norm = 0.0;
  double learning_rate = 0.0;
};
using TrainSeries =
    Thinned<Extremes<TrainPoint, &TrainPoint::loss, &TrainPoint::grad_norm, &TrainPoint::learning_rate>>;

/// The mean loss of a stretch of log lines.
struct MeanLoss {
  int64_t first_step = 0;
  double sum = 0.0;
  int64_t count = 0;  // of finite losses

  double mean() const { return sum / static_cast<double>(count); }  // NaN: none is finite
  void take(const MeanLoss& later) {
    sum += later.sum;
    count += later.count;
  }
  bool forget_beyond(int64_t last) const { return first_step > last; }
};

/// When a log line was written.
struct ProgressPoint {
  double time_seconds = 0.0;  // Unix time; NaN: unknown
  int64_t step = 0;
};
using ProgressSeries = Thinned<Extremes<ProgressPoint, &ProgressPoint::step>>;

/// An `eval` event of one validation set. Names have neither "eval_" nor the name of the set.
struct EvalPoint {
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> values;
};

struct ValidationRecord {
  std::string name;  // "" when the run has one set without a name
  std::vector<EvalPoint> points;
  nlohmann::ordered_json last;  // the last event: its tables
};

/// Something that happened once: start, resume, checkpoint, evaluation, warning, end.
struct Moment {
  std::string kind;  // the event's name; for run_end its status: completed, stopped, failed
  int64_t step = 0;
  double time_seconds = 0.0;  // Unix time; NaN: unknown
  std::string text;
};

/// What a run folder holds that a report shows, as a resume leaves it: train and eval lines of lost steps are gone. Of
/// a million log lines it keeps thousands.
struct RunRecord {
  std::string name;
  std::string folder;
  std::map<std::string, std::string> config;  // "group.key" -> value in config.yaml; empty: there is no such file
  nlohmann::ordered_json start;               // the last run_start; null: none
  nlohmann::ordered_json end;                 // the run_end of that start; null: none
  std::vector<std::string> devices;           // "rank 0, node1, cpu"
  TrainSeries train;
  Thinned<MeanLoss> losses;
  Thinned<DeviceLine> device_lines;  // of the log lines that have devices
  ProgressSeries progress;           // of all log lines, lost ones, too
  std::vector<ValidationRecord> validation;
  std::vector<Moment> moments;

  /// completed, stopped or failed; "no end": it goes on, or was killed.
  std::string state() const;
  int64_t last_step() const;
  /// What the configuration says without the seeds and free_keys(); "" without a config.yaml. Runs with the same text
  /// differ only by their seed.
  std::string config_without_seed() const;
};

/// Takes the events of a metrics.jsonl in their order into a record.
class RecordReader {
 public:
  /// `devices`: whether the record gets device_lines.
  RecordReader(RunRecord& run, bool devices) : run_(run), wants_devices_(devices) {}
  void take(nlohmann::ordered_json event);
  /// Takes a train event of which it needs no more than these numbers. Returns false when it needs the whole event.
  bool take(const metrics::TrainNumbers& numbers);

 private:
  void moment(const nlohmann::ordered_json& event, const std::string& kind, const std::string& what);
  void forget_beyond(int64_t step);
  size_t device(const nlohmann::ordered_json& json);
  void train(const metrics::TrainNumbers& numbers);
  void devices_of(const nlohmann::ordered_json& event);
  void evaluation(nlohmann::ordered_json event);

  RunRecord& run_;
  bool wants_devices_;
  std::map<std::string, size_t> devices_;
  metrics::LostSteps lost_;
};

/// Reads a run folder. `name` stands for it in the report; "": the name of the folder.
/// Throws: Error(kUsage) when the folder has no metrics.jsonl.
RunRecord read_run(const std::string& folder, const std::string& name = "");

/// A member of an event; NaN when it is absent, null or no number.
double number_of(const nlohmann::ordered_json& event, const char* key);

/// A text that an event has; `otherwise` when it is absent or no text.
std::string text_of(const nlohmann::ordered_json& event, const char* key, const char* otherwise = "");

/// A count that an event has; 0 when it is absent, or no number that can be one.
int64_t count_of(const nlohmann::ordered_json& event, const char* key);
/// The same of a number.
int64_t count_of(double number);

/// Reads "group.key" -> value from the text of a config.yaml, which has one key a line. Secrets are hidden.
std::map<std::string, std::string> read_config_lines(const std::string& text);

/// The same of a run folder's config.yaml; empty: there is no such file.
std::map<std::string, std::string> read_run_config_lines(const std::string& folder);

}  // namespace neoloom::launch
