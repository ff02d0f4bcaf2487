// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/disk_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/core/process.h"

namespace neoloom::checkpoint {
namespace {

constexpr auto kCheckpoint = core::ErrorKind::kCheckpoint;
constexpr const char* kTemporaryPrefix = ".tmp-";

[[noreturn]] void fail_call(const char* call, const std::string& path, int code) {
  core::fail(kCheckpoint, "{} {}: {}", call, path, std::strerror(code));
}

std::string temporary_prefix_of_host() { return fmt::format("{}{}-", kTemporaryPrefix, core::host_name()); }

core::UniqueFd open_for_reading(const std::string& path) { return core::open_regular(path, kCheckpoint); }

core::UniqueFd create(const std::string& path) {
  core::UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file.valid()) fail_call("cannot create", path, errno);
  return file;
}

void sync_and_close(core::UniqueFd file, const std::string& path) {
  if (::fsync(file.get()) != 0) fail_call("cannot fsync", path, errno);
  if (::close(file.release()) != 0) fail_call("cannot close", path, errno);
}

// Reads up to `count` bytes. Returns how many; 0 at the end of the file.
size_t read_some(int descriptor, void* out, size_t count, const std::string& path) {
  constexpr size_t kMostBytes = size_t{1} << 30;
  while (true) {
    const ssize_t got = ::read(descriptor, out, std::min(count, kMostBytes));
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) fail_call("cannot read", path, errno);
  }
}

}  // namespace

TemporaryFile::TemporaryFile(const std::string& directory, const std::string& name)
    : path_(fmt::format("{}/{}{}-{}", directory, temporary_prefix_of_host(), ::getpid(), name)) {}

TemporaryFile::~TemporaryFile() {
  unmap();
  if (!renamed_) ::unlink(path_.c_str());
}

void TemporaryFile::write(std::span<const std::byte> bytes) {
  core::UniqueFd file = create(path_);
  if (const int code = core::write_fully(file.get(), bytes.data(), bytes.size()); code != 0) {
    fail_call("cannot write", path_, code);
  }
  sync_and_close(std::move(file), path_);
}

std::span<std::byte> TemporaryFile::map(size_t bytes) {
  const core::UniqueFd file = create(path_);
  if (const int code = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)); code != 0) {
    fail_call(fmt::format("cannot write {} bytes to", bytes).c_str(), path_, code);
  }
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) fail_call("cannot map", path_, errno);
  mapped_ = {static_cast<std::byte*>(address), bytes};
  return mapped_;
}

void TemporaryFile::finish_mapping(size_t bytes) {
  unmap();
  core::UniqueFd file(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) fail_call("cannot open", path_, errno);
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) fail_call("cannot resize", path_, errno);
  sync_and_close(std::move(file), path_);
}

void TemporaryFile::unmap() {
  if (!mapped_.empty()) ::munmap(mapped_.data(), mapped_.size());
  mapped_ = {};
}

void TemporaryFile::rename_to(const std::string& target) {
  if (::rename(path_.c_str(), target.c_str()) != 0) fail_call("cannot rename to", target, errno);
  renamed_ = true;
}

bool is_abandoned_temporary(const std::string& name) {
  if (!name.starts_with(kTemporaryPrefix)) return false;
  const std::string own_host = temporary_prefix_of_host();
  if (!name.starts_with(own_host)) return true;
  pid_t owner = 0;
  const char* const end = name.data() + name.size();
  const auto [rest, problem] = std::from_chars(name.data() + own_host.size(), end, owner);
  if (problem != std::errc() || owner <= 0 || owner == ::getpid()) return true;
  return ::kill(owner, 0) != 0 && errno == ESRCH;
}

FileBytes read_whole_file(const std::string& path) {
  const core::UniqueFd file = open_for_reading(path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_call("cannot stat", path, errno);
  FileBytes content;
  content.size = static_cast<size_t>(status.st_size);
  content.data = std::make_unique_for_overwrite<std::byte[]>(content.size);
  size_t filled = 0;
  while (filled < content.size) {
    const size_t got = read_some(file.get(), content.data.get() + filled, content.size - filled, path);
    core::require(got > 0, kCheckpoint, "{} became shorter while it was read", path);
    filled += got;
  }
  return content;
}

HashedFile hash_file(const std::string& path) {
  constexpr size_t kPieceBytes = size_t{1} << 20;
  const core::UniqueFd file = open_for_reading(path);
  ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  std::vector<std::byte> piece(kPieceBytes);
  core::Sha256 hash;
  HashedFile result;
  while (const size_t got = read_some(file.get(), piece.data(), piece.size(), path)) {
    hash.add(piece.data(), got);
    result.bytes += got;
  }
  result.sha256 = hash.hex();
  return result;
}

}  // namespace neoloom::checkpoint
