// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "runtime/core/checksum.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::core {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSendBytes = size_t{64} << 20;

std::string temporary_prefix(const std::string& path) {
  return fmt::format(".{}.tmp-", fs::path(path).filename().string());
}

}  // namespace

void remove_stale_temporaries(const std::string& path) {
  const std::string prefix = temporary_prefix(path);
  const auto oldest = fs::file_time_type::clock::now() - std::chrono::hours(1);
  std::error_code code;
  for (fs::directory_iterator entry(parent_directory(path), code), end; !code && entry != end; entry.increment(code)) {
    if (!entry->path().filename().string().starts_with(prefix)) continue;
    std::error_code ignored;  // another process may clean up at the same moment
    const auto written = fs::last_write_time(entry->path(), ignored);
    if (!ignored && written < oldest) fs::remove_all(entry->path(), ignored);
  }
}

AtomicFile::AtomicFile(const std::string& path, size_t expected_bytes, ErrorKind kind)
    : path_(path), directory_(parent_directory(path)), temporary_(temporary_name(path)), kind_(kind) {
  make_directories(directory_, kind_);
  std::error_code code;
  const fs::space_info space = fs::space(directory_, code);
  if (!code && space.available < expected_bytes) {
    throw WriteError(kind_, fmt::format("cannot write {}: {} bytes are needed, but its file system has {} free; "
                                        "make room or choose another folder",
                                        path_, expected_bytes, space.available));
  }
  file_.reset(::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file_.valid()) give_up("open", errno);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::give_up(const char* call, int code) const {
  throw WriteError(kind_, fmt::format("cannot write {}: {}: {}", path_, call, std::strerror(code)));
}

size_t AtomicFile::size_bytes() const {
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) give_up("fstat", errno);
  return static_cast<size_t>(status.st_size);
}

void AtomicFile::write_at(size_t offset_bytes, const void* bytes, size_t count_bytes) {
  if (::lseek(file_.get(), static_cast<off_t>(offset_bytes), SEEK_SET) < 0) give_up("lseek", errno);
  if (const int code = write_fully(file_.get(), bytes, count_bytes); code != 0) give_up("write", code);
  unsent_bytes_ += count_bytes;
  if (unsent_bytes_ < kSendBytes) return;
  // Starts writing to the disk now, so that the final fsync is short. A failure costs only that.
  (void)::sync_file_range(file_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  unsent_bytes_ = 0;
}

std::string AtomicFile::checksum(size_t size_bytes, size_t digits_at) const {
  return file_checksum(file_.get(), size_bytes, digits_at, path_, kind_);
}

void AtomicFile::publish_as(const std::string& path) {
  path_ = path;
  publish();
}

void AtomicFile::publish() {
  if (::fsync(file_.get()) != 0) give_up("fsync", errno);
  if (::close(file_.release()) != 0) give_up("close", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) give_up("rename", errno);
  temporary_.clear();
  sync_directory(directory_, kind_);
}

}  // namespace neoloom::core
