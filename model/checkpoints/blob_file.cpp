// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/blob_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr double kProgressSeconds = 5;
constexpr size_t kSha256Digits = 64;

[[noreturn]] void give_up(const char* call, const std::string& path) {
  throw core::WriteError(ErrorKind::kWeights, fmt::format("{}({}): {}", call, path, std::strerror(errno)));
}

core::UniqueFd open_to_write(const std::string& path) {
  core::make_directories(core::parent_directory(path), ErrorKind::kWeights);
  core::UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!file.valid()) give_up("open", path);
  return file;
}

/// The hash that git gives a file: SHA-1 of "blob SIZE", a zero byte and the content.
std::string git_blob_hash(const std::string& path) {
  const std::string content = core::read_file(path, ErrorKind::kWeights);
  std::string text = fmt::format("blob {}", content.size());
  text += '\0';
  text += content;
  return core::sha1_hex(text);
}

std::string megabytes(int64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

/// A download in progress: appends to the file and tells the user every few seconds.
class Incoming {
 public:
  Incoming(std::string path, const HubFile& file, const std::string& name,
           const std::function<void(const std::string&)>& say)
      : path_(std::move(path)), file_(file), name_(name), say_(say), handle_(open_to_write(path_)) {
    bytes_ = ::lseek(handle_.get(), 0, SEEK_END);
    if (bytes_ < 0) give_up("lseek", path_);
    if (file_.size_bytes >= 0 && bytes_ > file_.size_bytes) start_over();
    first_bytes_ = bytes_;
    require_room();
    say_(fmt::format("{}: {}{}", name_, file_.size_bytes < 0 ? "size not known" : megabytes(file_.size_bytes),
                     bytes_ > 0 ? ", of which " + megabytes(bytes_) + " are there" : ""));
  }

  void take(int64_t status, std::string_view piece, int64_t asked_from) {
    if (status == 200 && asked_from > 0 && !restarted_) start_over();  // the server ignored Range
    restarted_ = true;
    const bool fits = file_.size_bytes < 0 || static_cast<int64_t>(piece.size()) <= file_.size_bytes - bytes_;
    core::require(fits, ErrorKind::kWeights, "{}: the server sends more than the {} bytes that the hub named",
                  file_.url, file_.size_bytes);
    errno = core::write_fully(handle_.get(), piece.data(), piece.size());
    if (errno != 0) give_up("write", path_);
    bytes_ += static_cast<int64_t>(piece.size());
    tell();
  }
  void begin_request() { restarted_ = false; }
  void start_over() {
    if (::ftruncate(handle_.get(), 0) != 0 || ::lseek(handle_.get(), 0, SEEK_SET) != 0) give_up("ftruncate", path_);
    bytes_ = 0;
  }
  void sync() {
    if (::fsync(handle_.get()) != 0) give_up("fsync", path_);
  }
  int64_t bytes() const { return bytes_; }
  bool whole() const { return file_.size_bytes >= 0 && bytes_ == file_.size_bytes; }

 private:
  void require_room() const {
    std::error_code ignored;
    const fs::space_info space = fs::space(path_, ignored);
    const int64_t missing = file_.size_bytes - bytes_;
    core::require(ignored || missing <= static_cast<int64_t>(space.available), ErrorKind::kWeights,
                  "{}: {} has {} free, {} more are needed: make room, or set HF_HUB_CACHE to another folder", name_,
                  core::parent_directory(path_), megabytes(static_cast<int64_t>(space.available)), megabytes(missing));
  }
  void tell() {
    const double now = core::now_seconds();
    if (now - told_ < kProgressSeconds || file_.size_bytes <= 0) return;
    told_ = now;
    const double rate = static_cast<double>(bytes_ - first_bytes_) / std::max(now - started_, 1e-3);
    say_(fmt::format("{}: {} of {}, {:.1f} MB/s, {:.0f} s left", name_, megabytes(bytes_), megabytes(file_.size_bytes),
                     rate / 1e6, static_cast<double>(file_.size_bytes - bytes_) / std::max(rate, 1.0)));
  }

  std::string path_;
  const HubFile& file_;
  const std::string& name_;
  const std::function<void(const std::string&)>& say_;
  core::UniqueFd handle_;
  int64_t bytes_ = 0;
  int64_t first_bytes_ = 0;
  bool restarted_ = false;
  double started_ = core::now_seconds();
  double told_ = started_;
};

/// Requests the rest until it is there. A try that brought bytes does not count.
void receive(Incoming& incoming, const HubFile& file, const HubRequests& hub) {
  int tries = 0;
  while (!incoming.whole()) {
    const int64_t begin = incoming.bytes();
    incoming.begin_request();
    HttpAnswer answer =
        hub.content(file, begin, [&](int64_t status, std::string_view piece) { incoming.take(status, piece, begin); });
    const bool done = answer.problem.empty() && (answer.status == 200 || answer.status == 206);
    if (done && (file.size_bytes < 0 || incoming.whole())) return;
    if (answer.status == 416) incoming.start_over();  // nothing begins there
    if (done) {
      answer.problem = "the answer ended early";
      answer.may_pass_by = true;
    }
    tries = incoming.bytes() > begin ? 1 : tries + 1;
    const bool again = answer.status == 416 || HubRequests::worth_repeating(answer);
    if (!again || !hub.wait_before(tries, answer)) hub.refuse(answer, file.url);
  }
}

}  // namespace

BlobFile::BlobFile(std::string path, const std::string& lock_path)
    : path_(std::move(path)), lock_(open_to_write(lock_path)) {
  while (::flock(lock_.get(), LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) return;  // the hash keeps the cache right
    give_up("flock", lock_path);
  }
}

void BlobFile::fetch(const HubFile& file, const std::string& name, const HubRequests& hub,
                     const std::function<void(const std::string&)>& say) const {
  if (fs::exists(path_)) return;
  const std::string unfinished = path_ + ".incomplete";
  {
    Incoming incoming(unfinished, file, name, say);
    receive(incoming, file, hub);
    incoming.sync();
  }
  const bool large = file.etag.size() == kSha256Digits;
  const std::string found = large ? core::sha256_of_file(unfinished) : git_blob_hash(unfinished);
  if (found != file.etag) {
    fs::remove(unfinished);
    core::fail(ErrorKind::kWeights, "{}: the {} of what arrived is {}, the hub names {}: damaged on the way; try again",
               file.url, large ? "SHA-256" : "git hash", found, file.etag);
  }
  if (::rename(unfinished.c_str(), path_.c_str()) != 0) give_up("rename", path_);
  core::sync_directory(core::parent_directory(path_), ErrorKind::kWeights);
}

void BlobFile::link(const std::string& pointer) const {
  core::make_directories(core::parent_directory(pointer), ErrorKind::kWeights);
  const fs::path target = fs::path(path_).lexically_relative(fs::path(pointer).parent_path());
  std::error_code ignored;
  if (fs::is_symlink(pointer)) fs::remove(pointer, ignored);  // it leads nowhere
  if (::symlink(target.c_str(), pointer.c_str()) == 0 || errno == EEXIST) return;
  if (errno != EPERM && errno != EOPNOTSUPP) give_up("symlink", pointer);
  if (::rename(path_.c_str(), pointer.c_str()) != 0) give_up("rename", pointer);
}

}  // namespace neoloom::model
