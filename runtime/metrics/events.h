// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "runtime/metrics/appended_file.h"

namespace neoloom::metrics {

/// Appends JSON objects to metrics.jsonl, one a line. Each line is one write(), so a killed run leaves whole lines.
/// Only rank 0 has one.
class EventLog {
 public:
  static constexpr size_t kMostWaitingBytes = AppendedFile::kMostWaitingBytes;

  /// Throws: as AppendedFile.
  explicit EventLog(const std::string& path) : file_(path, "metrics.jsonl", /*lines=*/true) {}
  /// `event` has the key "event" first.
  void write(const nlohmann::ordered_json& event);

 private:
  AppendedFile file_;
};

/// Calls `take` with each line of a metrics.jsonl, in order, without its end. A file that is not there has none.
void read_lines(const std::string& path, const std::function<void(std::string_view line)>& take);

/// The same with the event of each line. A line that is not whole, because it is being written, does not count.
void read_events(const std::string& path, const std::function<void(nlohmann::ordered_json event)>& take);

/// Calls `take` with the event of one line; not with a line that is no JSON object.
void take_event(std::string_view line, const std::function<void(nlohmann::ordered_json event)>& take);

/// Tells which train and eval lines no longer count, because a resume computes their steps again. Takes all events of a
/// metrics.jsonl in their order.
class LostSteps {
 public:
  /// Returns a step when lines before this event that lie beyond it no longer count; a start that does not resume gives
  /// -1.
  std::optional<int64_t> before(const nlohmann::ordered_json& event);
  /// The same before a train or eval event.
  std::optional<int64_t> before_values();

 private:
  bool started_ = false;  // a start, and neither a resume nor a line yet
};

/// What one rank measured since the last report. Seconds are wall time of the rank's own thread.
struct DeviceMeasure {
  int32_t rank = 0;
  std::string host;
  std::string device;  // "cpu", "cuda:0"
  int64_t batches = 0;
  int64_t samples = 0;
  int64_t tokens = 0;         // real tokens
  int64_t padded_tokens = 0;  // rows x length, pads included
  int64_t budget_tokens = 0;  // that the micro-batches could hold; 0: max_tokens_per_micro_batch is not given
  double flops = 0.0;
  double seconds = 0.0;
  double compute_seconds = 0.0;
  double comm_seconds = 0.0;
  double data_seconds = 0.0;
  int64_t peak_memory_bytes = 0;
  double exposed_sum_seconds = 0.0;  // part of comm_seconds in which computation waited for the gradient sums
  int64_t summed_bytes = 0;          // payload of the gradient sums
  /// The least time of a real token's GEMMs; 0: unknown.
  double limit_seconds_per_token = 0.0;
};

/// One object of the `devices` list of a `train` event: rank, host, device, batches_per_s, samples_per_s, tokens_per_s,
/// tflops, peak_memory_bytes, compute_share, comm_share, data_share, padding_share, exposed_sum_share, summed_bytes.
nlohmann::ordered_json device_json(const DeviceMeasure& measure);

/// Share of the micro-batches' token budget that is used; nullopt: there is none.
std::optional<double> budget_share(const DeviceMeasure& measure);

/// Share of positions that would be padding in a padded batch. The model does not compute them.
double padding_share(const DeviceMeasure& measure);

/// The least time of the GEMMs that the devices computed, divided by the devices' time; nullopt: a device's limit is
/// unknown.
std::optional<double> share_of_limit(const std::vector<DeviceMeasure>& measures);

/// Adds counts and seconds of `part` to `total`; peak memory is the larger of both. Names stay `total`'s.
void accumulate(const DeviceMeasure& part, DeviceMeasure& total);

/// Serialize measures, to send them between ranks.
std::string pack(const DeviceMeasure& measure);
DeviceMeasure unpack(const std::string& text);

/// The table at the end of a run: a header with units, one row per device, and for several devices a row of sums.
std::string device_table(const std::vector<DeviceMeasure>& measures);

/// Peak resident memory of this process (VmHWM), and its private resident memory now.
int64_t peak_resident_bytes();
int64_t private_resident_bytes();

}  // namespace neoloom::metrics
