// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/signals.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "runtime/core/error.h"

namespace neoloom::comm {
namespace {

constexpr std::array kSignals{SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP};

// A signal handler can only reach file-scope state. StopSignal owns these for its lifetime.
std::atomic<int> first_signal{0};
std::atomic<bool> in_use{false};
static_assert(std::atomic<int>::is_always_lock_free);

bool ignored_for_nohup(int number, const struct sigaction& action) {
  return number == SIGHUP && action.sa_handler == SIG_IGN;
}

extern "C" void neoloom_note_signal(int number) {
  int none = 0;
  first_signal.compare_exchange_strong(none, number);
}

}  // namespace

struct StopSignal::State {
  std::array<struct sigaction, kSignals.size()> previous{};
};

StopSignal::StopSignal() : state_(std::make_unique<State>()) {
  core::require(!in_use.exchange(true), core::ErrorKind::kInternal, "Only one StopSignal may exist at a time");
  first_signal = 0;
  struct sigaction action {};
  action.sa_handler = neoloom_note_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    const bool taken = sigaction(kSignals[i], &action, &state_->previous[i]) == 0;
    if (taken && ignored_for_nohup(kSignals[i], state_->previous[i])) {
      sigaction(kSignals[i], &state_->previous[i], nullptr);
    }
    if (taken) continue;
    const int error = errno;
    for (size_t j = 0; j < i; ++j) sigaction(kSignals[j], &state_->previous[j], nullptr);
    in_use = false;
    core::fail(core::ErrorKind::kInternal, "sigaction({}) failed: {}", kSignals[i], std::strerror(error));
  }
}

StopSignal::~StopSignal() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &state_->previous[i], nullptr);
  in_use = false;
}

int StopSignal::signal_number() const { return first_signal.load(); }

}  // namespace neoloom::comm
