// SPDX-License-Identifier: Apache-2.0
// TensorBoard's event files: TFRecords (tensorflow/core/lib/io/record_writer.h) of Event messages
// (tensorflow/core/util/event.proto, framework/summary.proto). The few fields are encoded here, because protobuf and
// TensorFlow would be large dependencies for them.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "runtime/core/clock.h"
#include "runtime/metrics/appended_file.h"
#include "runtime/metrics/event_sinks.h"
#include "runtime/metrics/tf_record.h"

namespace neoloom::metrics {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr std::string_view kFileBegin = "events.out.tfevents.";

/// Encodes one protobuf message, field by field.
class Message {
 public:
  Message& number(uint32_t field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& real64(uint32_t field, double value) {
    key(field, 1);
    return little_endian(std::bit_cast<uint64_t>(value), 8);
  }
  Message& real32(uint32_t field, float value) {
    key(field, 5);
    return little_endian(std::bit_cast<uint32_t>(value), 4);
  }
  Message& text(uint32_t field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(uint32_t field, const Message& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(uint32_t field, uint32_t wire_type) { varint(field << 3U | wire_type); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7U) bytes_ += static_cast<char>(value | 0x80U);
    bytes_ += static_cast<char>(value);
  }
  Message& little_endian(uint64_t bits, int count_bytes) {
    for (int i = 0; i < count_bytes; ++i) bytes_ += static_cast<char>(bits >> (8U * static_cast<unsigned>(i)));
    return *this;
  }
  std::string bytes_;
};

/// Returns an Event with a time and, unless it is 0, a step.
Message event_at(double time_seconds, int64_t step) {
  Message event;
  event.real64(1, time_seconds);
  if (step != 0) event.number(2, step);
  return event;
}

void add_scalar(const std::string& tag, double value, Message& summary) {
  summary.message(1, Message().text(1, tag).real32(2, static_cast<float>(value)));
}

/// Returns a HistogramProto of finite numbers, of which there is one at least, in TensorBoard's 30 buckets of equal
/// width.
Message histogram_of(const std::vector<double>& values) {
  constexpr size_t kBuckets = 30;
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  const double width = (*greatest - *least) / kBuckets;
  std::vector<double> counts(width > 0.0 ? kBuckets : 1, 0.0);
  double sum = 0.0, squares = 0.0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
    counts[width > 0.0 ? std::min(static_cast<size_t>((value - *least) / width), kBuckets - 1) : 0] += 1.0;
  }
  Message message;
  message.real64(1, *least).real64(2, *greatest).real64(3, static_cast<double>(values.size()));
  message.real64(4, sum).real64(5, squares);
  for (size_t i = 1; i < counts.size(); ++i) message.real64(6, *least + width * static_cast<double>(i));
  message.real64(6, *greatest);
  for (const double count : counts) message.real64(7, count);
  return message;
}

/// Returns a Summary.Value that the text plug-in shows: a tensor of one string.
Message text_value(const std::string& tag, const std::string& text) {
  constexpr int64_t kString = 7;  // tensorflow/core/framework/types.proto
  const Message shape = Message().message(2, Message().number(1, 1));
  const Message tensor = Message().number(1, kString).message(2, shape).text(8, text);
  const Message metadata = Message().message(1, Message().text(1, "text"));
  return Message().text(1, tag).message(8, tensor).message(9, metadata);
}

/// Indents a text, so that Markdown shows it as it is.
std::string as_code(const std::string& text) {
  std::string code;
  bool begins = true;
  for (const char c : text) {
    if (begins) code += "    ";
    code += c;
    begins = c == '\n';
  }
  return code;
}

/// Returns a new file's name. TensorBoard reads the files of a folder in the order of their names, which begin with a
/// time: that of the new file is later than all others, whatever the clock says.
std::string new_file(const std::string& folder, const std::string& host) {
  auto seconds = static_cast<int64_t>(core::unix_seconds());
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kFileBegin)) continue;
    int64_t other = 0;
    std::from_chars(name.data() + kFileBegin.size(), name.data() + name.size(), other);
    seconds = std::max(seconds, other + 1);
  }
  return fmt::format("{}/{}{}.{}.{}.0", folder, kFileBegin, seconds, host, ::getpid());
}

class TensorBoard : public EventSink {
 public:
  explicit TensorBoard(const SinkSetup& setup)
      : file_(new_file(folder_of(setup), setup.host), "TensorBoard's event file", /*lines=*/false) {
    constexpr int64_t kStart = 1;  // SessionLog.START
    const double now = core::unix_seconds();
    write(event_at(now, 0).text(3, "brain.Event:2"));
    // TensorBoard forgets this step and those after it.
    const int64_t next = setup.first_step == 0 ? 0 : setup.first_step + 1;
    write(event_at(now, next).message(7, Message().number(1, kStart)));
    const Message configuration = text_value("configuration", as_code(setup.config_text));
    write(event_at(now, setup.first_step).message(5, Message().message(1, configuration)));
  }

  void take(const ordered_json& event) override {
    const std::string kind = event.value("event", "");
    if (kind == kHistograms) return take_histograms(event);
    if (kind != "train" && kind != "eval") return;
    Message summary;
    for (const auto& [key, value] : event.items()) {
      if (key == "step" || key == "time") continue;
      if (value.is_number() || value.is_null()) add_scalar(tag_of(kind, key), number(value), summary);
    }
    if (event.contains("devices")) add_devices(event["devices"], summary);
    write(event_at(event.value("time", 0.0), event.value("step", int64_t{0})).message(5, summary));
  }

 private:
  static std::string folder_of(const SinkSetup& setup) {
    return setup.logging_dir.empty() ? setup.output_dir + "/tensorboard" : setup.logging_dir;
  }
  void take_histograms(const ordered_json& event) {
    Message summary;
    for (const auto& [key, list] : event.items()) {
      if (!list.is_array()) continue;
      std::vector<double> values;
      for (const ordered_json& value : list) {
        if (std::isfinite(value.get<double>())) values.push_back(value.get<double>());
      }
      if (!values.empty()) summary.message(1, Message().text(1, key).message(5, histogram_of(values)));
    }
    write(event_at(event.value("time", 0.0), event.value("step", int64_t{0})).message(5, summary));
  }
  static double number(const ordered_json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

  /// Hugging Face's tags: eval/loss for eval_loss, train/loss for loss.
  static std::string tag_of(const std::string& kind, const std::string& key) {
    return key.starts_with("eval_") ? "eval/" + key.substr(5) : kind + "/" + key;
  }

  static void add_devices(const ordered_json& devices, Message& summary) {
    for (const ordered_json& device : devices) {
      for (const auto& [key, value] : device.items()) {
        if (key == "rank" || !value.is_number()) continue;
        add_scalar(fmt::format("devices/rank_{}/{}", device.value("rank", 0), key), number(value), summary);
      }
    }
  }

  void write(const Message& event) { file_.append(tf_record(event.bytes())); }

  AppendedFile file_;
};

}  // namespace

std::unique_ptr<EventSink> make_tensorboard(const SinkSetup& setup) { return std::make_unique<TensorBoard>(setup); }

}  // namespace neoloom::metrics
