// SPDX-License-Identifier: Apache-2.0
#include "launch/report/run_sections.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/report/chart.h"
#include "launch/report/evaluation_section.h"
#include "launch/report/html.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

std::string charts(const std::string& html) { return fmt::format("<div class=\"charts\">{}</div>\n", html); }

std::string utc(double seconds) {
  if (!std::isfinite(seconds)) return "–";
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

std::string short_text(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return metrics::with_thousands(value.get<int64_t>());
  if (value.is_number()) return rounded(value.get<double>());
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string summary(const RunRecord& run) {
  Table table("", {"what", "value"}, /*text=*/true);
  const auto add = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) table.row({name, value});
  };
  const auto from = [&](const ordered_json& event, const char* key, const char* name) {
    if (event.is_object() && event.contains(key) && !event[key].is_null()) add(name, short_text(event[key]));
  };
  add("folder", run.folder);
  add("state", run.state() == "no end" ? "no end yet: it goes on, or was killed (neoloom status tells)" : run.state());
  from(run.end, "reason", "reason");
  const double total = number_of(run.start, "total_steps");
  add("step", total > 0 ? fmt::format("{} of {}", run.last_step(), total) : fmt::format("{}", run.last_step()));
  if (!run.train.empty()) {
    add("epoch", rounded(last_of(run.train).epoch));
    add("last training loss", rounded(last_of(run.train).loss));
  }
  for (const ValidationRecord& set : run.validation) {
    for (const char* metric : {"loss", "accuracy", "macro_f1", "perplexity", "mse"}) {
      if (const double value = last_value(set, metric); !std::isnan(value)) {
        add(fmt::format("last {} {}", set_title(set), metric), rounded(value));
      }
    }
  }
  from(run.start, "task", "task");
  from(run.start, "world_size", "ranks");
  from(run.start, "device", "device");
  from(run.start, "global_batch_size", "global batch size");
  from(run.start, "trainable_parameters", "trainable parameters");
  from(run.start, "frozen_parameters", "frozen parameters");
  from(run.start, "frozen_dtype", "frozen dtype");
  from(run.start, "compute_dtype", "compute dtype");
  from(run.start, "seed", "seed");
  from(run.end, "train_runtime", "seconds of the last start");
  from(run.end, "train_samples_per_second", "samples per second");
  from(run.end, "train_tokens_per_second", "tokens per second");
  from(run.end, "skipped_steps", "skipped steps");
  if (run.start.is_object() && run.start.contains("versions") && run.start["versions"].is_object()) {
    from(run.start["versions"], "neoloom", "neoloom");
  }
  return table.html();
}

/// Returns one value of each train event over the steps.
template <typename Value>
Series over_steps(const RunRecord& run, const std::string& name, const Value& value) {
  Series series{.name = name, .x = {}, .y = {}};
  for (const TrainPoint& point : points_of(run.train)) {
    series.x.push_back(static_cast<double>(point.step));
    series.y.push_back(value(point));
  }
  return series;
}

std::vector<Mark> resumes_of(const RunRecord& run) {
  std::vector<Mark> marks;
  for (const Moment& moment : run.moments) {
    if (moment.kind == "resume")
      marks.push_back({static_cast<double>(moment.step), fmt::format("resume at {}", moment.step)});
  }
  return marks;
}

std::string training(const RunRecord& run) {
  if (run.train.empty()) return missing("There is no log line yet.");
  const std::vector<Mark> resumes = resumes_of(run);
  Chart loss{.title = "Loss", .x_label = "step", .series = {}, .marks = resumes};
  loss.series.push_back(over_steps(run, "training", [](const TrainPoint& point) { return point.loss; }));
  for (const ValidationRecord& set : run.validation) {
    if (Series series = metric_series(set, "loss", set_title(set)); !series.x.empty()) loss.series.push_back(series);
  }
  const Chart rate{.title = "Learning rate",
                   .x_label = "step",
                   .series = {over_steps(run, "learning rate", [](const TrainPoint& p) { return p.learning_rate; })},
                   .marks = resumes,
                   .from_zero = true};
  const Chart norm{.title = "Gradient norm before clipping",
                   .x_label = "step",
                   .series = {over_steps(run, "gradient norm", [](const TrainPoint& p) { return p.grad_norm; })},
                   .marks = resumes,
                   .from_zero = true};
  return charts(line_chart(loss) + line_chart(rate) + line_chart(norm));
}

