// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <termios.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/core/terminal.h"

namespace neoloom::launch {

/// Takes the terminal of standard output for pictures that replace each other: the alternate screen, without cursor and
/// without wrapping; standard input, if it is a terminal, without echo. The destructor gives all back. Signals that end
/// or stop the process are events meanwhile. At most one object exists at a time.
class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  core::TerminalSize size() const;
  /// Replaces the picture. Throws: Error(kOutput).
  void show(const std::vector<std::string>& lines);

  enum class Event { kTime, kRedraw, kQuit };
  /// Waits until the time is over, the window has changed (kRedraw; also after Ctrl-Z and fg), or q, Ctrl-C or another
  /// signal ends the view.
  Event wait(double seconds);
  /// The signal that ended the view, other than Ctrl-C's; 0: none. The caller raises it once the screen is given back.
  int ending_signal() const { return ending_signal_; }

 private:
  void enter();
  void leave() noexcept;
  Event take_signal();

  struct State;
  bool has_keys_ = false;  // standard input is a terminal
  int ending_signal_ = 0;
  termios terminal_{};  // as it was found
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::launch
