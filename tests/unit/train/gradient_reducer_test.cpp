// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/gradient_reducer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace neoloom::train {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int64_t kMiB = int64_t{1} << 20;

TEST(CutBuckets, SmallBufferStaysInOnePiece) {
  EXPECT_THAT(cut_buckets({0, 30, 60}, 90, 90), ElementsAre(0));
  EXPECT_THAT(cut_buckets({0, 30, 60}, 90, 1000), ElementsAre(0));
}

TEST(CutBuckets, LieWhereBlocksBeginLastBlockFirst) {
  EXPECT_THAT(cut_buckets({0, 30, 60}, 100, 1), ElementsAre(60, 30, 0));
  EXPECT_THAT(cut_buckets({0, 30, 60}, 100, 41), ElementsAre(30, 0));
  EXPECT_THAT(cut_buckets({5, 30, 60}, 100, 1), ElementsAre(60, 30, 5, 0)) << "an embedding lies before the blocks";
}

TEST(CutBuckets, BlocksThatTrainNothingMakeNoBucket) {
  EXPECT_THAT(cut_buckets({0, 30, 30, 60, 100}, 100, 1), ElementsAre(60, 30, 0));
}

TEST(CutBuckets, BuffersOfTheAutomaticSizeBecomeFourAtMost) {
  for (const int64_t megabytes : {1, 15, 17, 40, 64, 65, 400, 1021}) {
    const int64_t bytes = megabytes * kMiB;
    std::vector<int64_t> blocks;
    for (int64_t block = 0; block < 32; ++block) blocks.push_back(block * (bytes / 32));
    const auto begins = cut_buckets(blocks, bytes, automatic_bucket_bytes(bytes));
    EXPECT_LE(begins.size(), 4U) << megabytes;
    EXPECT_EQ(begins.size() > 1, megabytes > 16) << megabytes;
  }
}

/// Records its calls. Stands for `ranks` ranks whose buffers all hold what this one's does, when sums end.
class Recorder final : public comm::Communicator {
 public:
  explicit Recorder(int ranks) : ranks_(ranks) {}
  void all_reduce_sum(void* data, size_t n_elements, comm::Element element) override {
    calls.push_back("all_reduce " + std::to_string(n_elements));
    multiply({data, n_elements, element});
  }
  void start_sum(void* data, size_t n_elements, comm::Element element) override {
    calls.push_back("start " + std::to_string(n_elements));
    under_way_.push_back({data, n_elements, element});
  }
  void finish_sums() override {
    calls.emplace_back("finish");
    for (const GradientSum::Part& part : under_way_) multiply(part);
    under_way_.clear();
  }
  std::string description() const override { return "recorder"; }
  std::vector<std::string> calls;

 private:
  void multiply(const GradientSum::Part& part) const {
    for (size_t i = 0; i < part.n_elements; ++i) {
      if (part.element == comm::Element::kInt64) {
        static_cast<int64_t*>(part.data)[i] *= ranks_;
      } else {
        static_cast<float*>(part.data)[i] *= static_cast<float>(ranks_);
      }
    }
  }
  int ranks_;
  std::vector<GradientSum::Part> under_way_;
};

constexpr int64_t kElements = 1000;
const std::vector<int64_t> kBegins = {800, 320, 0};

at::Tensor gradient(uint64_t seed) { return at::randn({kElements}, at::detail::createCPUGenerator(seed)).mul_(50.0); }
at::Tensor loss_of(double value) { return at::full({}, value, at::kDouble); }

class EachReducer : public testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  GradientReducer make(std::vector<int64_t> begins) {
    const auto [kind, device_operators] = GetParam();
    return {make_gradient_sum({.kind = kind, .n_elements = kElements, .device_operators = device_operators}),
            communicator_, std::move(begins)};
  }
  struct Outcome {
    at::Tensor mean;
    double loss = 0.0;
    double flagged = 0.0;
  };
  static Outcome outcome(const GradientReducer& sum) {
    at::Tensor mean = at::empty({kElements}, at::kFloat);
    const GradientSum::Totals totals = sum.sum().finish(mean);
    return {mean, totals.loss_sum.item<double>(), totals.flagged.item<double>()};
  }
  Recorder communicator_{3};
};