/// Returns a value of every device over the steps. Of many devices: the least, the median and the greatest.
std::vector<Series> by_device(const RunRecord& run, double DevicePoint::*member, double scale) {
  constexpr size_t kMostLines = 8;
  std::vector<Series> series;
  if (run.devices.size() <= kMostLines) {
    for (const std::string& device : run.devices) series.push_back({.name = device, .x = {}, .y = {}});
    for (const DeviceLine& line : run.device_lines.stretches()) {
      for (const DevicePoint& device : line.devices) {
        series[device.device].x.push_back(static_cast<double>(line.step));
        series[device.device].y.push_back(device.*member * scale);
      }
    }
    return series;
  }
  for (const char* name : {"least of the devices", "median", "greatest"})
    series.push_back({.name = name, .x = {}, .y = {}});
  for (const DeviceLine& line : run.device_lines.stretches()) {
    std::vector<double> values;
    for (const DevicePoint& device : line.devices) {
      if (std::isfinite(device.*member)) values.push_back(device.*member * scale);
    }
    if (values.empty()) continue;
    std::sort(values.begin(), values.end());
    const double three[] = {values.front(), values[values.size() / 2], values.back()};
    for (size_t k = 0; k < 3; ++k) {
      series[k].x.push_back(static_cast<double>(line.step));
      series[k].y.push_back(three[k]);
    }
  }
  return series;
}

/// Returns the mean of the devices over the steps.
Series mean_of_devices(const RunRecord& run, const char* name, double DevicePoint::*member) {
  Series series{.name = name, .x = {}, .y = {}};
  for (const DeviceLine& line : run.device_lines.stretches()) {
    double sum = 0.0;
    for (const DevicePoint& device : line.devices) sum += device.*member;
    series.x.push_back(static_cast<double>(line.step));
    series.y.push_back(line.devices.empty() ? kUnknown : sum / static_cast<double>(line.devices.size()));
  }
  return series;
}

std::string speed(const RunRecord& run) {
  if (run.devices.empty()) return missing("There is no log line with devices yet.");
  constexpr double kGigabytes = 1e-9;
  const Chart tokens{.title = "Tokens per second of each device",
                     .x_label = "step",
                     .series = by_device(run, &DevicePoint::tokens_per_s, 1.0),
                     .from_zero = true};
  const Chart memory{.title = "Peak memory of each device",
                     .x_label = "step",
                     .series = by_device(run, &DevicePoint::peak_memory_bytes, kGigabytes),
                     .from_zero = true,
                     .unit = "GB"};
  const Chart shares{.title = "Shares of the time, mean of the devices",
                     .x_label = "step",
                     .series = {mean_of_devices(run, "compute", &DevicePoint::compute_share),
                                mean_of_devices(run, "communication", &DevicePoint::comm_share),
                                mean_of_devices(run, "waiting for data", &DevicePoint::data_share)}};
  return charts(line_chart(tokens) + stacked_chart(shares) + line_chart(memory));
}

std::string data(const RunRecord& run) {
  const auto found = run.start.is_object() ? run.start.find("token_lengths") : run.start.end();
  if (found == run.start.end() || !found->is_array()) {
    return missing(
        "There is no histogram of lengths: this run_start event has no token_lengths, which neoloom 0.3 and "
        "later write.");
  }
  std::vector<std::string> bins;
  std::vector<double> counts;
  for (const ordered_json& bin : *found) {
    const double from = number_of(bin, "from");
    const double to = number_of(bin, "to");
    bins.push_back(from == to ? fmt::format("{}", from) : fmt::format("{}–{}", from, to));
    counts.push_back(number_of(bin, "samples"));
  }
  return charts(bar_chart("Training samples by length", "tokens", bins, counts));
}

