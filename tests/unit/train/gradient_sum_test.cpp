// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/gradient_sum.h"
#include "model/cuda/operators.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <tuple>
#include <utility>

#include "runtime/core/error.h"
#include "tests/support/operator_record.h"

namespace neoloom::train {
namespace {

constexpr int64_t kElements = 1000;
constexpr int64_t kMicroBatches = 4;
constexpr int64_t kTargets = 37;
constexpr double kLossScale = 1024.0;

/// Stands for `ranks` ranks whose buffers all hold what this one's does.
class EqualRanks final : public comm::Communicator {
 public:
  explicit EqualRanks(int ranks) : ranks_(ranks) {}
  void all_reduce_sum(void* data, size_t n_elements, comm::Element element) override {
    element_ = element;
    reduced_bytes_ += n_elements * comm::element_bytes(element);
    for (size_t i = 0; i < n_elements; ++i) {
      if (element == comm::Element::kInt64) {
        static_cast<int64_t*>(data)[i] *= ranks_;
      } else {
        static_cast<float*>(data)[i] *= static_cast<float>(ranks_);
      }
    }
  }
  std::string description() const override { return "equal ranks"; }
  comm::Element element_ = comm::Element::kInt64;

 private:
  int ranks_;
};

at::Tensor gradient(uint64_t seed) { return at::randn({kElements}, at::detail::createCPUGenerator(seed)).mul_(50.0); }

at::Tensor loss_of(double value) { return at::full({}, value, at::kDouble); }

class EachGradientSum : public testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  static GradientSumSetup setup(bool device_operators = false) {
    return {.kind = std::get<0>(GetParam()), .n_elements = kElements, .device_operators = device_operators};
  }
  void add(const at::Tensor& grads, const at::Tensor& loss) {
    sum_->add(grads, 0, kElements);
    sum_->add_loss(loss);
  }
  void all_reduce(comm::Communicator& communicator) {
    const GradientSum::Part whole = sum_->part(0, kElements);
    communicator.all_reduce_sum(whole.data, whole.n_elements, whole.element);
  }
  static double flagged(const GradientSum::Totals& totals) { return totals.flagged.item<double>(); }

  std::unique_ptr<GradientSum> sum_ = make_gradient_sum(setup(std::get<1>(GetParam())));
};

TEST_P(EachGradientSum, IsTheMeanOverTargetsOfAllRanksWithoutTheLossScale) {
  at::Tensor expected = at::zeros({kElements}, at::kDouble);
  sum_->begin(kTargets, kLossScale, kMicroBatches);
  for (uint64_t micro_batch = 0; micro_batch < kMicroBatches; ++micro_batch) {
    add(gradient(micro_batch), loss_of(2.5));
    expected.add_(gradient(micro_batch).to(at::kDouble));
  }
  EqualRanks communicator(3);
  all_reduce(communicator);
  at::Tensor mean = at::empty({kElements}, at::kFloat);
  const GradientSum::Totals totals = sum_->finish(mean);
  expected.mul_(3.0 / (static_cast<double>(kTargets) * kLossScale));
  EXPECT_LT(mean.to(at::kDouble).sub(expected).abs().max().item<double>() / expected.abs().max().item<double>(), 3e-7);
  EXPECT_NEAR(totals.loss_sum.item<double>(), 3 * kMicroBatches * 2.5, 1e-5);
  EXPECT_EQ(flagged(totals), 0.0);
}

TEST_P(EachGradientSum, ElementThatIsNotFiniteIsFlagged) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    sum_->begin(kTargets, kLossScale, 1);
    at::Tensor broken = gradient(1);
    broken[7].fill_(bad);
    add(broken, loss_of(1.0));
    at::Tensor mean = at::empty({kElements}, at::kFloat);
    EXPECT_EQ(flagged(sum_->finish(mean)), 1.0);
  }
}

TEST_P(EachGradientSum, LossThatIsNotFiniteIsFlagged) {
  sum_->begin(kTargets, kLossScale, 1);
  add(gradient(1), loss_of(std::numeric_limits<double>::quiet_NaN()));
  at::Tensor mean = at::empty({kElements}, at::kFloat);
  EXPECT_EQ(flagged(sum_->finish(mean)), 1.0);
}

TEST_P(EachGradientSum, LossAndGradientThatWereAddedAreLeftAlone) {
  const at::Tensor loss = loss_of(2.5);
  const at::Tensor grads = gradient(3);
  sum_->begin(kTargets, kLossScale, 1);
  add(grads, loss);
  EXPECT_EQ(loss.item<double>(), 2.5);
  EXPECT_TRUE(grads.equal(gradient(3)));
}

TEST_P(EachGradientSum, NextStepStartsFromZero) {
  at::Tensor first = at::empty({kElements}, at::kFloat);
  at::Tensor second = at::empty({kElements}, at::kFloat);
  for (at::Tensor* mean : {&first, &second}) {
    sum_->begin(kTargets, kLossScale, 1);
    add(gradient(3), loss_of(1.0));
    sum_->finish(*mean);
  }
  EXPECT_TRUE(first.equal(second));
}

TEST_P(EachGradientSum, AStepReadsNothingBack) {
  const at::Tensor grads = gradient(1);
  const at::Tensor loss = loss_of(1.0);
  at::Tensor mean = at::empty({kElements}, at::kFloat);
  sum_->begin(kTargets, kLossScale, 1);
  const neoloom::support::OperatorRecord record;
  add(grads, loss);
  sum_->finish(mean);
  EXPECT_GT(record.total(), 0);
  EXPECT_THAT(record.waits(), testing::IsEmpty());
}

TEST_P(EachGradientSum, SaysHowManyBytesItReduces) {
  EqualRanks communicator(1);
  all_reduce(communicator);
  EXPECT_EQ(static_cast<uint64_t>(sum_->bytes()), communicator.reduced_bytes());
  EXPECT_EQ(sum_->bytes(), gradient_sum_bytes(std::get<0>(GetParam()), kElements));
}

TEST_P(EachGradientSum, HostAndDeviceOperatorsGiveTheSameBits) {
  const auto mean_of = [](bool device_operators) {
    const auto sum = make_gradient_sum(setup(device_operators));
    sum->begin(kTargets, kLossScale, 2);
    for (const uint64_t seed : {5, 6}) {
      sum->add(gradient(seed), 0, kElements);
      sum->add_loss(loss_of(1.5));
    }
    at::Tensor mean = at::empty({kElements}, at::kFloat);
    const GradientSum::Totals totals = sum->finish(mean);
    return std::pair(mean, totals.loss_sum.item<double>());
  };
  const auto [host, host_loss] = mean_of(false);
  const auto [device, device_loss] = mean_of(true);
  EXPECT_TRUE(host.equal(device));
  EXPECT_EQ(host_loss, device_loss);
}

INSTANTIATE_TEST_SUITE_P(GradientSum, EachGradientSum,
                         testing::Combine(testing::Values("fixed", "float"), testing::Bool()), [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + (std::get<1>(info.param) ? "OnDevice" : "");
                         });

TEST(GradientSum, FloatIsHalfTheBytes) {
  EXPECT_EQ(2 * gradient_sum_bytes("float", kElements), gradient_sum_bytes("fixed", kElements));
}

TEST(GradientSum, AnotherKindIsRefusedByName) {
  try {
    make_gradient_sum({.kind = "half", .n_elements = 1});
    FAIL() << "accepted";
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("runtime.gradient_sum: expected fixed or float, found half"));
  }
}

}  // namespace
}  // namespace neoloom::train
