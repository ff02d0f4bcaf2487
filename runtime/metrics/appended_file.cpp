// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/appended_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::metrics {
namespace {

// Ends half a line, which a process that was killed within write() leaves, so that the next record begins a line.
void end_broken_line(int descriptor) {
  char last = '\n';
  const off_t size = ::lseek(descriptor, 0, SEEK_END);
  if (size > 0 && ::pread(descriptor, &last, 1, size - 1) == 1 && last != '\n') core::write_fully(descriptor, "\n", 1);
}

// Writes to stderr and ignores errors: it may be a file on the same full disk, which must not end the run.
void tell(const std::string& text) {
  const std::string line = text + "\n";
  core::write_fully(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

AppendedFile::AppendedFile(std::string path, std::string name, bool lines)
    : path_(std::move(path)), name_(std::move(name)), lines_(lines) {
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  if (!folder.empty()) core::make_directories(folder.string(), core::ErrorKind::kUsage);
  open();
}

AppendedFile::~AppendedFile() { write_waiting(); }

bool AppendedFile::open() {
  if (descriptor_.valid()) return true;
  descriptor_.reset(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644));
  if (!descriptor_.valid()) {
    told_of(errno);
    return false;
  }
  if (lines_) end_broken_line(descriptor_.get());
  return true;
}

void AppendedFile::append(const std::string& record) {
  if (waiting_.size() + record.size() > kMostWaitingBytes) {
    ++dropped_;
  } else {
    waiting_ += record;
  }
  write_waiting();
}

// Writes what waits. Where a full disk took part of a record, the next call continues behind that part.
void AppendedFile::write_waiting() {
  if (waiting_.empty() || !open()) return;
  size_t written = 0;
  while (written < waiting_.size()) {
    const ssize_t count = ::write(descriptor_.get(), waiting_.data() + written, waiting_.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int code = errno;
      waiting_.erase(0, written);
      return told_of(code);
    }
    written += static_cast<size_t>(count);
  }
  waiting_.clear();
  if (!std::exchange(failing_, false)) return;
  const int64_t lost = std::exchange(dropped_, 0);
  const std::string what = lines_ ? "line" : "record";
  tell(lost == 0 ? fmt::format("{} can be written again; no {} is lost", name_, what)
                 : fmt::format("{} can be written again; {} {}s are lost", name_, lost, what));
}

void AppendedFile::told_of(int code) {
  if (std::exchange(failing_, true)) return;
  tell(fmt::format("warning: cannot write to {}: {}; the run goes on and tries again", name_, std::strerror(code)));
}

}  // namespace neoloom::metrics
