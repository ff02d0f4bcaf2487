// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/events.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/core/json.h"
#include "runtime/core/wire.h"

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;

double per_second(int64_t count, double seconds) { return seconds > 0.0 ? static_cast<double>(count) / seconds : 0.0; }

double share(double part_seconds, double seconds) { return seconds > 0.0 ? part_seconds / seconds : 0.0; }

}  // namespace

void EventLog::write(const ordered_json& event) {
  // Class names and paths may hold broken UTF-8; a replaced letter is better than a run that ends here.
  file_.append(event.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

void read_lines(const std::string& path, const std::function<void(std::string_view line)>& take) {
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(path, unknown)) return;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) take(line);
}

void read_events(const std::string& path, const std::function<void(ordered_json event)>& take) {
  read_lines(path, [&](std::string_view line) { take_event(line, take); });
}

void take_event(std::string_view line, const std::function<void(ordered_json event)>& take) {
  if (!core::json_excess(line).empty()) return;
  ordered_json event = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (event.is_object()) take(std::move(event));
}

std::optional<int64_t> LostSteps::before(const ordered_json& event) {
  const auto kind = event.find("event");
  if (kind == event.end() || !kind->is_string()) return std::nullopt;
  if (*kind == "run_start") {
    started_ = true;
  } else if (*kind == "resume") {
    started_ = false;
    const auto step = event.find("step");
    return step != event.end() && step->is_number() ? step->get<int64_t>() : 0;
  } else if (*kind == "train" || *kind == "eval") {
    return before_values();
  }
  return std::nullopt;
}

std::optional<int64_t> LostSteps::before_values() {
  return std::exchange(started_, false) ? std::optional<int64_t>(-1) : std::nullopt;
}

ordered_json device_json(const DeviceMeasure& measure) {
  const double seconds = measure.seconds;
  ordered_json json;
  json["rank"] = measure.rank;
  json["host"] = measure.host;
  json["device"] = measure.device;
  json["batches_per_s"] = per_second(measure.batches, seconds);
  json["samples_per_s"] = per_second(measure.samples, seconds);
  json["tokens_per_s"] = per_second(measure.tokens, seconds);
  json["tflops"] = share(measure.flops, seconds) * 1e-12;
  json["peak_memory_bytes"] = measure.peak_memory_bytes;
  json["compute_share"] = share(measure.compute_seconds, seconds);
  json["comm_share"] = share(measure.comm_seconds, seconds);
  json["data_share"] = share(measure.data_seconds, seconds);
  json["padding_share"] = padding_share(measure);
  json["exposed_sum_share"] = share(measure.exposed_sum_seconds, seconds);
  json["summed_bytes"] = measure.summed_bytes;
  return json;
}

double padding_share(const DeviceMeasure& measure) {
  if (measure.padded_tokens <= 0) return 0.0;
  return static_cast<double>(measure.padded_tokens - measure.tokens) / static_cast<double>(measure.padded_tokens);
}

std::optional<double> budget_share(const DeviceMeasure& measure) {
  if (measure.budget_tokens <= 0) return std::nullopt;
  return static_cast<double>(measure.tokens) / static_cast<double>(measure.budget_tokens);
}

std::optional<double> share_of_limit(const std::vector<DeviceMeasure>& measures) {
  double limit_seconds = 0.0;
  double seconds = 0.0;
  for (const DeviceMeasure& measure : measures) {
    if (measure.limit_seconds_per_token <= 0.0) return std::nullopt;
    limit_seconds += static_cast<double>(measure.tokens) * measure.limit_seconds_per_token;
    seconds += measure.seconds;
  }
  return seconds > 0.0 ? std::optional(limit_seconds / seconds) : std::nullopt;
}

void accumulate(const DeviceMeasure& part, DeviceMeasure& total) {
  total.batches += part.batches;
  total.samples += part.samples;
  total.tokens += part.tokens;
  total.padded_tokens += part.padded_tokens;
  total.budget_tokens += part.budget_tokens;
  total.flops += part.flops;
  total.seconds += part.seconds;
  total.compute_seconds += part.compute_seconds;
  total.comm_seconds += part.comm_seconds;
  total.data_seconds += part.data_seconds;
  total.exposed_sum_seconds += part.exposed_sum_seconds;
  total.summed_bytes += part.summed_bytes;
  total.peak_memory_bytes = std::max(total.peak_memory_bytes, part.peak_memory_bytes);
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DeviceMeasure, rank, host, device, batches, samples, tokens, padded_tokens,
                                   budget_tokens, flops, seconds, compute_seconds, comm_seconds, data_seconds,
                                   peak_memory_bytes, exposed_sum_seconds, summed_bytes, limit_seconds_per_token)

std::string pack(const DeviceMeasure& measure) { return core::to_wire(measure); }
DeviceMeasure unpack(const std::string& text) { return core::from_wire<DeviceMeasure>(text); }

}  // namespace neoloom::metrics
