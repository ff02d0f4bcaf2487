// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/logger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "runtime/core/error.h"
#include "tests/support/scratch.h"

namespace neoloom::core {
namespace {

std::string said_by(const std::function<void()>& action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

void say_all(Logger& log) {
  log.debug("phase");
  log.detail("version");
  log.info("notice");
  log.warning("careful");
  log.error("over");
}

TEST(Logger, SaysWhatIsAtItsLevelOrAbove) {
  const std::pair<const char*, const char*> expected[] = {
      {"debug", "debug: phase\nversion\nnotice\nwarning: careful\nneoloom: error: over\n"},
      {"info", "notice\nwarning: careful\nneoloom: error: over\n"},
      {"warning", "warning: careful\nneoloom: error: over\n"},
      {"error", "neoloom: error: over\n"}};
  for (const auto& [level, text] : expected) {
    EXPECT_EQ(said_by([level = level] {
                Logger log;
                log.set_level(log_level_from_name(level));
                say_all(log);
              }),
              text);
  }
}

TEST(Logger, BeginsEachMessageWithItsPrefix) {
  EXPECT_EQ(said_by([] { Logger("[rank 3 on node7] ").warning("careful"); }), "[rank 3 on node7] warning: careful\n");
}

TEST(Logger, TakesTextsAsTheyAre) {
  EXPECT_EQ(said_by([] { Logger().info("{} 100% \\n\n"); }), "{} 100% \\n\n") << "braces are no format, one line end";
}

TEST(Logger, AnotherLevelIsRefused) {
  EXPECT_THAT(error_of(ErrorKind::kUsage, [] { log_level_from_name("verbose"); }),
              testing::HasSubstr("debug, info, warning or error, found \"verbose\""));
}

}  // namespace
}  // namespace neoloom::core
