// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <ctime>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/comm/stopped_ranks.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"

namespace neoloom::comm {
namespace {

// The thread checks all waits this often. A check that comes much later means that the process was stopped or starved.
constexpr double kTickSeconds = 0.1;
// A peer is missing when it has been silent for this share of the peer timeout. It is less than 1, because its last
// heartbeat may have come after the wait began.
constexpr double kSilentShare = 0.8;
// A peer is not missing before that, however short the timeout is: threads can starve for a second, and ranks that end
// after a message of their own fall silent, too.
constexpr double kLeastSilenceSeconds = 3.0;
constexpr char kNetworkHint[] = " (mpirun's --mca btl_tcp_if_include SUBNET names the network between hosts)";
// One rank prints its message first. The launcher ends the others within this time.
constexpr double kTurnSeconds = 4.0;

struct Wait {
  std::array<char, 64> phase{};
  int64_t step = 0;
  double deadline_seconds = 0.0;
  double waited_seconds = 0.0;
};

/// Builds a line on the stack: the thread that hangs may hold the lock of the heap.
class Line {
 public:
  template <typename... Args>
  void add(const char* format, Args... args) {
    const int count = std::snprintf(text_.data() + length_, text_.size() - length_, format, args...);
    length_ = std::min(text_.size() - 1, length_ + static_cast<size_t>(std::max(count, 0)));
  }
  void add(const char* text) { add("%s", text); }
  void write() const { [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text_.data(), length_); }

 private:
  std::array<char, 2048> text_{};
  size_t length_ = 0;
};

void add_phase(Line& line, const char* phase, int64_t step) {
  line.add("'%s'", phase);
  if (step > 0) line.add(" at step %lld", static_cast<long long>(step));
}

void add_rank(Line& line, const Suspect& suspect) {
  line.add("rank %d", suspect.rank);
  if (suspect.last.host[0] != '\0') line.add(" on %s", suspect.last.host.data());
}

void add_silent(Line& line, const Suspect& silent) {
  add_rank(line, silent);
  const auto seconds_of_day = (std::time(nullptr) - static_cast<std::time_t>(silent.silent_seconds)) % 86400;
  line.add(" is missing: no heartbeat for %.1f s, since %02d:%02d:%02d UTC", silent.silent_seconds,
           static_cast<int>(seconds_of_day / 3600), static_cast<int>(seconds_of_day / 60 % 60),
           static_cast<int>(seconds_of_day % 60));
  if (silent.last.host[0] == '\0') {
    line.add(", none since the job started");
  } else if (silent.last.phase[0] != '\0') {
    line.add(", last heard of in ");
    add_phase(line, silent.last.phase.data(), silent.last.step);
  }
  if (silent.others > 0) line.add("; no heartbeat from %d more ranks either", silent.others);
  line.add(". It was stopped, its host hangs, or the hosts cannot reach each other");
  line.add(kNetworkHint);
}

void add_working(Line& line, const Suspect& working) {
  add_rank(line, working);
  line.add(" is alive but late: it is still in ");
  add_phase(line, working.last.phase.data(), working.last.step);
  line.add(". It hangs, or it needs more time: then raise runtime.peer_timeout_seconds");
}

// Names the stopped ranks of this host: without heartbeats that is all that can be known.
void add_stopped_here(Line& line, const char* own_host) {
  std::array<char, 256> ranks{};
  if (stopped_ranks_here(ranks.data(), ranks.size()) > 0) {
    line.add("%s on %s is missing: it was stopped", ranks.data(), own_host);
  } else {
    line.add(
        "no rank of this host is stopped: a rank on another host is missing, or the hosts cannot reach each other");
    line.add(kNetworkHint);
  }
}

}  // namespace

struct Watchdog::State {
  int rank = 0;
  std::array<char, 64> host{};
  mutable std::mutex mutex;
  std::condition_variable changed;
  bool ending = false;
  int64_t next_id = 0;
  std::map<int64_t, Wait> waits;
  std::array<char, 64> work{};
  double peer_timeout_seconds = std::numeric_limits<double>::infinity();
  bool alone = false;
  bool heard = false;
  PeerNews news;
  std::thread thread;