TEST_P(EachReducer, HasTheBitsOfTheSumInOnePiece) {
  GradientReducer whole = make({0});
  whole.begin(37, 1.0, 2);
  whole.add(gradient(1), loss_of(2.0));
  whole.add(gradient(2), loss_of(3.0));
  whole.mark_all_ready();
  whole.wait();
  EXPECT_THAT(communicator_.calls, ElementsAre("all_reduce 1016"));

  GradientReducer cut = make(kBegins);
  cut.begin(37, 1.0, 2);
  cut.add(gradient(1), loss_of(2.0));
  cut.mark_ready(gradient(2));
  cut.mark_ready(gradient(2));
  cut.mark_all_ready(gradient(2), loss_of(3.0));
  cut.mark_all_ready();
  cut.wait();
  const Outcome one = outcome(whole), many = outcome(cut);
  EXPECT_TRUE(one.mean.equal(many.mean));
  EXPECT_EQ(one.loss, many.loss);
  EXPECT_EQ(one.loss, 15.0);
}

TEST_P(EachReducer, BucketsBeginAsTheyAreAddedAndLossAndFlagsTravelWithTheLast) {
  GradientReducer sum = make(kBegins);
  sum.begin(37, 1.0, 2);
  sum.add(gradient(1), loss_of(2.0));
  EXPECT_THAT(communicator_.calls, IsEmpty());
  sum.mark_ready(gradient(2));
  EXPECT_THAT(communicator_.calls, ElementsAre("start 200"));
  sum.mark_ready(gradient(2));
  EXPECT_THAT(communicator_.calls, ElementsAre("start 200", "start 480"));
  sum.mark_all_ready(gradient(2), loss_of(3.0));
  EXPECT_THAT(communicator_.calls, ElementsAre("start 200", "start 480", "start 336"));
  sum.mark_all_ready();
  sum.wait();
  EXPECT_THAT(communicator_.calls, ElementsAre("start 200", "start 480", "start 336", "finish"));
}

TEST_P(EachReducer, RankWithoutAMicroBatchStartsTheSameBucketsInTheSameOrder) {
  GradientReducer sum = make(kBegins);
  for (int step = 0; step < 2; ++step) {
    communicator_.calls.clear();
    sum.begin(37, 1.0, 1);
    sum.mark_all_ready();
    sum.wait();
    EXPECT_THAT(communicator_.calls, ElementsAre("start 200", "start 480", "start 336", "finish"));
    EXPECT_EQ(outcome(sum).loss, 0.0);
  }
}

TEST_P(EachReducer, RankWhoseLastMicroBatchFailedStartsWhatIsLeftAndTheStepIsAbandoned) {
  GradientReducer sum = make(kBegins);
  sum.begin(37, 1.0, 1);
  sum.mark_ready(gradient(2));
  sum.mark_all_ready();
  sum.abandon();
  EXPECT_THAT(communicator_.calls, ElementsAre("start 200", "start 480", "start 336", "finish"));
  GradientReducer whole = make({0});
  communicator_.calls.clear();
  whole.begin(37, 1.0, 1);
  whole.mark_all_ready();
  whole.abandon();
  EXPECT_THAT(communicator_.calls, IsEmpty()) << "no rank has begun a sum in one piece";
}

TEST_P(EachReducer, ElementThatIsNotFiniteIsFlaggedInWhicheverBucketItLies) {
  for (const int64_t where : {1, 500, 900}) {
    GradientReducer sum = make(kBegins);
    sum.begin(37, 1.0, 1);
    at::Tensor broken = gradient(4);
    broken[where].fill_(std::numeric_limits<float>::quiet_NaN());
    sum.mark_ready(broken);
    sum.mark_all_ready(broken, loss_of(1.0));
    EXPECT_EQ(outcome(sum).flagged, 1.0);
  }
}

TEST_P(EachReducer, KnowsWhichBucketsAnAnnouncementCompletes) {
  const GradientReducer sum = make(kBegins);
  EXPECT_EQ(sum.completed(0, 900), 0U);
  EXPECT_EQ(sum.completed(0, 800), 1U);
  EXPECT_EQ(sum.completed(1, 800), 0U);
  EXPECT_EQ(sum.completed(0, 320), 2U);
  EXPECT_EQ(sum.completed(0, 0), 2U) << "the last bucket waits for the end of the micro-step";
  EXPECT_EQ(make({0}).completed(0, 0), 0U);
}

INSTANTIATE_TEST_SUITE_P(GradientReducer, EachReducer,
                         testing::Combine(testing::Values("fixed", "float"), testing::Bool()), [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + (std::get<1>(info.param) ? "OnDevice" : "");
                         });

}  // namespace
}  // namespace neoloom::train
