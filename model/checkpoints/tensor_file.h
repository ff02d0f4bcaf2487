// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/core/files.h"

namespace neoloom::model {

struct TensorInfo {
  std::string dtype;  // "F32", "F16", "BF16", ...
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements; empty: contiguous
  size_t begin_byte = 0;         // into the data section
  size_t end_byte = 0;
};

/// Returns the bytes of one element, or 0 for a dtype that safetensors does not know (or packs below a byte).
size_t element_bytes(const std::string& dtype);

/// A mapped file of tensors, of any format. Subclasses check their file and list its tensors.
class TensorFile {
 public:
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  /// Offset of the data section in the file; TensorInfo's offsets count from there.
  size_t data_begin_byte() const { return data_begin_; }
  /// The type of a tensor's elements. Throws as tensor() does.
  at::ScalarType dtype(const std::string& name) const;
  /// A CPU tensor that views the mapping; it keeps the mapping alive and must not be written to. Data that the file
  /// leaves unaligned is copied. Throws: Error(kWeights) for an unknown name or a dtype other than F64, F32, F16, BF16,
  /// I64, I32, U8, BOOL.
  at::Tensor tensor(const std::string& name) const;
  /// Advises the system that the pages of this tensor are not needed again (madvise), so that they do not stay in the
  /// process's resident memory. The data stays readable.
  void drop_pages(const std::string& name) const;
  const std::string& path() const { return path_; }
  size_t size_bytes() const { return file_->size_bytes(); }

 protected:
  /// Throws: Error(kWeights) when the file cannot be mapped.
  explicit TensorFile(const std::string& path);

  std::string path_;
  std::shared_ptr<core::MappedFile> file_;
  size_t data_begin_ = 0;
  std::map<std::string, TensorInfo> tensors_;

 private:
  const TensorInfo& info(const std::string& name) const;
};

}  // namespace neoloom::model