  [[noreturn]] void end_process(const Wait& wait, double limit_seconds) const {
    Line line;
    line.add("neoloom: error: rank %d on %s waited more than %.1f s in ", rank, host.data(), limit_seconds);
    add_phase(line, wait.phase.data(), wait.step);
    line.add(": ");
    if (alone) {
      line.add("the device hangs, or it needs more time: then raise runtime.peer_timeout_seconds");
    } else if (is_silent() || (heard && news.working.rank < 0 && news.silent.rank >= 0)) {
      add_silent(line, news.silent);
    } else if (heard && news.working.rank >= 0) {
      add_working(line, news.working);
    } else if (heard) {
      line.add("all ranks are alive and waiting, so their messages do not arrive: the hosts cannot reach each other");
      line.add(kNetworkHint);
    } else {
      add_stopped_here(line, host.data());
    }
    line.add(". Ending with exit code 6. Start the job again, and it resumes from its newest checkpoint\n");
    line.write();
    ::_exit(static_cast<int>(core::ErrorKind::kPeer));
  }

  bool is_silent() const {
    return heard && news.silent.rank >= 0 &&
           news.silent.silent_seconds >= std::max(kLeastSilenceSeconds, kSilentShare * peer_timeout_seconds);
  }

  // Returns how long this rank lets others print first. One message stands for all: the other ranks print only if it
  // does not come.
  double turn_seconds() const {
    if (heard && news.silent.rank != 0) return rank == news.speaker ? 0.0 : kTurnSeconds;
    return kTurnSeconds * std::min(rank, 2);
  }

  void look_at(const Wait& wait) const {
    const double patience = std::min(turn_seconds(), 10.0 * wait.deadline_seconds);
    if (wait.waited_seconds >= wait.deadline_seconds + patience) end_process(wait, wait.deadline_seconds);
    if (wait.waited_seconds >= peer_timeout_seconds + patience && is_silent()) end_process(wait, peer_timeout_seconds);
  }

  void watch() {
    std::unique_lock lock(mutex);
    while (!ending) {
      changed.wait(lock, [this] { return ending || !waits.empty(); });
      const double before = core::now_seconds();
      changed.wait_for(lock, std::chrono::duration<double>(kTickSeconds), [this] { return ending; });
      const double counted = std::min(core::now_seconds() - before, 2 * kTickSeconds);
      for (auto& [id, wait] : waits) {
        wait.waited_seconds += counted;
        look_at(wait);
      }
    }
  }
};

Watchdog::Watchdog(int rank, const std::string& host) : state_(std::make_unique<State>()) {
  state_->rank = rank;
  copy_text(host, state_->host);
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
  Wait wait;
  copy_text(phase, wait.phase);
  wait.step = step;
  wait.deadline_seconds = deadline_seconds;
  // The first check counts a whole tick, even if the wait began just before it.
  wait.waited_seconds = -kTickSeconds;
  std::lock_guard lock(state_->mutex);
  const int64_t id = state_->next_id++;
  state_->waits.emplace(id, wait);
  if (state_->waits.size() == 1) state_->changed.notify_all();
  return Guard(*this, id);
}

void Watchdog::drop(int64_t id) {
  std::lock_guard lock(state_->mutex);
  state_->waits.erase(id);
}

void Watchdog::set_peer_timeout(double seconds) {
  std::lock_guard lock(state_->mutex);
  state_->peer_timeout_seconds = seconds;
}

void Watchdog::be_alone() {
  std::lock_guard lock(state_->mutex);
  state_->alone = true;
}

void Watchdog::work_in(const std::string& phase) {
  std::lock_guard lock(state_->mutex);
  copy_text(phase, state_->work);
}

Activity Watchdog::activity() const {
  std::lock_guard lock(state_->mutex);
  Activity activity{.host = state_->host, .phase = state_->work};
  if (!state_->waits.empty()) {
    const Wait& longest = state_->waits.begin()->second;
    activity.phase = longest.phase;
    activity.step = longest.step;
    activity.waits_seconds = std::max(0.0, longest.waited_seconds);
  }
  return activity;
}

void Watchdog::hear(const PeerNews& news) {
  std::lock_guard lock(state_->mutex);
  state_->heard = true;
  state_->news = news;
}

void Watchdog::hear_no_more() {
  std::lock_guard lock(state_->mutex);
  state_->heard = false;
}

Watchdog::Guard::Guard(Guard&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), id_(other.id_) {}

Watchdog::Guard::~Guard() {
  if (owner_ != nullptr) owner_->drop(id_);
}

}  // namespace neoloom::comm
