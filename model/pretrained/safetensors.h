// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/core/files.h"

namespace neoloom::model {

struct TensorInfo {
  std::string dtype;           // "F32", "F16", "BF16", ...
  std::vector<int64_t> shape;
  size_t begin_byte = 0;       // into the data section
  size_t end_byte = 0;
};

/// A safetensors file, mapped and checked: header length at most 100 MB and inside the file, UTF-8 JSON, offsets
/// contiguous without overlap or gap, shape x dtype = length (checked multiply), end = file size.
class SafetensorsFile {
 public:
  /// Throws: Error(kWeights) naming the file and the rule that does not hold.
  explicit SafetensorsFile(const std::string& path);
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  /// A CPU tensor that views the mapping; it keeps the mapping alive. Throws: Error(kWeights) for an unknown name or a
  /// dtype other than F32, F16, BF16, I64, I32, U8, BOOL.
  at::Tensor tensor(const std::string& name) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::shared_ptr<core::MappedFile> file_;
  size_t data_begin_ = 0;
  std::map<std::string, TensorInfo> tensors_;
};

/// Writes a safetensors file with metadata {"format": "pt"} through core::publish_file's protocol, streaming tensors.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace neoloom::model
