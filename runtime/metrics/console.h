// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

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
/// plain aligned lines. Notices never tear the bar.
class Console {
 public:
  /// `progress`: auto (bar on a terminal) | bar | plain | off.
  Console(const std::string& progress, bool quiet);
  ~Console();
  void step(const StepLine& line);      // a logging step: one aligned line
  void tick(int64_t step, int64_t total_steps, double seconds_left);  // redraws the bar; nothing in a file
  void notice(const std::string& text);  // one line of information
  void warning(const std::string& text);
  void finish();  // ends the bar

 private:
  bool bar_ = false;
  bool quiet_ = false;
  bool bar_drawn_ = false;
  bool header_done_ = false;
};

}  // namespace neoloom::metrics
