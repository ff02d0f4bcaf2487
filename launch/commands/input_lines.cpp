// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/input_lines.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/comm/collective_error.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

constexpr int kMillisecondsBetweenLooksAtSignals = 200;
constexpr size_t kPieceBytes = 1 << 16;

}  // namespace

bool InputLines::next(std::string& line) {
  while (!stop_.requested()) {
    const size_t end = pending_.find('\n', searched_);
    if (end != std::string::npos || (ended_ && begin_ < pending_.size())) {
      line = pending_.substr(begin_, end == std::string::npos ? end : end - begin_);
      begin_ = searched_ = std::min(begin_ + line.size() + 1, pending_.size());
      ++lines_;
      return true;
    }
    if (ended_) return false;
    searched_ = pending_.size();
    read_more();
  }
  return false;
}

void InputLines::read_more() {
  pending_.erase(0, begin_);
  searched_ -= begin_;
  begin_ = 0;
  pollfd wanted{STDIN_FILENO, POLLIN, 0};
  if (::poll(&wanted, 1, kMillisecondsBetweenLooksAtSignals) <= 0) return;
  std::array<char, kPieceBytes> piece{};
  const ssize_t count = ::read(STDIN_FILENO, piece.data(), piece.size());
  if (count > 0) {
    pending_.append(piece.data(), static_cast<size_t>(count));
  } else if (count == 0) {
    ended_ = true;
  } else if (errno != EINTR && errno != EAGAIN) {
    core::fail(core::ErrorKind::kData, "cannot read {}: {}", kStandardInput, std::strerror(errno));
  }
}

void InputLines::tell_end(core::Logger& log) const {
  if (!stop_.requested()) return;
  log.info(fmt::format("ended by signal {} after {} lines of {}", stop_.signal_number(), lines_, kStandardInput));
}

void require_one_rank(const comm::MpiSession& session, const std::string& option) {
  if (session.size() == 1) return;
  throw comm::CollectiveError(
      core::ErrorKind::kUsage,
      fmt::format("{} - reads standard input on one rank, and this job has {}: start it without mpirun, or give a file",
                  option, session.size()));
}

std::string error_line(const std::string& reason, int64_t number) {
  return nlohmann::ordered_json{{"error", reason}, {"line", number}}.dump();
}

}  // namespace neoloom::launch
