// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/event_follower.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/core/unique_handle.h"

namespace neoloom::metrics {
namespace {

constexpr size_t kTailBytes = 256;

// Returns what the file holds there, which is less than asked for at its end.
std::string read_at(int descriptor, int64_t offset, size_t count_bytes) {
  std::string text(count_bytes, '\0');
  size_t got = 0;
  while (got < count_bytes) {
    const ssize_t count = ::pread(descriptor, text.data() + got, count_bytes - got, offset + static_cast<int64_t>(got));
    if (count <= 0) break;
    got += static_cast<size_t>(count);
  }
  text.resize(got);
  return text;
}

}  // namespace

bool EventFollower::goes_on(int descriptor) const {
  return size_ >= offset_ && read_at(descriptor, offset_ - static_cast<int64_t>(tail_.size()), tail_.size()) == tail_;
}

void EventFollower::poll(const std::function<void(std::string_view)>& take, const std::function<void()>& anew,
                         size_t most_bytes) {
  // Opens it each time: a network file system then asks its server for the size.
  const core::UniqueFd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  there_ = file.valid() && ::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode);
  has_more_ = false;
  if (!there_) return;
  size_ = status.st_size;
  if (!goes_on(file.get())) {
    anew();
    offset_ = 0;
    skipping_ = false;
    tail_.clear();
  }
  const std::string text = read_at(file.get(), offset_, std::min(most_bytes, static_cast<size_t>(size_ - offset_)));
  size_t taken = 0;
  for (size_t end = 0; (end = text.find('\n', taken)) != std::string::npos; taken = end + 1) {
    const std::string_view line = std::string_view(text).substr(taken, end - taken);
    if (!std::exchange(skipping_, false)) take(line);
  }
  if (taken == 0 && text.size() == most_bytes) {
    taken = text.size();
    skipping_ = true;
  }
  offset_ += static_cast<int64_t>(taken);
  tail_.append(text, taken - std::min(taken, kTailBytes), std::min(taken, kTailBytes));
  if (tail_.size() > kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
  has_more_ = text.size() == most_bytes && unread_bytes() > 0;
}

}  // namespace neoloom::metrics
