// SPDX-License-Identifier: Apache-2.0
#include "launch/report/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <sstream>
#include <string_view>

#include "launch/config/redact.h"
#include "launch/config/run_config.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/metrics/events.h"

namespace neoloom::launch {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using nlohmann::ordered_json;

std::string ranks_text(double ranks) {
  return std::isnan(ranks) ? "" : fmt::format("{} rank{}", ranks, ranks == 1 ? "" : "s");
}

/// Returns the name of the validation set of an eval event, whose first metric is eval_samples or eval_NAME_samples.
std::string set_of(const ordered_json& event) {
  constexpr std::string_view kBegin = "eval_";
  constexpr std::string_view kEnd = "samples";
  for (const auto& [key, value] : event.items()) {
    if (!key.starts_with(kBegin) || !key.ends_with(kEnd)) continue;
    const std::string name = key.substr(kBegin.size(), key.size() - kBegin.size() - kEnd.size());
    return name.ends_with('_') ? name.substr(0, name.size() - 1) : name;
  }
  return "";
}

}  // namespace

std::string text_of(const ordered_json& event, const char* key, const char* otherwise) {
  const auto found = event.find(key);
  return found != event.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

double number_of(const ordered_json& event, const char* key) {
  if (!event.is_object()) return kUnknown;
  const auto found = event.find(key);
  return found != event.end() && found->is_number() ? found->get<double>() : kUnknown;
}

int64_t count_of(double number) { return number >= 0 && number < 1e15 ? static_cast<int64_t>(number) : 0; }

int64_t count_of(const ordered_json& event, const char* key) { return count_of(number_of(event, key)); }

void RecordReader::take(ordered_json event) {
  const std::string kind = text_of(event, "event");
  if (const auto step = lost_.before(event)) forget_beyond(*step);
  if (kind == "run_start") {
    run_.end = nullptr;
    moment(event, "start", ranks_text(number_of(event, "world_size")));
    run_.start = std::move(event);
  } else if (kind == "resume" || kind == "checkpoint") {
    moment(event, kind, fs::path(text_of(event, "path")).filename().string());
  } else if (kind == "train") {
    if (wants_devices_) devices_of(event);
    train({.step = number_of(event, "step"),
           .epoch = number_of(event, "epoch"),
           .loss = number_of(event, "loss"),
           .grad_norm = number_of(event, "grad_norm"),
           .learning_rate = number_of(event, "learning_rate"),
           .time_seconds = number_of(event, "time")});
  } else if (kind == "eval") {
    evaluation(std::move(event));
  } else if (kind == "warning") {
    moment(event, kind, text_of(event, "message"));
  } else if (kind == "run_end") {
    moment(event, text_of(event, "status"), text_of(event, "reason"));
    run_.end = std::move(event);
  }
}

bool RecordReader::take(const metrics::TrainNumbers& numbers) {
  if (const auto step = lost_.before_values()) forget_beyond(*step);
  if (wants_devices_) {
    if (run_.device_lines.begins_stretch()) return false;
    run_.device_lines.add({count_of(numbers.step), {}});
  }
  train(numbers);
  return true;
}

void RecordReader::moment(const ordered_json& event, const std::string& kind, const std::string& what) {
  run_.moments.push_back({kind, count_of(event, "step"), number_of(event, "time"), what});
}

void RecordReader::forget_beyond(int64_t step) {
  run_.train.forget_beyond(step);
  run_.losses.forget_beyond(step);
  run_.device_lines.forget_beyond(step);
  for (ValidationRecord& set : run_.validation) {
    std::erase_if(set.points, [&](const EvalPoint& point) { return point.step > step; });
  }
}

size_t RecordReader::device(const ordered_json& json) {
  const std::string name = fmt::format("rank {}, {}, {}", static_cast<int64_t>(number_of(json, "rank")),
                                       text_of(json, "host"), text_of(json, "device"));
  const auto [found, is_new] = devices_.try_emplace(name, run_.devices.size());
  if (is_new) run_.devices.push_back(name);
  return found->second;
}

void RecordReader::train(const metrics::TrainNumbers& numbers) {
  const int64_t step = count_of(numbers.step);
  const bool finite = std::isfinite(numbers.loss);
  run_.train.add({{{step, numbers.epoch, numbers.loss, numbers.grad_norm, numbers.learning_rate}}});
  run_.losses.add({step, finite ? numbers.loss : 0.0, finite ? 1 : 0});
  run_.progress.add({{{numbers.time_seconds, step}}});
}

void RecordReader::devices_of(const ordered_json& event) {
  DeviceLine line{count_of(event, "step"), {}};
  if (const auto devices = event.find("devices"); devices != event.end() && devices->is_array()) {
    for (const ordered_json& json : *devices) {
      if (!json.is_object() || !json.contains("rank") || !json["rank"].is_number_integer()) continue;
      line.devices.push_back({device(json), number_of(json, "tokens_per_s"), number_of(json, "peak_memory_bytes"),
                              number_of(json, "compute_share"), number_of(json, "comm_share"),
                              number_of(json, "data_share")});
    }
  }
  run_.device_lines.add(std::move(line));
}

void RecordReader::evaluation(ordered_json event) {
  const std::string name = set_of(event);
  const std::string prefix = name.empty() ? "eval_" : "eval_" + name + "_";
  EvalPoint point{count_of(event, "step"), {}};
  ordered_json renamed = ordered_json::object();
  for (auto& [key, value] : event.items()) {
    if (!key.starts_with(prefix)) continue;
    const std::string own = key.substr(prefix.size());
    if (value.is_number() || value.is_null()) {
      point.values.emplace_back(own, value.is_null() ? kUnknown : value.get<double>());
    } else {
      renamed[own] = std::move(value);
    }
  }
  auto set = std::find_if(run_.validation.begin(), run_.validation.end(),
                          [&](const ValidationRecord& each) { return each.name == name; });
  if (set == run_.validation.end()) set = run_.validation.insert(set, {name, {}, {}});
  set->points.push_back(std::move(point));
  set->last = std::move(renamed);
  moment(event, "eval", name);
}

std::string RunRecord::state() const {
  const std::string status = text_of(end, "status");
  return status.empty() ? "no end" : status;
}

int64_t RunRecord::last_step() const {
  int64_t step = end.is_object() ? count_of(end, "step") : 0;
  if (!train.empty()) step = std::max(step, last_of(train).step);
  return step;
}

std::string RunRecord::config_without_seed() const {
  std::set<std::string> left_out = free_keys();
  left_out.insert({"trainer_config.seed", "trainer_config.data_seed"});
  std::string all;
  for (const auto& [key, value] : config) {
    if (!left_out.contains(key)) all += fmt::format("{}: {}\n", key, value);
  }
  return all;
}

std::map<std::string, std::string> read_config_lines(const std::string& text) {
  std::map<std::string, std::string> config;
  std::istringstream lines(text);
  std::string group;
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (line.starts_with('#') || colon == std::string::npos) continue;
    const std::string value = colon + 2 <= line.size() ? redacted(line.substr(colon + 2)) : "";
    if (!line.starts_with(' ')) {
      group = line.substr(0, colon);
      if (!value.empty()) config[group] = value;
      continue;
    }
    const size_t begin = line.find_first_not_of(' ');
    const std::string key = line.substr(begin, colon - begin);
    config[fmt::format("{}.{}", group, key)] = names_secret(key) ? std::string(kHidden) : value;
  }
  return config;
}

std::map<std::string, std::string> read_run_config_lines(const std::string& folder) {
  const std::string path = folder + "/config.yaml";
  std::error_code unknown;
  if (!fs::is_regular_file(path, unknown)) return {};
  return read_config_lines(core::read_file(path, ErrorKind::kUsage));
}

RunRecord read_run(const std::string& folder, const std::string& name) {
  RunRecord run;
  run.folder = folder;
  const fs::path path = fs::path(folder).lexically_normal();
  run.name = !name.empty() ? name : (path.has_filename() ? path : path.parent_path()).filename().string();
  const std::string file = run.folder + "/metrics.jsonl";
  core::require(fs::is_regular_file(file), ErrorKind::kUsage,
                "{} is not the folder of a run that was started: it has no metrics.jsonl (give "
                "trainer_config.output_dir of a training run)",
                run.folder);
  RecordReader reader(run, /*devices=*/true);
  metrics::read_lines(file, [&](std::string_view line) {
    const auto numbers = metrics::scan_train_line(line);
    if (numbers && reader.take(*numbers)) return;
    metrics::take_event(line, [&](ordered_json event) { reader.take(std::move(event)); });
  });
  run.config = read_run_config_lines(folder);
  return run;
}

}  // namespace neoloom::launch
