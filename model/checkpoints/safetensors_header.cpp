// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/json.h"

namespace neoloom::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxRank = 16;

/// Accepts exactly {name: {"dtype": str, "shape": [uint...], "data_offsets": [uint, uint]}, "__metadata__": {str: str}}
/// and stops at the first deviation, so memory is bounded by the header itself.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(SafetensorsHeader& header) : header_(header) {}
  const std::string& problem() const { return problem_; }

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(number_integer_t) override { return refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return refuse("a number that is not a 64-bit integer");
  }
  bool binary(binary_t&) override { return refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (position_ != Position::kShape && position_ != Position::kOffsets) return refuse("a number");
    numbers_.push_back(value);
    const size_t limit = position_ == Position::kShape ? kMaxRank : 2;
    return numbers_.size() <= limit || stop(fmt::format("more than {} numbers in {}", limit, where()));
  }

  bool string(string_t& value) override {
    if (position_ == Position::kMetadata) {
      header_.metadata.emplace(key_, value);
      return true;
    }
    if (position_ != Position::kTensor || key_ != "dtype") return refuse("a string");
    current_.dtype = value;
    return true;
  }

  bool start_object(size_t) override {
    if (position_ == Position::kStart) {
      position_ = Position::kTop;
      return true;
    }
    if (position_ != Position::kTop) return refuse("an object");
    position_ = name_ == "__metadata__" ? Position::kMetadata : Position::kTensor;
    fields_.clear();
    current_ = TensorInfo{};
    return true;
  }

  bool key(string_t& value) override {
    if (position_ == Position::kTop) {
      name_ = value;
      const bool again =
          value == "__metadata__" ? std::exchange(metadata_seen_, true) : header_.tensors.contains(value);
      return !again || stop(fmt::format("the name '{}' appears twice", value));
    }
    key_ = value;
    if (!fields_.insert(value).second) return stop(fmt::format("the key '{}' appears twice in '{}'", value, name_));
    const bool known = value == "dtype" || value == "shape" || value == "data_offsets";
    return position_ == Position::kMetadata || known || stop(fmt::format("unknown key '{}' in '{}'", value, name_));
  }

  bool end_object() override {
    if (position_ == Position::kTop) {
      position_ = Position::kEnd;
      return true;
    }
    const bool tensor = position_ == Position::kTensor;
    position_ = Position::kTop;
    if (!tensor) return true;
    if (fields_.size() != 3) return stop(fmt::format("'{}' lacks dtype, shape or data_offsets", name_));
    header_.tensors.emplace(name_, std::move(current_));
    return true;
  }

  bool start_array(size_t) override {
    if (position_ != Position::kTensor || key_ == "dtype") return refuse("an array");
    position_ = key_ == "shape" ? Position::kShape : Position::kOffsets;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    const bool shape = position_ == Position::kShape;
    position_ = Position::kTensor;
    return shape ? take_shape() : take_offsets();
  }

  bool parse_error(size_t position, const std::string&, const json::exception& error) override {
    return stop(fmt::format("not valid UTF-8 JSON at byte {}: {}", position, core::json_complaint(error)));
  }

 private:
  enum class Position { kStart, kTop, kTensor, kMetadata, kShape, kOffsets, kEnd };

  bool take_shape() {
    for (const uint64_t size : numbers_) {
      if (size > static_cast<uint64_t>(INT64_MAX)) return stop(fmt::format("a dimension of {} in '{}'", size, name_));
      current_.shape.push_back(static_cast<int64_t>(size));
    }
    return true;
  }

  bool take_offsets() {
    if (numbers_.size() != 2) return stop(fmt::format("data_offsets of '{}' are not two numbers", name_));
    current_.begin_byte = numbers_[0];
    current_.end_byte = numbers_[1];
    return true;
  }

  std::string where() const { return position_ == Position::kStart ? "the header" : fmt::format("'{}'", name_); }
  bool refuse(const char* found) { return stop(fmt::format("unexpected {} in {}", found, where())); }
  bool stop(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }

  SafetensorsHeader& header_;
  Position position_ = Position::kStart;
  std::string name_, key_, problem_;
  bool metadata_seen_ = false;
  std::set<std::string> fields_;  // of the current object
  std::vector<uint64_t> numbers_;
  TensorInfo current_;
};

