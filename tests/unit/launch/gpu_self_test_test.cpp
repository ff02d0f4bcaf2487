// SPDX-License-Identifier: Apache-2.0
// Tests the self-test of `neoloom doctor` on a GPU, with CPU tensors: right kernels pass, wrong ones are found.
#include "launch/selftest/gpu_self_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/cuda/fake_apis.h"
#include "tests/unit/model/reference_operators.h"

namespace neoloom::launch {
namespace {

using model::testing::ReferenceOperators;
using testing::HasSubstr;

model::DeviceTraits gpu(int major) {
  model::DeviceTraits traits;
  traits.cuda = true;
  traits.capability_major = major;
  return traits;
}

std::vector<KernelResult> run_operators(const model::CudaOperators& operators, const model::DeviceTraits& traits) {
  return run_tests(device_operator_tests(operators, traits, "cpu"));
}

std::vector<std::string> failures(const std::vector<KernelResult>& results) {
  std::vector<std::string> names;
  for (const KernelResult& result : results) {
    if (result.wrong()) names.push_back(result.kernel);
  }
  return names;
}

int64_t count_with(const std::vector<KernelResult>& results, const std::string& text) {
  return std::count_if(results.begin(), results.end(),
                       [&](const KernelResult& result) { return result.kernel.find(text) != std::string::npos; });
}

TEST(CudaOperators, RightOnesPassAndRoundingShows) {
  const auto results = run_operators(*ReferenceOperators::table(), gpu(9));
  EXPECT_THAT(failures(results), testing::IsEmpty());
  EXPECT_EQ(count_with(results, "cuDNN"), 2);
  EXPECT_EQ(count_with(results, "attention (flash"), 8);
  for (const KernelResult& result : results) {
    EXPECT_EQ(result.error > 0.0, result.limit > 0.0) << result.kernel;
  }
}

TEST(CudaOperators, OnlyKernelsThatTheDeviceWouldBeGivenAreAskedFor) {
  EXPECT_EQ(count_with(run_operators(*ReferenceOperators::table(), gpu(8)), "cuDNN"), 0);
  const auto old = run_operators(*ReferenceOperators::table(), gpu(7));
  EXPECT_EQ(count_with(old, "attention"), 0);
  EXPECT_EQ(old.size(), 4U) << "GEMMs in both types";
}

TEST(CudaOperators, WindowThatIsOneTokenTooWideIsFound) {
  model::CudaOperators wrong = *ReferenceOperators::table();
  wrong.flash_forward = [right = wrong.flash_forward](const model::AttentionCall& call, model::AttentionSaved& saved) {
    return right({call.q, call.k, call.v, call.rows, call.window > 0 ? call.window + 1 : 0}, saved);
  };
  const auto found = failures(run_operators(wrong, gpu(9)));
  EXPECT_THAT(found, testing::Contains(HasSubstr("flash, window 256")));
  EXPECT_THAT(found, testing::Not(testing::Contains(HasSubstr("flash, global"))));
}

TEST(CudaOperators, BackwardThatForgetsAGradientIsFoundAndWhatThrowsIsTold) {
  model::CudaOperators wrong = *ReferenceOperators::table();
  wrong.cudnn_backward = [right = wrong.cudnn_backward](const at::Tensor& grad, const model::AttentionCall& call,
                                                        const at::Tensor& out, const model::AttentionSaved& saved) {
    model::AttentionGradients gradients = right(grad, call, out, saved);
    gradients.dk.zero_();
    return gradients;
  };
  wrong.gemm = [](const at::Tensor&, const at::Tensor&) -> at::Tensor {
    throw std::runtime_error("no kernel image is available\nwith more lines");
  };
  const auto results = run_operators(wrong, gpu(9));
  EXPECT_EQ(failures(results).size(), 4U);
  EXPECT_EQ(results.front().failure, "no kernel image is available");
}

TEST(CudaOperators, SumsThatForgetWhatWasThereOrTheScaleAreFound) {
  const auto right = ReferenceOperators::table();
  model::CudaOperators wrong = *right;
  wrong.add_gemm = [right](const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double, double alpha) {
    right->add_gemm(y, a, b, /*beta=*/0.0, alpha);
  };
  EXPECT_EQ(failures(run_operators(wrong, gpu(9))).size(), 2U);
  wrong.add_gemm = [right](const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double beta, double) {
    right->add_gemm(y, a, b, beta, /*alpha=*/1.0);
  };
  EXPECT_EQ(failures(run_operators(wrong, gpu(9))).size(), 2U);
}

TEST(CudaOperators, BitsThatDoNotRepeatAreFound) {
  model::CudaOperators wrong = *ReferenceOperators::table();
  auto calls = std::make_shared<int64_t>(0);
  wrong.flash_backward = [right = wrong.flash_backward, calls](const at::Tensor& grad, const model::AttentionCall& call,
                                                               const at::Tensor& out,
                                                               const model::AttentionSaved& saved) {
    model::AttentionGradients gradients = right(grad, call, out, saved);
    if (++*calls % 2 == 0) gradients.dv[0][0][0].mul_(1.01);
    return gradients;
  };
  const auto found = failures(run_operators(wrong, gpu(9)));
  EXPECT_FALSE(found.empty());
  for (const std::string& name : found) EXPECT_THAT(name, HasSubstr("same bits twice"));
}

/// Replays parts by running them again, as a graph would.
class Graphs : public testing::Test {
 protected:
  KernelResult test() {
    const MakeGraphCache make = [this](std::function<void(const std::string&)> log) {
      return std::make_unique<cuda::GraphCache>(cuda::fake_device(machine_), std::move(log));
    };
    return run_tests({graph_test(make, "cpu")}).front();
  }
  std::shared_ptr<cuda::FakeMachine> machine_ = std::make_shared<cuda::FakeMachine>();
};

TEST_F(Graphs, ThatDoNothingAreFound) {
  const KernelResult result = test();
  EXPECT_FALSE(result.passed());
  EXPECT_EQ(result.failure, "");
  EXPECT_GT(std::count(machine_->calls.begin(), machine_->calls.end(), "replay"), 2);
}

TEST_F(Graphs, ThatCannotBeRecordedAreToldWithTheReason) {
  machine_->failing_call = "begin_capture";
  EXPECT_THAT(test().failure, HasSubstr("cannot record"));
}

class LoneRank final : public comm::Communicator {
 public:
  explicit LoneRank(comm::Element broken) : broken_(broken) {}
  void all_reduce_sum(void* data, size_t n_elements, comm::Element element) override {
    if (works || element != broken_) return;
    static_cast<char*>(data)[n_elements * comm::element_bytes(element) - 1] ^= 1;
  }
  std::string description() const override { return "alone"; }
  bool works = false;

 private:
  comm::Element broken_;
};

TEST(LoneSums, ChangedValuesAreFoundInTheirType) {
  LoneRank communicator(comm::Element::kInt64);
  EXPECT_THAT(failures(run_tests(lone_sum_tests(communicator, "cpu"))), testing::ElementsAre(HasSubstr("int64")));
  communicator.works = true;
  EXPECT_THAT(failures(run_tests(lone_sum_tests(communicator, "cpu"))), testing::IsEmpty());
}

}  // namespace
}  // namespace neoloom::launch
