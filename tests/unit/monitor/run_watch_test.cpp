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
  ASSERT_EQ(points_of(watch_.history().record().train).size(), 1U);
  append("{\"event\":\"train\",\"step\":7,\"loss\":1.5}\n");
  EXPECT_EQ(step(2), 7);
  EXPECT_EQ(points_of(watch_.history().record().train).size(), 2U);
}

TEST_F(Watch, AnEventIsTheSameWhetherItsLineIsScannedOrParsed) {
  const auto line = [](int step, const std::string& space) {
    return "{\"event\":" + space + "\"train\",\"step\":" + std::to_string(step) +
           ",\"epoch\":0.5,\"loss\":1.25,\"step_seconds\":2.0,\"devices\":[{\"rank\":0}],\"time\":" +
           std::to_string(1000 + step) + "}\n";
  };
  append("{\"event\":\"run_start\",\"total_steps\":9}\n");
  for (const std::string space : {"", " "}) {
    append(line(space.empty() ? 2 : 3, space));
    EXPECT_EQ(step(0), space.empty() ? 2 : 3);
    const RunHistory& history = watch_.history();
    EXPECT_EQ(history.last_seconds(), space.empty() ? 1002 : 1003);
    ASSERT_TRUE(history.train());
    EXPECT_EQ(history.train()->at("devices").size(), 1U);
    EXPECT_EQ(watch_.told().at("loss"), 1.25);
    EXPECT_EQ(last_of(history.record().train).epoch, 0.5);
  }
  append("{\"event\":\"run_start\",\"total_steps\":9}\n{\"event\":\"resume\",\"step\":1}\n");
  EXPECT_EQ(step(0), 1);
  EXPECT_FALSE(watch_.history().train()) << "a scanned line is lost, too";
  append(line(2, "") + "{\"event\":\"run_start\",\"total_steps\":9}\n{\"event\":\"resume\",\"step\":1}\n");
  EXPECT_EQ(step(0), 1) << "one that nobody asked for in between";
  EXPECT_FALSE(watch_.history().train());
  append("{\"event\":\"run_start\",\"total_steps\":9}\n" + line(1, ""));
  EXPECT_EQ(step(0), 1);
  append(line(2, "") + "{\"event\":\"run_start\",\"total_steps\":9}\n" + line(1, ""));
  EXPECT_EQ(step(0), 1) << "a start that does not resume";
  EXPECT_EQ(points_of(watch_.history().record().train).size(), 1U);
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
