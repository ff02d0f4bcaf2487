// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/checkpoints/tensor_file.h"
#include "runtime/core/cache.h"

namespace neoloom::core {
class AtomicFile;
}

namespace neoloom::model {

/// A mapped safetensors file. The constructor checks it: the header is at most 100 MB and inside the file, and is UTF-8
/// JSON without duplicate keys. Offsets have no overlap or gap and end at the file's size. Shape x dtype equals each
/// length (overflow is checked).
class SafetensorsFile : public TensorFile {
 public:
  /// Throws: Error(kWeights) naming the file and the rule that does not hold.
  explicit SafetensorsFile(const std::string& path);
  /// The strings of "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// The bytes before the data section.
  std::string_view head() const { return file_->text().substr(0, data_begin_byte()); }

 private:
  std::map<std::string, std::string> metadata_;
};

/// One tensor of a file to be written. The writer calls `value` when it writes the tensor, and releases the result
/// afterwards.
struct TensorToWrite {
  std::string name;
  at::ScalarType dtype = at::ScalarType::Float;  // converted to this while writing
  std::vector<int64_t> shape;
  std::function<at::Tensor()> value;    // CPU, any float dtype
  std::function<void()> after_writing;  // may be empty
};

/// The tensor's bytes in the file.
size_t bytes_of(const TensorToWrite& tensor);
size_t bytes_of(const std::vector<TensorToWrite>& tensors);

/// Makes whoever writes or compares the tensors tell after each how far it is. `progress`: of bytes_of(tensors).
void tell_after_each(std::vector<TensorToWrite>& tensors, core::ByteProgress progress);

/// Metadata keys of cache files: their checksum (runtime/core/checksum.h), and their own file name, which identifies
/// their sources.
inline constexpr const char* kChecksumKey = "checksum";
inline constexpr const char* kNameKey = "name";

/// Returns the metadata of a cache file at `path`, with a placeholder for its checksum.
std::map<std::string, std::string> cache_metadata(const std::string& path);

/// Writes a safetensors file. Offsets are fixed at construction, so tensors may be written in any order. Metadata:
/// {"format": "pt"} plus `metadata`, whose checksum, if any, is filled in at publish(). The destructor deletes what was
/// not published. Throws: Error(kWeights): system errors, and values that are not finite or overflow a 16-bit dtype, by
/// name.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, const std::vector<TensorToWrite>& tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Writes the whole tensor `index`. Memory: its value and a buffer of a few MB.
  void write(size_t index);
  /// Writes contiguous `values` into tensor `index` from `begin_element` on. `origin`, the file they came from, is for
  /// messages.
  void write(size_t index, int64_t begin_element, const at::Tensor& values, const std::string& origin);
  /// Calls fsync, rename, and fsync on the directory.
  void publish();
  /// The same under another name in the same folder, with other metadata of the same length.
  void publish_as(const std::string& path, const std::map<std::string, std::string>& metadata);

 private:
  void write_header();
  void write_checksum();

  std::string path_;
  std::vector<TensorToWrite> tensors_;
  std::string header_;
  std::vector<size_t> begin_bytes_;  // of each tensor, in the file
  size_t size_bytes_ = 0;            // of the file
  std::unique_ptr<core::AtomicFile> file_;
};

/// Writes a safetensors file in the order given.
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata);

/// The same for values at hand, each in its own dtype.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

/// Opens a cache file. Returns nothing if it is absent, or if it is damaged, was renamed or has a wrong checksum; then
/// it also tells the user, and the caller should rebuild it.
/// Throws: Error(kUsage) when another user may have written it (core::Cache::require_own).
std::optional<SafetensorsFile> open_cached(const core::Cache& cache, const std::string& path);

/// Whether the file holds all `tensors` with equal dtypes, shapes and values.
bool holds(const SafetensorsFile& file, const std::vector<TensorToWrite>& tensors);

}  // namespace neoloom::model
