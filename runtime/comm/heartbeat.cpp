// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/heartbeat.h"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "runtime/core/clock.h"

namespace neoloom::comm {
namespace {

constexpr int kBeatTag = 4201;
constexpr int kNewsTag = 4202;
constexpr double kLeavingPauseSeconds = 0.002;
constexpr double kBeatsPerTimeout = 10.0;
constexpr double kLongestIntervalSeconds = 1.0;
// Applies until set_peer_timeout. Some ranks call it earlier than others and expect their beats at once, so it is
// short.
constexpr double kFirstIntervalSeconds = 0.2;
// A peer counts as silent after this many missed beats.
constexpr double kMissedBeats = 3.0;

struct Beat {
  Activity activity;
  int32_t leaving = 0;
  int32_t last = 0;  // 1: no message follows
};

struct News {
  PeerNews peers;
  Activity root;
  int32_t last = 0;
};

/// Exchanges messages with one peer, at most one in flight in each direction. A failed MPI call counts as a message
/// that did not come: the watchdog acts on silence.
template <typename Out, typename In>
class Line {
 public:
  Line(int peer, int out_tag, int in_tag) : peer_(peer), out_tag_(out_tag), in_tag_(in_tag) { listen(); }
  ~Line() {
    // MPI may still read or write the messages: they leak.
    if (sending_ != MPI_REQUEST_NULL || receiving_ != MPI_REQUEST_NULL) (void)messages_.release();
  }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  /// Sends a message. Returns false while the previous one is in flight.
  bool send(const Out& message) {
    if (!sent()) return false;
    messages_->out = message;
    keep_if_good(MPI_Isend(&messages_->out, sizeof(Out), MPI_BYTE, peer_, out_tag_, MPI_COMM_WORLD, &sending_),
                 sending_);
    return true;
  }
  bool sent() {
    int done = 0;
    keep_if_good(MPI_Test(&sending_, &done, MPI_STATUS_IGNORE), sending_);
    return done != 0 || sending_ == MPI_REQUEST_NULL;
  }
  /// Takes the oldest message that has arrived, if any. Must not be called after the peer's last message.
  bool take(In& message) {
    if (receiving_ == MPI_REQUEST_NULL) listen();  // the last MPI_Irecv failed
    if (receiving_ == MPI_REQUEST_NULL) return false;
    int done = 0;
    if (!keep_if_good(MPI_Test(&receiving_, &done, MPI_STATUS_IGNORE), receiving_) || done == 0) return false;
    message = messages_->in;
    if (message.last == 0) listen();
    return true;
  }

 private:
  void listen() {
    keep_if_good(MPI_Irecv(&messages_->in, sizeof(In), MPI_BYTE, peer_, in_tag_, MPI_COMM_WORLD, &receiving_),
                 receiving_);
  }
  static bool keep_if_good(int code, MPI_Request& request) {
    if (code != MPI_SUCCESS) request = MPI_REQUEST_NULL;
    return code == MPI_SUCCESS;
  }

  struct Messages {
    Out out;
    In in;
  };
  int peer_, out_tag_, in_tag_;
  std::unique_ptr<Messages> messages_ = std::make_unique<Messages>();
  MPI_Request sending_ = MPI_REQUEST_NULL;
  MPI_Request receiving_ = MPI_REQUEST_NULL;
};

/// Holds what rank 0 knows of another rank.
struct Peer {
  explicit Peer(int rank) : line(rank, kNewsTag, kBeatTag), known{.rank = rank} {}

  void hear(double counted_seconds) {
    if (beat.last != 0) return;  // it has left, so its silence is expected
    known.silent_seconds += counted_seconds;
    while (beat.last == 0 && line.take(beat)) {
      known.silent_seconds = 0.0;
      known.last = beat.activity;
    }
  }

  Line<News, Beat> line;
  Beat beat;
  Suspect known;
  bool dismissed = false;
};

}  // namespace

struct Heartbeat::State {
  int rank = 0;
  Watchdog* watchdog = nullptr;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  bool leaving = false;
  double interval_seconds = kFirstIntervalSeconds;
  std::thread thread;

  // Only the thread uses these.
  double looked_at = core::now_seconds();
  double counted_seconds = 0.0;  // since the previous pause()
  double silent_after_seconds = 0.0;
  double since_beat_seconds = 0.0;
  bool beat_is_due = true;
  bool leaves = false;

  /// Sleeps until it is time to look for messages. Returns false when the thread must end at once. Time beyond two
  /// intervals does not count: this process was stopped or starved, and could not receive messages.
  bool pause() {
    std::unique_lock lock(mutex);
    const double interval = interval_seconds;
    const double seconds = leaves ? kLeavingPauseSeconds : interval;
    changed.wait_for(lock, std::chrono::duration<double>(seconds),
                     [&] { return stopping || leaving != leaves || interval_seconds != interval; });
    const double now = core::now_seconds();
    counted_seconds = std::min(now - looked_at, 2 * interval_seconds);
    looked_at = now;
    silent_after_seconds = kMissedBeats * interval_seconds;
    since_beat_seconds += counted_seconds;
    beat_is_due = beat_is_due || since_beat_seconds >= interval_seconds || leaving != leaves;
    leaves = leaving;
    return !stopping;
  }

