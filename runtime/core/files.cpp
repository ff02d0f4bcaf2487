// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "runtime/core/atomic_file.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::core {
namespace {

std::string reason() { return std::strerror(errno); }

const char* kind_of_file(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a named pipe";
  return S_ISSOCK(mode) ? "a socket" : "a device";
}

}  // namespace

UniqueFd open_regular(const std::string& path, ErrorKind kind) {
  // O_NONBLOCK: opening a FIFO would otherwise wait for a writer before fstat() can refuse it.
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  require(file.valid(), kind, "cannot open {}: {}", path, reason());
  struct stat status {};
  require(::fstat(file.get(), &status) == 0, kind, "cannot stat {}: {}", path, reason());
  require(S_ISREG(status.st_mode), kind, "{} is not a regular file but {}", path, kind_of_file(status.st_mode));
  return file;
}

MappedFile::MappedFile(const std::string& path, ErrorKind kind) {
  const UniqueFd file = open_regular(path, kind);
  struct stat status {};
  require(::fstat(file.get(), &status) == 0, kind, "cannot stat {}: {}", path, reason());
  if (status.st_size == 0) return;
  void* address = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, file.get(), 0);
  require(address != MAP_FAILED, kind, "cannot map {} ({} bytes): {}", path, status.st_size, reason());
  data_ = static_cast<const std::byte*>(address);
  size_bytes_ = static_cast<size_t>(status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

std::string read_file(const std::string& path, ErrorKind kind, size_t limit_bytes) {
  const MappedFile file(path, kind);
  require(file.size_bytes() <= limit_bytes, kind, "{} has {} bytes, at most {} are read: is it the right file?", path,
          file.size_bytes(), limit_bytes);
  return std::string(file.text());
}

int write_fully(int descriptor, const void* bytes, size_t count_bytes) {
  const char* next = static_cast<const char*>(bytes);
  while (count_bytes > 0) {
    const ssize_t written = ::write(descriptor, next, std::min<size_t>(count_bytes, size_t{1} << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    next += written;
    count_bytes -= static_cast<size_t>(written);
  }
  return 0;
}

void sync_directory(const std::string& path, ErrorKind kind) {
  const UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(directory.valid(), kind, "cannot open directory {}: {}", path, reason());
  require(::fsync(directory.get()) == 0, kind, "cannot fsync directory {}: {}", path, reason());
}

std::string parent_directory(const std::string& path) {
  const std::filesystem::path target(path);
  return target.has_parent_path() ? target.parent_path().string() : ".";
}

void make_directories(const std::string& path, ErrorKind kind) {
  if (path.empty()) return;  // the parent of a bare file name: the working directory
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) throw WriteError(kind, fmt::format("cannot create directory {}: {}", path, code.message()));
}

std::string temporary_name(const std::string& path) {
  // Process ids repeat between the hosts of a shared file system, so the name is random; it decides no result.
  std::random_device random;
  const uint64_t tag = (uint64_t{random()} << 32) | random();
  const std::filesystem::path target(path);
  return (target.parent_path() / fmt::format(".{}.tmp-{:016x}", target.filename().string(), tag)).string();
}

void publish_file(const std::string& path, std::string_view content, ErrorKind kind) {
  AtomicFile file(path, /*expected_bytes=*/0, kind);
  file.write_at(0, content.data(), content.size());
  file.publish();
}

}  // namespace neoloom::core
