// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/output.h"

#include <fcntl.h>
#include <poll.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "runtime/core/atomic_file.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::core {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPendingBytes = 1 << 16;

/// Ends the process as SIGPIPE does by default. A parent may have had the signal ignored.
[[noreturn]] void end_by_broken_pipe() {
  std::signal(SIGPIPE, SIG_DFL);
  std::raise(SIGPIPE);
  std::_Exit(128 + SIGPIPE);
}

/// Returns the file that a result replaces. It follows links, because a rename would replace the link itself.
std::string target_of(const std::string& path) {
  std::error_code code;
  const fs::path target = fs::weakly_canonical(path, code);
  return code ? path : target.string();
}

bool takes_a_stream(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  return !code && fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

}  // namespace

Output::Output(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {}

void Output::write(std::string_view text) {
  pending_ += text;
  if (pending_.size() >= kPendingBytes) flush();
}

void Output::flush() {
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {  // its owner made the descriptor non-blocking
      pollfd wanted{descriptor_, POLLOUT, 0};
      ::poll(&wanted, 1, /*timeout=*/-1);
    } else if (errno != EINTR) {
      give_up(errno);
    }
  }
  pending_.clear();
}

void Output::finish() {
  flush();
  // Closes a copy of the descriptor, because network file systems report a full disk or quota at close.
  const int copy = ::dup(descriptor_);
  if (copy < 0 || ::close(copy) != 0) give_up(errno);
}

void Output::give_up(int code) const {
  if (code == EPIPE) end_by_broken_pipe();
  fail(ErrorKind::kOutput, "cannot write to {}: {}", name_, code == EBADF ? "it is closed" : std::strerror(code));
}

void print_output(std::string_view text) {
  Output output;
  output.write(text);
  output.finish();
}

void write_output_file(const std::string& path, std::string_view text) {
  if (!takes_a_stream(path)) return publish_file(target_of(path), text, ErrorKind::kOutput);
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  require(file.valid(), ErrorKind::kOutput, "cannot open {}: {}", path, std::strerror(errno));
  Output output(file.get(), path);
  output.write(text);
  output.finish();
}

ResultFile::ResultFile(const std::string& path) {
  if (path.empty()) {
    output_.emplace();
  } else if (takes_a_stream(path)) {
    stream_.reset(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    require(stream_.valid(), ErrorKind::kOutput, "cannot open {}: {}", path, std::strerror(errno));
    output_.emplace(stream_.get(), path);
  } else {
    remove_stale_temporaries(target_of(path));
    file_ = std::make_unique<AtomicFile>(target_of(path), 0, ErrorKind::kOutput);
  }
}

ResultFile::~ResultFile() = default;

void ResultFile::write(std::string_view text) {
  if (output_) {
    output_->write(text);
    return output_->flush();
  }
  file_->write_at(size_bytes_, text.data(), text.size());
  size_bytes_ += text.size();
}

void ResultFile::finish() { output_ ? output_->finish() : file_->publish(); }

void prepare_output_file(const std::string& path) {
  if (takes_a_stream(path)) return;
  const std::string target = target_of(path);
  require(!fs::is_directory(target), ErrorKind::kOutput, "cannot write {}: it is a folder; name a file", path);
  const std::string folder = parent_directory(target);
  make_directories(folder, ErrorKind::kOutput);
  require(::access(folder.c_str(), W_OK) == 0, ErrorKind::kOutput, "cannot write {}: folder {}: {}", path, folder,
          std::strerror(errno));
}

}  // namespace neoloom::core
