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

/// How far a piece of work beside the steps of training is.
struct WorkLine {
  std::string what;  // "evaluating"
  std::string unit;  // "rows"
  int64_t done = 0;
  int64_t total = 0;
  double seconds = 0.0;  // since it began
};

/// Shows a run on rank 0's stderr: on a terminal a progress bar, redrawn in place, with the time left; in a file plain
/// aligned lines. Notices are printed above the bar. Colours are used only on a terminal without NO_COLOR. With
/// NEOLOOM_TERMINAL_COLUMNS set, as cluster/local/mpirun.sh does, a pipe counts as a terminal of that width.
class Console {
 public:
  /// `progress`: auto (bar on a terminal) | bar | plain | off (neither bar nor step lines). `level`: details are
  /// kDebug, notices kInfo, warnings and the result kWarning. Throws: Error(kUsage) for another word.
  Console(const std::string& progress, core::LogLevel level);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void step(const StepLine& line);                                    // a logging step: one aligned line
  void tick(int64_t step, int64_t total_steps, double seconds_left);  // redraws the bar; nothing in a file
  /// Redraws the bar once the work has taken a second. In a file: a line after 5 seconds, then ever more seldom, at
  /// least every 2 minutes.
  void work(const WorkLine& line);
  void notice(const std::string& text);  // information; may have several lines
  void detail(const std::string& text);  // what few ask for
  void result(const std::string& text);  // how the run ended; not even `warning` drops it
  void warning(const std::string& text);
  void finish();  // ends the bar

 private:
  /// What the bar shows.
  struct Bar {
    std::string what = "";  // the steps of training
    std::string unit = "steps";
    int64_t done = 0;
    int64_t total = 0;
    double seconds_left = 0.0;
  };
  void redraw(Bar bar);
  void print_above_bar(const std::string& lines);
  std::string bar_text() const;
  std::string bar_content() const;

  bool bar_ = false;
  bool bar_at_once_ = false;  // also for work of less than a second
  bool lines_ = false;
  core::LogLevel level_ = core::LogLevel::kInfo;
  bool colours_ = false;
  bool unicode_ = false;
  bool bar_drawn_ = false;
  bool header_done_ = false;
  int step_width_ = 0;
  Bar shown_;
  double drawn_at_seconds_ = 0.0;
  double work_seconds_ = 0.0;       // of the last WorkLine
  double next_line_seconds_ = 0.0;  // when the work is worth another line in a file
};

}  // namespace neoloom::metrics
