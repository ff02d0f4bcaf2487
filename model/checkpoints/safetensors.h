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

#include "runtime/core/cache.h"
#include "runtime/core/files.h"

namespace neoloom::core {
class AtomicFile;
}

namespace neoloom::model {

struct TensorInfo {
  std::string dtype;  // "F32", "F16", "BF16", ...
  std::vector<int64_t> shape;
  size_t begin_byte = 0;  // into the data section
  size_t end_byte = 0;
};

/// A safetensors file, mapped and checked: header length at most 100 MB and inside the file, UTF-8 JSON without
/// duplicate keys, offsets contiguous without overlap or gap, shape x dtype = length (checked multiply), end = file
/// size.
class SafetensorsFile {
 public:
  /// Throws: Error(kWeights) naming the file and the rule that does not hold.
  explicit SafetensorsFile(const std::string& path);
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  /// The strings of "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Where the data section begins in the file; TensorInfo counts from there.
  size_t data_begin_byte() const { return data_begin_; }
  /// The type of a tensor's elements. Throws as tensor() does.
  at::ScalarType dtype(const std::string& name) const;
  /// A CPU tensor that views the mapping; it keeps the mapping alive and must not be written to. Data that the header
  /// leaves unaligned is copied. Throws: Error(kWeights) for an unknown name or a dtype other than F32, F16, BF16,
  /// I64, I32, U8, BOOL.
  at::Tensor tensor(const std::string& name) const;
  /// Tells the system that the pages of this tensor are not needed again, so that reading a large file once does not
  /// count as memory of the process. The data stays readable.
  void drop_pages(const std::string& name) const;
  const std::string& path() const { return path_; }
  /// Its size, and the bytes before the data section.
  size_t size_bytes() const { return file_->size_bytes(); }
  std::string_view head() const { return file_->text().substr(0, data_begin_); }

 private:
  const TensorInfo& info(const std::string& name) const;

  std::string path_;
  std::shared_ptr<core::MappedFile> file_;
  size_t data_begin_ = 0;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// One tensor of a file to be written; the value is asked for when its turn comes and released after it.
struct TensorToWrite {
  std::string name;
  at::ScalarType dtype = at::ScalarType::Float;  // converted to this while writing
  std::vector<int64_t> shape;
  std::function<at::Tensor()> value;    // CPU, any float dtype
  std::function<void()> after_writing;  // may be empty
};

/// Metadata that files of the cache have beside others: their checksum (runtime/core/checksum.h), and their own file
/// name, which says what they are made from.
inline constexpr const char* kChecksumKey = "checksum";
inline constexpr const char* kNameKey = "name";

/// The metadata for a file of the cache at `path`, before its checksum is known.
std::map<std::string, std::string> cache_metadata(const std::string& path);

/// Writes a safetensors file, its tensors in any order: each has its place from the start. Metadata: {"format": "pt"}
/// plus what is given; a checksum among it is filled in when the file is published. Destroyed before it is published,
/// it leaves nothing behind. Throws: Error(kWeights): system errors, and values that are not finite or do not fit a
/// 16-bit dtype, by name.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, const std::vector<TensorToWrite>& tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The whole tensor of that index. Memory: its value and a piece of a few MB.
  void write(size_t index);
  /// A part of it: contiguous `values` from an element on, which came from the file `origin`.
  void write(size_t index, int64_t begin_element, const at::Tensor& values, const std::string& origin);
  /// fsync, rename, fsync of the directory.
  void publish();
  /// The same under another name of the folder, with other metadata of the same length.
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

/// A file of the cache that is whole, is the one that its name says, and has the right checksum, or nothing: a damaged
/// one is named and is to be made again. Throws: Error(kUsage): somebody else may have written it.
std::optional<SafetensorsFile> open_cached(const core::Cache& cache, const std::string& path);

/// Whether the file holds exactly these bits under these names.
bool holds(const SafetensorsFile& file, const std::vector<TensorToWrite>& tensors);

}  // namespace neoloom::model
