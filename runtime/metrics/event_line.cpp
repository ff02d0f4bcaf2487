// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/event_line.h"

#include <array>
#include <charconv>
#include <system_error>
#include <utility>

namespace neoloom::metrics {
namespace {

constexpr std::string_view kBegin = "{\"event\":\"";
constexpr std::string_view kTrain = "{\"event\":\"train\"";
constexpr std::string_view kDevices = ",\"devices\":[";
constexpr std::string_view kTime = ",\"time\":";

bool skip(std::string_view text, std::string_view& rest) {
  if (!rest.starts_with(text)) return false;
  rest.remove_prefix(text.size());
  return true;
}

// Takes a number, or null as NaN. Returns false for any other value.
bool take_number(std::string_view& rest, double& number) {
  if (skip("null", rest)) {
    number = std::numeric_limits<double>::quiet_NaN();
    return true;
  }
  const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (problem != std::errc()) return false;
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  return true;
}

}  // namespace

std::string_view kind_of(std::string_view line) {
  if (!skip(kBegin, line)) return {};
  const std::string_view kind = line.substr(0, line.find('"'));
  return kind.size() < line.size() && kind.find('\\') == kind.npos ? kind : std::string_view();
}

std::optional<TrainNumbers> scan_train_line(std::string_view line) {
  constexpr std::array<std::pair<std::string_view, double TrainNumbers::*>, 5> kWanted{
      {{"step", &TrainNumbers::step},
       {"epoch", &TrainNumbers::epoch},
       {"loss", &TrainNumbers::loss},
       {"grad_norm", &TrainNumbers::grad_norm},
       {"learning_rate", &TrainNumbers::learning_rate}}};
  std::string_view rest = line;
  if (!skip(kTrain, rest)) return std::nullopt;
  TrainNumbers numbers;
  while (!rest.starts_with(kDevices)) {
    if (!skip(",\"", rest)) return std::nullopt;
    const std::string_view key = rest.substr(0, rest.find('"'));
    rest.remove_prefix(key.size());
    double number = 0.0;
    if (!skip("\":", rest) || !take_number(rest, number)) return std::nullopt;
    for (const auto& [name, member] : kWanted) {
      if (name == key) numbers.*member = number;
    }
  }
  // The time is the last member, so a line with it is whole.
  const size_t time = rest.rfind(kTime);
  if (time == rest.npos) return std::nullopt;
  rest.remove_prefix(time + kTime.size());
  if (!take_number(rest, numbers.time_seconds) || rest != "}") return std::nullopt;
  return numbers;
}

}  // namespace neoloom::metrics
