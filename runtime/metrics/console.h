// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/core/logger.h"

namespace neoloom::metrics {

/// The numbers of one console line.
struct StepLine {
  int64_t step = 0;
  int64_t total_steps = 0;
  double epoch = 0.0;
  double loss = 0.0;
  double grad_norm = 0.0;
  double learning_rate = 0.0;
  double samples_per_s = 0.0;
  double tokens_per_s = 0.0;
  double seconds_left = 0.0;
};

/// Rank 0's view of a run on stderr: on a terminal a progress bar with time left that is redrawn in place, in a file
/// plain aligned lines. Notices never tear the bar. Colours only on a terminal without NO_COLOR. A pipe is a terminal
/// of NEOLOOM_TERMINAL_COLUMNS columns when the environment says so: cluster/local/mpirun.sh does.
class Console {
 public:
  /// `progress`: auto (bar on a terminal) | bar | plain | off (neither bar nor step lines). `level`: notices are
  /// kInfo, warnings kWarning.
  /// Throws: Error(kUsage) for another word.
  Console(const std::string& progress, core::LogLevel level);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void step(const StepLine& line);                                    // a logging step: one aligned line
  void tick(int64_t step, int64_t total_steps, double seconds_left);  // redraws the bar; nothing in a file
  void notice(const std::string& text);                               // information; may have several lines
  void warning(const std::string& text);
  void finish();  // ends the bar

 private:
  void print_above_bar(const std::string& lines);
  std::string bar_text() const;
  std::string bar_content() const;

  bool bar_ = false;
  bool lines_ = false;
  core::LogLevel level_ = core::LogLevel::kInfo;
  bool colours_ = false;
  bool unicode_ = false;
  bool bar_drawn_ = false;
  bool header_done_ = false;
  int step_width_ = 0;
  int64_t step_ = 0;  // what the bar shows
  int64_t total_steps_ = 0;
  double seconds_left_ = 0.0;
  double drawn_at_seconds_ = 0.0;
};

}  // namespace neoloom::metrics
