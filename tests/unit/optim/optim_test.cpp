// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/core/error.h"
#include "runtime/core/rng.h"
#include "runtime/optim/adamw.h"
#include "runtime/optim/schedule.h"

namespace neoloom::optim {
namespace {

using testing::HasSubstr;

at::Tensor noise(int64_t n, uint32_t seed) {
  at::Tensor values = at::full({n}, 0.0, at::kFloat);
  auto* data = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) {
    const auto words = core::philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, {seed, 1});
    data[i] = static_cast<float>(core::uniform01(words[0], words[1]) - 0.5);
  }
  return values;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == b.numel() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), static_cast<size_t>(a.numel()) * sizeof(float)) == 0;
}

struct Buffers {
  at::Tensor params, exp_avg, exp_avg_sq;
};

Buffers steps_with(int threads, const std::vector<ParameterRange>& ranges, int64_t n) {
  at::set_num_threads(threads);
  Buffers state{noise(n, 1), at::full({n}, 0.0, at::kFloat), at::full({n}, 0.0, at::kFloat)};
  for (int64_t update = 1; update <= 3; ++update) {
    at::Tensor grads = noise(n, 100 + static_cast<uint32_t>(update));
    clip_grad_norm(grads, 1.0);
    adamw_step(state.params, grads, state.exp_avg, state.exp_avg_sq, ranges, {0.9, 0.999, 1e-8, 0.1}, 1e-3, update);
  }
  return state;
}

TEST(AdamW, SameBitsForAnyNumberOfThreads) {
  constexpr int64_t kElements = 300007;
  const std::vector<ParameterRange> ranges = {{0, 100003, true}, {100003, kElements, false}};
  const Buffers one = steps_with(1, ranges, kElements);
  for (const int threads : {2, 3, 5}) {
    const Buffers many = steps_with(threads, ranges, kElements);
    EXPECT_TRUE(same_bits(one.params, many.params)) << threads;
    EXPECT_TRUE(same_bits(one.exp_avg_sq, many.exp_avg_sq)) << threads;
  }
}

TEST(AdamW, AdjacentRangesOfOneDecayAreOneRange) {
  const Buffers whole = steps_with(1, {{0, 4096, true}}, 4096);
  const Buffers pieces = steps_with(1, {{0, 1000, true}, {1000, 1000, false}, {1000, 4096, true}}, 4096);
  EXPECT_TRUE(same_bits(whole.params, pieces.params));
}

TEST(AdamW, ElementsOutsideTheRangesAreLeftAlone) {
  const Buffers state = steps_with(1, {{16, 32, true}, {48, 64, false}}, 64);
  const at::Tensor before = noise(64, 1);
  EXPECT_TRUE(same_bits(state.params.slice(0, 0, 16), before.slice(0, 0, 16)));
  EXPECT_TRUE(same_bits(state.params.slice(0, 32, 48), before.slice(0, 32, 48)));
  EXPECT_FALSE(same_bits(state.params.slice(0, 16, 32), before.slice(0, 16, 32)));
  EXPECT_FALSE(same_bits(state.params.slice(0, 48, 64), before.slice(0, 48, 64)));
}

TEST(AdamW, DecayShrinksOnlyTheRangesThatAskForIt) {
  at::Tensor params = at::full({8}, 2.0, at::kFloat);
  at::Tensor zeros = at::full({8}, 0.0, at::kFloat);
  at::Tensor m = at::zeros_like(zeros), v = at::zeros_like(zeros);
  adamw_step(params, zeros, m, v, {{0, 4, true}, {4, 8, false}}, {0.9, 0.999, 1e-8, 0.5}, 0.1, 1);
  EXPECT_FLOAT_EQ(params.const_data_ptr<float>()[0], 1.9F);
  EXPECT_EQ(params.const_data_ptr<float>()[7], 2.0F);
}

TEST(AdamW, WrongBuffersAndRangesAreRefused) {
  at::Tensor params = noise(8, 1), grads = noise(8, 2), m = noise(8, 3), v = noise(7, 4);
  EXPECT_THROW(adamw_step(params, grads, m, v, {{0, 8, true}}, {}, 0.1, 1), core::Error);
  at::Tensor good = noise(8, 4);
  EXPECT_THROW(adamw_step(params, grads, m, good, {{0, 9, true}}, {}, 0.1, 1), core::Error);
  EXPECT_THROW(adamw_step(params, grads, m, good, {{4, 8, true}, {0, 4, true}}, {}, 0.1, 1), core::Error);
  EXPECT_THROW(adamw_step(params, grads, m, good, {{0, 8, true}}, {}, 0.1, 0), core::Error);
}

