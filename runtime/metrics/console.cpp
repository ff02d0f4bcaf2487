// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/terminal.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::metrics {
namespace {

constexpr std::string_view kClearLine = "\r\x1b[K";
constexpr std::string_view kDoNotWrap = "\x1b[?7l";
constexpr std::string_view kWrapAgain = "\x1b[?7h";
constexpr double kRedrawSeconds = 0.1;
constexpr double kShortWorkSeconds = 1.0;
constexpr double kFirstLineSeconds = 5.0;
constexpr double kLongestPauseSeconds = 120.0;

// Uses one write(), so that lines of other ranks do not fall into the middle.
void put(const std::string& text) { core::write_fully(STDERR_FILENO, text.data(), text.size()); }

}  // namespace

Console::Console(const std::string& progress, core::LogLevel level) : level_(level) {
  core::require(progress == "auto" || progress == "bar" || progress == "plain" || progress == "off",
                core::ErrorKind::kUsage, "logging.progress is \"{}\", expected auto, bar, plain or off", progress);
  const bool terminal = core::stderr_is_terminal();
  lines_ = progress != "off" && level <= core::LogLevel::kInfo;
  bar_ = lines_ && (progress == "bar" || (progress == "auto" && terminal));
  bar_at_once_ = progress == "bar";
  colours_ = core::stderr_has_colours();
  unicode_ = core::speaks_utf8();
}

Console::~Console() { finish(); }

void Console::step(const StepLine& line) {
  if (!lines_) return;
  std::string text;
  if (!header_done_) {
    header_done_ = true;
    step_width_ = static_cast<int>(std::max(std::strlen("step"), fmt::format("{0}/{0}", line.total_steps).size()));
    text = fmt::format("{:>{}} {:>7} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}\n", "step", step_width_, "epoch", "loss",
                       "grad norm", "lr", "samples/s", "tokens/s", "left");
  }
  text += fmt::format("{:>{}} {:>7.2f} {:>9} {:>9} {:>9.2e} {:>9} {:>10} {:>9}\n",
                      fmt::format("{}/{}", line.step, line.total_steps), step_width_, line.epoch,
                      number_text(line.loss), number_text(line.grad_norm), line.learning_rate,
                      rate_text(line.samples_per_s), rate_text(line.tokens_per_s), duration_text(line.seconds_left));
  if (bar_) shown_ = {.done = line.step, .total = line.total_steps, .seconds_left = line.seconds_left};
  print_above_bar(text);
}

void Console::tick(int64_t step, int64_t total_steps, double seconds_left) {
  if (!bar_ || total_steps <= 0) return;
  redraw({.done = step, .total = total_steps, .seconds_left = seconds_left});
}

void Console::work(const WorkLine& line) {
  if (!lines_ || line.total <= 0) return;
  const auto done = static_cast<double>(line.done);
  const auto total = static_cast<double>(line.total);
  const double left = line.done > 0 ? line.seconds * (total - done) / done : -1.0;
  if (bar_) {
    if (!bar_at_once_ && line.seconds < kShortWorkSeconds) return;
    return redraw({line.what, line.unit, line.done, line.total, left});
  }
  if (line.seconds < work_seconds_ || next_line_seconds_ == 0.0) next_line_seconds_ = kFirstLineSeconds;
  work_seconds_ = line.seconds;
  if (line.seconds < next_line_seconds_) return;
  next_line_seconds_ = line.seconds + std::clamp(line.seconds, kFirstLineSeconds, kLongestPauseSeconds);
  notice(fmt::format("{}: {} of {} {} ({} %), {} left", line.what, with_thousands(line.done),
                     with_thousands(line.total), line.unit, static_cast<int>(100.0 * done / total),
                     duration_text(left)));
}

void Console::redraw(Bar bar) {
  const bool same = bar.what == shown_.what;
  shown_ = std::move(bar);
  const double now = core::now_seconds();
  const bool soon = bar_drawn_ && now - drawn_at_seconds_ < kRedrawSeconds;
  if (soon && same && shown_.done < shown_.total) return;
  put(fmt::format("{}{}", kClearLine, bar_text()));
  bar_drawn_ = true;
  drawn_at_seconds_ = now;
}

void Console::notice(const std::string& text) {
  if (level_ <= core::LogLevel::kInfo) print_above_bar(text + "\n");
}

void Console::detail(const std::string& text) {
  if (level_ <= core::LogLevel::kDebug) print_above_bar(text + "\n");
}

void Console::result(const std::string& text) {
  if (level_ <= core::LogLevel::kWarning) print_above_bar(text + "\n");
}

void Console::warning(const std::string& text) {
  if (level_ > core::LogLevel::kWarning) return;
  print_above_bar(fmt::format("{}warning:{} {}\n", colours_ ? "\x1b[33m" : "", colours_ ? "\x1b[0m" : "", text));
}

void Console::finish() {
  if (!bar_drawn_) return;
  bar_drawn_ = false;
  put(fmt::format("{}{}\n", kClearLine, bar_text()));
}

void Console::print_above_bar(const std::string& lines) {
  put(bar_drawn_ ? fmt::format("{}{}{}", kClearLine, lines, bar_text()) : lines);
}

// Turns line wrapping off for the bar. Behind mpirun neoloom does not notice a resized window, and a bar that wraps
// would scroll at each redraw.
std::string Console::bar_text() const { return fmt::format("{}{}{}", kDoNotWrap, bar_content(), kWrapAgain); }

std::string Console::bar_content() const {
  constexpr size_t kWidestBar = 50;
  constexpr size_t kNarrowestBar = 8;
  const double share = std::clamp(static_cast<double>(shown_.done) / static_cast<double>(shown_.total), 0.0, 1.0);
  const std::string what = shown_.what.empty() ? "" : shown_.what + " ";
  const std::string head = fmt::format("{}{:>3}% ", what, static_cast<int>(share * 100.0));
  const std::string left = shown_.done >= shown_.total ? "done" : duration_text(shown_.seconds_left) + " left";
  const std::string tail = fmt::format(" {}/{} {}, {}", shown_.done, shown_.total, shown_.unit, left);
  // The last column stays free: some terminals wrap when it is filled.
  const size_t columns = core::stderr_columns() - 1;
  if (head.size() + tail.size() + kNarrowestBar > columns) return cut_to_width(head + tail.substr(1), columns);
  const size_t bar = std::min(kWidestBar, columns - head.size() - tail.size());
  const auto filled = static_cast<size_t>(std::lround(share * static_cast<double>(bar)));
  const std::string done = repeated(unicode_ ? "\u2501" : "#", filled);
  const std::string open = repeated(unicode_ ? "\u2500" : "-", bar - filled);
  if (!colours_) return head + done + open + tail;
  return fmt::format("{}\x1b[32m{}\x1b[90m{}\x1b[0m{}", head, done, open, tail);
}

}  // namespace neoloom::metrics
