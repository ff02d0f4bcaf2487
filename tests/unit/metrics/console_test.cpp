// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <sstream>
#include <stdexcept>

#include "runtime/core/error.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::metrics {
namespace {

using testing::HasSubstr;
using testing::Not;

StepLine line(int64_t step) { return {step, 500, 0.25, 1.23456, 0.987654, 2e-4, 123.4, 45678.0, 754.0}; }

std::string in_a_file(const std::function<void()>& act) {
  testing::internal::CaptureStderr();
  act();
  return testing::internal::GetCapturedStderr();
}

std::string everything_from(int descriptor) {
  std::string text;
  std::array<char, 4096> piece{};
  for (ssize_t got = 0; (got = ::read(descriptor, piece.data(), piece.size())) > 0;) {
    text.append(piece.data(), static_cast<size_t>(got));
  }
  ::close(descriptor);
  return text;
}

// Returns what a process writes to a terminal of this width.
std::string on_a_terminal(unsigned short columns, bool no_color, const std::function<void()>& act) {
  winsize size{};
  size.ws_row = 25;
  size.ws_col = columns;
  int master = -1;
  const pid_t child = ::forkpty(&master, nullptr, nullptr, &size);
  if (child < 0) throw std::runtime_error("no pseudo-terminal: is /dev/pts mounted?");
  if (child == 0) {
    ::setenv("TERM", "xterm", 1);
    ::setenv("LC_ALL", "C.UTF-8", 1);
    no_color ? ::setenv("NO_COLOR", "1", 1) : ::unsetenv("NO_COLOR");
    act();
    ::_exit(0);
  }
  std::string text = everything_from(master);
  ::waitpid(child, nullptr, 0);
  return text;
}

// Returns what a process writes to a pipe, with this NEOLOOM_TERMINAL_COLUMNS (unset when null).
std::string into_a_pipe(const char* columns, const std::function<void()>& act) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe(ends.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::setenv("TERM", "dumb", 1);  // as ssh sets none
    columns != nullptr ? ::setenv("NEOLOOM_TERMINAL_COLUMNS", columns, 1) : ::unsetenv("NEOLOOM_TERMINAL_COLUMNS");
    act();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text = everything_from(ends[0]);
  ::waitpid(child, nullptr, 0);
  return text;
}

// Returns the lines that a person sees: a redraw replaces what its line held before.
std::vector<std::string> screen(const std::string& written) {
  std::vector<std::string> lines = {""};
  for (size_t i = 0; i < written.size(); ++i) {
    if (written[i] == '\n') {
      lines.emplace_back();
    } else if (written[i] == '\r') {
      if (i + 1 < written.size() && written[i + 1] != '\n') lines.back().clear();
    } else if (written[i] == '\x1b') {
      i = written.find_first_of("mKhl", i);
    } else {
      lines.back() += written[i];
    }
  }
  return lines;
}

TEST(ConsoleInAFile, WritesPlainAlignedLinesUnderOneHeader) {
  const std::string text = in_a_file([] {
    Console console("auto", core::LogLevel::kInfo);
    console.notice("starting");
    console.step(line(1));
    console.tick(2, 500, 700.0);
    console.step(line(10));
    console.finish();
  });
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  std::istringstream lines(text);
  std::vector<std::string> found;
  for (std::string each; std::getline(lines, each);) found.push_back(each);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0], "starting");
  EXPECT_THAT(found[1], HasSubstr("grad norm"));
  EXPECT_EQ(found[1].size(), found[2].size());
  EXPECT_EQ(found[2].size(), found[3].size());
  EXPECT_THAT(found[3], testing::AllOf(HasSubstr("10/500"), HasSubstr("1.2346"), HasSubstr("2.00e-04"),
                                       HasSubstr("45,678"), HasSubstr("12:34")));
}

