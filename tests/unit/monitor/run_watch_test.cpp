// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/run_watch.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/scratch.h"

namespace neoloom::launch {
namespace {

class Watch : public testing::Test {
 protected:
  void append(const std::string& text) { std::ofstream(folder_.path("metrics.jsonl"), std::ios::app) << text; }
  void lock(const std::string& boot, int beats) {
    std::ofstream(folder_.path("run.lock"))
        << "host far\npid 1\nboot_id " << boot << "\ntoken t\nbeats " << beats << "\n";
  }
  std::string state(double now_seconds) {
    watch_.look(now_seconds);
    return watch_.told().at("state");
  }
  int64_t step(double now_seconds) {
    watch_.look(now_seconds);
    return watch_.told().at("step");
  }
  ScratchFolder folder_;
  RunWatch watch_{folder_.path()};
};

TEST_F(Watch, WaitsForAFolderThatIsNotThereYet) {
  watch_.look(0);
  EXPECT_FALSE(watch_.there());
  append("{\"event\":\"run_start\",\"total_steps\":9}\n");
  EXPECT_EQ(state(1), "dead");
  EXPECT_TRUE(watch_.there());
}

TEST_F(Watch, AHolderElsewhereRunsOnceItsHeartbeatCountsAndIsDeadAfterElevenSeconds) {
  lock("elsewhere", 1);
  EXPECT_EQ(state(100), "unknown");
  EXPECT_EQ(state(105), "unknown");
  lock("elsewhere", 2);
  EXPECT_EQ(state(106), "running");
  EXPECT_EQ(state(116), "running");
  EXPECT_EQ(state(118), "dead");
  lock("elsewhere", 3);
  EXPECT_EQ(state(119), "running");
}

TEST_F(Watch, ASilentHolderElsewhereIsDeadAfterElevenSeconds) {
  lock("elsewhere", 1);
  EXPECT_EQ(state(100), "unknown");
  EXPECT_EQ(state(112), "dead");
}

TEST_F(Watch, StepsThatAResumeLostAreForgotten) {
  append(
      "{\"event\":\"run_start\",\"total_steps\":9}\n{\"event\":\"train\",\"step\":3,\"loss\":2}\n"
      "{\"event\":\"train\",\"step\":6,\"loss\":1}\n");
  EXPECT_EQ(step(0), 6);
  append("{\"event\":\"run_start\",\"total_steps\":9}\n{\"event\":\"resume\",\"step\":4}\n");
  EXPECT_EQ(step(1), 4);
  ASSERT_EQ(watch_.history().record().train.size(), 1U);
  append("{\"event\":\"train\",\"step\":7,\"loss\":1.5}\n");
  EXPECT_EQ(step(2), 7);
  EXPECT_EQ(watch_.history().record().train.size(), 2U);
}

TEST_F(Watch, ValuesOfOtherTypesAreUnknown) {
  append(
      "{\"event\":\"run_start\",\"total_steps\":\"many\"}\n{\"event\":7}\n"
      "{\"event\":\"train\",\"step\":\"two\",\"loss\":null,\"step_seconds\":[],\"devices\":{}}\n"
      "{\"event\":\"run_end\",\"status\":3}\n");
  EXPECT_EQ(step(0), 0);
}

}  // namespace
}  // namespace neoloom::launch
