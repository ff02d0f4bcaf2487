// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/graph_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/cuda/fake_apis.h"

namespace neoloom::cuda {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// Makes work that increments a result. Work that is captured must not do so until it is replayed.
class GraphCacheTest : public testing::Test {
 protected:
  RepeatedWork work(const std::string& shape) {
    RepeatedWork work;
    work.shape = shape;
    work.begin = [this] { begun_ = true; };
    work.enqueue = [this](const std::function<void()>& pause) {
      EXPECT_TRUE(begun_) << "no begin before these kernels";
      begun_ = false;
      for (int64_t part = 0; part < pauses_; ++part) {
        machine_->note("part");
        pause();
      }
      const bool recording = machine_->failing_call != "begin_capture" && !machine_->calls.empty() &&
                             machine_->calls.back() == "begin_capture";
      if (recording && enqueue_fails_when_recorded_) throw std::runtime_error("this kernel cannot be recorded");
      if (recording) return;
      result_ = input_ * 2;
      ++eager_runs_;
    };
    work.snapshot = [this] { return [this, before = result_] { return result_ == before; }; };
    return work;
  }
  void SetUp() override {
    machine_->played = [this] {
      EXPECT_TRUE(begun_ || machine_->calls.empty()) << "no begin before the replay";
      begun_ = false;
      result_ = input_ * 2;
    };
  }
  void run(const std::string& shape, int64_t times) {
    for (int64_t i = 0; i < times; ++i) {
      ++input_;
      cache_.run(work(shape));
      EXPECT_EQ(result_, input_ * 2);
    }
  }

  std::shared_ptr<FakeMachine> machine_ = std::make_shared<FakeMachine>();
  std::vector<std::string> log_;
  GraphCache cache_{fake_device(machine_), [this](const std::string& text) { log_.push_back(text); }};
  bool begun_ = false;
  bool enqueue_fails_when_recorded_ = false;
  int64_t pauses_ = 0;
  int64_t input_ = 0, result_ = 0, eager_runs_ = 0;
};

TEST_F(GraphCacheTest, FirstRunsOfAShapeAreEager) {
  run("a", GraphCache::kEagerRuns - 1);
  EXPECT_THAT(machine_->calls, IsEmpty());
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(GraphCacheTest, ThenItIsRecordedPlayedOnceAndKept) {
  run("a", GraphCache::kEagerRuns);
  EXPECT_THAT(machine_->calls, ElementsAre("begin_capture", "end_capture", "replay"));
  EXPECT_THAT(log_, ElementsAre("CUDA graph of micro-steps with a: 7 kernels, copies and fills"));
  run("a", 5);
  EXPECT_EQ(eager_runs_, GraphCache::kEagerRuns);
  EXPECT_EQ(cache_.replays(), 5);
}

TEST_F(GraphCacheTest, EachShapeHasAGraphOfItsOwn) {
  run("a", GraphCache::kEagerRuns);
  run("b", GraphCache::kEagerRuns);
  EXPECT_EQ(std::count(machine_->calls.begin(), machine_->calls.end(), "begin_capture"), 2);
}

TEST_F(GraphCacheTest, WorkWithoutAShapeIsNeverRecorded) {
  run("", 10);
  EXPECT_EQ(eager_runs_, 10);
  EXPECT_THAT(machine_->calls, IsEmpty());
}

TEST_F(GraphCacheTest, FailureToBeginStaysEagerAndIsSaidOnce) {
  machine_->failing_call = "begin_capture";
  run("a", 10);
  EXPECT_THAT(
      log_, ElementsAre(AllOf(HasSubstr("warning: no CUDA graph of micro-steps with a"), HasSubstr("cannot record"))));
  EXPECT_EQ(std::count(machine_->calls.begin(), machine_->calls.end(), "begin_capture"), 1);
}

TEST_F(GraphCacheTest, KernelThatCannotBeRecordedEndsTheRecordingAndStaysEager) {
  enqueue_fails_when_recorded_ = true;
  run("a", 10);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("this kernel cannot be recorded")));
  EXPECT_THAT(machine_->calls, ElementsAre("begin_capture", "end_capture", "destroy_graph"));
}

TEST_F(GraphCacheTest, FailureToEndIsSaidInOneLine) {
  machine_->failing_call = "end_capture";
  run("a", 10);
  EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr("recording is invalid"), Not(HasSubstr("more lines")))));
  EXPECT_THAT(machine_->calls, Contains("destroy_graph"));
}

TEST_F(GraphCacheTest, GraphThatGivesOtherBitsIsThrownAwayAndItsResultsReplaced) {
  machine_->played = [this] { result_ = -1; };
  run("a", 10);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("gives other bits")));
  EXPECT_EQ(cache_.replays(), 0);
  EXPECT_THAT(machine_->calls, Contains("destroy_graph"));
}

TEST_F(GraphCacheTest, PartsAreRecordedOneByOneAndWhatGoesBetweenThemIsDoneInEveryRun) {
  pauses_ = 2;
  machine_->played = [] {};
  const auto run_with_sums = [this](bool sums) {
    RepeatedWork parts = work("a");
    if (sums) parts.between = [this](size_t i) { machine_->note("sum " + std::to_string(i)); };
    parts.snapshot = [] { return [] { return true; }; };
    machine_->calls.clear();
    cache_.run(parts);
  };
  for (int64_t i = 1; i < GraphCache::kEagerRuns; ++i) {
    run_with_sums(true);
    EXPECT_THAT(machine_->calls, ElementsAre("part", "sum 0", "part", "sum 1"));
  }
  run_with_sums(true);  // eager with its sums, then captured and tried without them
  EXPECT_THAT(machine_->calls,
              ElementsAre("part", "sum 0", "part", "sum 1",                                                //
                          "begin_capture", "part", "end_capture", "begin_capture", "part", "end_capture",  //
                          "begin_capture", "end_capture", "replay", "replay", "replay"));
  run_with_sums(true);
  EXPECT_THAT(machine_->calls, ElementsAre("replay", "sum 0", "replay", "sum 1", "replay"));
  run_with_sums(false);
  EXPECT_THAT(machine_->calls, ElementsAre("replay", "replay", "replay"));
  EXPECT_EQ(cache_.replays(), 2);
}

TEST_F(GraphCacheTest, PartThatCannotBeRecordedThrowsTheEarlierOnesAwayAndRepeatsNoSum) {
  pauses_ = 1;
  enqueue_fails_when_recorded_ = true;
  int64_t sums = 0;
  for (int64_t i = 0; i < GraphCache::kEagerRuns; ++i) {
    RepeatedWork parts = work("a");
    parts.between = [&](size_t) { ++sums; };
    cache_.run(parts);
  }
  EXPECT_EQ(sums, GraphCache::kEagerRuns);
  EXPECT_EQ(std::count(machine_->calls.begin(), machine_->calls.end(), "destroy_graph"), 2);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("this kernel cannot be recorded")));
}

TEST_F(GraphCacheTest, ShapesBeyondTheLimitStayEager) {
  for (size_t shape = 0; shape < GraphCache::kMostGraphs + 3; ++shape) {
    run(std::to_string(shape), GraphCache::kEagerRuns + 1);
  }
  EXPECT_EQ(static_cast<size_t>(std::count(machine_->calls.begin(), machine_->calls.end(), "begin_capture")),
            GraphCache::kMostGraphs);
}

}  // namespace
}  // namespace neoloom::cuda
