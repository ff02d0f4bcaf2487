// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "model/checkpoints/safetensors.h"
#include "model/checkpoints/safetensors_header.h"
#include "runtime/core/atomic_file.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

constexpr int64_t kPieceElements = int64_t{1} << 21;
constexpr int64_t kSerialElements = 16384;  // half of what makes ATen use several threads
constexpr size_t kAlignmentBytes = 64;

const char* format_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return "F64";
    case at::kFloat:
      return "F32";
    case at::kHalf:
      return "F16";
    case at::kBFloat16:
      return "BF16";
    case at::kByte:
      return "U8";
    default:
      core::fail(ErrorKind::kInternal, "safetensors: dtype {} is not written", c10::toString(dtype));
  }
}

int64_t count_elements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

/// Returns the header text, padded with spaces so that the data begins at a multiple of 64 bytes.
std::string header_text(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  header["__metadata__"] = metadata;
  header["__metadata__"]["format"] = "pt";
  size_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    core::require(!header.contains(tensor.name), ErrorKind::kInternal, "safetensors: '{}' twice", tensor.name);
    const size_t end = offset + bytes_of(tensor);
    header[tensor.name] = {
        {"dtype", format_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  const size_t used = sizeof(uint64_t) + text.size();
  text.append((kAlignmentBytes - used % kAlignmentBytes) % kAlignmentBytes, ' ');
  return text;
}

/// Returns true when some value is infinite or NaN, i.e. has all exponent bits set. Takes one pass; at::isfinite takes
/// several.
template <typename Bits>
bool any_full_exponent(const at::Tensor& values, Bits exponent) {
  const auto* bits = static_cast<const Bits*>(values.const_data_ptr());
  Bits found = 0;  // as wide as the values, so that the loop vectorizes to two instructions
  for (int64_t i = 0; i < values.numel(); ++i) found |= (bits[i] & exponent) == exponent ? Bits{1} : Bits{0};
  return found != 0;
}

bool all_finite(const at::Tensor& values) {
  switch (values.scalar_type()) {
    case at::kFloat:
      return !any_full_exponent<uint32_t>(values, 0x7F800000U);
    case at::kHalf:
      return !any_full_exponent<uint16_t>(values, 0x7C00U);
    case at::kBFloat16:
      return !any_full_exponent<uint16_t>(values, 0x7F80U);
    default:
      return true;  // integers are finite
  }
}

at::Tensor in_type(const at::Tensor& values, at::ScalarType dtype) {
  if (values.scalar_type() == dtype) return values;
  at::Tensor converted = at::empty({values.numel()}, values.options().dtype(dtype));
  // Converts so few elements at a time that ATen starts no threads. They would spin on the cores of the threads that
  // read.
  for (int64_t begin = 0; begin < values.numel(); begin += kSerialElements) {
    const int64_t count = std::min(kSerialElements, values.numel() - begin);
    converted.narrow(0, begin, count).copy_(values.narrow(0, begin, count));
  }
  return converted;
}

}  // namespace

size_t bytes_of(const TensorToWrite& tensor) {
  return static_cast<size_t>(count_elements(tensor.shape)) * c10::elementSize(tensor.dtype);
}

size_t bytes_of(const std::vector<TensorToWrite>& tensors) {
  size_t bytes = 0;
  for (const TensorToWrite& tensor : tensors) bytes += bytes_of(tensor);
  return bytes;
}

void tell_after_each(std::vector<TensorToWrite>& tensors, core::ByteProgress progress) {
  const auto shared = std::make_shared<core::ByteProgress>(std::move(progress));
  for (TensorToWrite& tensor : tensors) {
    tensor.after_writing = [shared, then = std::move(tensor.after_writing), bytes = bytes_of(tensor)] {
      if (then) then();
      shared->add(bytes);
    };
  }
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<TensorToWrite>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), tensors_(tensors), header_(header_text(tensors, metadata)) {
  size_t offset = sizeof(uint64_t) + header_.size();
  for (const TensorToWrite& tensor : tensors) {
    begin_bytes_.push_back(offset);
    offset += bytes_of(tensor);
  }
  size_bytes_ = offset;
  file_ = std::make_unique<core::AtomicFile>(path, offset, core::ErrorKind::kWeights);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(size_t index, int64_t begin_element, const at::Tensor& values,
                              const std::string& origin) {
  const TensorToWrite& tensor = tensors_.at(index);
  const at::Tensor piece = in_type(values, tensor.dtype);
  if (!all_finite(piece)) {
    const bool was_finite = all_finite(values);
    core::fail(ErrorKind::kWeights, "{}: tensor '{}' holds {}", origin, tensor.name,
               was_finite
                   ? fmt::format("values beyond the range of {}; choose bfloat16 or float32", format_name(tensor.dtype))
                   : std::string("NaN or infinity: the weights are damaged"));
  }
  const size_t offset = begin_bytes_[index] + static_cast<size_t>(begin_element) * piece.element_size();
  file_->write_at(offset, piece.const_data_ptr(), static_cast<size_t>(piece.nbytes()));
}

void SafetensorsWriter::write(size_t index) {
  const TensorToWrite& tensor = tensors_.at(index);
  at::Tensor value = tensor.value();
  core::require(value.sizes() == at::IntArrayRef(tensor.shape), ErrorKind::kInternal,
                "safetensors: '{}' was announced with another shape", tensor.name);
  value = value.contiguous().view({-1});
  for (int64_t begin = 0; begin < value.numel(); begin += kPieceElements) {
    write(index, begin, value.narrow(0, begin, std::min(kPieceElements, value.numel() - begin)), path_);
  }
  if (tensor.after_writing) tensor.after_writing();
}

void SafetensorsWriter::write_header() {
  unsigned char length[sizeof(uint64_t)];
  for (size_t i = 0; i < sizeof(length); ++i) {
    length[i] = static_cast<unsigned char>(uint64_t{header_.size()} >> (8 * i));
  }
  file_->write_at(0, length, sizeof(length));
  file_->write_at(sizeof(length), header_.data(), header_.size());
}

/// Writes the checksum. Everything else must be in the file.
void SafetensorsWriter::write_checksum() {
  const size_t place = checksum_offset(header_);
  if (place == std::string::npos) return;
  const size_t digits_at = sizeof(uint64_t) + place;
  const std::string digits = file_->checksum(size_bytes_, digits_at);
  file_->write_at(digits_at, digits.data(), digits.size());
}

void SafetensorsWriter::publish() {
  write_header();
  write_checksum();
  file_->publish();
}

void SafetensorsWriter::publish_as(const std::string& path, const std::map<std::string, std::string>& metadata) {
  const size_t reserved_bytes = header_.size();
  header_ = header_text(tensors_, metadata);
  core::require(header_.size() == reserved_bytes, ErrorKind::kInternal,
                "safetensors: the header of {} takes {} bytes, {} were kept free", path, header_.size(),
                reserved_bytes);
  write_header();
  write_checksum();
  file_->publish_as(path);
}

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer(path, tensors, metadata);
  for (size_t index = 0; index < tensors.size(); ++index) writer.write(index);
  writer.publish();
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorToWrite> list;
  for (const auto& entry : tensors) {
    const at::Tensor& value = entry.second;
    list.push_back({entry.first, value.scalar_type(), value.sizes().vec(), [value] { return value; }, {}});
  }
  write_safetensors(path, list, {});
}

}  // namespace neoloom::model
