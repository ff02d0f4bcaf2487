// SPDX-License-Identifier: Apache-2.0
#include "runtime/metrics/event_follower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/metrics/events.h"
#include "tests/support/scratch.h"

namespace neoloom::metrics {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string line(int64_t step) { return "{\"event\":\"train\",\"step\":" + std::to_string(step) + "}\n"; }

class Follower : public testing::Test {
 protected:
  void append(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  void replace(const std::string& text) { std::ofstream(path_, std::ios::trunc) << text; }
  /// Polls once, and returns the steps that are new; -1: it began anew.
  std::vector<int64_t> poll(size_t most_bytes = EventFollower::kMostBytes) {
    std::vector<int64_t> steps;
    const auto take = [&](const nlohmann::ordered_json& event) { steps.push_back(event.at("step")); };
    follower_.poll([&](std::string_view text) { take_event(text, take); }, [&] { steps.push_back(-1); }, most_bytes);
    return steps;
  }
  ScratchFolder folder_;
  std::string path_ = folder_.path("metrics.jsonl");
  EventFollower follower_{path_};
};

TEST_F(Follower, TakesEachLineOnceWhenItIsWhole) {
  EXPECT_THAT(poll(), IsEmpty());
  EXPECT_FALSE(follower_.there());
  append(line(1) + line(2).substr(0, 9));
  EXPECT_THAT(poll(), ElementsAre(1));
  EXPECT_TRUE(follower_.there());
  EXPECT_FALSE(follower_.has_more()) << "half a line is nothing to read on for";
  EXPECT_THAT(poll(), IsEmpty());
  append(line(2).substr(9) + "no json\n[7]\n" + line(3));
  EXPECT_THAT(poll(), ElementsAre(2, 3));
  EXPECT_THAT(poll(), IsEmpty());
}

TEST_F(Follower, BeginsAnewWhenTheFileWasCutOrReplaced) {
  append(line(1) + line(2));
  EXPECT_THAT(poll(), ElementsAre(1, 2));
  replace(line(5));
  EXPECT_THAT(poll(), ElementsAre(-1, 5));
  replace(line(6) + line(7) + line(8));
  EXPECT_THAT(poll(), ElementsAre(-1, 6, 7, 8)) << "a longer file with other lines";
  std::filesystem::remove(path_);
  EXPECT_THAT(poll(), IsEmpty());
  EXPECT_FALSE(follower_.there());
  append(line(9));
  EXPECT_THAT(poll(), ElementsAre(-1, 9));
}

TEST_F(Follower, ACopyThatIsReplacedByALongerOneGoesOn) {
  append(line(1) + line(2));
  EXPECT_THAT(poll(), ElementsAre(1, 2));
  std::filesystem::remove(path_);
  append(line(1) + line(2) + line(3));
  EXPECT_THAT(poll(), ElementsAre(3));
}

TEST_F(Follower, ReadsALargeFileInPieces) {
  append(line(1) + line(2) + line(3));
  EXPECT_THAT(poll(line(1).size() + 3), ElementsAre(1));
  EXPECT_TRUE(follower_.has_more());
  EXPECT_THAT(poll(2 * line(1).size()), ElementsAre(2, 3));
  EXPECT_FALSE(follower_.has_more());
}

TEST_F(Follower, LeavesOutALineThatIsTooLong) {
  const std::string much(100, ' ');
  append(line(1) + much + line(2) + line(3));
  std::vector<int64_t> steps;
  do {
    for (const int64_t step : poll(30)) steps.push_back(step);
  } while (follower_.has_more());
  EXPECT_THAT(steps, ElementsAre(1, 3));
}

TEST_F(Follower, ReadsEachByteOfAGrowingFileOnce) {
  // Bytes that this process reads through system calls.
  const auto read_bytes = [] {
    std::ifstream io("/proc/self/io");
    std::string key;
    int64_t bytes = 0;
    io >> key >> bytes;
    return bytes;
  };
  std::string much;
  for (int i = 0; i < 100'000; ++i) much += line(i);
  append(much);
  EXPECT_EQ(poll().size(), 100'000U);
  const int64_t before = read_bytes();
  for (int i = 0; i < 10; ++i) {
    append(line(i));
    EXPECT_THAT(poll(), ElementsAre(i));
  }
  EXPECT_LT(read_bytes() - before, 20'000);
}

}  // namespace
}  // namespace neoloom::metrics
