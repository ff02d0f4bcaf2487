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

/// Writes an HDF5 file (format of HDF5 1.10, no times) in memory: no system call, no lock, zeros where nothing was
/// written. Usage: create objects under file(), close them, finish().
class ImageWriter {
 public:
  /// `expected_bytes` saves copies while the image grows; it is no limit.
  explicit ImageWriter(size_t expected_bytes, core::ErrorKind kind = core::ErrorKind::kInternal);
  ~ImageWriter();
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  Id file() const { return file_.get(); }
  /// Closes the file and hands over its bytes. Throws: Error(kind), also when an object in it is still open.
  ImageBytes finish();

 private:
  struct Buffer;
  std::unique_ptr<Buffer> buffer_;  // before file_: closing the file writes into it
  core::ErrorKind kind_;
  File file_;
};

/// Opens an HDF5 file that lies in memory, read-only and without a copy; the bytes must outlive it. Hand it verified
/// bytes only: HDF5's parser is not built for hostile ones.
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

/// Creates an HDF5 file on disk with the settings of an image, for what does not fit into memory twice. An existing
/// file is overwritten; no lock is taken. Close it with close_file(). Throws: Error(kind).
File create_file(const std::string& path, core::ErrorKind kind);

}  // namespace neoloom::hdf5