/// Returns times as seconds, minutes, hours or days since the first.
struct Clock {
  double start = kUnknown;
  double unit_seconds = 1.0;
  const char* name = "seconds";
  double at(double time_seconds) const { return (time_seconds - start) / unit_seconds; }
};

Clock clock_of(const RunRecord& run) {
  Clock clock;
  double last = kUnknown;
  for (const Moment& moment : run.moments) {
    if (!std::isfinite(moment.time_seconds)) continue;
    if (std::isnan(clock.start)) clock.start = moment.time_seconds;
    last = moment.time_seconds;
  }
  const double span = last - clock.start;
  if (span > 4 * 86400.0) return {clock.start, 86400.0, "days"};
  if (span > 3 * 3600.0) return {clock.start, 3600.0, "hours"};
  if (span > 180.0) return {clock.start, 60.0, "minutes"};
  return clock;
}

std::string timeline_chart(const RunRecord& run) {
  const Clock clock = clock_of(run);
  if (std::isnan(clock.start)) {
    return missing("There is no timeline: these events have no time, which neoloom 0.3 and later write.");
  }
  Chart chart{.title = "Steps over time",
              .x_label = fmt::format("{} since the first start", clock.name),
              .series = {{.name = "step", .x = {}, .y = {}}},
              .integer_x = false,
              .from_zero = true};
  for (const ProgressPoint& point : points_of(run.progress)) {
    if (!std::isfinite(point.time_seconds)) continue;
    chart.series[0].x.push_back(clock.at(point.time_seconds));
    chart.series[0].y.push_back(static_cast<double>(point.step));
  }
  constexpr std::pair<const char*, const char*> kKinds[] = {{"resume", "resume"},
                                                            {"stopped", "stop"},
                                                            {"failed", "failure"},
                                                            {"completed", "end"},
                                                            {"checkpoint", "checkpoint"}};
  for (const auto& [kind, name] : kKinds) {
    Series dots{.name = name, .x = {}, .y = {}, .dots = true};
    for (const Moment& moment : run.moments) {
      if (moment.kind != kind || !std::isfinite(moment.time_seconds)) continue;
      dots.x.push_back(clock.at(moment.time_seconds));
      dots.y.push_back(static_cast<double>(moment.step));
    }
    if (!dots.x.empty()) chart.series.push_back(std::move(dots));
  }
  return charts(line_chart(chart));
}

std::string moments_of(const RunRecord& run) {
  constexpr size_t kMostRows = 300;
  std::vector<const Moment*> told;
  for (const Moment& moment : run.moments) {
    if (moment.kind != "eval") told.push_back(&moment);
  }
  const size_t first = told.size() > kMostRows ? told.size() - kMostRows : 0;
  Table table(first > 0 ? fmt::format("The last {} of {} events; metrics.jsonl has all", kMostRows, told.size()) : "",
              {"time (UTC)", "step", "what", "more"}, /*text=*/true);
  for (size_t i = first; i < told.size(); ++i) {
    const std::string step = told[i]->kind == "start" ? "–" : fmt::format("{}", told[i]->step);
    table.row({utc(told[i]->time_seconds), step, told[i]->kind, told[i]->text});
  }
  return table.html();
}

std::string configuration(const RunRecord& run) {
  if (run.config.empty()) return missing("The run folder has no config.yaml.");
  Table table("", {"key", "value"}, /*text=*/true);
  for (const auto& [key, value] : run.config) table.row({key, value});
  return details("All keys", table.html());
}

}  // namespace

std::string run_sections(const RunRecord& run, const std::string& anchor) {
  return section(anchor + "summary", "Summary", summary(run)) +
         section(anchor + "training", "Training", training(run)) +
         section(anchor + "evaluation", "Evaluation", evaluation_section(run)) +
         section(anchor + "speed", "Speed and memory", speed(run)) + section(anchor + "data", "Data", data(run)) +
         section(anchor + "timeline", "Timeline", timeline_chart(run) + moments_of(run)) +
         section(anchor + "configuration", "Configuration", configuration(run));
}

}  // namespace neoloom::launch
