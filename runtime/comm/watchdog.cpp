// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"

namespace neoloom::comm {
namespace {

// The thread looks this often; a look that comes much later means that the process was stopped or starved.
constexpr double kTickSeconds = 0.1;

struct Phase {
  std::array<char, 64> name{};
  int64_t step = 0;
  double limit_seconds = 0.0;
  double left_seconds = 0.0;
};

}  // namespace

struct Watchdog::State {
  int rank = 0;
  std::array<char, 256> host{};
  std::mutex mutex;
  std::condition_variable changed;
  bool ending = false;
  int64_t next_id = 0;
  std::map<int64_t, Phase> phases;
  std::thread thread;

  [[noreturn]] void end_process(const Phase& phase) const {
    // A buffer on the stack and one write: the heap's lock may be held by the thread that hangs.
    std::array<char, 640> text{};
    const int length =
        std::snprintf(text.data(), text.size(),
                      "neoloom: rank %d on %s waited more than %.1f s in '%s' at step %lld: a peer or the "
                      "network failed. Ending with code 6; start the job again, it resumes from its "
                      "newest checkpoint\n",
                      rank, host.data(), phase.limit_seconds, phase.name.data(), static_cast<long long>(phase.step));
    const size_t count = std::min(static_cast<size_t>(std::max(length, 0)), text.size() - 1);
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), count);
    ::_exit(static_cast<int>(core::ErrorKind::kPeer));
  }

  void watch() {
    std::unique_lock lock(mutex);
    while (!ending) {
      changed.wait(lock, [this] { return ending || !phases.empty(); });
      const double before = core::now_seconds();
      changed.wait_for(lock, std::chrono::duration<double>(kTickSeconds), [this] { return ending; });
      const double counted = std::min(core::now_seconds() - before, 2 * kTickSeconds);
      for (auto& [id, phase] : phases) {
        phase.left_seconds -= counted;
        if (phase.left_seconds <= 0) end_process(phase);
      }
    }
  }
};

Watchdog::Watchdog(int rank, const std::string& host) : state_(std::make_unique<State>()) {
  state_->rank = rank;
  host.copy(state_->host.data(), state_->host.size() - 1);
  state_->thread = std::thread([state = state_.get()] { state->watch(); });
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(state_->mutex);
    state_->ending = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

Watchdog::Guard Watchdog::guard(const std::string& phase, int64_t step, double deadline_seconds) {
  Phase entry;
  phase.copy(entry.name.data(), entry.name.size() - 1);
  entry.step = step;
  entry.limit_seconds = deadline_seconds;
  // A phase may begin just before a look, which then counts a whole tick.
  entry.left_seconds = deadline_seconds + kTickSeconds;
  std::lock_guard lock(state_->mutex);
  const int64_t id = state_->next_id++;
  state_->phases.emplace(id, entry);
  if (state_->phases.size() == 1) state_->changed.notify_all();
  return Guard(*this, id);
}

void Watchdog::drop(int64_t id) {
  std::lock_guard lock(state_->mutex);
  state_->phases.erase(id);
}

Watchdog::Guard::Guard(Guard&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), id_(other.id_) {}

Watchdog::Guard::~Guard() {
  if (owner_ != nullptr) owner_->drop(id_);
}

}  // namespace neoloom::comm
