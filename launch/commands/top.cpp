// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/top.h"

#include <fmt/chrono.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <limits>
#include <optional>

#include "launch/monitor/frame.h"
#include "launch/monitor/run_watch.h"
#include "launch/monitor/screen.h"
#include "runtime/comm/launcher.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/core/terminal.h"
#include "runtime/core/text.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

double modified_seconds(const ordered_json& told) {
  struct stat status {};
  const auto found = told.find("checkpoint");
  const bool there = found != told.end() && ::stat((*found)["path"].get<std::string>().c_str(), &status) == 0;
  return there ? static_cast<double>(status.st_mtime) : std::numeric_limits<double>::quiet_NaN();
}

std::vector<std::string> frame_of(const RunWatch& watch, const std::string& run, const FrameStyle& style) {
  const ordered_json& told = watch.told();
  return draw_frame(watch.history(), {told, read_run_config_lines(run), modified_seconds(told), core::unix_seconds()},
                    style);
}

FrameStyle style_for(bool terminal) {
  return {.columns = core::terminal_size(STDOUT_FILENO).columns,
          .unicode = core::speaks_utf8(),
          .colours = terminal && core::wants_colours()};
}

// Waits for the heartbeats of a holder elsewhere, as status does.
int show_once(const std::string& run, const FrameStyle& style) {
  require_run_folder(run);
  RunWatch watch(run);
  do {
    watch.look(core::now_seconds());
  } while (watch.has_more());
  while (watch.there() && watch.told().at("state") == "unknown") {
    ::usleep(100'000);
    watch.look(core::now_seconds());
  }
  require_run_folder(run);
  core::Output output;
  for (const std::string& line : frame_of(watch, run, style)) output.print("{}\n", line);
  output.finish();
  return watch.told().at("exit_code").get<int>();
}

// Draws a message in place of a run.
std::vector<std::string> message(const std::string& text, const FrameStyle& style) {
  std::vector<std::string> lines(style.rows);
  lines.front() = metrics::cut_to_width(text, style.columns);
  if (lines.size() > 1) lines.back() = metrics::cut_to_width(style.footer, style.columns);
  return lines;
}

std::vector<std::string> picture(RunWatch& watch, const std::string& run, const FrameStyle& style) {
  try {
    watch.look(core::now_seconds());
    if (watch.has_more()) {
      return message(fmt::format("reading {}/metrics.jsonl: {:.0f} %", run, 100.0 * watch.read_share()), style);
    }
    if (watch.there()) return frame_of(watch, run, style);
  } catch (const core::Error& error) {
    return message(core::quoted(error.what()), style);
  }
  return message(fmt::format("waiting for {}: no metrics.jsonl and no run.lock yet", run), style);
}

int show_live(const TopArguments& arguments) {
  RunWatch watch(arguments.run);
  int signal = 0;
  {
    Screen screen;
    for (auto event = Screen::Event::kTime; event != Screen::Event::kQuit;) {
      FrameStyle style = style_for(/*terminal=*/true);
      style.rows = screen.size().rows;
      // The last column stays free: clearing the rest of a full line would clear its last letter.
      style.columns = std::max<size_t>(2, style.columns) - 1;
      style.footer = fmt::format("{:%H:%M:%S}  every {:g} s  q: quit", fmt::localtime(std::time(nullptr)),
                                 arguments.interval_seconds);
      screen.show(picture(watch, arguments.run, style));
      event = screen.wait(watch.has_more() ? 0 : arguments.interval_seconds);
    }
    signal = screen.ending_signal();
  }
  if (signal != 0) std::raise(signal);
  return 0;
}

}  // namespace

int run_top(const TopArguments& arguments) {
  const bool terminal = core::is_terminal(STDOUT_FILENO);
  // Some launchers give their ranks a terminal that nobody sees.
  if (terminal && !arguments.once && !comm::started_by_launcher()) return show_live(arguments);
  return show_once(arguments.run, style_for(terminal));
}

}  // namespace neoloom::launch