  template <typename Out, typename In>
  void beat(Line<Out, In>& line, const Out& message) {
    if (!beat_is_due || !line.send(message)) return;
    beat_is_due = false;
    since_beat_seconds = 0.0;
  }

  // Runs on every rank but rank 0: sends beats, receives news.
  void report() {
    Line<Beat, News> line(0, kBeatTag, kNewsTag);
    News news;
    Suspect root{.rank = 0};
    bool said_last = false;
    while (pause()) {
      root.silent_seconds += counted_seconds;
      while (news.last == 0 && line.take(news)) root = {.rank = 0, .last = news.root};
      tell(news.peers, root);
      Beat own{.activity = watchdog->activity(), .leaving = leaves ? 1 : 0, .last = news.last};
      if (news.last == 0) {
        beat(line, own);
        continue;
      }
      said_last = said_last || line.send(own);
      if (said_last && line.sent()) return;
    }
  }

  // Gives the watchdog the news from rank 0. When rank 0 is silent, the ranks know nothing of each other, so rank 0 is
  // the one that is missing.
  void tell(PeerNews news, const Suspect& root) const {
    if (root.silent_seconds >= silent_after_seconds) {
      news.silent = root;
    } else if (root.last.host[0] == '\0') {
      return;  // rank 0 has sent nothing yet
    }
    if (news.silent.rank == rank) news.silent = {};  // it was true while this process was stopped
    watchdog->hear(news);
  }

  // Runs on rank 0: receives beats, sends news.
  void collect(int size) {
    std::deque<Peer> peers;
    for (int peer = 1; peer < size; ++peer) peers.emplace_back(peer);
    while (pause()) {
      for (Peer& peer : peers) peer.hear(counted_seconds);
      const News news{.peers = sum_up(peers), .root = watchdog->activity()};
      watchdog->hear(news.peers);
      const bool all_leave =
          leaves && std::all_of(peers.begin(), peers.end(), [](const Peer& peer) { return peer.beat.leaving != 0; });
      if (all_leave) {
        if (dismiss(peers, news)) return;
      } else if (beat_is_due) {
        for (Peer& peer : peers) peer.line.send(news);
        beat_is_due = false;
        since_beat_seconds = 0.0;
      }
    }
  }

  PeerNews sum_up(const std::deque<Peer>& peers) const {
    PeerNews news;
    double longest_wait_seconds = -1.0;
    const auto consider = [&](const Suspect& rank) {
      if (rank.last.waits_seconds < 0.0 && news.working.rank < 0 && rank.last.host[0] != '\0') news.working = rank;
      if (rank.last.waits_seconds <= longest_wait_seconds) return;
      longest_wait_seconds = rank.last.waits_seconds + interval_seconds;  // of about equal waits the lowest rank's
      news.speaker = rank.rank;
    };
    consider({.rank = 0, .last = watchdog->activity()});
    int32_t silent_ranks = 0;
    for (const Peer& peer : peers) {
      if (peer.known.silent_seconds < silent_after_seconds) {
        consider(peer.known);
        continue;
      }
      ++silent_ranks;
      if (peer.known.silent_seconds > news.silent.silent_seconds) news.silent = peer.known;
    }
    news.silent.others = std::max(0, silent_ranks - 1);
    return news;
  }

  // Sends each peer its last news. Returns true when no message is in flight any more.
  static bool dismiss(std::deque<Peer>& peers, News news) {
    news.last = 1;
    bool all_gone = true;
    for (Peer& peer : peers) {
      peer.dismissed = peer.dismissed || peer.line.send(news);
      all_gone = all_gone && peer.dismissed && peer.line.sent() && peer.beat.last != 0;
    }
    return all_gone;
  }

  void end_thread() {
    changed.notify_all();
    if (!thread.joinable()) return;
    thread.join();
    watchdog->hear_no_more();
  }
};

Heartbeat::Heartbeat(int rank, int size, Watchdog& watchdog) : state_(std::make_unique<State>()) {
  state_->rank = rank;
  state_->watchdog = &watchdog;
  state_->thread = std::thread([state = state_.get(), size] {
    if (state->rank == 0) {
      state->collect(size);
    } else {
      state->report();
    }
  });
}

Heartbeat::~Heartbeat() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->end_thread();
}

void Heartbeat::set_peer_timeout(double seconds) {
  std::lock_guard lock(state_->mutex);
  state_->interval_seconds = std::min(kLongestIntervalSeconds, seconds / kBeatsPerTimeout);
  state_->changed.notify_all();
}

void Heartbeat::leave() {
  {
    std::lock_guard lock(state_->mutex);
    state_->leaving = true;
  }
  state_->end_thread();
}

}  // namespace neoloom::comm