TEST(ConsoleInAFile, DetailsAreOfTheLevelDebugAndTheResultIsDroppedByErrorAlone) {
  const auto both = [](core::LogLevel level) {
    Console console("auto", level);
    console.detail("detail");
    console.result("done");
  };
  EXPECT_EQ(in_a_file([&] { both(core::LogLevel::kDebug); }), "detail\ndone\n");
  EXPECT_EQ(in_a_file([&] { both(core::LogLevel::kInfo); }), "done\n");
  EXPECT_EQ(in_a_file([&] { both(core::LogLevel::kWarning); }), "done\n");
  EXPECT_EQ(in_a_file([&] { both(core::LogLevel::kError); }), "");
}

TEST(ConsoleInAFile, LevelsAboveInfoDropLinesAndOffLeavesNotices) {
  const auto everything = [](const char* progress, core::LogLevel level) {
    Console console(progress, level);
    console.notice("notice");
    console.step(line(1));
    console.tick(1, 500, 1.0);
    console.warning("careful");
  };
  EXPECT_EQ(in_a_file([&] { everything("auto", core::LogLevel::kWarning); }), "warning: careful\n");
  EXPECT_EQ(in_a_file([&] { everything("off", core::LogLevel::kInfo); }), "notice\nwarning: careful\n");
  EXPECT_EQ(in_a_file([&] { everything("auto", core::LogLevel::kError); }), "");
  EXPECT_THROW(Console("fancy", core::LogLevel::kInfo), core::Error);
}

TEST(ConsoleOnATerminal, ABarIsRedrawnInPlaceAndEndsOnALineOfItsOwn) {
  const std::string text = on_a_terminal(80, true, [] {
    Console console("auto", core::LogLevel::kInfo);
    console.tick(100, 500, 60.0);
    console.tick(500, 500, 0.0);
    console.finish();
    console.notice("after");
  });
  const std::vector<std::string> lines = screen(text);
  EXPECT_THAT(lines[0], testing::AllOf(HasSubstr("100%"), HasSubstr("500/500 steps, done")));
  EXPECT_EQ(lines[1], "after");
  EXPECT_THAT(text, HasSubstr(" 20%"));
  EXPECT_THAT(text, HasSubstr("100/500 steps, 01:00 left"));
}

TEST(ConsoleOnATerminal, NoticesStandAboveTheBarAndNeverTearIt) {
  const std::string text = on_a_terminal(80, true, [] {
    Console console("auto", core::LogLevel::kInfo);
    console.tick(100, 500, 60.0);
    console.step(line(100));
    console.warning("one checkpoint was skipped");
    console.finish();
  });
  const std::vector<std::string> lines = screen(text);
  ASSERT_EQ(lines.size(), 5U) << "header, step, warning, bar, end";
  EXPECT_THAT(lines[0], testing::AllOf(HasSubstr("grad norm"), Not(HasSubstr("%"))));
  EXPECT_THAT(lines[1], HasSubstr("100/500"));
  EXPECT_EQ(lines[2], "warning: one checkpoint was skipped");
  EXPECT_THAT(lines[3], HasSubstr(" 20%"));
  EXPECT_EQ(lines[4], "");
}

TEST(ConsoleOnATerminal, TheBarFitsIntoAnyWidth) {
  for (const unsigned short columns : {10, 20, 39, 40, 41, 60, 80, 200}) {
    const std::string text = on_a_terminal(columns, false, [] {
      Console console("auto", core::LogLevel::kInfo);
      console.tick(100, 500, 60.0);
      console.finish();
    });
    for (const std::string& each : screen(text)) EXPECT_LT(display_width(each), columns) << each;
  }
}

TEST(ConsoleOnATerminal, ColoursObeyNoColor) {
  const auto warn = [] { Console("auto", core::LogLevel::kInfo).warning("careful"); };
  EXPECT_THAT(on_a_terminal(80, false, warn), HasSubstr("\x1b[33m"));
  EXPECT_THAT(on_a_terminal(80, true, warn), Not(HasSubstr("\x1b[33m")));
}

