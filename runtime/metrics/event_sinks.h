// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace neoloom::metrics {

/// An event of lists of numbers, of which each is a histogram.
inline constexpr const char* kHistograms = "histograms";

/// Where events of a run also go, beside metrics.jsonl. Only rank 0 has any.
class EventSink {
 public:
  virtual ~EventSink() = default;
  /// Takes an event after it was written to metrics.jsonl, or one of kHistograms, which is not. It has its `time`.
  virtual void take(const nlohmann::ordered_json& event) = 0;
};

/// What trainer_config.report_to may name.
inline constexpr const char* kSinkNames[] = {"tensorboard", "csv", "prometheus"};

struct SinkSetup {
  std::vector<std::string> report_to;  // of kSinkNames
  std::string output_dir;
  std::string logging_dir;  // of TensorBoard's files; empty: tensorboard in output_dir
  std::string config_text;  // shown by TensorBoard
  std::string host;
  int64_t first_step = 0;  // the run goes on after it; 0: it begins
};

/// Makes the sinks of a start. They forget what lies beyond first_step.
/// Throws: Error(kUsage) when a folder or file cannot be created.
std::vector<std::unique_ptr<EventSink>> make_sinks(const SinkSetup& setup);

/// Event files that TensorBoard reads: each number of train and eval events as a scalar, the lists of kHistograms as
/// histograms, and the configuration as text.
/// Every start writes a new file; it tells TensorBoard to drop the steps that it computes again.
std::unique_ptr<EventSink> make_tensorboard(const SinkSetup& setup);

/// train.csv and eval.csv. A start writes them anew from metrics.jsonl, without lost steps.
std::unique_ptr<EventSink> make_csv(const SinkSetup& setup);

/// metrics.prom, which node_exporter's textfile collector reads, replaced as a whole at each log line.
std::unique_ptr<EventSink> make_prometheus(const SinkSetup& setup);

/// Numbers of a train or eval event by name, in their order; null is NaN. `train`: also those of `devices`, summed up:
/// rates are sums, shares means, memory the largest. Times and steps count as numbers.
std::vector<std::pair<std::string, double>> numbers_of(const nlohmann::ordered_json& event);

}  // namespace neoloom::metrics
