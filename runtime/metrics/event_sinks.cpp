// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/event_sinks.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace neoloom::metrics {
namespace {

using nlohmann::ordered_json;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

void add_devices(const ordered_json& devices, std::vector<std::pair<std::string, double>>& numbers) {
  const auto fold = [&](const char* key, double start, auto&& add) {
    double value = start;
    for (const ordered_json& device : devices) value = add(value, device.value(key, 0.0));
    numbers.emplace_back(key, value);
  };
  const auto sum = [](double all, double one) { return all + one; };
  const auto mean = [&](double all, double one) { return all + one / static_cast<double>(devices.size()); };
  for (const char* key : {"samples_per_s", "tokens_per_s", "tflops"}) fold(key, 0.0, sum);
  for (const char* key : {"compute_share", "comm_share", "data_share"}) fold(key, 0.0, mean);
  fold("peak_memory_bytes", 0.0, [](double all, double one) { return std::max(all, one); });
}

}  // namespace

std::vector<std::pair<std::string, double>> numbers_of(const ordered_json& event) {
  std::vector<std::pair<std::string, double>> numbers;
  for (const auto& [key, value] : event.items()) {
    if (value.is_number()) {
      numbers.emplace_back(key, value.get<double>());
    } else if (value.is_null()) {
      numbers.emplace_back(key, kUnknown);
    } else if (key == "devices" && value.is_array()) {
      add_devices(value, numbers);
    }
  }
  return numbers;
}

std::vector<std::unique_ptr<EventSink>> make_sinks(const SinkSetup& setup) {
  std::vector<std::unique_ptr<EventSink>> sinks;
  for (const std::string& name : setup.report_to) {
    sinks.push_back(name == "tensorboard" ? make_tensorboard(setup)
                    : name == "csv"       ? make_csv(setup)
                                          : make_prometheus(setup));
  }
  return sinks;
}

}  // namespace neoloom::metrics