TEST(ConsoleInAFile, LongWorkIsToldAtFirstAndThenEverMoreSeldom) {
  const std::string text = in_a_file([] {
    Console console("auto", core::LogLevel::kInfo);
    for (int64_t second = 0; second <= 1000; ++second) {
      console.work({"predicting", "rows", 300 * second, 300'000, static_cast<double>(second)});
    }
    console.work({"evaluating", "rows", 8, 80, 4.9});
    console.work({"evaluating", "rows", 16, 80, 5.0});
  });
  EXPECT_THAT(text, testing::StartsWith("predicting: 1,500 of 300,000 rows (0 %), 16:35 left\n"
                                        "predicting: 3,000 of 300,000 rows (1 %), 16:30 left\n"
                                        "predicting: 6,000 of 300,000 rows (2 %), 16:20 left\n"));
  EXPECT_THAT(text, testing::EndsWith("evaluating: 16 of 80 rows (20 %), 00:20 left\n"));
  const auto lines = std::count(text.begin(), text.end(), '\n');
  EXPECT_GE(lines, 1 + 1000 / 120);
  EXPECT_LE(lines, 20);
}

TEST(ConsoleInAFile, OffAndLevelsAboveInfoDropTheProgressOfWork) {
  const auto work = [](const char* progress, core::LogLevel level) {
    Console console(progress, level);
    console.work({"predicting", "rows", 1, 2, 60.0});
  };
  EXPECT_EQ(in_a_file([&] { work("off", core::LogLevel::kInfo); }), "");
  EXPECT_EQ(in_a_file([&] { work("auto", core::LogLevel::kWarning); }), "");
  EXPECT_THAT(in_a_file([&] { work("auto", core::LogLevel::kInfo); }), HasSubstr("1 of 2 rows"));
}

TEST(ConsoleOnATerminal, WorkTakesTheBarWhileItLasts) {
  const std::string text = on_a_terminal(100, true, [] {
    Console console("auto", core::LogLevel::kInfo);
    console.work({"tokenising", "kB", 1, 1, 0.9});
    console.tick(100, 500, 60.0);
    console.work({"evaluating", "rows", 40, 80, 2.0});
    console.tick(101, 500, 60.0);
    console.finish();
  });
  EXPECT_THAT(text, Not(HasSubstr("tokenising"))) << "shorter than a second";
  EXPECT_THAT(text, HasSubstr("evaluating  50%"));
  EXPECT_THAT(text, HasSubstr("40/80 rows, 00:02 left"));
  EXPECT_THAT(screen(text)[0], HasSubstr("101/500 steps"));
}

TEST(ConsoleUnderMpirun, APipeThatEndsOnATerminalGetsABarOfItsWidth) {
  const auto train = [] {
    Console console("auto", core::LogLevel::kInfo);
    console.tick(100, 500, 60.0);
    console.warning("careful");
    console.finish();
  };
  for (const char* columns : {"40", "132"}) {
    const std::string text = into_a_pipe(columns, train);
    EXPECT_THAT(text, HasSubstr("100/500 steps"));
    for (const std::string& each : screen(text)) EXPECT_LT(display_width(each), std::stoul(columns)) << each;
  }
  for (const char* columns : {static_cast<const char*>(nullptr), "0", "wide"}) {
    EXPECT_EQ(into_a_pipe(columns, train), "warning: careful\n");
  }
}

TEST(ConsoleUnderMpirun, AFileStaysPlainWhateverTheTerminal) {
  ::setenv("NEOLOOM_TERMINAL_COLUMNS", "80", 1);
  const std::string text = in_a_file([] { Console("auto", core::LogLevel::kInfo).tick(100, 500, 60.0); });
  ::unsetenv("NEOLOOM_TERMINAL_COLUMNS");
  EXPECT_EQ(text, "");
}

// The window may become narrower: a bar that wrapped would leave its upper part behind at every redraw.
TEST(ConsoleOnATerminal, TheBarIsDrawnWithWrappingOff) {
  const std::string text = on_a_terminal(80, true, [] { Console("auto", core::LogLevel::kInfo).tick(100, 500, 60.0); });
  const size_t off = text.find("\x1b[?7l"), bar = text.find("100/500"), on = text.find("\x1b[?7h");
  EXPECT_LT(off, bar);
  EXPECT_LT(bar, on);
  EXPECT_NE(on, std::string::npos);
}

}  // namespace
}  // namespace neoloom::metrics
