// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/monitor/run_status.h"

namespace neoloom::launch {

struct FrameStyle {
  size_t columns = 80;
  size_t rows = 0;  // 0: as many as it takes
  bool unicode = false;
  bool colours = false;
  std::string footer = {};
};

/// What a frame shows beside its history.
struct FrameContents {
  nlohmann::ordered_json told;  // as describe_run has it
  std::map<std::string, std::string> config;
  double checkpoint_seconds;  // Unix time of the newest checkpoint; NaN: none, or unknown
  double now_seconds;         // Unix time
};

/// Draws a run as lines of at most style.columns columns: state, steps, loss, evaluations, learning rate, checkpoint,
/// warnings, and a table of the devices. If there are too few rows, it first shows fewer devices beside their sum, then
/// leaves out what matters least.
std::vector<std::string> draw_frame(const RunHistory& history, const FrameContents& contents, const FrameStyle& style);

}  // namespace neoloom::launch
