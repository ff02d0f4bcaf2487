// SPDX-License-Identifier: Apache-2.0
#include "runtime/optim/optimizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "runtime/core/error.h"
#include "tests/support/operator_record.h"

namespace neoloom::optim {
namespace {

using testing::IsEmpty;

constexpr int64_t kElements = 5008;  // no multiple of a block
const std::vector<ParameterRange> kRanges = {{0, 3008, true, 1.0, 47}, {3008, kElements, false, 4.0, 0}};
constexpr int64_t kFactored = 3008 / 47 + 47 + 2000;

std::vector<OptimizerOptions> all_optimizers() {
  std::vector<OptimizerOptions> all;
  for (const auto& [name, arguments] : std::vector<std::pair<std::string, std::string>>{
           {"sgd", ""}, {"sgd", "momentum=0.9,nesterov=true"}, {"adafactor", ""}, {"lion", ""}, {"adamw_8bit", ""}}) {
    all.push_back(make_optimizer_options(name, arguments));
    all.back().adamw.weight_decay = 0.1;
  }
  return all;
}

at::Tensor random(uint64_t seed, double size) {
  return at::randn({kElements}, at::detail::createCPUGenerator(seed)).mul_(size);
}

FlatBuffers start(const OptimizerOptions& options) {
  FlatBuffers buffers = make_buffers(options, kElements, kFactored, at::kCPU);
  buffers.params.copy_(random(1, 1.0));
  return buffers;
}

DeviceNumbers numbers(int64_t update, bool skip) {
  return {at::full({}, 1e-2, at::kFloat), at::full({}, static_cast<double>(update), at::kFloat),
          at::full({}, skip ? 1.0 : 0.0, at::kFloat)};
}

std::vector<at::Tensor> state_of(const FlatBuffers& buffers) {
  return {buffers.params.clone(), buffers.exp_avg.clone(), buffers.exp_avg_sq.clone(), buffers.exp_avg_codes.clone(),
          buffers.exp_avg_sq_codes.clone()};
}

void expect_equal(const FlatBuffers& buffers, const std::vector<at::Tensor>& state, const OptimizerOptions& options) {
  const std::vector<at::Tensor> found = state_of(buffers);
  for (size_t i = 0; i < state.size(); ++i) EXPECT_TRUE(found[i].equal(state[i])) << state_name(options.kind) << i;
}

FlatBuffers after(const OptimizerOptions& options, int threads, bool on_device) {
  at::set_num_threads(threads);
  FlatBuffers buffers = start(options);
  const Optimizer optimizer(options, at::kCPU);
  for (int64_t update = 1; update <= 4; ++update) {
    buffers.grads.copy_(random(100 + static_cast<uint64_t>(update), 0.01));
    if (on_device) {
      optimizer.step_on_device(buffers, kRanges, numbers(update, false));
    } else {
      optimizer.step(buffers, kRanges, 1e-2, update);
    }
  }
  at::set_num_threads(1);
  return buffers;
}

TEST(Optimizer, SameBitsOnTheHostAndAsOnADeviceAndForAnyNumberOfThreads) {
  for (const OptimizerOptions& options : all_optimizers()) {
    const FlatBuffers one = after(options, 1, false);
    EXPECT_FALSE(one.params.equal(start(options).params));
    expect_equal(after(options, 3, false), state_of(one), options);
    expect_equal(after(options, 1, true), state_of(one), options);
  }
}

TEST(Optimizer, ASkippedStepLeavesEveryValueAsItWas) {
  for (const OptimizerOptions& options : all_optimizers()) {
    FlatBuffers buffers = after(options, 1, false);
    const std::vector<at::Tensor> before = state_of(buffers);
    const Optimizer optimizer(options, at::kCPU);
    for (const double bad : {0.0, static_cast<double>(std::numeric_limits<float>::infinity()), std::nan("")}) {
      buffers.grads.fill_(bad);
      optimizer.step_on_device(buffers, kRanges, numbers(5, true));
      expect_equal(buffers, before, options);
    }
  }
}

TEST(Optimizer, NothingInItMakesTheHostWait) {
  for (const OptimizerOptions& options : all_optimizers()) {
    FlatBuffers buffers = start(options);
    const Optimizer optimizer(options, at::kCPU);
    const DeviceNumbers now = numbers(1, false);
    const support::OperatorRecord record;
    optimizer.step_on_device(buffers, kRanges, now);
    EXPECT_THAT(record.waits(), IsEmpty()) << state_name(options.kind);
    EXPECT_GT(record.total(), 0);
  }
}

TEST(Optimizer, StateIsAsLargeAsSaid) {
  for (const OptimizerOptions& options : all_optimizers()) {
    const FlatBuffers buffers = start(options);
    EXPECT_EQ(buffers.exp_avg.nbytes() + buffers.exp_avg_sq.nbytes() + buffers.exp_avg_codes.nbytes() +
                  buffers.exp_avg_sq_codes.nbytes(),
              static_cast<size_t>(state_sizes(options, kElements, kFactored).bytes()));
  }
  EXPECT_EQ(state_sizes(make_optimizer_options("sgd", ""), 1000, 1000).bytes(), 0);
  EXPECT_EQ(state_sizes(make_optimizer_options("adamw_8bit", ""), 1024, 0).bytes(), 2 * (1024 + 4 * 4));
}

TEST(BlockCodes, DecodeWithinTheDocumentedErrorOfWhatWasEncoded) {
  const at::Tensor values = at::randn({64 * kBlockElements}, at::detail::createCPUGenerator(3)).pow(3);
  for (const bool is_signed : {true, false}) {
    const BlockCodes codes(is_signed, at::kCPU);
    const at::Tensor given = is_signed ? values : values.abs();
    const BlockCodes::Encoded encoded = codes.encode(given);
    const at::Tensor error = codes.decode(encoded.codes, encoded.scales).sub(given).abs();
    const at::Tensor scale = encoded.scales.repeat_interleave(kBlockElements);
    EXPECT_LE(error.div(scale).max().item<double>(), is_signed ? 0.0071 : 0.0036);
    const at::Tensor high = given.abs().gt(scale.mul(0.1));
    EXPECT_LE(error.div(given.abs()).masked_select(high).max().item<double>(), is_signed ? 0.062 : 0.033);
  }
}

TEST(BlockCodes, OnlyAZeroSecondMomentIsStoredAsZero) {
  at::Tensor values = at::full({2 * kBlockElements}, 0.0, at::kFloat);
  values.slice(0, 0, 3).copy_(at::full({3}, 1e-20, at::kFloat));
  values.slice(0, 3, 4).fill_(1.0);
  const BlockCodes codes(/*is_signed=*/false, at::kCPU);
  const BlockCodes::Encoded encoded = codes.encode(values);
  EXPECT_EQ(encoded.codes.gt(0).sum().item<int64_t>(), 4);
  const at::Tensor decoded = codes.decode(encoded.codes, encoded.scales);
  EXPECT_GT(decoded.slice(0, 0, 3).min().item<double>(), 0.0);
  EXPECT_EQ(decoded.slice(0, 4).abs().max().item<double>(), 0.0);
}

}  // namespace
}  // namespace neoloom::optim
