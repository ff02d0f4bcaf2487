// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/hdf5/handles.h"

namespace neoloom::hdf5 {

/// A finished HDF5 file in memory. Owns the bytes.
class ImageBytes {
 public:
  ImageBytes(std::byte* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  std::span<const std::byte> bytes() const { return {data_.get(), size_bytes_}; }

 private:
  struct Free {
    void operator()(std::byte* data) const noexcept;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_bytes_ = 0;
};

/// Writes an HDF5 file (format of HDF5 1.10, no time stamps) in memory, without system calls or file locks. Gaps are
/// zero. Usage: create objects under file(), close them, call finish().
class ImageWriter {
 public:
  /// Writes to memory of its own. `expected_bytes` saves copies while the image grows; it is no limit.
  explicit ImageWriter(size_t expected_bytes, core::ErrorKind kind = core::ErrorKind::kInternal);
  /// Writes to the caller's `memory`, which must be zeroed and outlive the object, and may be a mapped file.
  /// Writes beyond it fail.
  explicit ImageWriter(std::span<std::byte> memory, core::ErrorKind kind = core::ErrorKind::kInternal);
  ~ImageWriter();
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  Id file() const { return file_.get(); }
  /// Closes the file and returns its bytes. Only for an image in memory of its own.
  /// Throws: Error(kind), also when an object in it is still open: close that and try again.
  ImageBytes finish();
  /// Closes the file and returns its size in bytes, from the start of `memory`. Only for an image in `memory`. Throws
  /// as finish().
  size_t finish_in_place();

 private:
  struct Buffer;
  void open(size_t increment_bytes);
  size_t close();

  std::unique_ptr<Buffer> buffer_;  // before file_: closing the file writes into it
  core::ErrorKind kind_;
  File file_;
};

/// Opens an HDF5 file in memory, read-only and without a copy. The bytes must outlive it, and must be verified: HDF5's
/// parser is not safe against hostile input.
/// Throws: Error(kind).
class ImageReader {
 public:
  explicit ImageReader(std::span<const std::byte> bytes, core::ErrorKind kind = core::ErrorKind::kInternal);
  ~ImageReader();
  ImageReader(const ImageReader&) = delete;
  ImageReader& operator=(const ImageReader&) = delete;

  Id file() const { return file_.get(); }

 private:
  struct View;
  std::unique_ptr<View> view_;  // before file_
  File file_;
};

}  // namespace neoloom::hdf5
