// SPDX-License-Identifier: Apache-2.0
#include "model/gpt_neo/key_value_cache.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace neoloom::model {
namespace {

constexpr int64_t kChannels = 3;

// Keys of tokens first to first + count - 1: each row holds its token's number.
at::Tensor keys(int64_t first, int64_t count) {
  return at::arange(first, first + count, at::kFloat).view({count, 1}).expand({count, kChannels}).contiguous();
}

TEST(KeyValueCache, OfALocalBlockShowsTheWindowAndHoldsTwiceAsMuch) {
  constexpr int64_t kWindow = 4;
  KeyValueCache cache(/*max_tokens=*/1000, kWindow, kChannels, at::kFloat);
  EXPECT_EQ(cache.capacity(), 2 * kWindow);
  int64_t tokens = 0;
  for (const int64_t count : {1, 3, 9, 2, 1, 1, 1, 1, 1, 7, 1}) {  // prompts in pieces, longer ones too, then decoding
    const auto [k, v] = cache.append(keys(tokens, count), keys(-tokens - count + 1, count));
    const int64_t before = k.size(0) - count;
    EXPECT_GE(before, std::min(tokens, kWindow - 1)) << "the first new token sees window - 1 tokens before it";
    EXPECT_TRUE(at::equal(k, keys(tokens - before, k.size(0)))) << tokens;
    EXPECT_EQ(v.size(0), k.size(0));
    EXPECT_EQ(v[v.size(0) - 1][0].item<float>(), static_cast<float>(-tokens));
    tokens += count;
  }
  cache.clear();
  EXPECT_TRUE(at::equal(cache.append(keys(5, 2), keys(5, 2)).k, keys(5, 2)));
}

TEST(KeyValueCache, OfAGlobalBlockShowsEveryToken) {
  KeyValueCache cache(/*max_tokens=*/20, /*window=*/0, kChannels, at::kFloat);
  EXPECT_EQ(cache.capacity(), 20);
  for (int64_t tokens = 0; tokens < 20; tokens += 5) {
    EXPECT_TRUE(at::equal(cache.append(keys(tokens, 5), keys(tokens, 5)).k, keys(0, tokens + 5)));
  }
}

}  // namespace
}  // namespace neoloom::model
