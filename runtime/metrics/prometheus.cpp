// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/core/files.h"
#include "runtime/metrics/event_sinks.h"

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;

constexpr const char* kCheckpointStep = "Step of the last checkpoint.";

/// Returns a label's value as Prometheus' text format escapes it.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"' || c == '\n') out += '\\';
    out += c == '\n' ? 'n' : c;
  }
  return out;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

/// A gauge with its values, by further labels.
struct Gauge {
  const char* help;
  std::map<std::string, double> values;
};

class Prometheus : public EventSink {
 public:
  explicit Prometheus(const SinkSetup& setup)
      : path_(setup.output_dir + "/metrics.prom"),
        labels_(fmt::format("run=\"{}\",host=\"{}\"", escaped(setup.output_dir), escaped(setup.host))) {
    write();
  }

  void take(const ordered_json& event) override {
    const std::string kind = event.value("event", "");
    if (kind == "run_start") {
      set("total_steps", "Steps of the whole run.", event, "total_steps");
      set("ranks", "Ranks of the job.", event, "world_size");
      set("running", "1 while the job trains, 0 after its end.", 1.0);
    } else if (kind == "resume") {
      set("checkpoint_step", kCheckpointStep, event, "step");
    } else if (kind == "checkpoint") {
      set("checkpoint_step", kCheckpointStep, event, "step");
      set("checkpoint_timestamp_seconds", "When the last checkpoint was written, Unix time.", event, "time");
    } else if (kind == "train") {
      take_train(event);
    } else if (kind == "eval") {
      for (const auto& [key, value] : numbers_of(event)) {
        if (!key.starts_with("eval_")) continue;
        gauges_["evaluation"].help = "Metrics of the last evaluation.";
        gauges_["evaluation"].values[fmt::format(",metric=\"{}\"", escaped(key))] = value;
      }
    } else if (kind == "run_end") {
      set("running", "1 while the job trains, 0 after its end.", 0.0);
    } else {
      return;
    }
    write();
  }

 private:
  void take_train(const ordered_json& event) {
    set("step", "Last logged step.", event, "step");
    set("epoch", "Epochs done.", event, "epoch");
    set("loss", "Mean training loss since the log line before.", event, "loss");
    set("gradient_norm", "Norm of the last gradient before clipping.", event, "grad_norm");
    set("learning_rate", "Learning rate of the last step.", event, "learning_rate");
    set("log_timestamp_seconds", "When the last log line was written, Unix time.", event, "time");
    for (const auto& [key, value] : numbers_of(event)) {
      if (key == "tokens_per_s") set("tokens_per_second", "Tokens per second of all devices.", value);
    }
  }

  void set(const char* name, const char* help, double value) {
    gauges_[name].help = help;
    gauges_[name].values[""] = value;
  }
  void set(const char* name, const char* help, const ordered_json& event, const char* key) {
    const auto found = event.find(key);
    if (found == event.end()) return;
    set(name, help, found->is_number() ? found->get<double>() : std::nan(""));
  }

  void write() const {
    std::string text;
    for (const auto& [name, gauge] : gauges_) {
      text += fmt::format("# HELP neoloom_{} {}\n# TYPE neoloom_{} gauge\n", name, gauge.help, name);
      for (const auto& [more, value] : gauge.values) {
        text += fmt::format("neoloom_{}{{{}{}}} {}\n", name, labels_, more, number(value));
      }
    }
    core::publish_file(path_, text, core::ErrorKind::kUsage);
  }

  std::string path_, labels_;
  std::map<std::string, Gauge> gauges_;
};

}  // namespace

std::unique_ptr<EventSink> make_prometheus(const SinkSetup& setup) { return std::make_unique<Prometheus>(setup); }

}  // namespace neoloom::metrics
