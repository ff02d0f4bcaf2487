// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {

/// A file mapped read-only and shared: processes of one node that map the same file share its pages.
/// Owns: the mapping. An empty file maps to data() == nullptr, size 0.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws: Error(kind) when the file cannot be opened or mapped, or is not a regular one.
  explicit MappedFile(const std::string& path, ErrorKind kind = ErrorKind::kData);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_bytes_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

/// Opens a regular file for reading. Does not block on a named pipe.
/// Throws: Error(kind) naming the path and the system's reason, or what kind of file it is instead.
UniqueFd open_regular(const std::string& path, ErrorKind kind = ErrorKind::kData);

/// Limit for read_file: more than any text file that neoloom reads as a whole needs.
inline constexpr size_t kMaxTextBytes = size_t{128} << 20;

/// The whole file as a string, at most `limit_bytes`. Throws: as open_regular.
std::string read_file(const std::string& path, ErrorKind kind = ErrorKind::kData, size_t limit_bytes = kMaxTextBytes);

/// Publishes a file: writes `path` + a temporary suffix beside it, fsyncs, renames, fsyncs the directory.
/// Readers see the old content or the new, never a part. Creates missing parent directories.
/// Throws: WriteError(kind) with the failing call and errno text; the temporary file is removed.
void publish_file(const std::string& path, std::string_view content, ErrorKind kind = ErrorKind::kData);

/// The directory that `path` lies in; "." for a bare name.
std::string parent_directory(const std::string& path);

/// Creates a directory and its parents. Throws: WriteError(kind).
void make_directories(const std::string& path, ErrorKind kind = ErrorKind::kUsage);

/// fsyncs a directory so that renames in it survive a power cut. Throws: Error(kind).
void sync_directory(const std::string& path, ErrorKind kind = ErrorKind::kData);

/// Returns a hidden name in the folder of `path` for a temporary file. It is unique to host, process and call.
std::string temporary_name(const std::string& path);

/// Writes all bytes to an open descriptor; retries short writes and EINTR. Returns 0 or errno.
int write_fully(int descriptor, const void* bytes, size_t count_bytes);

}  // namespace neoloom::core