TEST(ClipGradNorm, SameBitsForAnyNumberOfThreads) {
  at::Tensor grads = noise(1000003, 5);
  at::set_num_threads(1);
  const double one = clip_grad_norm(grads, 0.0);
  for (const int threads : {2, 3, 7}) {
    at::set_num_threads(threads);
    EXPECT_EQ(clip_grad_norm(grads, 0.0), one) << threads;
  }
}

TEST(ClipGradNorm, ScalesOnlyWhenTheNormIsLarger) {
  at::Tensor grads = at::full({4}, 3.0, at::kFloat);  // norm 6
  EXPECT_DOUBLE_EQ(clip_grad_norm(grads, 0.0), 6.0);
  EXPECT_DOUBLE_EQ(clip_grad_norm(grads, 7.0), 6.0);
  EXPECT_EQ(grads.const_data_ptr<float>()[0], 3.0F);
  EXPECT_DOUBLE_EQ(clip_grad_norm(grads, 1.5), 6.0) << "the norm before clipping";
  EXPECT_NEAR(clip_grad_norm(grads, 0.0), 1.5, 1e-6);
}

TEST(ClipGradNorm, SquaresThatOverflowFp32AreStillCounted) {
  at::Tensor grads = at::full({4}, 1e30, at::kFloat);
  EXPECT_NEAR(clip_grad_norm(grads, 1.0), 2e30, 1e24);
  EXPECT_NEAR(grads.const_data_ptr<float>()[0], 0.5F, 1e-6F);
}

TEST(ClipGradNorm, ANormThatIsNotFiniteLeavesTheGradientForTheCallerToSkip) {
  at::Tensor grads = at::full({4}, 2.0, at::kFloat);
  grads.mutable_data_ptr<float>()[1] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(clip_grad_norm(grads, 1.0)));
  EXPECT_EQ(grads.const_data_ptr<float>()[0], 2.0F);
  at::Tensor none = at::full({0}, 0.0, at::kFloat);
  EXPECT_EQ(clip_grad_norm(none, 1.0), 0.0);
}

std::string schedule_error(const ScheduleSettings& settings) {
  try {
    make_schedule(settings);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

TEST(Schedule, AnUnknownNameListsTheKnownOnes) {
  EXPECT_THAT(schedule_error({.name = "greedy"}),
              HasSubstr("linear, cosine, cosine_with_restarts, polynomial, constant"));
}

TEST(Schedule, ArgumentsThatDoNotFitAreNamed) {
  const auto error = [](const std::string& name, const ScheduleArguments& arguments) {
    return schedule_error({.name = name, .arguments = arguments, .learning_rate = 1e-3, .total_steps = 10});
  };
  EXPECT_THAT(error("linear", {{"power", 1.0}}), HasSubstr("linear has no argument \"power\"; it has none"));
  EXPECT_THAT(error("cosine", {{"cycles", 1.0}}), HasSubstr("it has num_cycles"));
  EXPECT_THAT(error("cosine", {{"num_cycles", "2"}}), HasSubstr("num_cycles: expected a number"));
  EXPECT_THAT(error("cosine_with_restarts", {{"num_cycles", 1.5}}), HasSubstr("a whole number"));
  EXPECT_THAT(error("cosine_with_min_lr", {}), HasSubstr("min_lr or min_lr_rate"));
  EXPECT_THAT(error("cosine_with_min_lr", {{"min_lr", 1e-4}, {"min_lr_rate", 0.1}}), HasSubstr("one of them"));
  EXPECT_THAT(error("polynomial", {{"lr_end", 1e-2}}), HasSubstr("less than learning_rate 0.001"));
  EXPECT_THAT(error("inverse_sqrt", {{"timescale", 0.0}}),
              HasSubstr("timescale: expected a whole number of at least 1, found 0"));
  EXPECT_THAT(error("inverse_sqrt", {{"timescale", -2.5}}), HasSubstr("a whole number of at least 1, found -2.5"));
  EXPECT_THAT(error("warmup_stable_decay", {}), HasSubstr("needs num_decay_steps"));
  EXPECT_THAT(error("warmup_stable_decay", {{"num_decay_steps", 2.0}, {"decay_type", "sqrt"}}),
              HasSubstr("decay_type: expected one of linear, cosine, 1-sqrt"));
}

TEST(Schedule, WarmupIsACountOrAShareRoundedUp) {
  EXPECT_EQ(resolve_warmup_steps(0.0, 100), 0);
  EXPECT_EQ(resolve_warmup_steps(7.0, 100), 7);
  EXPECT_EQ(resolve_warmup_steps(0.3, 5), 2);
  EXPECT_EQ(resolve_warmup_steps(1.0, 100), 1) << "one update, not all of them";
  EXPECT_THROW(resolve_warmup_steps(-1.0, 100), core::Error);
}

}  // namespace
}  // namespace neoloom::optim