/// Returns the product of dtype size and dimensions, or nothing when it exceeds 64 bits.
std::optional<size_t> data_bytes(const TensorInfo& tensor) {
  size_t bytes = element_bytes(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes)) return std::nullopt;
  }
  return bytes;
}

void check_sizes(const SafetensorsHeader& header, const std::string& path) {
  for (const auto& [name, tensor] : header.tensors) {
    core::require(element_bytes(tensor.dtype) != 0, core::ErrorKind::kWeights,
                  "{}: tensor '{}' has the unknown dtype '{}'", path, name, tensor.dtype);
    core::require(tensor.begin_byte <= tensor.end_byte, core::ErrorKind::kWeights,
                  "{}: data_offsets of '{}' run backwards: {} to {}", path, name, tensor.begin_byte, tensor.end_byte);
    const std::optional<size_t> expected = data_bytes(tensor);
    core::require(expected.has_value(), core::ErrorKind::kWeights, "{}: the shape of '{}' exceeds 64 bits", path, name);
    core::require(*expected == tensor.end_byte - tensor.begin_byte, core::ErrorKind::kWeights,
                  "{}: shape and dtype of '{}' ask for {} bytes, its data_offsets span {}", path, name, *expected,
                  tensor.end_byte - tensor.begin_byte);
  }
}

void check_layout(const SafetensorsHeader& header, size_t data_bytes, const std::string& path) {
  std::vector<const std::pair<const std::string, TensorInfo>*> order;
  for (const auto& entry : header.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin_byte, a->second.end_byte) < std::pair(b->second.begin_byte, b->second.end_byte);
  });
  size_t end = 0;
  for (const auto* entry : order) {
    core::require(entry->second.begin_byte == end, core::ErrorKind::kWeights,
                  "{}: tensor '{}' begins at byte {} of the data, expected {}: the tensors {}", path, entry->first,
                  entry->second.begin_byte, end, entry->second.begin_byte < end ? "overlap" : "leave a gap");
    end = entry->second.end_byte;
  }
  core::require(end == data_bytes, core::ErrorKind::kWeights,
                "{}: the tensors need {} bytes of data, the file holds {}: it is {}; fetch it again", path, end,
                data_bytes, data_bytes < end ? "truncated" : "longer than its header says");
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& path) {
  constexpr size_t kLengthBytes = 8;
  core::require(file.size() >= kLengthBytes, core::ErrorKind::kWeights,
                "{}: {} bytes are too few for a safetensors file (8 bytes of header length come first)", path,
                file.size());
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    header_bytes |= uint64_t{static_cast<unsigned char>(file[i])} << (8 * i);
  }
  core::require(header_bytes <= kMaxSafetensorsHeaderBytes, core::ErrorKind::kWeights,
                "{}: the header claims {} bytes, at most {} are allowed: not a safetensors file, or damaged", path,
                header_bytes, kMaxSafetensorsHeaderBytes);
  core::require(header_bytes <= file.size() - kLengthBytes, core::ErrorKind::kWeights,
                "{}: the header claims {} bytes, the file holds {} after the length: truncated; fetch it again", path,
                header_bytes, file.size() - kLengthBytes);

  const std::string_view text = file.substr(kLengthBytes, header_bytes);
  core::require(text.starts_with('{'), core::ErrorKind::kWeights, "{}: the header does not begin with '{{'", path);
  const std::string excess = core::json_excess(text, text.size());  // the reader below accepts two levels
  core::require(excess.empty(), core::ErrorKind::kWeights, "{}: bad header: {}", path, excess);
  SafetensorsHeader header;
  HeaderReader reader(header);
  const bool parsed = json::sax_parse(text.begin(), text.end(), &reader);
  core::require(parsed && reader.problem().empty(), core::ErrorKind::kWeights, "{}: bad header: {}", path,
                reader.problem());

  header.data_begin_byte = kLengthBytes + header_bytes;
  check_sizes(header, path);
  check_layout(header, file.size() - header.data_begin_byte, path);
  return header;
}

}  // namespace neoloom::model
