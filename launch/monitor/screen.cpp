// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/screen.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <string_view>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/output.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::launch {
namespace {

constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";
constexpr std::string_view kLeave = "\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};

// A signal handler can only reach file-scope state. Screen owns it for its lifetime.
std::atomic<int> pipe_of_signals{-1};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void neoloom_pass_signal(int number) {
  const int problem = errno;
  const auto byte = static_cast<unsigned char>(number);
  [[maybe_unused]] const ssize_t ignored = ::write(pipe_of_signals.load(), &byte, 1);
  errno = problem;
}

}  // namespace

struct Screen::State {
  core::UniqueFd signals, to_signals;
  std::array<struct sigaction, kSignals.size()> previous{};

  State() {
    std::array<int, 2> ends{};
    core::require(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0, core::ErrorKind::kInternal, "pipe2() failed: {}",
                  std::strerror(errno));
    signals = core::UniqueFd(ends[0]);
    to_signals = core::UniqueFd(ends[1]);
    pipe_of_signals = ends[1];
    for (size_t i = 0; i < kSignals.size(); ++i) {
      struct sigaction action {};
      action.sa_handler = neoloom_pass_signal;
      action.sa_flags = SA_RESTART;
      ::sigaction(kSignals.at(i), &action, &previous.at(i));
      const bool under_nohup = kSignals.at(i) == SIGHUP && previous.at(i).sa_handler == SIG_IGN;
      if (under_nohup) ::sigaction(kSignals.at(i), &previous.at(i), nullptr);
    }
  }
  ~State() {
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals.at(i), &previous.at(i), nullptr);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

Screen::Screen() : state_(std::make_unique<State>()) {
  has_keys_ = ::tcgetattr(STDIN_FILENO, &terminal_) == 0;
  enter();
}

Screen::~Screen() { leave(); }

void Screen::enter() {
  if (has_keys_) {
    termios quiet = terminal_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet);
  }
  core::write_fully(STDOUT_FILENO, kEnter.data(), kEnter.size());
}

void Screen::leave() noexcept {
  core::write_fully(STDOUT_FILENO, kLeave.data(), kLeave.size());
  if (has_keys_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal_);
}

core::TerminalSize Screen::size() const { return core::terminal_size(STDOUT_FILENO); }

void Screen::show(const std::vector<std::string>& lines) {
  std::string picture = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) picture += (i == 0 ? "" : "\r\n") + lines[i] + "\x1b[K";
  core::Output output;
  output.write(picture + "\x1b[J");
  output.flush();
}

Screen::Event Screen::take_signal() {
  unsigned char number = 0;
  if (::read(state_->signals.get(), &number, 1) != 1) return Event::kTime;
  if (number == SIGWINCH) return Event::kRedraw;
  if (number != SIGTSTP) {
    ending_signal_ = number == SIGINT ? 0 : number;
    return Event::kQuit;
  }
  leave();
  struct sigaction stops {};
  struct sigaction passes {};
  stops.sa_handler = SIG_DFL;
  ::sigaction(SIGTSTP, &stops, &passes);
  std::raise(SIGTSTP);  // returns at fg
  ::sigaction(SIGTSTP, &passes, nullptr);
  enter();
  return Event::kRedraw;
}

Screen::Event Screen::wait(double seconds) {
  const double end = core::now_seconds() + seconds;
  for (;;) {
    const double left = end - core::now_seconds();
    std::array<pollfd, 2> ready{{{state_->signals.get(), POLLIN, 0}, {has_keys_ ? STDIN_FILENO : -1, POLLIN, 0}}};
    const int count = ::poll(ready.data(), ready.size(), left > 0 ? static_cast<int>(std::ceil(left * 1000.0)) : 0);
    if (count == 0) return Event::kTime;
    if (count < 0) continue;  // a signal: it is in the pipe
    if (ready[0].revents != 0) {
      if (const Event event = take_signal(); event != Event::kTime) return event;
    }
    if (ready[1].revents == 0) continue;
    char key = '\0';
    if (::read(STDIN_FILENO, &key, 1) != 1) {
      has_keys_ = false;  // the terminal is gone; a hang-up ends the view
    } else if (key == 'q' || key == 'Q') {
      return Event::kQuit;
    }
  }
}

}  // namespace neoloom::launch
